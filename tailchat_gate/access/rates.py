"""Rate limits: whether the next request of a key may pass; pure, the time is an argument.

A bucket holds one number, the time at which it will be full again: the generic cell rate algorithm
of ITU-T I.371. All requests of a period may come at once; after that the bucket regains one request
every `seconds / count`. Charges of several gates can be added up, so gates that share a store share
their buckets (`serving/shared_rates.py`).
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from math import ceil
from typing import Final, NamedTuple

from tailchat_gate.bounded import BoundedCache
from tailchat_gate.config.values.quantities import Rate
from tailchat_gate.request.context import RequestContext

#: The limits by their keys in the configuration, which are also labels of a metric.
LOGINS: Final = "logins"
PERSON: Final = "requests_per_person"
TOKEN: Final = "requests_per_token"  # noqa: S105 - the name of a key
ROUTE: Final = "rate"
CLIENT: Final = "rate_per_client"
NAMES: Final = (LOGINS, PERSON, TOKEN, ROUTE, CLIENT)
#: The most buckets of strangers, and of all others, 250 bytes each. The least recently used are
#: dropped, which makes them full again.
MOST: Final = 65_536
#: More than the rounding error of seconds, which could keep a period's last request from passing.
_PRECISION: Final = 1e-6


class Bucket:
    """The requests of one key; `stranger`: anybody can make up such keys.

    `taken` counts the requests that are not in the shared store yet.
    """

    __slots__ = ("due", "key", "limit", "stranger", "taken")

    def __init__(self, limit: "RateLimit", key: str, *, stranger: bool) -> None:
        self.limit: Final = limit
        self.key: Final = key
        self.stranger: Final = stranger
        #: When the bucket is full again, by the clock of the requests.
        self.due = 0.0
        self.taken = 0


class Buckets:
    """The buckets of a process, which outlive its configurations.

    `refused` counts requests by the limit that refused them.
    """

    def __init__(self) -> None:
        self.strangers: Final[BoundedCache[str, Bucket]] = BoundedCache(MOST)
        self.known: Final[BoundedCache[str, Bucket]] = BoundedCache(MOST)
        self.refused: Final[Counter[str]] = Counter()
        #: Buckets whose `taken` is not 0, if other gates share them; None if there are no others.
        self.changed: list[Bucket] | None = None

    def forget(self, sub: str) -> None:
        """Forget the buckets of a person."""
        tail = f":{sub}"
        # A token may have the same name as a sub.
        buckets = [
            bucket
            for bucket in self.known.values()
            if bucket.key.endswith(tail) and bucket.limit.name != TOKEN
        ]
        for bucket in buckets:
            self.known.drop(bucket.key)
            bucket.taken = 0
        if self.changed:
            self.changed = [bucket for bucket in self.changed if bucket.taken]


class RateLimit:
    """One limit of one configuration, over all keys."""

    __slots__ = ("_ahead", "_buckets", "_prefix", "interval", "name")

    def __init__(self, buckets: Buckets, name: str, rate: Rate, *, of: str = "") -> None:
        """`of` is the name of the route, "" for a limit on all."""
        self.name: Final = name
        self._buckets = buckets
        #: The seconds after which the bucket regains a request.
        self.interval: Final = rate.seconds / rate.most
        #: A request may pass while `due` is at most this many seconds in the future.
        self._ahead: Final = rate.seconds - self.interval + _PRECISION
        # With the rate, so that a changed rate gets new buckets.
        self._prefix: Final = f"{name}:{of}:{rate.most}/{rate.seconds:g}:"

    def bucket(self, key: str, *, stranger: bool = False) -> Bucket:
        """Return the bucket of a key; `stranger`: anybody can make up such keys."""
        named = self._prefix + key
        cache = self._buckets.strangers if stranger else self._buckets.known
        bucket = cache.get(named)
        if bucket is None:
            bucket = Bucket(self, named, stranger=stranger)
            cache.keep(named, bucket)
        return bucket

    def wait(self, bucket: Bucket, now: float) -> float:
        """Return the seconds that the next request has to wait, 0 or less for none."""
        return bucket.due - now - self._ahead

    def take(self, bucket: Bucket, now: float) -> None:
        """Count a request that passes."""
        bucket.due = max(bucket.due, now) + self.interval
        changed = self._buckets.changed
        if changed is not None:
            if not bucket.taken:
                if len(changed) >= MOST:
                    # The store is slow and there are many strangers: only this gate counts it.
                    return
                changed.append(bucket)
            bucket.taken += 1

    def refuse(self, wait: float) -> int:
        """Count a refused request; return the value of Retry-After."""
        self._buckets.refused[self.name] += 1
        return max(ceil(wait), 1)

    def enter(self, key: str, now: float, *, stranger: bool = False) -> int:
        """Count a request; return 0 if it may pass, else the value of Retry-After."""
        bucket = self.bucket(key, stranger=stranger)
        wait = self.wait(bucket, now)
        if wait > 0:
            return self.refuse(wait)
        self.take(bucket, now)
        return 0


class RouteRates(NamedTuple):
    """The limits of one route."""

    all: RateLimit | None = None
    client: RateLimit | None = None


_NO_RATES: Final = RouteRates()


class RequestRates:
    """The limits of requests to tools, for one configuration."""

    def __init__(
        self,
        person: RateLimit | None,
        token: RateLimit | None,
        routes: Mapping[str, RouteRates],
    ) -> None:
        self._person = person
        self._token = token
        self._routes = routes

    def enter(self, context: RequestContext) -> int:
        """Count a request for all of its limits, if all let it pass.

        Returns 0 if it may pass, else the value of Retry-After.
        """
        now = context.started
        entered, longest, refused_by = [], 0.0, None
        for bucket in self._buckets(context):
            limit = bucket.limit
            wait = limit.wait(bucket, now)
            if wait > longest:
                # Of several limits, the one with the longest wait counts.
                longest, refused_by = wait, limit
            entered.append(bucket)
        if refused_by is not None:
            context.limit = refused_by.name
            return refused_by.refuse(longest)
        for bucket in entered:
            bucket.limit.take(bucket, now)
        return 0

    def _buckets(self, context: RequestContext) -> Iterator[Bucket]:
        sub, token = context.sub, context.token
        if token:
            if self._token is not None:
                yield self._token.bucket(token)
        elif sub and self._person is not None:
            yield self._person.bucket(sub)
        of_all, of_client = self._routes.get(context.route, _NO_RATES)
        if of_client is not None:
            # Subs, names of tokens and addresses must not collide.
            who = f"token {token}" if token else sub
            network = context.client_address.network
            yield of_client.bucket(who or network, stranger=not who)
        if of_all is not None:
            yield of_all.bucket("")
