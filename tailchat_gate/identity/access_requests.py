"""Requests for access: who asked for which tool and why, and what was decided."""

import json
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

from tailchat_gate.config.values.identifier import is_sub
from tailchat_gate.identity.revocation.records import MAX_MESSAGE
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.observe.audit import write_event
from tailchat_gate.observe.log import LOGGER_NAME, FaultLog
from tailchat_gate.state.store import (
    Changes,
    Kind,
    Record,
    ReservationStatus,
    Store,
    is_second,
    read_document,
)
from tailchat_gate.syntax import COMPACT, base64url

REQUEST: Final = "access-request"
#: The kind of the single-use keys of decisions.
DECISION: Final = "access-decision"
OPEN: Final = "open"
APPROVED: Final = "approved"
DECLINED: Final = "declined"
#: Dropped to make room for a later request.
DROPPED: Final = "dropped"
_STATES: Final = frozenset((OPEN, APPROVED, DECLINED, DROPPED))
#: Seconds for which a request waits for a decision, and the decision can be read.
WAIT_SECONDS: Final = 7 * 86_400
ANSWER_SECONDS: Final = 86_400
#: Seconds after which a person who was declined may ask for the same tool again.
REST_SECONDS: Final = 3_600
#: The most open requests of one person, for one route, and altogether.
MOST_OF_ONE: Final = 5
MOST_OF_ROUTE: Final = 50
MOST: Final = 500
#: Seconds during which a request is not dropped. Without them anybody with many accounts could drop
#: others' requests at once.
SAFE_SECONDS: Final = 3_600
#: Longest nickname and discriminator that are stored, in characters.
_MAX_NAME: Final = 64

_log: Final = logging.getLogger(LOGGER_NAME)


class TooManyRequestsError(Exception):
    """A request is refused: the text is "declined" (lately), "too many" or "full"."""


@dataclass(frozen=True, slots=True)
class AccessRequest:
    """The person `sub` asks for `route`; times are Unix seconds.

    `key` is the request's ID in URLs. `by` is the sub of the person who decided, "" until then.
    """

    key: str
    sub: str
    nickname: str
    discriminator: str
    route: str
    reason: str
    at: int
    until: int
    state: str = OPEN
    by: str = ""

    def to_record(self) -> Record:
        """Return the request as a record: there is one for each person and route."""
        body = json.dumps(asdict(self), separators=COMPACT)
        return Record(REQUEST, f"{self.sub} {self.route}", body, self.sub, self.until)

    @classmethod
    def from_record(cls, record: Record) -> "AccessRequest | None":
        """Return the request of a record, None for a damaged one."""
        request = read_document(record, cls)
        return request if request is not None and request.is_valid() else None

    def shown(self) -> dict[str, object]:
        """Return the request's values for pages."""
        return {
            "id": self.key,
            "sub": self.sub,
            "nickname": self.nickname,
            "discriminator": self.discriminator,
            "tool": self.route,
            "reason": self.reason,
            "at": self.at,
        }

    def is_valid(self) -> bool:
        """Whether every field has the form that the gate writes."""
        texts = (self.key, self.nickname, self.discriminator, self.route, self.reason, self.by)
        return (
            all(isinstance(text, str) for text in (*texts, self.sub, self.state))
            and all(map(is_second, (self.at, self.until)))
            and is_sub(self.sub)
            and self.state in _STATES
        )


def _in_the_way(waiting: Sequence[AccessRequest], route: str) -> AccessRequest | None:
    """Return the request that a new one for `route` replaces, None if there is room.

    It is the oldest for this route, or, if all routes together have too many, the oldest for the
    route with the most. `waiting` holds the open requests, the oldest first.
    """
    counts = Counter(request.route for request in waiting)
    if counts[route] < MOST_OF_ROUTE:
        if len(waiting) < MOST:
            return None
        route = counts.most_common(1)[0][0]
    return next(request for request in waiting if request.route == route)


def _latest(records: Sequence[Record]) -> Sequence[Record]:
    return records[-2 * MOST :]


