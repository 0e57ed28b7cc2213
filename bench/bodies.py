"""The second scenario: one large download and one large upload, and the memory they take."""

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from measure import Peer
from process import BenchError, rss_bytes
from tool import PAUSE, PAUSE_AFTER

BODY_PEERS = ("nginx", "caddy", "gate")
_CHUNK = 1 << 18
_TIMEOUT = 120.0
_SAMPLING = 0.02


@dataclass(frozen=True, slots=True)
class Transfer:
    """One body through one peer: MiB of memory before and at the peak, and the seconds it took."""

    peer: str
    direction: str
    before_mib: float
    peak_mib: float
    seconds: float

    @property
    def growth_mib(self) -> float:
        """What the body added."""
        return self.peak_mib - self.before_mib


@dataclass(slots=True)
class Memory:
    """Resident bytes of a process tree: at the start, and the most seen since."""

    before: int
    peak: int = field(default=0)


def transfer(peer: Peer, direction: str, files: Path, size: int) -> Transfer:
    """Send `size` bytes through `peer`, "download" or "upload", and watch its memory.

    Raises BenchError when a byte is missing at the other end.
    """
    started = time.monotonic()
    with _watched(peer.pids) as memory:
        if direction == "download":
            _sparse(files / "body", size)
            arrived = _download(peer, "/files/body")
        else:
            arrived = _upload(peer, "/upload", size)
    if arrived != size:
        raise BenchError(f"{peer.name}: {arrived} of {size} bytes arrived ({direction})")
    return Transfer(
        peer=peer.name,
        direction=direction,
        before_mib=memory.before / 2**20,
        peak_mib=memory.peak / 2**20,
        seconds=time.monotonic() - started,
    )


@contextmanager
def _watched(pids: tuple[int, ...]) -> Iterator[Memory]:
    memory = Memory(rss_bytes(pids))
    done = threading.Event()

    def look() -> None:
        while not done.wait(_SAMPLING):
            memory.peak = max(memory.peak, rss_bytes(pids))

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield memory
    finally:
        done.set()
        watcher.join()
        memory.peak = max(memory.peak, rss_bytes(pids))


def _sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def _connection(peer: Peer) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(peer.origin).netloc, timeout=_TIMEOUT)


def _headers(peer: Peer) -> dict[str, str]:
    return dict([peer.session.header.split(": ", 1)])


def _download(peer: Peer, path: str) -> int:
    """Read a body, with one pause in which a proxy without back-pressure would read ahead."""
    connection = _connection(peer)
    try:
        connection.request("GET", path, headers=_headers(peer))
        response = connection.getresponse()
        if response.status != http.client.OK:
            raise BenchError(f"{peer.name} answers {response.status} to the download")
        buffer = bytearray(_CHUNK)
        arrived, paused = 0, False
        while got := response.readinto(buffer):
            arrived += got
            if arrived >= PAUSE_AFTER and not paused:
                paused = True
                time.sleep(PAUSE)
        return arrived
    finally:
        connection.close()


def _upload(peer: Peer, path: str, size: int) -> int:
    """Send a body of zeros; the sink makes the pause. Returns what the sink has counted."""
    connection = _connection(peer)
    try:
        connection.putrequest("PUT", path)
        for name, value in {**_headers(peer), "Content-Length": str(size)}.items():
            connection.putheader(name, value)
        connection.endheaders()
        chunk, left = memoryview(bytes(_CHUNK)), size
        while left:
            part = chunk[:left]
            connection.send(part)
            left -= len(part)
        response = connection.getresponse()
        answer = response.read()
        if response.status != http.client.OK:
            raise BenchError(
                f"{peer.name} answers {response.status} to the upload: {answer[:200]!r}"
            )
        return int(json.loads(answer)["received"])
    finally:
        connection.close()
