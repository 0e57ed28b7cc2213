"""Grants: a person may use a route for a while although its `allow` does not list them."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

from tailchat_gate.config.values.identifier import is_sub
from tailchat_gate.observe.audit import write_event
from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.state.store import Changes, Kind, Record, Store, is_second, read_document
from tailchat_gate.syntax import COMPACT

GRANT: Final = "grant"
#: The most grants that are stored; beyond it the oldest are dropped.
MOST: Final = 10_000
#: The most seconds between two checks for grants that have ended: somebody may set the clock.
_LOOK_EVERY: Final = 30.0

_log: Final = logging.getLogger(LOGGER_NAME)


@dataclass(frozen=True, slots=True)
class Grant:
    """The person `sub` may use `route` from the Unix second `at` until `until`.

    `by`: the sub of the person who granted it, "" for the command line. `ended`: it was revoked, so
    that setting the clock back does not revive it.
    """

    sub: str
    route: str
    at: int
    until: int
    reason: str = ""
    by: str = ""
    ended: bool = False

    def to_record(self) -> Record:
        """Return the grant as a record: there is one for each person and route."""
        body = json.dumps(asdict(self), separators=COMPACT)
        return Record(GRANT, f"{self.sub} {self.route}", body, self.sub, self.until)

    @classmethod
    def from_record(cls, record: Record) -> "Grant | None":
        """Return the grant of a record, None for a damaged one, which must let nobody in."""
        grant = read_document(record, cls)
        return grant if grant is not None and grant.is_valid() else None

    def is_valid(self) -> bool:
        """Whether every field has the form that the gate writes."""
        texts = (self.sub, self.route, self.reason, self.by)
        return (
            all(isinstance(text, str) for text in texts)
            and all(map(is_second, (self.at, self.until)))
            and is_sub(self.sub)
            and bool(self.route)
            and isinstance(self.ended, bool)
        )

    def revoked(self, now: float) -> "Grant":
        """Return the grant ended at the Unix second `now`."""
        return replace(self, until=min(self.until, int(now)), ended=True)


class GrantState:
    """The grants in memory; `clock` returns Unix seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._by_sub: dict[str, dict[str, Grant]] = {}

    def __repr__(self) -> str:
        """Numbers only."""
        return f"<GrantState of {len(self._by_sub)} people>"

    def has(self, sub: str, route: str) -> bool:
        """Whether a grant lets a person use a route now; called only before a refusal."""
        routes = self._by_sub.get(sub)
        grant = routes.get(route) if routes is not None else None
        return grant is not None and self.is_in_force(grant)

    def of(self, sub: str) -> tuple[Grant, ...]:
        """Return a person's grants in force, by the name of the route."""
        grants = sorted(self._by_sub.get(sub, {}).items())
        return tuple(grant for _, grant in grants if self.is_in_force(grant))

    @property
    def in_force(self) -> tuple[Grant, ...]:
        """All grants in force, the first to end first."""
        grants = (grant for grant in self if self.is_in_force(grant))
        return tuple(sorted(grants, key=lambda grant: (grant.until, grant.sub, grant.route)))

    def __iter__(self) -> Iterator[Grant]:
        for routes in self._by_sub.values():
            yield from routes.values()

    def apply(self, grant: Grant) -> None:
        """Add a grant, which replaces an earlier one for the same person and route."""
        self._by_sub.setdefault(grant.sub, {})[grant.route] = grant

    def clear(self) -> None:
        """Forget all grants."""
        self._by_sub.clear()

    def erase(self, sub: str) -> None:
        """Forget the grants of a person."""
        self._by_sub.pop(sub, None)

    def sweep(self) -> list[Grant]:
        """Drop the grants that have ended, and return them."""
        over = [grant for grant in self if not self.is_in_force(grant)]
        for grant in over:
            routes = self._by_sub[grant.sub]
            del routes[grant.route]
            if not routes:
                del self._by_sub[grant.sub]
        return over

    def is_in_force(self, grant: Grant) -> bool:
        """Whether a grant counts now."""
        return not grant.ended and self._clock() < grant.until


def _shortest(records: Sequence[Record]) -> Sequence[Record]:
    """Return the newest records, at most MOST; the store itself deletes what has expired."""
    return records[-MOST:]


class Grants:
    """Follows the grants in the store, and reports when one begins or ends.

    `clock` returns Unix seconds. Create it before the store is opened.
    """

    kind: Final = Kind(GRANT, 2 * MOST, _shortest)

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self.state: Final = GrantState(clock)
        self._store = store
        self._clock = clock
        self._changed: Callable[[], None] = lambda: None
        self._timer: asyncio.TimerHandle | None = None
        self._is_started = False
        store.follow(self)

    def start(self, changed: Callable[[], None]) -> None:
        """Call `changed` whenever a grant begins or ends; needs a running event loop."""
        self._changed = changed
        self._is_started = True
        self._set_timer()

    def close(self) -> None:
        """Stop reporting."""
        self._is_started = False
        self._set_timer()

    def put(self, grant: Grant) -> Awaitable[None]:
        """Apply a grant or its end at once; the result is done once it is written."""
        self._take((grant,), tuple(self.state.of(grant.sub)))
        return self._store.put((grant.to_record(),))

    def take(self, changes: Changes) -> None:
        """Apply what was read from the store."""
        read = [Grant.from_record(record) for record in changes.records]
        if None in read:
            details = {"records": read.count(None)}
            _log.error("damaged records of grants are ignored", extra={"details": details})
        known = set(self.state)
        if changes.complete:
            self.state.clear()
        self._take([grant for grant in read if grant is not None], known)

    def known(self, *, lost: bool) -> Iterable[Record]:
        """Return the records that the store must hold."""
        del lost
        return [grant.to_record() for grant in self.state]

    def unsaved(self, *, last: bool) -> Iterable[Record]:
        """Return nothing: grants are written at once."""
        del last
        return ()

    def erase(self, sub: str, *, in_force: bool) -> None:
        """Forget a person's grants, also those in force: no lock depends on them."""
        del in_force
        self.state.erase(sub)
        self._hear()

    def _take(self, grants: Collection[Grant], known: Collection[Grant]) -> None:
        for grant in grants:
            self.state.apply(grant)
            if grant not in known:
                self._announce(grant)
        self.state.sweep()
        self._hear()

    def _hear(self) -> None:
        self._changed()
        self._set_timer()

    def _look(self) -> None:
        over = self.state.sweep()
        for grant in over:
            self._announce(grant)
        if over:
            self._changed()
        self._set_timer()

    def _announce(self, grant: Grant) -> None:
        """Write to the audit log that a grant began or ended, unless this process is a command."""
        if not self._is_started:
            return
        write_event(
            "granted" if self.state.is_in_force(grant) else "grant-ended",
            sub=grant.sub,
            route=grant.route,
            until=grant.until,
            by=grant.by,
            why=grant.reason,
        )

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        first = min((grant.until for grant in self.state), default=None)
        if first is not None and self._is_started:
            delay = min(max(first - self._clock(), 0.0), _LOOK_EVERY)
            self._timer = asyncio.get_running_loop().call_later(delay, self._look)
