from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailchat_gate.proxy.frames import CLOSE_OPCODE, FrameTracker, close_frame


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
    ends, place = [], 0
    while place + 2 <= len(stream):
        size, header = stream[place + 1] & 0x7F, 2
        if size >= 126:
            extension = 2 if size == 126 else 8
            size = int.from_bytes(stream[place + 2 : place + 2 + extension], "big")
            header += extension
        header += 4 if stream[place + 1] & 0x80 else 0
        if place + header > len(stream):
            break
        place += header + size
        if place <= len(stream):
            ends.append(place)
    return ends


frames = st.builds(
    frame,
    st.integers(0, 255),
    st.one_of(
        st.binary(max_size=20), st.sampled_from([b"x" * n for n in (125, 126, 127, 65535, 65536)])
    ),
    masked=st.booleans(),
    long=st.sampled_from([0, 0, 2, 8]),
)


@given(found=st.lists(frames, max_size=6), tail=st.binary(max_size=12), data=st.data())
def test_any_split_gives_the_same_boundaries(
    found: list[bytes], tail: bytes, data: st.DataObject
) -> None:
    """However a stream is cut into reads, the tracker knows the boundaries a whole view shows."""
    stream = b"".join(found) + tail
    ends = {0, *boundaries(stream)}
    places = st.lists(st.integers(0, len(stream)), max_size=12)
    cuts = sorted({0, len(stream), *data.draw(places)})
    tracker = FrameTracker()

    for start, end in pairwise(cuts):
        assert tracker.feed(stream[start:end]) == end - start
        assert tracker.at_boundary is (end in ends)


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


def test_huge_frame_takes_no_memory() -> None:
    """A frame that claims 2^64 bytes is counted down, not gathered."""
    tracker = FrameTracker()
    tracker.feed(b"\x82\x7f" + b"\xff" * 8)
    for _ in range(100):
        assert tracker.feed(bytes(65536)) == 65536

    assert tracker._remaining == 2**64 - 1 - 100 * 65536
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
    assert made[:1] == CLOSE_OPCODE
    assert made[1] & 0x80 == (0x80 if mask else 0)
    assert made[1] & 0x7F <= 125
    payload = made[2 + len(mask) :]
    assert made[2 : 2 + len(mask)] == mask
    plain = bytes(octet ^ (mask or bytes(4))[index % 4] for index, octet in enumerate(payload))
    assert (int.from_bytes(plain[:2], "big"), plain[2:].decode()) == (code, sent)
