"""One measurement of one peer: load from wrk, CPU time and memory from /proc."""

import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from process import BenchError, cpu_seconds, fetch, program, rss_bytes

_SCRIPT = Path(__file__).with_name("result.lua")
# What a program may still hold back of its log when the load has ended.
_LOG_LIMIT = 5.0


@dataclass(frozen=True, slots=True)
class Peer:
    """A proxy that runs: where it listens, its process, its access log, what to send to it."""

    name: str
    origin: str
    pid: int
    access_log: Path
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk saw; times are microseconds, `duration` too."""

    requests: int
    duration: int
    p50: int
    p99: int
    failed: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One peer in one round: microseconds of CPU a request, milliseconds, MiB."""

    cpu_us: float
    rate: float
    p50_ms: float
    p99_ms: float
    rss_mib: float


def parse_wrk(output: str) -> Load:
    """Read the JSON line of result.lua out of wrk's report; raises BenchError without one."""
    for line in output.splitlines():
        if line.startswith("{"):
            return Load(**json.loads(line))
    raise BenchError(f"wrk printed no result:\n{output[-2000:]}")


def sample(load: Load, cpu: float, rss: int) -> Sample:
    """Relate the CPU seconds and the bytes of memory of a peer to the load it served.

    Raises BenchError where a request failed: a refusal is cheaper than an answer.
    """
    if load.failed or not load.requests:
        raise BenchError(f"{load.failed} requests failed, {load.requests} were answered")
    return Sample(
        cpu_us=cpu * 1e6 / load.requests,
        rate=load.requests * 1e6 / load.duration,
        p50_ms=load.p50 / 1000,
        p99_ms=load.p99 / 1000,
        rss_mib=rss / 2**20,
    )


def measure(peer: Peer, *, seconds: int, connections: int, body: bytes) -> Sample:
    """Load `peer` and return what it cost.

    Raises BenchError when it does not answer with `body`, fails a request, or does not log.
    """
    _expect(peer, body)
    before = cpu_seconds(peer.pid)
    load = _wrk(peer, seconds, connections)
    cpu = cpu_seconds(peer.pid) - before
    rss = rss_bytes(peer.pid)
    _expect(peer, body)
    _empty_log(peer, load.requests)
    try:
        return sample(load, cpu, rss)
    except BenchError as problem:
        raise BenchError(f"{peer.name}: {problem}") from None


def _expect(peer: Peer, body: bytes) -> None:
    status, answer = fetch(f"{peer.origin}/", peer.headers)
    if (status, answer) != (200, body):
        raise BenchError(f"{peer.name} answers {status}: {answer[:200]!r}")


def _wrk(peer: Peer, seconds: int, connections: int) -> Load:
    args = [program("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"]
    args += ["-s", str(_SCRIPT)]
    for header in peer.headers:
        args += ["-H", header]
    done = subprocess.run(
        [*args, f"{peer.origin}/"],
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds + 60,
    )
    if done.returncode:
        raise BenchError(f"wrk failed: {done.stderr[-2000:]}")
    return parse_wrk(done.stdout)


def _empty_log(peer: Peer, requests: int) -> None:
    """Prove that the peer has logged its requests, then drop the lines to spare the disk."""
    limit = time.monotonic() + _LOG_LIMIT
    while (lines := _lines(peer.access_log)) < requests and time.monotonic() < limit:
        time.sleep(0.05)
    if lines < requests:
        raise BenchError(f"{peer.name} logged {lines} of {requests} requests")
    with peer.access_log.open("r+b") as log:
        log.truncate(0)


def _lines(path: Path) -> int:
    with path.open("rb") as log:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: log.read(1 << 20), b""))
