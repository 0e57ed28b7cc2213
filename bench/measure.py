"""One measurement of one peer: load from wrk, CPU time and memory from /proc."""

import json
import re
import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from process import BenchError, cpu_seconds, fetch, finished, program, rss_bytes

Sample = Mapping[str, float]
"""One peer in one round: figures by the key of their column."""

_SCRIPT = Path(__file__).with_name("load.lua")
# What a program may still hold back of its log when the load has ended.
_LOG_LIMIT = 5.0
# A minute of load, which is the longest, and what a busy machine may take to end it.
_LOAD_LIMIT = 120.0
_OK = 200
_SUB = re.compile(rb'"sub":"([^"]+)"')


class Session:
    """The cookies of a visitor; a peer may replace them, as it does with a browser's.

    Apache seals its session anew once a minute, and with every request where the visitor does
    not take the new one, which no browser does.
    """

    def __init__(self, cookies: Mapping[str, str]) -> None:
        self._cookies = dict(cookies)

    @property
    def header(self) -> str:
        """The field to send."""
        return "Cookie: " + "; ".join(f"{name}={value}" for name, value in self._cookies.items())

    def take(self, set_cookies: Sequence[str]) -> None:
        """Take what an answer says in Set-Cookie of the cookies that are here."""
        for line in set_cookies:
            name, _, value = line.partition(";")[0].partition("=")
            if name in self._cookies and value:
                self._cookies[name] = value


@dataclass(frozen=True, slots=True)
class Peer:
    """A proxy that runs.

    `origin`: where it listens. `pids`: every process that works for a request, the descendants
    aside. `logs`: the access logs, each of which gets one line a request. `metrics`: where its
    metrics are read. `session`: what a visitor of this peer sends with every request.
    """

    name: str
    origin: str
    pids: tuple[int, ...]
    logs: tuple[Path, ...]
    metrics: str
    session: Session = field(default_factory=lambda: Session({}))


@dataclass(frozen=True, slots=True)
class Ask:
    """What a load asks and what must come back.

    `headers` are sent besides the visitor's cookies, which are left out where `session` is False.
    `upload`: bytes of a body to PUT, `post`: of one to POST, 0 for none. `answer`: the body that
    is right, None where it differs each time. `close`: a connection for each request. `cookies`: a
    file with values of the Cookie header, sent in turn instead of the visitor's, and `visitors` how
    many people they are; with `once` it is wrong to send one of them twice. `differs`: what is
    different in each request, as load.lua names it; then the request has the twelve fields of a
    browser behind an edge.
    """

    path: str = "/"
    headers: tuple[str, ...] = ()
    session: bool = True
    status: int = _OK
    answer: bytes | None = None
    upload: int = 0
    post: int = 0
    close: bool = False
    cookies: Path | None = None
    visitors: int = 0
    once: bool = False
    differs: str = ""

    @property
    def method(self) -> str:
        """The request's method."""
        return "PUT" if self.upload else "POST" if self.post else "GET"

    def fields(self, peer: Peer) -> tuple[str, ...]:
        """The header fields of a request to `peer`."""
        return ((peer.session.header,) if self.session else ()) + self.headers

    def script(self, seed: int, count: int) -> list[str]:
        """The arguments of load.lua."""
        given: dict[str, object] = {}
        if self.upload:
            given |= {"upload": self.upload, "body": (self.answer or b"").decode()}
        if self.post:
            given["post"] = self.post
        if self.cookies:
            given["cookies"] = self.cookies
        if self.once:
            given["once"] = "yes"
        if self.differs:
            given |= {"differs": self.differs, "seed": seed}
        if self.status != _OK:
            # Judged one by one, because to wrk a redirect is as good as an answer.
            given["status"] = self.status
        if count:
            given["count"] = count
        return [f"{name}={value}" for name, value in given.items()]


@dataclass(frozen=True, slots=True)
class Load:
    """What a load saw; times are microseconds, `duration` too; `why` counts kinds of failures."""

    requests: int
    duration: int
    p50: int
    p99: int
    failed: int
    why: str = ""


def parse_load(output: str) -> Load:
    """Read the line of JSON out of what a loader printed; raises BenchError without one."""
    for line in output.splitlines():
        if line.startswith("{"):
            return Load(**json.loads(line))
    raise BenchError(f"the loader printed no result:\n{output[-2000:]}")


