"""What is read of bytes that are no request: the lines that a plain reader finds in them."""

from string import ascii_letters

from fuzz.target import Target
from tailchat_gate.request.intent import glimpse

_MOST = 65_536
_LONGEST = 1024
_NAMES = {
    *(b"accept", b"accept-language", b"host", b"origin"),
    *(b"sec-fetch-dest", b"sec-fetch-mode", b"sec-fetch-site"),
}
_COOKIE, _PREFIX = b"tailchat_gate_language=", b"__Host-"
_LENGTHS = range(2, 17)
_VALUE = f"{ascii_letters}-".encode()


def check(data: bytes) -> None:
    """Read some fields of a head, a line at a time, and the language among its cookies."""
    found: dict[str, str] = {}
    head = data[:_MOST].partition(b"\r\n\r\n")[0]
    for line in head.split(b"\n")[1:]:
        name, colon, rest = line.partition(b":")
        sent = rest.partition(b"\r")[0]
        value = sent.lstrip(b" \t") or sent[-1:]
        if colon and value and name.lower() in _NAMES:
            text = value[:_LONGEST].decode("latin-1")
            named = name.decode("ascii").title()
            found[named] = f"{found[named]}, {text}" if named in found else text
    if chosen := _chosen(head):
        found["Cookie"] = chosen
    assert glimpse(data) == found


def _chosen(head: bytes) -> str:
    """Return the first cookie of the language that is whole, "" for none."""
    before, *parts = head.split(_COOKIE)
    for part in parts:
        value = part[: len(part) - len(part.lstrip(_VALUE))]
        prefix = _PREFIX if before.endswith(_PREFIX) else b""
        ends = part[len(value) : len(value) + 1]
        begins = before.removesuffix(prefix)[-1:] in {b" ", b";", b":"}
        if begins and ends in {b";", b"\r"} and len(value) in _LENGTHS:
            return (prefix + _COOKIE + value).decode("ascii")
        before += _COOKIE + part
    return ""


TARGET = Target(
    check,
    parsers=("request.intent",),
    seeds=(
        b"GET / HTTP/1.1\r\nHost: gate\r\nAccept: text/html\r\nAccept-Language: zh\r\n\r\n",
        b"GET / HTTP/1.1\nACCEPT:a\nAccept:b\naccept-language: \r\n\r\nAccept: c\r\n",
        b"\nAccept:" + b"x" * 1030 + b"\rAccept: y\r\n",
        b"\nHost: a\r\nhost: b\r\nSec-Fetch-Site: none\r\nOrigin: c\r\n",
        b"\nCookie: a=b;__Host-tailchat_gate_language=pt-BR\r\ntailchat_gate_language=de;",
        b"\nCookie: xtailchat_gate_language=de; tailchat_gate_language=d;__Host-x=e1\r",
        b"accept: none\nXAccept: no\n accept: no\nAccept : no\n",
    ),
    words=(
        b"tailchat_gate_language=",
        b"__Host-",
        b"; ",
        b"host:",
        b"\nCookie: ",
        b"\r\n",
        b"\n",
        b"Accept: ",
        b"accept-language:",
        b"\t",
        b"\r\n\r\n",
        b"\xff",
    ),
)
