from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailchat_gate.proxy.message.websocket_frames import FrameTracker, close_frame


def frame(opcode: int, payload: bytes, *, masked: bool = False, long: int = 0) -> bytes:
    """Return a frame; `long` is the least size in bytes of the length's extension: 0, 2 or 8."""
    size = len(payload)
    form = max(long, 0 if size < 126 else 2 if size < 65536 else 8)
    mark = {0: size, 2: 126, 8: 127}[form]
    length = size.to_bytes(form, "big") if form else b""
    mask = b"\x81\x82\x83\x84" if masked else b""
    return bytes((opcode, mark | (0x80 if masked else 0))) + length + mask + payload


def boundaries(stream: bytes) -> list[int]:
    """Return where frames end in a stream: the naive parser, which has all of it."""
    return [end for _, end in _frames_in(stream) if end <= len(stream)]


def closes_at(stream: bytes) -> int:
    """Return where the first close frame of a stream begins; its size where there is none."""
    starts = [0, *boundaries(stream)]
    return next((at for at in starts if stream[at : at + 1] and stream[at] % 16 == 8), len(stream))


def _frames_in(stream: bytes) -> Iterator[tuple[int, int]]:
    """Yield start and end of each frame whose header is whole; the last may end behind it all."""
    place = 0
    while place + 2 <= len(stream):
        size, header = stream[place + 1] & 0x7F, 2
        if size >= 126:
            extension = 2 if size == 126 else 8
            size = int.from_bytes(stream[place + 2 : place + 2 + extension], "big")
            header += extension
        header += 4 if stream[place + 1] & 0x80 else 0
        if place + header > len(stream):
            return
        yield place, place + header + size
        place += header + size


frames = st.builds(
    frame,
    st.integers(0, 255),
    st.one_of(
        st.binary(max_size=20), st.sampled_from([b"x" * n for n in (125, 126, 127, 65535, 65536)])
    ),
    masked=st.booleans(),
    long=st.sampled_from([0, 0, 2, 8]),
)


#: Frames, and what no peer of good will sends: any bytes, with many a byte that means something.
streams = st.one_of(
    st.builds(
        lambda found, tail: b"".join(found) + tail, st.lists(frames, max_size=6), st.binary()
    ),
    st.binary(max_size=400),
    st.lists(
        st.sampled_from([0, 1, 2, 8, 0x80, 0x81, 0x88, 0x89, 125, 126, 127, 253, 254, 255]),
        max_size=400,
    ).map(bytes),
)


def pieces(stream: bytes, data: st.DataObject) -> Iterator[tuple[int, int]]:
    """Draw how a stream is cut into reads, an empty one among them at times; yield the cuts."""
    places = st.lists(st.integers(0, len(stream)), max_size=20)
    return pairwise(sorted((0, len(stream), *data.draw(places))))


@given(stream=streams, data=st.data())
def test_any_split_gives_the_same_boundaries(stream: bytes, data: st.DataObject) -> None:
    """However a stream is cut into reads, the tracker knows the boundaries a whole view shows."""
    ends, closing = {0, *boundaries(stream)}, closes_at(stream)
    tracker = FrameTracker()

    for start, end in pieces(stream, data):
        assert tracker.feed(stream[start:end]) == end - start
        assert tracker.at_boundary is (end in ends)
        assert tracker.closed is (closing < end)
        assert len(tracker._header) <= 9


@given(stream=streams, data=st.data())
def test_reads_that_stop_and_reads_that_do_not_mix(stream: bytes, data: st.DataObject) -> None:
    """Whether a read stops at a boundary changes how much it takes, and nothing else."""
    ends, closing = {0, *boundaries(stream)}, closes_at(stream)
    tracker = FrameTracker()

    for start, end in pieces(stream, data):
        place = start
        while place < end and data.draw(st.booleans()):
            taken = tracker.feed(stream[place:end], stop_at_boundary=True)
            behind = [found for found in ends if place < found <= end]
            assert place + taken == min(behind, default=end)
            place += taken
            assert tracker.at_boundary is (place in ends)
            assert tracker.closed is (closing < place)
        assert tracker.feed(stream[place:end]) == end - place
        assert tracker.at_boundary is (end in ends)
        assert tracker.closed is (closing < end)


