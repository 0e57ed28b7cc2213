"""Plain sections: what a pattern reads is what the careful way reads, or it reads nothing."""

from collections.abc import Callable
from typing import Any

import pytest
from bothways import facts, learned
from hypothesis import given
from hypothesis import strategies as st
from interpreted import counts_pythons_steps

from tailchat_gate.reasons import RefusedError
from tailchat_gate.request.fields import FieldSection, HeadLimits
from tailchat_gate.request.head import RequestReader
from tailchat_gate.request.sections import (
    OFTEN,
    PlainSections,
    SectionReader,
    read_carefully,
)
from tailchat_gate.request.shapes import TELLING, Shape

LIMITS = HeadLimits(8192, 32_768, 100, 8192)
Lines = list[tuple[bytes, bytes]]

FIRST: Lines = [
    (b"Host", b"gate.test"),
    (b"User-Agent", b"Mozilla/5.0 (X11; Linux x86_64)"),
    (b"Accept", b"text/html, */*;q=0.8"),
    (b"Cookie", b"a=b; tailchat_gate=x"),
    (b"Sec-Fetch-Site", b"same-origin"),
    (b"If-None-Match", b'"abc"'),
    (b"X-Request-Id", b"0123"),
]


def raw(lines: Lines) -> bytes:
    """Return a section as most clients write it."""
    return b"".join(b"%b: %b\r\n" % line for line in lines)


def careful(data: bytes, limits: HeadLimits = LIMITS) -> FieldSection | str:
    """Return what the careful way reads, or its refusal."""
    try:
        return read_carefully(data, limits, Shape)
    except RefusedError as error:
        return str(error)


def plain(sections: PlainSections, data: bytes) -> FieldSection | str | None:
    """Return what a pattern reads, or its refusal."""
    try:
        return sections.read(data)
    except RefusedError as error:
        return str(error)


def check(sections: PlainSections, data: bytes) -> bool:
    """Compare both ways; return whether a pattern read the section."""
    found, wanted = plain(sections, data), careful(data)
    if found is None:
        return False
    if isinstance(found, str) or isinstance(wanted, str):
        assert found == wanted
        return True
    assert facts(found) == facts(wanted)
    return True