def sample(load: Load, cpu: float, rss: int) -> Sample:
    """Relate the CPU seconds and the bytes of memory of a peer to the load it served.

    Raises BenchError where a request failed: a refusal is cheaper than an answer.
    """
    if load.failed or not load.requests:
        why = f" ({load.why})" if load.why else ""
        raise BenchError(f"{load.failed} requests failed{why}, {load.requests} were answered")
    return {
        "cpu_us": cpu * 1e6 / load.requests,
        "rate": load.requests * 1e6 / load.duration,
        "p50_ms": load.p50 / 1000,
        "p99_ms": load.p99 / 1000,
        "rss_mib": rss / 2**20,
    }


def measure(
    peer: Peer, ask: Ask, *, seconds: int, connections: int, seed: int = 0, count: int = 0
) -> Sample:
    """Load `peer` with what `ask` says and return what one request cost.

    Where requests differ, they are the same in all loads with this `seed`. The load ends after
    `count` answers, where that is not 0. Raises BenchError when an answer is not the right one, a
    request fails, or the peer does not log.
    """
    expect(peer, ask)
    before = cpu_seconds(peer.pids)
    own = children_seconds()
    load = _wrk(peer, ask, f"-d{seconds}s", f"-c{connections}", ask.script(seed, count))
    own = children_seconds() - own
    cpu = cpu_seconds(peer.pids) - before
    rss = rss_bytes(peer.pids)
    expect(peer, ask)
    if ask.visitors:
        # A short round may be over before everybody's turn has come.
        _must_have_served(peer, min(ask.visitors, load.requests))
    empty_logs(peer, load.requests)
    try:
        return {**sample(load, cpu, rss), "loader": own * 1e6 / load.duration}
    except BenchError as problem:
        raise BenchError(f"{peer.name}: {problem}") from None


def expect(peer: Peer, ask: Ask) -> None:
    """Make one request. Raises BenchError when it is not answered as it must be."""
    fields = list(ask.fields(peer))
    if ask.cookies:
        cookie = ask.cookies.read_text().partition("\n")[0]
        fields = [f"Cookie: {cookie}"]
    body = b"x" * (ask.upload or ask.post) or None
    response = fetch(f"{peer.origin}{ask.path}", fields, method=ask.method, body=body)
    if response.status != ask.status or (ask.answer is not None and response.body != ask.answer):
        raise BenchError(
            f"{peer.name} answers {response.status} to {ask.path}: {response.body[:200]!r}"
        )
    if ask.session:
        peer.session.take(response.cookies)


def children_seconds() -> float:
    """CPU seconds of the programs that were started and have ended: of a load, that is wrk."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _wrk(peer: Peer, ask: Ask, seconds: str, connections: str, script: Sequence[str]) -> Load:
    args = [program("wrk"), "-t1", connections, seconds, "--timeout", "10s", "-s", str(_SCRIPT)]
    for header in (*ask.fields(peer), *(("Connection: close",) if ask.close else ())):
        args += ["-H", header]
    args += [f"{peer.origin}{ask.path}", "--", *script]
    return parse_load(finished(args, limit=_LOAD_LIMIT))


def empty_logs(peer: Peer, requests: int) -> None:
    """Prove that the peer has logged its requests, then drop the lines to spare the disk."""
    for log in peer.logs:
        limit = time.monotonic() + _LOG_LIMIT
        while (lines := _lines(log)) < requests and time.monotonic() < limit:
            time.sleep(0.05)
        if lines < requests:
            raise BenchError(f"{peer.name} logged {lines} of {requests} requests in {log.name}")
        with log.open("r+b") as file:
            file.truncate(0)


def _must_have_served(peer: Peer, visitors: int) -> None:
    """Prove that as many people were let in; a session that is refused is served as nobody's."""
    limit, seen = time.monotonic() + _LOG_LIMIT, 0
    while seen < visitors and time.monotonic() < limit:
        seen = len({name for log in peer.logs for name in _SUB.findall(log.read_bytes())})
    if seen < visitors:
        raise BenchError(f"{peer.name} served {seen} of {visitors} visitors")


def _lines(path: Path) -> int:
    with path.open("rb") as log:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: log.read(1 << 20), b""))