@given(stream=st.binary(max_size=60))
def test_byte_by_byte(stream: bytes) -> None:
    """Bytes that come alone tell the same as bytes that come together."""
    ends, closing = {0, *boundaries(stream)}, closes_at(stream)
    tracker = FrameTracker()

    for place in range(len(stream)):
        assert tracker.feed(stream[place : place + 1]) == 1
        assert tracker.at_boundary is (place + 1 in ends)
        assert tracker.closed is (closing <= place)


@given(found=st.lists(frames, max_size=4), tail=st.binary(max_size=4), size=st.integers(1, 40))
def test_it_stops_behind_each_frame(found: list[bytes], tail: bytes, size: int) -> None:
    """Told to stop, it takes bytes up to the end of the frame and leaves the next one whole."""
    stream = b"".join(found) + tail
    stream = stream if len(stream) < 2000 else stream[-2000:]
    tracker, place, stops = FrameTracker(), 0, []
    while place < len(stream):
        taken = tracker.feed(stream[place : place + size], stop_at_boundary=True)
        assert 0 < taken <= size
        place += taken
        if tracker.at_boundary:
            stops.append(place)

    assert stops == boundaries(stream)


@pytest.mark.parametrize(
    ("data", "taken", "at_boundary"),
    [
        (b"", 0, True),
        (b"\x81", 1, False),
        (b"\x81\x00", 2, True),
        (b"\x81\x01", 2, False),
        (b"\x81\x01x", 3, True),
        (b"\x81\x01x\x81\x01y", 3, True),
        (b"\x81\x80\x00\x00\x00", 5, False),
        (b"\x81\x80\x00\x00\x00\x00", 6, True),
        (b"\x81\x80\x00\x00\x00\x00\x89", 6, True),
        (b"\x81\x7e\x00\x00", 4, True),
        (b"\x81\x7e\x00\x01xy", 5, True),
        (b"\x81\x7f\x00\x00\x00\x00\x00\x00\x00\x01xy", 11, True),
        (b"\x81\x7f" + b"\xff" * 8 + b"x", 11, False),
        (b"\xff\x81\x00\x00\x00\x00x", 7, True),
    ],
)
def test_stop(data: bytes, taken: int, at_boundary: bool) -> None:
    """Empty, short, extended, masked and absurdly long frames are measured by their header."""
    tracker = FrameTracker()

    assert tracker.feed(data, stop_at_boundary=True) == taken
    assert tracker.at_boundary is at_boundary


class Watched(bytes):
    """Bytes that count how often they are looked at, and how much of them is copied."""

    looks = 0
    copied = 0

    def __getitem__(self, key: Any) -> Any:  # noqa: ANN401 - as bytes has it: an int or a slice
        found = super().__getitem__(key)
        self.looks += 1
        self.copied += len(found) if isinstance(found, bytes) else 0
        return found


@pytest.mark.parametrize(
    ("data", "looks", "copied"),
    [
        (frame(0x81, b"x" * 125, masked=True), 2, 0),
        (frame(0x82, b"x" * 65535, masked=True), 5, 0),
        (frame(0x82, b"x" * 65536, masked=True), 4, 8),
        (frame(0x82, bytes(2**20))[: 2**19], 4, 8),
        (frame(0x89, b"", masked=True) * 10_000, 20_000, 0),
        (frame(0x82, b"xx") * 10_000 + b"\x81", 20_002, 1),
    ],
    ids=["small", "medium", "large", "half a large one", "many small ones", "a header cut"],
)
def test_it_costs_by_the_frame(data: bytes, looks: int, copied: int) -> None:
    """The payload is never looked at or copied; a header is, once."""
    watched = Watched(data)
    FrameTracker().feed(watched)

    assert watched.looks <= looks
    assert watched.copied <= copied


