"""Cookies: the gate's and Tailchat's never reach a tool, all others as they were sent."""

from fuzz.cutting import steered
from fuzz.reference.rewriting import TAILCHATS, is_of_a_gate, visible_cookies
from fuzz.target import Target
from tailchat_gate.identity.sessions.cookie_fields import (
    MAX_LOGINS,
    MAX_VALUES,
    CookieNames,
    CookieReader,
)

_TAILCHAT = "https://chat.test"
_SETS = tuple(
    CookieNames.for_origin(origin, name, tailchat_url=_TAILCHAT)
    for name in ("tailchat_gate", "other")
    for origin in ("https://gate.test", "http://gate.test")
)
_HOSTS = {"gate.test": False, "chat.test": True, "a.chat.test": True, "xchat.test": False, "": True}


def check(data: bytes) -> None:
    """Take a Cookie field apart, and read it as a Set-Cookie; one byte chooses the names."""
    steer, field = steered(data, 1)
    names = _SETS[steer[0] % len(_SETS)]
    logins_sent = _logins(field, names.login)
    own = frozenset((names.session.encode(), names.login.encode(), *(n for n, _ in logins_sent)))
    reader = CookieReader(names)
    found = reader.session_values(field), reader.login_cookies(field), reader.for_upstream(field)
    again = reader.session_values(field), reader.login_cookies(field), reader.for_upstream(field)
    assert found == again, "what is kept reads differently"
    sessions, logins, rest = found
    assert list(sessions) == _values(field, names.session)
    assert [(c.name.encode(), c.value) for c in logins] == logins_sent[-MAX_LOGINS:]
    assert rest == visible_cookies(field, own)
    for pair in rest.split(b";"):
        name = pair.split(b"=")[0].strip()
        assert name not in own
        assert name not in TAILCHATS
    for host, beside in _HOSTS.items():
        passed = reader.for_upstream(field, host)
        assert passed == visible_cookies(field, own, beside_tailchat=beside)
    assert reader.for_upstream(rest) == rest
    _check_set(reader, field, own)


def _check_set(reader: CookieReader, field: bytes, own: frozenset[bytes]) -> None:
    """Read it as a Set-Cookie, as browsers do (RFC 6265bis section 5.6)."""
    pair, *attributes = field.split(b";")
    name = pair.split(b"=")[0].strip() if b"=" in pair else b""
    is_gates = not name or name in own or is_of_a_gate(name)
    domains = [a.split(b"=", 1)[1].strip().lower().lstrip(b".") for a in attributes if b"=" in a
               and a.split(b"=")[0].strip().lower() == b"domain"]  # fmt: skip
    wide = any(domain in {b"chat.test", b"test"} for domain in domains)
    for host, beside in _HOSTS.items():
        found = reader.is_reserved(field, host)
        assert found == (is_gates or (name in TAILCHATS and (beside or wide)))


def _values(field: bytes, wanted: str) -> list[str]:
    found = []
    for pair in field.split(b";"):
        name, value = [*pair.split(b"=", 1), b""][:2]
        if name.strip() == wanted.encode():
            found.append("".join(chr(o) if o < 128 else "\ufffd" for o in value.strip()))
    return found[:MAX_VALUES]


def _logins(field: bytes, prefix: str) -> list[tuple[bytes, str]]:
    """Return the login cookies of a field: the prefix, a low line, six of base64url."""
    found = []
    for pair in field.split(b";"):
        name, value = [*pair.split(b"=", 1), b""][:2]
        start, rest = name.strip()[: len(prefix) + 1], name.strip()[len(prefix) + 1 :]
        is_id = len(rest) == 6
        plain = rest.replace(b"-", b"a").replace(b"_", b"a")
        if is_id and start == f"{prefix}_".encode() and plain.isalnum() and plain.isascii():
            text = "".join(chr(o) if o < 128 else "\ufffd" for o in value.strip())
            found.append((name.strip(), text))
    return found


TARGET = Target(
    check,
    parsers=("identity.sessions.cookie_fields", "identity.oauth.login_state"),
    seeds=(
        b"\0a=b; __Host-tailchat_gate=x; c=d",
        b"\1tailchat_gate=x;tailchat_gate=y; tailchat_gate_login_ab-_01=z",
        b"\1_session=1; _interaction.sig=2; session=3",
        b"\0__Host-tailchat_gate = a=b ;; =c; d",
        b'\1a="; tailchat_gate=x"; b=\xff',
    ),
    words=(
        *(b"__Host-tailchat_gate", b"__Host-tailchat_gate_login", b"tailchat_gate", b"; ", b";"),
        *(
            b"tailchat_gate_login_abcdef=",
            b"_session",
            b"_session.sig=",
            b"_interaction",
            b"=",
            b" ",
            b"\t",
        ),
        *(b"a=b", b'"', b",", b"\x0b", b"\x1f", b"\x85", b"\xa0"),
    ),
)