TEXT = st.text(alphabet=st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=12)
ODD = st.binary(max_size=6)
VALUES = st.one_of(TEXT.map(str.encode), TEXT.map(lambda text: text.strip().encode()), ODD)
NAMES = st.sampled_from(
    [
        *(b"Accept", b"Referer", b"If-None-Match", b"X-Request-Id", b"traceparent", b"Cookie"),
        *(b"cookie", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Upgrade", b"Via"),
        *(b"Authorization", b"X-Tailchat-Token", b"Expect", b"Origin", b"Sec-Fetch-Site", b"TE"),
        *(b"Service-Worker", b"Sec-Fetch-Dest", b"User-Agent", b"HOST", b"Destination", b"X%b"),
        *(b"X-HTTP-Method", b"X_Odd", b"a.b|c"),
    ]
)
USUAL: dict[bytes, list[bytes]] = {
    b"Content-Length": [b"0", b"5", b"007", b"5x"],
    b"Transfer-Encoding": [b"chunked", b"gzip"],
    b"Connection": [b"keep-alive", b"close", b"keep-alive, TE", b"Upgrade"],
    b"Sec-Fetch-Site": [b"same-origin", b"cross-site"],
    b"Authorization": [b"Basic dGc6", b"Bearer tg_abc", b"Negotiate abc"],
    b"Expect": [b"100-continue"],
    b"Upgrade": [b"websocket"],
}


@st.composite
def lines_of(draw: st.DrawFn) -> Lines:
    """Return some fields behind a Host."""
    found: Lines = [(b"Host", draw(st.sampled_from([b"gate.test", b"GATE.test:80", b"h."])))]
    for name in draw(st.lists(NAMES, max_size=7)):
        usual = USUAL.get(name)
        found.append((name, draw(st.sampled_from(usual) if usual else VALUES)))
    return found


@given(lines_of(), st.lists(VALUES, min_size=8, max_size=8), st.integers(0, 255))
def test_both_ways_read_the_same(lines: Lines, others: list[bytes], which: int) -> None:
    """Whatever a section says, and what another of the same names does, both ways agree."""
    if isinstance(careful(raw(lines)), str):
        return
    sections = learned(raw(lines), LIMITS)
    check(sections, raw(lines))
    changed = [
        (name, other if which >> place & 1 else value)
        for place, ((name, value), other) in enumerate(zip(lines, others, strict=False))
    ]
    check(sections, raw(changed))


class _AskedFor(dict[bytes, list[int]]):
    """The places of no fields, which notes what is looked up."""

    def __init__(self) -> None:
        self.names: set[bytes] = set()

    def get(self, name: bytes, default: Any = None) -> Any:  # noqa: ANN401 - as dict's own
        """Note a name."""
        self.names.add(name)
        return default


@counts_pythons_steps
def test_two_sections_share_a_meaning_only_by_all_that_it_is_read_from() -> None:
    """Each field from which a section is read is compared, or read each time: none is left out."""
    shape, asked = Shape(()), _AskedFor()
    object.__setattr__(shape, "places", asked)
    FieldSection((), shape)

    assert asked.names == {*TELLING, b"cookie", b"content-length"}


@given(st.lists(TEXT.map(lambda text: text.strip().encode() or b"x"), min_size=4, max_size=4))
def test_values_that_differ_are_read_by_the_pattern(values: list[bytes]) -> None:
    """Other plain values of fields that tell nothing of the message are read the short way."""
    sections = learned(raw(FIRST), LIMITS)
    untold = iter(values)
    telling = {b"Host", b"User-Agent", b"Sec-Fetch-Site"}
    lines = [(name, value if name in telling else next(untold)) for name, value in FIRST]

    assert check(sections, raw(lines))


@pytest.mark.parametrize("octet", [*b"\r\n\0\t :\x7f\x80\xff;,\x0b\x1b", *b"aA0"])
def test_a_byte_that_is_odd_is_read_alike(octet: int) -> None:
    """One byte of a plain section replaced, left out or put in: both ways agree."""
    data = raw([*FIRST, (b"Content-Length", b"12")])
    sections = learned(data, LIMITS)
    read = 0
    for place in range(len(data)):
        for end in (place, place + 1):
            read += check(sections, data[:place] + bytes((octet,)) + data[end:])
        read += check(sections, data[:place] + data[place + 1 :])

    assert read > 50


@pytest.mark.parametrize(
    ("value", "refusal"),
    [(b"x", "a Content-Length that is not one number"), (b"012", None), (b"0", None)],
)
def test_a_length_is_read_each_time(value: bytes, refusal: str | None) -> None:
    """A length that differs is not one of before, and one that is none is refused."""
    sections = learned(raw([*FIRST, (b"Content-Length", b"5")]), LIMITS)
    found = plain(sections, raw([*FIRST, (b"Content-Length", value)]))

    if refusal is not None:
        assert found == refusal
    else:
        assert isinstance(found, FieldSection)
        assert (found.length, found.has_body) == (int(value), bool(int(value)))


@pytest.mark.parametrize(
    "more",
    [
        [(b"Host", b"gate.test")],
        [(b"Content-Length", b"1"), (b"content-length", b"1")],
        [(b"Transfer-Encoding", b"chunked")],
        [(b"Content-Length", b"1"), (b"Transfer-Encoding", b"chunked")],
    ],
)
def test_names_that_leave_doubts_have_no_pattern(more: Lines) -> None:
    """A second Host or length, or a coding, is for the careful way, whatever is learned."""
    sections = PlainSections(LIMITS, often=1)
    shape = Shape(tuple(name for name, _ in [*FIRST, *more]))

    assert not shape.is_plain
    found = careful(raw([*FIRST, *more]))
    if isinstance(found, FieldSection):
        for _ in range(3):
            sections.learn(found)
    assert sections.read(raw([*FIRST, *more])) is None


@pytest.mark.parametrize(
    ("limits", "cookies"),
    [
        (HeadLimits(8192, 400, 100, 8192), b"x" * 300),
        (HeadLimits(8192, 32_768, 100, 400), b"x" * 401),
    ],
)
def test_what_is_too_long_is_refused_as_ever(limits: HeadLimits, cookies: bytes) -> None:
    """A pattern reads nothing beyond a limit, which the careful way tells."""
    lines = [(b"Cookie", cookies) if name == b"Cookie" else (name, v) for name, v in FIRST]
    sections = learned(raw(FIRST), limits)

    assert sections.read(raw(FIRST)) is not None
    assert sections.read(raw(lines)) is None
    assert isinstance(careful(raw(lines), limits), str)


def test_a_pattern_is_made_when_a_shape_comes_often() -> None:
    """Each of a few requests is read with care; from then on a pattern reads those that differ."""
    reader = SectionReader(LIMITS)
    for number in range(OFTEN):
        assert reader.plain.read(raw([*FIRST[:-1], (b"X-Request-Id", b"%d" % number)])) is None
        reader.read(raw([*FIRST[:-1], (b"X-Request-Id", b"%d" % number)]))

    assert reader.plain.read(raw([*FIRST[:-1], (b"X-Request-Id", b"other")])) is not None


def test_requests_that_differ_are_not_kept() -> None:
    """Of a hundred thousand heads that all differ nothing is kept but what they have in common."""
    reader = RequestReader(LIMITS)
    for number in range(100_000):
        lines = [*FIRST[:-2], (b"If-None-Match", b'"%d"' % number), (b"X-Request-Id", b"x")]
        assert reader.read(b"GET /%d HTTP/1.1\r\n%b\r\n" % (number, raw(lines))) is not None

    sections = reader._sections
    assert len(reader._lines) < 5, "but for the few whose hashes are alike"
    assert len(sections._sections) < 5
    assert (len(sections.plain._shapes), len(sections.plain._known)) == (1, 1)


def test_what_repeats_is_kept_whole() -> None:
    """A head that comes again is the section of before, with all that was made of it."""
    reader = RequestReader(LIMITS)
    data = b"GET / HTTP/1.1\r\n%b\r\n" % raw(FIRST)
    sections = [found[0].fields for _ in range(4) if (found := reader.read(data)) is not None]

    assert sections[0] is not sections[1]
    assert sections[1] is sections[2] is sections[3]


#: Twice as many shapes as are remembered; to make the pattern of one takes a millisecond.
MANY = 1000


def _names_of(number: int, count: int = 6) -> Lines:
    return [(b"Host", b"h"), *((b"X-%d-%d" % (number, place), b"v") for place in range(count))]


def test_made_up_names_take_bounded_memory() -> None:
    """A stranger with ever new names, each as often as it takes, keeps few patterns."""
    sections = PlainSections(LIMITS, often=2)
    usual = careful(raw(FIRST))
    assert isinstance(usual, FieldSection)
    for number in range(MANY):
        data = raw(_names_of(number, number % 50))
        for _ in range(3):
            sections.learn(read_carefully(data, LIMITS, sections.shape))
    kept = sections._patterns

    assert max(map(len, kept.values())) <= 8
    assert max(kept) <= 40
    assert sum(map(len, kept.values())) <= 8 * 40
    assert len(sections._shapes) * 2048 <= 1 << 20


def test_the_shapes_that_come_most_often_are_tried_first() -> None:
    """Shapes of as many lines are found in any order, and one that is used moves to the front."""
    sections = PlainSections(LIMITS, often=1)
    for number in range(5):
        data = raw(_names_of(number))
        for _ in range(2):
            sections.learn(read_carefully(data, LIMITS, sections.shape))
    last = raw(_names_of(4))
    for _ in range(4):
        assert check(sections, last)

    assert sections._patterns[7][0].names == tuple(name for name, _ in _names_of(4))
    assert all(check(sections, raw(_names_of(number))) for number in range(5))
    assert len({shape.names for shape in sections._patterns[7]}) == 5


def test_rare_shapes_do_not_push_out_one_with_a_pattern() -> None:
    """After many shapes that came twice, a new browser of a usual shape is still learned."""
    sections = PlainSections(LIMITS, often=1)
    for _ in range(2):
        sections.learn(read_carefully(raw(FIRST), LIMITS, sections.shape))
    for number in range(MANY):
        sections.learn(read_carefully(raw(_names_of(number)), LIMITS, sections.shape))

    other = raw([(name, b"another" if name == b"User-Agent" else v) for name, v in FIRST])
    assert sections.read(other) is None
    for _ in range(3):
        sections.learn(read_carefully(other, LIMITS, sections.shape))
    assert sections.read(other) is not None


READS: list[Callable[[RequestReader], bytes]] = [
    lambda _: b"GET / HTTP/1.1\r\n" + raw(FIRST) + b"\r\n",
    lambda _: (
        b"GET / HTTP/1.1\r\n" + raw(FIRST) + b"\r\nGET /b HTTP/1.1\r\n" + raw(FIRST) + b"\r\n"
    ),
    lambda _: b"\r\nGET / HTTP/1.1\r\n" + raw(FIRST) + b"\r\n",
    lambda _: b"POST / HTTP/1.1\r\n" + raw([*FIRST, (b"Content-Length", b"4")]) + b"\r\n\r\n\r\n",
]


@pytest.mark.parametrize("make", READS, ids=["one", "two", "after an empty line", "with a body"])
def test_a_head_ends_where_it_ends(make: Callable[[RequestReader], bytes]) -> None:
    """What follows a head is not taken for a part of it, although the data ends like a head."""
    reader = RequestReader(LIMITS, often=1)
    data = make(reader)
    size = data.index(b"\r\n\r\n", 2) + 4
    for _ in range(4):
        found = reader.read(data)
        assert found is not None
        assert found[1] == size
        assert found[0].fields.sent_values[: len(FIRST)] == tuple(value for _, value in FIRST)
