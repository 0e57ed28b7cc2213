"""Whether memory grows: a great many requests, all of them different, to one process."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from http import HTTPStatus

from measure import Ask, Peer, measure
from peers import Stage
from process import BenchError, fetch, rss_bytes
from report import Row
from roster import PLAIN
from scene import BODY

SOAKED = (*PLAIN, "gate")
FIRST = 10_000
"""Requests before memory is read for the first time: caches are full and pools have grown."""

GROWTH = 5.0
"""MiB that the gate may have grown by at the end."""

CONNECTIONS = 32
"""Of each load."""

_STEP = 100_000
# A step is bounded by its requests; this is for a peer that hardly answers.
_SECONDS = 100
_ALL = "path,ids,referer,validator,cookie"
_SIGNED_IN = Ask("/page", answer=BODY, differs=_ALL)
_STRANGER = Ask(
    "/page",
    headers=("Accept: application/json, text/plain, */*", "Sec-Fetch-Mode: cors"),
    session=False,
    status=HTTPStatus.UNAUTHORIZED.value,
    differs=_ALL,
)
_COLLECTIONS = re.compile(
    rb'^python_gc_collections_total\{generation="2"\} ([0-9.e+]+)$', re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Soak:
    """One peer: after how many requests it took how many bytes, and what its collector did.

    `collections`: full ones during all of it, None where the peer does not tell.
    """

    name: str
    requests: Sequence[int]
    rss: Sequence[int]
    p99_ms: Sequence[float]
    collections: int | None

    @property
    def growth_mib(self) -> float:
        """What it grew by after the first reading, at its largest."""
        return (max(self.rss) - self.rss[0]) / 2**20


def soaks(stage: Stage, peers: Sequence[str], total: int) -> list[Soak]:
    """Send `total` requests to each peer; the gate gets as many from a stranger too."""
    results = []
    for name in peers:
        with stage.fresh(name, "web", room=2 * CONNECTIONS) as peer:
            results.append(_soak(peer, name, _SIGNED_IN, total))
        if name not in PLAIN:
            with stage.fresh(name, "web", room=2 * CONNECTIONS) as peer:
                results.append(_soak(peer, f"{name}, without a session", _STRANGER, total))
    return results


def _soak(peer: Peer, name: str, ask: Ask, total: int) -> Soak:
    requests, rss, p99 = [], [], []
    before, sent = _collections(peer), 0
    for turn, count in enumerate(steps(total), 1):
        figures = measure(
            replace(peer, name=name),
            ask,
            seconds=_SECONDS,
            connections=CONNECTIONS,
            seed=turn,
            count=count,
        )
        sent += count
        requests.append(sent)
        rss.append(rss_bytes(peer.pids))
        p99.append(figures["p99_ms"])
    after = _collections(peer)
    collections = None if before is None or after is None else after - before
    return Soak(name, requests, rss, p99, collections)


def steps(total: int) -> list[int]:
    """How many requests before each reading of memory, `total` in all."""
    marks = [FIRST, *range(_STEP, total, _STEP), total] if total > FIRST else [total]
    return [mark - before for before, mark in zip([0, *marks], marks, strict=False)]


def _collections(peer: Peer) -> int | None:
    line = _COLLECTIONS.search(fetch(peer.metrics).body)
    return int(float(line[1])) if line else None


def rows(results: Sequence[Soak]) -> list[Row]:
    """One line a peer."""
    return [
        ["peer", "requests", "RSS MiB", "after all", "growth", "worst p99 ms", "full collections"],
        *(
            [
                one.name,
                f"{one.requests[0]:,} to {one.requests[-1]:,}",
                *(f"{value / 2**20:.1f}" for value in (one.rss[0], one.rss[-1])),
                f"{one.growth_mib:.1f}",
                f"{max(one.p99_ms):.2f}",
                "" if one.collections is None else str(one.collections),
            ]
            for one in results
        ),
    ]


def judged(results: Sequence[Soak]) -> list[Row]:
    """Whether the gate stayed within GROWTH."""
    return [
        ["goal", "to reach", "measured", "met"],
        *(
            [
                f"growth in MiB, {one.name}",
                f"{GROWTH:g}",
                f"{one.growth_mib:.1f}",
                "yes" if one.growth_mib <= GROWTH else "NO",
            ]
            for one in results
            if one.name not in PLAIN
        ),
    ]


def samples(results: Sequence[Soak]) -> dict[str, object]:
    """For --json."""
    return {"soak": [asdict(one) for one in results]}


def chosen(peers: Sequence[str]) -> list[str]:
    """The peers that can be soaked, of those that were asked for; without any, the gate."""
    wanted = [name for name in SOAKED if name in peers] if peers else ["gate"]
    if not wanted:
        raise BenchError(f"only {', '.join(SOAKED)} can be soaked")
    return wanted
