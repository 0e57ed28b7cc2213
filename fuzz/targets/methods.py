"""Methods that a request claims: whatever a framework takes one from is seen."""

from urllib.parse import parse_qsl, unquote_plus

from fuzz.cutting import lines_of
from fuzz.reference.rewriting import folded
from fuzz.target import Target
from tailchat_gate.reasons import RefusedError
from tailchat_gate.request.claims import claimed_methods
from tailchat_gate.request.fields import FieldSection, split_fields
from tailchat_gate.request.target import read_target

_NAMES = frozenset((b"x-http-method", b"x-http-method-override", b"x-method-override"))


def check(data: bytes) -> None:
    """Read a query, a line, and fields behind it."""
    query, rest = lines_of(data, 2)
    try:
        asked = read_target("/?" + query, None).query
        section = FieldSection(split_fields(rest.encode("latin-1")))
    except RefusedError:
        return
    found = claimed_methods(section, asked)
    assert claimed_methods(section, asked) == found
    assert all(method == method.upper() for method in found)
    for separator in ("&", ";"):
        for name, value in parse_qsl(asked[1:], separator=separator):
            # Nobody parts parameters at ";" alone, nor cuts a value at both.
            if "&" in name or {"&", ";"} & set(value):
                continue
            if _as_php(name).lower() == "_method":
                assert value.upper() in found, (name, value)
    for field, sent in section.pairs:
        if folded(field) in _NAMES:
            for method in sent.decode("latin-1").split(","):
                assert not method.strip() or method.strip().upper() in found
    if "method" not in unquote_plus(asked).lower():
        assert not found or any(folded(name) in _NAMES for name, _ in section.pairs)


def _as_php(name: str) -> str:
    """Return a parameter's name as PHP makes a variable of it."""
    return name.lstrip(" ").partition("\0")[0].replace(".", "_").replace(" ", "_")


TARGET = Target(
    check,
    parsers=("request.claims", "request.fields", "request.target"),
    seeds=(
        b"_method=DELETE",
        b"a=b&%5Fmet%68od=put&c=d\nX-HTTP-Method-Override: patch, delete\r\n",
        b"a=b;_METHOD=delete\nx_http_method: PUT\r\n",
        b"_method=\nX-Method-Override:\r\n",
        b"a_method=x&_methods=y&__method=z",
        b"_method=a+b%2Bc&_method=%e4",
        b".method=DELETE&+_method=PUT&_method%00x=PATCH",
    ),
    words=(
        *(
            b"_method",
            b"%5fmethod",
            b"_%6d%65thod",
            b"=",
            b"&",
            b";",
            b"%26",
            b"%3b",
            b"DELETE",
            b"\n",
        ),
        *(
            b"X-HTTP-Method-Override: PUT\r\n",
            b"X_HTTP_METHOD: PUT\r\n",
            b"+",
            b"%00",
            b"?",
            b"%3d",
        ),
    ),
)
