"""What is read of bytes that are no request: the lines that a plain reader finds in them."""

from fuzz.target import Target
from tailchat_gate.request.unread import glimpse

_MOST = 65_536
_LONGEST = 1024


def check(data: bytes) -> None:
    """Read two fields of a head, a line at a time."""
    found: dict[str, str] = {}
    for line in data[:_MOST].partition(b"\r\n\r\n")[0].split(b"\n")[1:]:
        name, colon, rest = line.partition(b":")
        sent = rest.partition(b"\r")[0]
        value = sent.lstrip(b" \t") or sent[-1:]
        if colon and value and name.lower() in {b"accept", b"accept-language"}:
            found[name.decode("ascii").title()] = value[:_LONGEST].decode("latin-1")
    assert glimpse(data) == found


TARGET = Target(
    check,
    parsers=("request.unread",),
    seeds=(
        b"GET / HTTP/1.1\r\nHost: gate\r\nAccept: text/html\r\nAccept-Language: zh\r\n\r\n",
        b"GET / HTTP/1.1\nACCEPT:a\nAccept:b\naccept-language: \r\n\r\nAccept: c\r\n",
        b"\nAccept:" + b"x" * 1030 + b"\rAccept: y\r\n",
        b"accept: none\nXAccept: no\n accept: no\nAccept : no\n",
    ),
    words=(b"\r\n", b"\n", b"Accept: ", b"accept-language:", b"\t", b"\r\n\r\n", b"\xff"),
)
