"""The gate's own TLS in the configuration: keys that belong together, and files that are read."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from configkit import good, refused, saying, write_smallest
from tlskit import Authority, Issued

from tailchat_gate.config.certificates import CertificateFacts


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Return an authority of the test's own."""
    return Authority.create(tmp_path)


def write(folder: Path, *lines: str, issued: tuple[Issued, ...] = ()) -> Path:
    """Write the shortest file with more lines in [server], and certificates."""
    file = write_smallest(folder)
    tables = "".join(
        f'[[server.tls]]\ncertificate = "{one.certificate}"\nkey = "{one.key}"\n' for one in issued
    )
    server = "".join(f"{line}\n" for line in lines)
    text = file.read_text(encoding="utf-8").replace("[server]\n", f"[server]\n{server}")
    before, _, after = text.partition("\n[tailchat]")
    file.write_text(f"{before}\n{tables}[tailchat]{after}", encoding="utf-8")
    return file


HTTPS = 'https_listen = "0.0.0.0:443"'


def test_a_good_pair_is_no_matter_for_a_word(tmp_path: Path, authority: Authority) -> None:
    """Names that cover all hosts, dates far away, a key that is kept: nothing is said."""
    issued = authority.issue("gate.example.com", ends=timedelta(days=90))
    loaded = good(write(tmp_path, HTTPS, issued=(issued,)))
    assert loaded.warnings == ()
    assert {issued.certificate, issued.key} <= set(loaded.files)
    assert loaded.settings.server.https_listen == ("0.0.0.0:443",)


@pytest.mark.parametrize(
    ("lines", "place"),
    [
        ((HTTPS,), "server.tls"),
        (('redirect_listen = "127.0.0.1:4180"',), "server.redirect_listen"),
        (('redirect_listen = "127.0.0.1:4181"',), "server.redirect_listen"),
        (('client_ca = "/etc/ca.pem"',), "server.client_ca"),
        (('client_certificate = "optional"',), "server.client_certificate"),
        (("pass_client_certificate = true",), "server.pass_client_certificate"),
        (('proxy_protocol = "127.0.0.1:4180"',), "server.proxy_protocol"),
        (
            ('trusted_proxies = ["10.0.0.1"]', 'proxy_protocol = "127.0.0.1:4182"'),
            "server.proxy_protocol",
        ),
    ],
)
def test_what_has_no_effect_or_no_ground_is_refused(
    tmp_path: Path, lines: tuple[str, ...], place: str
) -> None:
    """Keys of which one needs another, and addresses that are taken."""
    assert [problem.key_path for problem in refused(write(tmp_path, *lines))] == [place]


def test_certificates_without_an_address_are_refused(tmp_path: Path, authority: Authority) -> None:
    """They would never be served."""
    file = write(tmp_path, issued=(authority.issue("gate.example.com"),))
    assert [problem.key_path for problem in refused(file)] == ["server.tls"]


def test_nothing_of_it_goes_with_a_plain_public_url(tmp_path: Path, authority: Authority) -> None:
    """Cookies without Secure would be set by HTTPS, and a redirect would lead nowhere."""
    file = write(
        tmp_path,
        HTTPS,
        'redirect_listen = "0.0.0.0:80"',
        'hsts = "1h"',
        issued=(authority.issue("gate.example.com"),),
    )
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("https://gate.example.com", "http://gate.example.com"))
    places = {problem.key_path for problem in refused(file)}
    assert places == {"server.https_listen", "server.redirect_listen", "server.hsts"}


def test_no_plain_address_is_needed_beside_https(tmp_path: Path, authority: Authority) -> None:
    """An empty list turns the plain listener off, from the file and from the environment."""
    issued = authority.issue("gate.example.com", ends=timedelta(days=90))
    cases: tuple[tuple[list[str], dict[str, str]], ...] = (
        ([HTTPS, "listen = []"], {}),
        ([HTTPS], {"SERVER__LISTEN": ""}),
    )
    for lines, environ in cases:
        server = good(write(tmp_path, *lines, issued=(issued,)), **environ).settings.server
        assert (server.listen, server.public_addresses) == ((), ("0.0.0.0:443",))


def test_a_gate_that_listens_nowhere_is_refused(tmp_path: Path) -> None:
    """An address that only redirects is none for visitors."""
    redirect = 'redirect_listen = "0.0.0.0:80"'
    cases: tuple[tuple[list[str], dict[str, str]], ...] = (
        (["listen = []"], {}),
        (["listen = []", redirect], {}),
        ([], {"SERVER__LISTEN": ""}),
    )
    for lines, environ in cases:
        (problem,) = refused(write(tmp_path, *lines), **environ)
        assert problem.key_path == "server.https_listen"
        assert problem.expected == "at least one address, since server.listen has none"


