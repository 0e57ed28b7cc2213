"""Hosts: what is said of one is said by its whole name, or by the longest wildcard above it."""

from collections.abc import Mapping

from fuzz.cutting import steered
from fuzz.reference.request import read_host as plain_host
from fuzz.reference.syntax import BadError
from fuzz.target import Target
from tailchat_gate.reasons import RefusedError
from tailchat_gate.request.target import HostPatterns, read_host

_SAID: tuple[Mapping[str, str], ...] = (
    {"*.example.com": "wild", "a.example.com": "a", "*.b.example.com": "b", "example.com": "bare"},
    {"*.com": "com", "*.x.y.z.com": "deep", "[::1]": "six"},
    {},
)
_MADE = tuple((said, HostPatterns(said)) for said in _SAID)


def check(data: bytes) -> None:
    """Look a Host up; one byte chooses what is said."""
    steer, rest = steered(data, 1)
    said, patterns = _MADE[steer[0] % len(_MADE)]
    try:
        wanted = plain_host(rest)
    except BadError:
        try:
            read_host([rest.decode("latin-1")])
        except RefusedError:
            return
        raise AssertionError("what should be refused is not") from None
    found = read_host([rest.decode("latin-1")])
    assert (found.name.encode("ascii"), found.port.encode("ascii")) == wanted
    assert found.raw == rest
    assert read_host([found.name]).name == found.name
    covering = [
        pattern
        for pattern in said
        if pattern.startswith("*.")
        and found.name.endswith(pattern[1:])
        and found.name != pattern[1:]
        and not found.name.startswith(".")
    ]
    covering.sort(key=len, reverse=True)
    assert patterns.covering(found.name) == [said[pattern] for pattern in covering]
    exact = said.get(found.name)
    assert patterns.get(found.name) == (exact or (said[covering[0]] if covering else None))


TARGET = Target(
    check,
    parsers=("request.target",),
    seeds=(
        b"\0a.example.com",
        b"\0x.y.b.Example.com.:8080",
        b"\0badexample.com",
        b"\1w.x.y.z.com",
        b"\1[0:0::1]:80",
        b"\1[::ffff:1.2.3.4]",
        b"\2gate.test:99999",
        b"\0.example.com",
    ),
    words=(
        *(
            b".",
            b"example.com",
            b".b.example.com",
            b"a",
            b":",
            b":80",
            b"[::1]",
            b"[",
            b"]",
            b"-",
            b"_",
        ),
        *(b"::", b"ffff", b"1.2.3.4", b"com", b"..", b"%", b"\xe4", b"x.y.z.com"),
    ),
)