class AccessRequests:
    """The requests for access, in the store and in memory.

    `clock` returns Unix seconds; `random_bytes(n)` returns n bytes, for keys.
    """

    kind: Final = Kind(REQUEST, 4 * MOST, _latest)

    def __init__(
        self, store: Store, clock: Callable[[], float], random_bytes: Callable[[int], bytes]
    ) -> None:
        self._store = store
        self._clock = clock
        self._random_bytes = random_bytes
        self._requests: dict[tuple[str, str], AccessRequest] = {}
        self._faults = FaultLog(clock)
        store.follow(self)

    def __repr__(self) -> str:
        """A number only."""
        return f"<AccessRequests: {len(self._requests)}>"

    @property
    def open(self) -> tuple[AccessRequest, ...]:
        """The open requests, the oldest first."""
        open_requests = [request for request in self._in_time() if request.state == OPEN]
        return tuple(
            sorted(open_requests, key=lambda request: (request.at, request.sub, request.route))
        )

    def of(self, sub: str, route: str) -> AccessRequest | None:
        """Return a person's latest request for a route, None if there is none or it has expired."""
        request = self._requests.get((sub, route))
        return request if request is not None and self._clock() < request.until else None

    def find(self, key: str) -> AccessRequest | None:
        """Return an open request by its key."""
        return next((request for request in self.open if request.key == key), None)

    async def ask(
        self,
        person: SessionRecord,
        route: str,
        reason: str,
        crowded: Callable[[], None] = lambda: None,
    ) -> AccessRequest:
        """Store a request and return it; returns an open one for the same route unchanged.

        If the list is full, calls `crowded` and drops the oldest request.
        Raises TooManyRequestsError.
        """
        now = int(self._clock())
        known = self.of(person.sub, route)
        if known is not None and known.state == OPEN:
            return known
        if known is not None and known.state == DECLINED and now < known.at + REST_SECONDS:
            raise TooManyRequestsError("declined")
        waiting = self.open
        if sum(request.sub == person.sub for request in waiting) >= MOST_OF_ONE:
            raise TooManyRequestsError("too many")
        dropped = _in_the_way(waiting, route)
        if dropped is not None:
            self._tell_full(dropped.route)
            crowded()
            if now < dropped.at + SAFE_SECONDS:
                raise TooManyRequestsError("full")
        made = AccessRequest(
            base64url(self._random_bytes(12)),
            person.sub,
            person.nickname[:_MAX_NAME],
            person.discriminator[:_MAX_NAME],
            route,
            reason[:MAX_MESSAGE],
            now,
            now + WAIT_SECONDS,
        )
        self._tell("access-requested", made)
        if dropped is not None:
            self._tell("access-dropped", dropped)
            # Without waiting in between, so that the store writes both in this order.
            end = self._put(replace(dropped, state=DROPPED, until=now))
            await self._put(made)
            await end
        else:
            await self._put(made)
        return made

    async def claim(self, request: AccessRequest) -> bool:
        """Claim the decision on a request; return False if another process has claimed it.

        While the store cannot be written, every process may decide, as with logins.
        """
        until = self._clock() + WAIT_SECONDS
        reservation = await self._store.reserve(DECISION, request.key, until=until, room=4 * MOST)
        return reservation.status is not ReservationStatus.TAKEN

    def decide(self, request: AccessRequest, by: str, *, approved: bool) -> Awaitable[None]:
        """Store the decision that the person `by` made; it applies at once."""
        now = int(self._clock())
        state = APPROVED if approved else DECLINED
        made = replace(request, state=state, by=by, at=now, until=now + ANSWER_SECONDS)
        self._tell(f"access-{state}", made)
        return self._put(made)

    def take(self, changes: Changes) -> None:
        """Apply what was read from the store."""
        read = [AccessRequest.from_record(record) for record in changes.records]
        if None in read:
            details = {"records": read.count(None)}
            _log.error("damaged records of access requests are ignored", extra={"details": details})
        if changes.complete:
            self._requests.clear()
        for request in read:
            if request is not None:
                self._requests[request.sub, request.route] = request
        self._sweep()

    def known(self, *, lost: bool) -> Iterable[Record]:
        """Return the records that the store must hold."""
        del lost
        return [request.to_record() for request in self._in_time()]

    def unsaved(self, *, last: bool) -> Iterable[Record]:
        """Return nothing: requests are written at once."""
        del last
        return ()

    def erase(self, sub: str, *, in_force: bool) -> None:
        """Forget a person's requests."""
        del in_force
        for key in [key for key in self._requests if key[0] == sub]:
            del self._requests[key]

    def _put(self, request: AccessRequest) -> Awaitable[None]:
        self._sweep()
        self._requests[request.sub, request.route] = request
        return self._store.put((request.to_record(),))

    def _in_time(self) -> Iterator[AccessRequest]:
        now = self._clock()
        return (request for request in self._requests.values() if now < request.until)

    def _sweep(self) -> None:
        now = self._clock()
        for key in [key for key, request in self._requests.items() if request.until <= now]:
            del self._requests[key]

    def _tell_full(self, route: str) -> None:
        self._faults.tell("the list of requests for access is full", {"route": route})

    def _tell(self, event: str, request: AccessRequest) -> None:
        write_event(
            event,
            sub=request.sub,
            nickname=request.nickname,
            route=request.route,
            by=request.by,
            why=request.reason,
        )
