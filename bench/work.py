"""What a work is: a table's worth of questions to the peers, and how each is measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from measure import Ask, Peer, Sample, measure
from peers import Stage


@dataclass(frozen=True, slots=True)
class Options:
    """How much of a load: seconds, connections, and how many wait idle or for a slow tool.

    `count`: after how many answers a load of wrk ends before its time, 0 for none. `turn`: which
    load of a work it is; what differs from request to request is the same for every peer in one
    turn, and other in the next.
    """

    seconds: int
    connections: int
    idle: int
    websockets: int
    waiting: int
    count: int = 0
    turn: int = 0


Measure = Callable[[Stage, Options], Sample]


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a work's table: its name, the peer that works for it, what measures it once."""

    name: str
    peer: str
    measure: Measure


@dataclass(frozen=True, slots=True)
class Family:
    """Works that share their tables; `head` stands above the titles of the works."""

    name: str
    title: str
    head: str


@dataclass(frozen=True, slots=True)
class Work:
    """One table, or one row of the tables that all works of a `family` share.

    `unit` is what the CPU time is divided by. `baseline` is the entry that the others are divided
    by; where it is "", the gate is divided by each of the others. `once`: a single round tells all.
    `block`: the part of a document that has its table.
    """

    name: str
    title: str
    unit: str
    entries: tuple[Entry, ...]
    baseline: str = ""
    once: bool = False
    family: Family | None = None
    block: str = "repeated"


def loads(names: Sequence[str], ask: Ask, upstream: str = "web") -> tuple[Entry, ...]:
    """An entry for each peer, loaded with the same."""
    return tuple(Entry(name, name, partial(load, name, upstream, ask)) for name in names)


def load(name: str, upstream: str, ask: Ask, stage: Stage, options: Options) -> Sample:
    """Measure one peer."""
    return loaded(stage.peer(name, upstream), ask, options)


def loaded(peer: Peer, ask: Ask, options: Options) -> Sample:
    """Measure a peer that runs."""
    return measure(
        peer,
        ask,
        seconds=options.seconds,
        connections=options.connections,
        seed=options.turn,
        count=options.count,
    )