@pytest.mark.parametrize(
    ("listen", "mode", "bad"),
    [
        ("0.0.0.0:4180", "", True),
        ("[::]:4180", "required", True),
        ("10.0.0.7:4180", "required", True),
        ("gate.localhost:4180", "required", True),
        ("gate.lan:4180", "required", True),
        ("0.0.0.0:4180", "optional", False),
        ("127.0.0.2:4180", "required", False),
        ("[::1]:4180", "", False),
        ("localhost:4180", "", False),
        ("unix:/run/gate.sock", "required", False),
    ],
)
def test_no_address_leads_past_a_required_certificate(
    tmp_path: Path, authority: Authority, listen: str, mode: str, *, bad: bool
) -> None:
    """A plain address that others reach would let them in without a certificate of theirs."""
    issued = authority.issue("gate.example.com", ends=timedelta(days=90))
    lines = [HTTPS, f'listen = ["127.0.0.1:4182", "{listen}"]']
    lines += [f'client_ca = "{authority.file}"']
    lines += [f'client_certificate = "{mode}"'] if mode else []
    file = write(tmp_path, *lines, issued=(issued,))
    if not bad:
        assert good(file).settings.server.listen[1] == listen
        return
    (problem,) = refused(file)
    assert problem.key_path == "server.client_certificate"
    assert f"server.listen without {listen}" in problem.expected


def bad_pairs(authority: Authority) -> Iterator[tuple[Issued, str, str]]:
    """Yield pairs that cannot be used, with the key and the end of what is found."""
    one, other = authority.issue("gate.example.com"), authority.issue("other.example.com")
    missing = authority.directory / "missing.pem"
    yield Issued(one.certificate, other.key), "key", "the private key of another certificate"
    yield Issued(missing, one.key), "certificate", "No such file or directory"
    yield Issued(one.certificate, missing), "key", "No such file or directory"
    yield Issued(one.key, one.key), "certificate", "no certificate"
    yield Issued(one.certificate, one.certificate), "key", "no private key"


def test_a_pair_that_does_not_match_is_refused(tmp_path: Path, authority: Authority) -> None:
    """The place says which file it is, and nothing of what is in it."""
    for issued, key, found in bad_pairs(authority):
        ((place, said),) = saying(refused(write(tmp_path, HTTPS, issued=(issued,))))
        assert (place, said.endswith(found)) == (f"server.tls[0].{key}", True), said


def test_an_authority_of_clients_is_read(tmp_path: Path, authority: Authority) -> None:
    """A file without a certificate is refused under the key that names it."""
    issued = authority.issue("gate.example.com")
    file = write(tmp_path, HTTPS, f'client_ca = "{issued.key}"', issued=(issued,))
    assert saying(refused(file)) == [("server.client_ca", f"{issued.key}: no certificate")]


@pytest.mark.parametrize(
    ("hours", "said"), [(-1, "expired at"), (13 * 24, "expires at"), (15 * 24, "")]
)
def test_dates_are_warned_about(
    tmp_path: Path, authority: Authority, hours: int, said: str
) -> None:
    """Fourteen days ahead, and afterwards; the gate serves all the same."""
    issued = authority.issue("gate.example.com", ends=timedelta(hours=hours))
    warnings = good(write(tmp_path, HTTPS, issued=(issued,))).warnings
    prefix = f"server.tls[0].certificate: {issued.certificate} {said}"
    assert [warning.startswith(prefix) for warning in warnings] == [True] * bool(said)


def test_hosts_and_rights_are_warned_about(tmp_path: Path, authority: Authority) -> None:
    """A host without a certificate, and a key that every user can read."""
    issued = authority.issue("wiki.example.com", ends=timedelta(days=90))
    issued.key.chmod(0o644)
    hosts, rights = sorted(good(write(tmp_path, HTTPS, issued=(issued,))).warnings)
    assert rights.startswith(f"server.tls[0].key: every user of this machine can read {issued.key}")
    assert hosts.startswith("server.tls: no certificate is for gate.example.com,")


def test_a_wildcard_stands_for_one_label() -> None:
    """As browsers have it (RFC 9525 section 6.3); a route's wildcard needs one of its own."""
    facts = CertificateFacts("a.pem", ("*.example.com", "example.org"), 0.0, 1.0)
    covered = {
        host: facts.covers(host)
        for host in (
            *("a.example.com", "*.example.com", "example.org"),
            *("example.com", "a.b.example.com", "*.example.org", "a.example.org"),
        )
    }
    assert [host for host, found in covered.items() if found] == [
        *("a.example.com", "*.example.com", "example.org"),
    ]


def test_an_unknown_key_of_a_pair_is_refused(tmp_path: Path, authority: Authority) -> None:
    """Its place is told, as of any other table."""
    issued = authority.issue("gate.example.com")
    file = write(tmp_path, HTTPS, issued=(issued,))
    text = file.read_text(encoding="utf-8").replace("\nkey = ", "\nkeys = ")
    file.write_text(text, encoding="utf-8")
    found = dict(saying(refused(file)))
    assert found["server.tls[0].keys"] == "an unknown key"
    assert found["server.tls[0].key"] == "nothing"
