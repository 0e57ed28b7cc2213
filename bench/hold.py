"""The other loader, from the harness's side: connections that are opened, counted and held."""

import contextlib
import json
import select
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from measure import Ask, Load, Peer, parse_load
from process import BenchError, end, undisturbed

_HERE = Path(__file__).parent
# 10,000 connections are opened one after another, and a busy machine takes its time.
_OPEN_LIMIT = 120.0


@dataclass(frozen=True, slots=True)
class Connections:
    """Open connections to one peer."""

    process: "subprocess.Popen[bytes]"
    words: Path

    def order(self, line: str, limit: float) -> Mapping[str, int]:
        """Give one order; returns what the loader answers within `limit` seconds."""
        assert self.process.stdin is not None  # noqa: S101 - narrows for the checker
        # A loader that has ended says why in its answer's place.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()
        return self.answer(limit)

    def answer(self, limit: float) -> Mapping[str, int]:
        """Read one line of JSON. Raises BenchError where none comes."""
        assert self.process.stdout is not None  # noqa: S101 - narrows for the checker
        line = _line(self.process.stdout, limit)
        if not line:
            said = self.words.read_text(errors="replace")[-2000:]
            raise BenchError(f"the loader of connections gave up:\n{said}")
        found: Mapping[str, int] = json.loads(line)
        return found

    def load(self, line: str, limit: float) -> Load:
        """Give an order that is a load; returns what it saw."""
        return parse_load(json.dumps(self.order(line, limit)))

    def must_be_open(self, count: int) -> None:
        """Raise BenchError unless all `count` connections are still open."""
        left = self.order("check", _OPEN_LIMIT)["open"]
        if left != count:
            raise BenchError(f"{count - left} of {count} connections were closed")


@contextlib.contextmanager
def connections(
    peer: Peer, ask: Ask, count: int, directory: Path, *, websocket: bool
) -> Iterator[Connections]:
    """Hold `count` connections to `peer` for the length of the block.

    On each, `ask` has been answered with 200, or has opened a WebSocket. Raises BenchError.
    """
    words = directory / "holder.log"
    order = {
        "port": int(peer.origin.rpartition(":")[2]),
        "path": ask.path,
        "fields": list(ask.fields(peer)),
        "count": count,
        "websocket": websocket,
    }
    with contextlib.ExitStack() as stack:
        with words.open("wb") as errors, undisturbed():
            process = subprocess.Popen(
                [sys.executable, str(_HERE / "holder.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
            stack.callback(_ended, process)
        try:
            held = Connections(process, words)
            if held.order(json.dumps(order), _OPEN_LIMIT)["open"] != count:
                held.must_be_open(count)
            yield held
        except BenchError as problem:
            raise BenchError(f"{peer.name}: {problem}") from None


def _ended(process: "subprocess.Popen[bytes]") -> None:
    end(process)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def _line(pipe: IO[bytes], limit: float) -> bytes:
    ready, _, _ = select.select([pipe], [], [], limit)
    return pipe.readline() if ready else b""
