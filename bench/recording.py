"""A recorded page load: what is asked, and what the stand-in for the tool answers.

record.py made the file. A mark in it stands for what is another thing in each visit: {time} for
milliseconds, {uuid} for an identifier, {token:N} for N digits of a secret, {origin} for the tool's.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

RECORDED = Path(__file__).with_name("jupyterlab.json")
PREFIX = b"/jupyter/"
"""With this begin all paths of the recording."""

_UPGRADE = 101
_EMPTY = frozenset((101, 204, 304))
_MARK = re.compile(rb"\{(time|uuid|origin|token:[0-9]+)\}")
_UUID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_CONDITION = re.compile(rb"\r\nif-(?:none-match|modified-since):", re.IGNORECASE)
_LONG = 126


@dataclass(frozen=True, slots=True)
class Entry:
    """One request of the recording and its answer.

    `messages`: of a WebSocket, each with its direction and its size.
    """

    visit: int
    method: str
    target: str
    fields: tuple[tuple[str, str], ...]
    body: int
    status: int
    answer: tuple[tuple[str, str], ...]
    size: int
    messages: tuple[tuple[str, int], ...]

    @property
    def upgrade(self) -> bool:
        """Whether a WebSocket is opened."""
        return self.status == _UPGRADE

    @property
    def key(self) -> bytes:
        """By which the stand-in finds the answer."""
        return key(self._head().encode())

    def _head(self, session: str = "") -> str:
        lines = [f"{self.method} {self.target} HTTP/1.1", "Host: {origin}"]
        fields = list(self.fields)
        cookies = [value for name, value in fields if name.lower() == "cookie"]
        for name, value in fields:
            if name.lower() != "cookie":
                lines.append(f"{name}: {value}")
        if all_cookies := "; ".join([session] * bool(session) + cookies):
            lines.append(f"Cookie: {all_cookies}")
        if self.upgrade:
            lines += ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
            lines.append("Sec-WebSocket-Key: {key}")
        elif self.body or self.method not in {"GET", "HEAD"}:
            lines.append(f"Content-Length: {self.body}")
        return "\r\n".join(lines) + "\r\n\r\n"

    def request(self, session: str) -> list[bytes]:
        """The request with marks, in pieces: texts by turns with the names of marks.

        `session`: the cookies that the visitor sends besides the tool's.
        """
        head = self._head(session).replace("Host: {origin}", "Host: {host}")
        return _pieces(head.encode() + b"x" * self.body)


def _pieces(text: bytes) -> list[bytes]:
    return re.split(rb"\{(time|uuid|origin|host|key|token:[0-9]+)\}", text)


def filled(pieces: Sequence[bytes], value: Callable[[bytes], bytes]) -> bytes:
    """The text with a value for each mark."""
    return b"".join(value(piece) if place % 2 else piece for place, piece in enumerate(pieces))


def recording(path: Path = RECORDED) -> tuple[Entry, ...]:
    """Read the file."""
    recorded = json.loads(path.read_text(encoding="utf-8"))
    sets = [tuple((name, value) for name, value in lines) for lines in recorded["fields"]]
    return tuple(
        Entry(
            visit=one["visit"],
            method=one["method"],
            target=one["target"],
            fields=sets[one["fields"]],
            body=one["body"],
            status=one["status"],
            answer=sets[one["answer"]],
            size=one["size"],
            messages=tuple((way, size) for way, size in one["messages"]),
        )
        for one in recorded["entries"]
    )


def key(head: bytes) -> bytes:
    """By what the stand-in tells requests apart.

    Method and path, whose identifiers differ, and whether a validator is asked about.
    """
    line, _, _ = head.partition(b" HTTP/1.1\r\n")
    path, _, _ = line.partition(b"?")
    asked = b" if" if _CONDITION.search(head) else b""
    return _UUID.sub(b"{uuid}", path) + asked


@dataclass(frozen=True, slots=True)
class Answer:
    """What the stand-in writes to requests with the key of `entry`.

    `messages`: of a WebSocket, what is written at first and after each message of the visitor.
    """

    entry: Entry
    status: int
    size: int
    head: bytes
    whole: bytes
    messages: tuple[bytes, ...]


def answers(entries: Sequence[Entry]) -> dict[bytes, Answer]:
    """The answers by their keys; of two with one key the first."""
    by_key: dict[bytes, Answer] = {}
    for entry in entries:
        by_key.setdefault(entry.key, _answer(entry))
    return by_key


def _answer(entry: Entry) -> Answer:
    lines = [b"HTTP/1.1 %d Recorded" % entry.status]
    for name, value in entry.answer:
        text = _MARK.sub(lambda mark: b"0" * _length(mark[1]), value.encode())
        lines.append(name.encode() + b": " + text)
    if entry.status not in _EMPTY:
        lines.append(b"Content-Length: %d" % entry.size)
    head = b"\r\n".join(lines) + b"\r\n"
    size = 0 if entry.status in _EMPTY else entry.size
    messages = tuple(
        b"".join(frame(size) for size in received) for _, received in turns(entry.messages)
    )
    return Answer(entry, entry.status, size, head, head + b"\r\n" + b"x" * size, messages)


def _length(mark: bytes) -> int:
    name, _, size = mark.partition(b":")
    return int(size) if name == b"token" else 1


def turns(messages: Sequence[tuple[str, int]]) -> Iterator[tuple[int, list[int]]]:
    """Each message of the visitor with those of the tool that follow.

    Sizes alone, and -1 before what the tool says at first.
    """
    sent, received = -1, list[int]()
    for way, size in messages:
        if way == "out":
            yield sent, received
            sent, received = size, []
        else:
            received.append(size)
    yield sent, received


def frame(size: int, mask: bytes = b"") -> bytes:
    """A text message of `size` letters (RFC 6455 section 5.2), masked where it is a visitor's."""
    masked = 0x80 if mask else 0
    if size < _LONG:
        head = bytes((0x81, masked | size))
    else:
        head = bytes((0x81, masked | _LONG)) + size.to_bytes(2)
    letters = b"x" * size
    if mask:
        letters = bytes(byte ^ mask[place % 4] for place, byte in enumerate(letters))
    return head + mask + letters


def frames(data: bytes) -> tuple[int, int, bool]:
    """How many whole messages of a visitor `data` begins with, their bytes, and whether it closes.

    Raises ValueError for a message that is not masked or has 64 KiB and more.
    """
    at = count = 0
    while len(data) - at >= 2:  # noqa: PLR2004 - the least that tells a frame's length
        length, start = data[at + 1] & 0x7F, at + 2
        if not data[at + 1] & 0x80 or length > _LONG:
            raise ValueError("a message that no visit has")
        if length == _LONG:
            length, start = int.from_bytes(data[start : start + 2]), start + 2
        end = start + 4 + length
        if len(data) < end:
            break
        if data[at] & 0x0F == 8:  # noqa: PLR2004 - RFC 6455 section 5.5.1
            return count, end, True
        at, count = end, count + 1
    return count, at, False
