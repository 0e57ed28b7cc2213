"""The same bytes to the gate and to nginx: every difference is one of a known kind."""

import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import test_bad_requests as bad
import test_spoofing as spoofing
import test_wire_requests as wire
from differences import BY_FAULT, FORMS, LOOSER, STRICTER, UNKNOWN, explain
from differkit import Difference, Outcome, Seen, pair
from wirekit import CHUNKED, HOST, SMUGGLED, get, post

Start = Callable[..., Any]

HOSTILE: dict[str, bytes] = {
    **{f"framing: {name}": data for name, data in bad.FRAMING.items()},
    **{f"fields: {name}": data for name, data in bad.FIELDS.items()},
    **{f"line: {name}": data for name, data in bad.LINES.items()},
    **{f"garbage: {name}": data for name, data in bad.GARBAGE.items()},
    **{f"chunks: {name}": post(CHUNKED, body + SMUGGLED) for name, body in bad.CHUNKS.items()},
    **{f"host: {host!r}": b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n" for host in bad.HOSTS},
    **{f"target: {target!r}": get(target=target) for target in bad.TARGETS},
    **{f"limit: {name}": data for name, (_, _, data) in wire.OVER.items()},
    **{f"listed: {name}": get(b"X-Hop: 1\r\n" + line) for name, line in wire.LISTINGS.items()},
    **{
        f"coding: {name}": post(fields, b"5\r\nhello\r\n0\r\n\r\n" + SMUGGLED)
        for name, (_, fields) in wire.FRAMING.items()
    },
    **{f"in doubt: {name}": data for name, data in wire.LINES_IN_DOUBT.items()},
    **{
        f"trailer: {line!r}": post(CHUNKED, b"5\r\nhello\r\n0\r\n" + line + b"\r\n\r\n")
        for line in (*wire.TRAILERS, *spoofing.TRAILERS)
    },
    **{f"hidden: {name}": get(field + b"\r\n") for name, field in spoofing.HIDDEN.items()},
}


#: Good requests, to be changed.
GOOD = (
    get(b"X-A: b\r\nCookie: a=b; c=d\r\nAccept: */*\r\n", b"/a/b%20c?d=e&f"),
    post(b"Content-Length: 5\r\nX-A: b\r\n", b"hello"),
    post(
        CHUNKED + b"Trailer: X-Sum\r\n", b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n"
    ),
    b"PUT http://gate.test/a HTTP/1.1\r\n" + HOST + b"X-Hop: 1\r\nConnection: X-Hop\r\n\r\n",
    b"GET / HTTP/1.0\r\n" + HOST + b"Connection: keep-alive\r\n\r\n",
    b"\r\nHEAD /a;b=c/..%2f HTTP/1.1\r\n" + HOST + b"Range: bytes=0-1\r\n\r\n",
)
SPLINTERS = (
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b"\t",
        b":",
        b"\x0b",
        b"\r\n\r\n",
        b"\r\n ",
        b",",
        b"\x7f",
    ),
    *(
        b"Content-Length: 5\r\n",
        b"Content-Length: 0\r\n",
        b"Transfer-Encoding: chunked\r\n",
        CHUNKED,
    ),
    *(b"Host: evil.test\r\n", b"Transfer-Encoding: identity\r\n", b"0\r\n\r\n", b"5\r\nhello\r\n"),
    *(
        b";",
        b"x",
        b"0",
        b"-",
        b"+",
        b"0x",
        b"HTTP/1.0",
        b"#",
        b"%00",
        b"%",
        b"\\",
        b"/../",
        b"?",
        b"_",
    ),
    *(
        SMUGGLED,
        b"\xff",
        b"\x80",
        b"Connection: close\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b".",
    ),
    *(
        b"http://evil.test",
        b"chunked",
        b"Expect: 100-continue\r\n",
        b"Upgrade: h2c\r\n",
        b"@",
        b"*",
    ),
)


def mutated(seed: int, count: int) -> dict[str, bytes]:
    """Return changed requests, one to three on a connection, with a whole one behind."""
    chance = random.Random(seed)  # noqa: S311 - the same ones each time
    found = {}
    for number in range(count):
        data = b"".join(chance.choices(GOOD, k=chance.randint(1, 2)))
        for _ in range(chance.randint(1, 3)):
            place = chance.randrange(len(data) + 1)
            end = place + chance.randint(1, 12)
            kind = chance.randrange(5)
            if kind < 2:
                data = data[:place] + chance.choice(SPLINTERS) + data[place:]
            elif kind == 2:
                data = data[:place] + data[end:]
            elif kind == 3:
                data = data[:end] + data[place:]
            else:
                data = data[:place] + bytes((chance.randrange(256),)) + data[place + 1 :]
        found[f"mutated {seed}.{number}"] = data + SMUGGLED
    return found


