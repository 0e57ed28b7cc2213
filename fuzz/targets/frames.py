"""Frames of a WebSocket: cut in any way they end where a plain reader says."""

from fuzz.cutting import cut, steered
from fuzz.reference.frames import frame_ends
from fuzz.target import Target
from tailchat_gate.proxy.message.websocket_frames import FrameTracker, close_frame

_HELD = 9
_CLOSE = 8
_OWN_CLOSE = close_frame(3000, "over")


def check(data: bytes) -> None:
    """Follow a stream in pieces, frame by frame and to its end.

    Three bytes say how it is cut, one at which piece it is to end.
    """
    steer, data = steered(data, 4)
    pieces = list(cut(data, steer[:3]))
    ends, _ = frame_ends(data)
    starts = [start for start in (0, *ends) if start < len(data)]
    closes_at = next((start for start in starts if data[start] % 16 == _CLOSE), len(data))
    _check_pieces(pieces, ends, closes_at)
    _check_stops(pieces, ends)
    _check_finish(data, pieces, steer[3] % (len(pieces) + 1), closes_at)
    _check_close(data)


def _check_pieces(pieces: list[bytes], ends: list[int], closes_at: int) -> None:
    tracker = FrameTracker()
    boundaries = {0, *ends}
    come = 0
    for piece in pieces:
        assert tracker.feed(piece) == len(piece), "bytes are lost"
        come += len(piece)
        assert tracker.at_boundary == (come in boundaries)
        assert tracker.closed == (closes_at < come)
        assert len(tracker._header) <= _HELD


def _check_stops(pieces: list[bytes], ends: list[int]) -> None:
    """With stop_at_boundary it stops behind every frame, wherever the stream is cut."""
    tracker = FrameTracker()
    stops: list[int] = []
    place = 0
    for piece in pieces:
        rest = piece
        while rest:
            taken = tracker.feed(rest, stop_at_boundary=True)
            assert 0 < taken <= len(rest)
            place += taken
            rest = rest[taken:]
            if tracker.at_boundary:
                stops.append(place)
            else:
                assert not rest, "it stops within a frame"
    assert stops == ends


def _check_finish(data: bytes, pieces: list[bytes], count: int, closes_at: int) -> None:
    """The frame under way passes, then one close frame unless one has passed, then nothing."""
    tracker = FrameTracker()
    for piece in pieces[:count]:
        tracker.feed(piece)
    before = sum(map(len, pieces[:count]))
    passed = b"".join(tracker.finish(piece, _OWN_CLOSE) for piece in pieces[count:])
    ends, _ = frame_ends(data)
    over = next((end for end in (0, *ends) if end >= before), None)
    if over is None or count == len(pieces):
        assert passed == data[before:]
        assert not tracker.finished
    else:
        assert passed == data[before:over] + (b"" if closes_at < over else _OWN_CLOSE)
        assert tracker.finished
    assert tracker.closed == (closes_at < len(data))


def _check_close(data: bytes) -> None:
    """A close frame is one frame, whatever the reason, and says what it was given."""
    code = int.from_bytes(data[:2], "big")
    reason = data[2:].decode("utf-8", "replace")
    for mask in (b"", b"mask"):
        frame = close_frame(code, reason, mask=mask)
        assert frame_ends(frame) == ([len(frame)], True)
        start = 2 + len(mask)
        payload = bytes(o ^ (mask[i % 4] if mask else 0) for i, o in enumerate(frame[start:]))
        assert int.from_bytes(payload[:2], "big") == code
        assert reason.startswith(payload[2:].decode("utf-8"))


TARGET = Target(
    check,
    parsers=("proxy.message.websocket_frames",),
    seeds=(
        b"\1\2\3\1\x81\x05hello",
        b"\0\0\0\0\x82\x85maskhello\x88\x02\x03\xe8",
        b"\4\0\0\1\x81\x7e\x00\x05hello\x8a\x00",
        b"\7\1\0\2\x01\x7f\x00\x00\x00\x00\x00\x00\x00\x05hello\x80\x80mask",
        b"\1\0\0\3\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xffx",
        b"\3\0\0\0\xff\xfe\x00\x00mask",
    ),
    words=(b"\x7e", b"\x7f", b"\xfe\x00\x00", b"\xff\x00\x00\x00\x00\x00\x00\x00\x00", b"\x88\x00"),
)