def test_a_payload_costs_nothing() -> None:
    """A read within a frame is counted, and none of its bytes looked at."""
    tracker, watched = FrameTracker(), Watched(bytes(65536))
    tracker.feed(frame(0x82, bytes(2**20))[:100])
    tracker.feed(watched)

    assert (watched.looks, watched.copied) == (0, 0)
    assert not tracker.at_boundary


@pytest.mark.parametrize(
    ("data", "closed"),
    [
        (b"\x88", True),
        (b"\x88\x00", True),
        (b"\x88\x80abcd", True),
        (b"\x81\x01x\x88\x02\x03\xe8", True),
        (b"\x01\x01x\x88\x00", True),
        (b"\x88\x00\x81\x00", True),
        (b"\x08\x00", True),
        (b"\xf8\x00", True),
        (b"\x88\xff" + b"\xff" * 8, True),
        (b"", False),
        (b"\x81\x02\x88\x00", False),
        (b"\x82\x7e\x00\x02\x88\x88", False),
        (b"\x82\xfe\x00\x00\x88\x88\x88\x88", False),
        (b"\x89\x00\x8a\x00\x80\x00", False),
    ],
)
def test_closed(data: bytes, closed: bool) -> None:
    """A close frame is known from its first byte on, and one in a payload is none."""
    whole, cut = FrameTracker(), FrameTracker()
    whole.feed(data)
    for place in range(len(data)):
        cut.feed(data[place : place + 1], stop_at_boundary=True)

    assert whole.closed is closed
    assert cut.closed is closed


@given(stream=streams, data=st.data())
def test_what_passes_once_it_is_to_end(stream: bytes, data: st.DataObject) -> None:
    """The frame under way passes whole, then the close frame once, then nothing more."""
    start = data.draw(st.integers(0, len(stream)))
    last = min((end for end in (0, *boundaries(stream)) if end >= start), default=None)
    closing = closes_at(stream)
    tracker = FrameTracker()
    tracker.feed(stream[:start])

    passed = tracker.finish(b"", b"<close>")
    for begin, end in pieces(stream[start:], data):
        passed += tracker.finish(stream[start + begin : start + end], b"<close>")

    if last is None:
        assert passed == stream[start:]
    else:
        said = b"<close>" if closing >= last else b""
        assert passed == stream[start:last] + said
    assert tracker.finished is (last is not None)
    assert tracker.closed is (closing < len(stream))


def test_huge_frame_takes_no_memory() -> None:
    """A frame that claims 2^64 bytes is counted down, not gathered."""
    tracker = FrameTracker()
    tracker.feed(b"\x82\x7f" + b"\xff" * 8)
    for _ in range(100):
        assert tracker.feed(bytes(65536)) == 65536

    assert tracker.missing == 2**64 - 1 - 100 * 65536
    assert tracker._header == b""


@pytest.mark.parametrize("mask", [b"", b"\x00\x00\x00\x00", b"\x01\x80\xff\x7f"])
@pytest.mark.parametrize(
    ("code", "reason", "sent"),
    [
        (1000, "", ""),
        (3000, "session ended", "session ended"),
        (4999, "é☆", "é☆"),
        (1001, "x" * 123, "x" * 123),
        (1001, "x" * 200, "x" * 123),
        (1001, "x" + "星" * 60, "x" + "星" * 40),
    ],
)
def test_close_frame(code: int, reason: str, sent: str, mask: bytes) -> None:
    """A close frame is whole, short, UTF-8, and masked where it goes to a server."""
    made = close_frame(code, reason, mask=mask)
    tracker = FrameTracker()

    assert tracker.feed(made, stop_at_boundary=True) == len(made)
    assert tracker.at_boundary
    assert tracker.closed
    assert made[0] == 0x88
    assert made[1] & 0x80 == (0x80 if mask else 0)
    assert made[1] & 0x7F <= 125
    payload = made[2 + len(mask) :]
    assert made[2 : 2 + len(mask)] == mask
    plain = bytes(octet ^ (mask or bytes(4))[index % 4] for index, octet in enumerate(payload))
    assert (int.from_bytes(plain[:2], "big"), plain[2:].decode()) == (code, sent)
