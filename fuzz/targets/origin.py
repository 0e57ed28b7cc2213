"""Origins: a page of another origin sends nothing that counts, however its Origin is written."""

from urllib.parse import urlsplit

from fuzz.cutting import lines_of, steered
from fuzz.reference.request import read_host
from fuzz.reference.syntax import BadError
from fuzz.target import Target
from tailchat_gate.access.browser_origin import is_foreign

_ALLOWED = ((), ("https://app.test", "http://app.test:3000"), ("*",))
_PORTS = {"http": 80, "https": 443}


def check(data: bytes) -> None:
    """Judge Origin fields, a line each behind the Host; one byte chooses the route's list."""
    steer, rest = steered(data, 1)
    allowed = _ALLOWED[steer[0] % len(_ALLOWED)]
    host, origins_text = lines_of(rest, 2)
    try:
        read_host(host.encode("latin-1"))
    except BadError:
        # Refused before anybody asks for an origin.
        return
    origins = origins_text.split("\n") if origins_text else []
    scheme = ("http", "https")[steer[0] >> 7]
    own = f"{scheme}://{host}"
    foreign = is_foreign([], origins, [own], allowed)
    if not origins or allowed == ("*",):
        assert not foreign
        return
    if not foreign:
        assert len(origins) == 1
        asked = _origin(origins[0])
        assert asked is not None
        assert asked == (scheme, *_authority(host, scheme)) or asked in map(_origin, allowed)
    other = {"http": "https", "https": "http"}[scheme]
    assert not is_foreign([], [own], [own], ())
    assert is_foreign([], [f"{other}://{host}"], [own], ())
    assert is_foreign([], [f"{scheme}://x{host}"], [own], ())
    assert is_foreign([], [f"{own}.evil.test"], [own], ())


def _origin(text: str) -> tuple[str, str, int] | None:
    """Return scheme, host and port of a serialized origin (RFC 6454), None for anything else."""
    try:
        parts = urlsplit(text.lower())
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or parts.path or parts.query or parts.fragment:
        return None
    if parts.username is not None or parts.hostname is None:
        return None
    return parts.scheme, parts.hostname, _PORTS[parts.scheme] if port is None else port


def _authority(host: str, scheme: str) -> tuple[str, int]:
    parts = urlsplit(f"{scheme}://{host.lower()}")
    return parts.hostname or "", parts.port if parts.port is not None else _PORTS[scheme]


TARGET = Target(
    check,
    parsers=("access.browser_origin",),
    seeds=(
        b"\0gate.test\nhttps://gate.test",
        b"\0gate.test:443\nhttps://gate.test",
        b"\1gate.test\nhttps://app.test:443",
        b"\1Gate.test:8080\nHTTP://gate.TEST:8080",
        b"\0gate.test\nnull",
        b"\0gate.test\nhttps://gate.test\nhttps://gate.test",
        b"\2[::1]:80\nhttp://[::1]",
        b"\x80gate.test\nhttp://gate.test",
        b"\0gate.test\nhttps://gate.test@evil.test",
    ),
    words=(
        *(b"https://", b"http://", b"gate.test", b"app.test", b"evil.test", b":443", b":80", b"\n"),
        *(
            b":3000",
            b"@",
            b"/",
            b"?",
            b"#",
            b"null",
            b".",
            b"[::1]",
            b" ",
            b"\t",
            b"\\",
            b"\xc5\xbf",
        ),
    ),
)
