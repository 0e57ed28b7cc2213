"""Cookies: the gate's and Tailchat's never reach a tool, all others as they were sent."""

from fuzz.cutting import steered
from fuzz.reference.rewriting import visible_cookies
from fuzz.target import Target
from tailchat_gate.identity.cookie import MAX_VALUES, CookieNames, CookieReader

_SETS = (CookieNames.for_origin("https://gate.test"), CookieNames.for_origin("http://gate.test"))


def check(data: bytes) -> None:
    """Take a Cookie field apart, and read it as a Set-Cookie; one byte chooses the names."""
    steer, field = steered(data, 1)
    names = _SETS[steer[0] % len(_SETS)]
    own = frozenset((names.session.encode(), names.login.encode()))
    reader = CookieReader(names)
    found = reader.session_values(field), reader.login_values(field), reader.for_upstream(field)
    again = reader.session_values(field), reader.login_values(field), reader.for_upstream(field)
    assert found == again, "what is kept reads differently"
    sessions, logins, rest = found
    assert list(sessions) == _values(field, names.session)
    assert logins == _values(field, names.login)
    assert rest == visible_cookies(field, own)
    for pair in rest.split(b";"):
        name = pair.split(b"=")[0].strip()
        assert name not in own
        assert not name.startswith((b"_session", b"_interaction"))
    assert reader.for_upstream(rest) == rest
    name = field.split(b"=")[0].strip()
    assert reader.is_own(field) == (name in own or name == b"")


def _values(field: bytes, wanted: str) -> list[str]:
    found = []
    for pair in field.split(b";"):
        name, value = [*pair.split(b"=", 1), b""][:2]
        if name.strip() == wanted.encode():
            found.append("".join(chr(o) if o < 128 else "\ufffd" for o in value.strip()))
    return found[:MAX_VALUES]


TARGET = Target(
    check,
    parsers=("identity.cookie",),
    seeds=(
        b"\0a=b; __Host-tailchat_gate=x; c=d",
        b"\1tailchat_gate=x;tailchat_gate=y; tailchat_gate_login=z",
        b"\1_session=1; _interaction.sig=2; session=3",
        b"\0__Host-tailchat_gate = a=b ;; =c; d",
        b'\1a="; tailchat_gate=x"; b=\xff',
    ),
    words=(
        *(b"__Host-tailchat_gate", b"__Host-tailchat_gate_login", b"tailchat_gate", b"; ", b";"),
        *(
            b"tailchat_gate_login=",
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