def _unknown(differences: Iterable[Difference]) -> list[str]:
    """Return what is of no known kind, as it can be looked into."""
    return [
        f"{one.name}: {kind}\n  {one.data!r}\n  gate {one.gate}\n  nginx {one.nginx}"
        for one in differences
        for kind in explain(one)
        if kind.startswith(UNKNOWN)
    ]


def _is_known(difference: Difference) -> bool:
    return not _unknown([difference])


async def test_on_hostile_requests_the_gate_is_the_stricter_one(
    start_gate: Start, tmp_path: Path
) -> None:
    """Every request of the wire's tests: in what they differ, nginx forwards and the gate refuses.

    Or nginx passes on what RFC 9110 section 7.6.1 has removed.
    """
    async with pair(start_gate, tmp_path) as both:
        found = await both.differences(HOSTILE, _is_known)

    assert len(HOSTILE) > 400
    assert _unknown(found) == []
    kinds = {kind for one in found for kind in explain(one)}
    assert kinds - STRICTER.keys() <= {"listed in Connection"}
    # Nothing is compared where nginx is not reached, or the upstreams are not.
    assert {"lone LF", "a name that is no token", "trailers"} <= kinds
    assert len(found) < len(HOSTILE) / 2


@pytest.mark.parametrize("seed", [1, 2])
async def test_every_difference_on_mutated_requests_is_known(
    start_gate: Start, tmp_path: Path, seed: int
) -> None:
    """Changed requests arrive alike behind both, but for the kinds of the table."""
    async with pair(start_gate, tmp_path) as both:
        found = await both.differences(mutated(seed, 1000), _is_known)

    assert _unknown(found) == []
    assert {kind for one in found for kind in explain(one)} & STRICTER.keys()


async def test_good_requests_arrive_alike(start_gate: Start, tmp_path: Path) -> None:
    """Behind both a tool sees the same request, field by field and byte by byte (A 7.6, 7.7)."""
    fields = b"X-A: b\r\nx-a:  c \r\nCookie: a=b; c=d\r\nAuthorization: Basic x\r\nX-\xe4: y\r\n"
    good = {
        "get": get(fields.replace(b"X-\xe4: y\r\n", b"X-B: \xe4\r\n"), b"/a//b%20c/%c3%a4?d=%zz&e"),
        "length": post(b"Content-Length: 005\r\n", b"he\r\nl"),
        "chunks": post(CHUNKED, b"5;a=b\r\nhello\r\n00A\r\n0123456789\r\n0\r\n\r\n"),
        "absolute": get(target=b"http://gate.test/a?b"),
        "1.0": get(version=b"1.0"),
        "three in a row": get(target=b"/1") + post(b"Content-Length: 2\r\n", b"ab") + get(),
    }

    async with pair(start_gate, tmp_path) as both:
        found = await both.differences(good, _is_known)
        arrived = both.lanes[0].behind_nginx.whole

    assert found == []
    assert arrived


GATE, NGINX = Outcome((), (400,)), Outcome((), (400,))
SMUGGLED_SEEN = Seen(b"GET", b"/smuggled", (b"gate.test", b""), b"", ())


@pytest.mark.parametrize(
    ("gate", "nginx", "fault"),
    [
        (Outcome((SMUGGLED_SEEN,), (200,)), NGINX, ""),
        (Outcome((), (), garbled=True), NGINX, ""),
        (GATE, Outcome((SMUGGLED_SEEN,), (200,)), ""),
        (GATE, Outcome((SMUGGLED_SEEN,), (200,)), "two framings"),
        (GATE, Outcome((SMUGGLED_SEEN,), (200,)), "a field line"),
        (GATE, Outcome((SMUGGLED_SEEN,), (200,)), "a length"),
    ],
)
def test_a_difference_of_no_kind_is_told(gate: Outcome, nginx: Outcome, fault: str) -> None:
    """Smuggling on either side, and garbage from the gate, are of no kind that is known."""
    data = post(CHUNKED + b"Content-Length: 5\r\n", b"0\r\n\r\n" + SMUGGLED)

    assert not _is_known(Difference("made up", data, gate, nginx, (), fault))


def test_every_kind_can_be_met() -> None:
    """Each kind in which the gate is stricter belongs to something a plain reader stumbles over."""
    named = [name for names in BY_FAULT.values() for name in names]

    assert set(named) == set(STRICTER)
    assert not STRICTER.keys() & (LOOSER.keys() | FORMS.keys())
