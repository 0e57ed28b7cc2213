"""The counts of the last ten minutes, by route: a bounded ring of samples in memory."""

from array import array
from collections import Counter, deque
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from operator import add
from typing import Final, NamedTuple, Protocol

from tailchat_gate.observe.families import BUCKETS

#: Seconds from one sample to the next, and how many are stored: ten minutes.
STEP_SECONDS: Final = 10.0
STEPS: Final = 60


class RouteFigures(NamedTuple):
    """The numbers of requests and of failed ones (5xx) of a route, since the start.

    `times` are the counts in the buckets of a Histogram of their times.
    """

    route: str
    requests: int
    failed: int
    times: Sequence[int]


class Figures(Protocol):
    """The source of figures: the counters of this process, or the sum of several."""

    def of_routes(self) -> Iterable[RouteFigures]:
        """Yield the figures of each route, and of requests without a route under the name ""."""

    def of_sign_ins(self) -> Mapping[str, int]:
        """Return the number of sign-ins with each result."""


class StepCounts(NamedTuple):
    """The requests of one step of time, the failed ones, and the buckets of all their times."""

    requests: int
    failed: int
    times: Sequence[int]


class Course(NamedTuple):
    """The steps of the last ten minutes, the oldest first."""

    steps: Sequence[StepCounts]

    @property
    def requests(self) -> int:
        """The number of requests."""
        return sum(step.requests for step in self.steps)

    @property
    def failed(self) -> int:
        """The number of failed ones."""
        return sum(step.failed for step in self.steps)

    def quantile(self, share: float) -> float | None:
        """Return the seconds within which `share` of the requests ended, None without requests."""
        return quantile(_sum(step.times for step in self.steps), share)

    def quantiles(self, share: float) -> tuple[float | None, ...]:
        """Return the same for each step."""
        return tuple(quantile(step.times, share) for step in self.steps)


_MOST_COUNT: Final = 2**32 - 1
_NOTHING: Final = StepCounts(0, 0, ())


class Courses(NamedTuple):
    """The last ten minutes of each route by its name, and of all requests together."""

    routes: Mapping[str, Course]
    all: Course


class History:
    """Keeps the differences between samples; a step without requests takes eight bytes per route.

    `apart` returns the names of routes that do not count in the sums.
    """

    def __init__(self, apart: Callable[[], Collection[str]] = tuple) -> None:
        self._apart = apart
        self._routes: dict[str, deque[StepCounts]] = {}
        self._all: deque[StepCounts] = deque(maxlen=STEPS)
        self._last: dict[str, RouteFigures] = {}
        self._sign_ins: deque[Counter[str]] = deque(maxlen=STEPS)
        self._last_sign_ins: Counter[str] = Counter()
        #: How many samples were taken; the first one only begins the first step.
        self._samples = 0

    def sample(self, figures: Figures) -> Generator[None, None, None]:
        """End a step of time with the counts of now; the generator yields after each route.

        Run it every STEP_SECONDS.
        """
        latest: dict[str, RouteFigures] = {}
        total, apart = _NOTHING, self._apart()
        for of_route in figures.of_routes():
            now = latest[of_route.route] = of_route._replace(times=array("Q", of_route.times))
            if self._samples:
                step = _difference(self._last.get(of_route.route), now)
                total = total if of_route.route in apart else _both(total, step)
                steps = self._routes.setdefault(of_route.route, deque(maxlen=STEPS))
                steps.extend([_NOTHING] * (min(self._samples, STEPS) - 1 - len(steps)))
                steps.append(step)
            yield
        sign_ins = Counter(figures.of_sign_ins())
        if self._samples:
            self._sign_ins.append(sign_ins - self._last_sign_ins)
            self._all.append(total)
        self._routes = {route: steps for route, steps in self._routes.items() if route in latest}
        self._last, self._last_sign_ins = latest, sign_ins
        self._samples += 1

    def courses(self, figures: Figures) -> Generator[None, None, Courses]:
        """Return the last ten minutes and the current step, yielding after each route."""
        by_route: dict[str, Course] = {}
        total, apart = _NOTHING, self._apart()
        for of_route in figures.of_routes():
            step = _difference(self._last.get(of_route.route), of_route)
            total = total if of_route.route in apart else _both(total, step)
            by_route[of_route.route] = Course(
                (*self._latest(self._routes.get(of_route.route, ())), step)
            )
            yield
        return Courses(by_route, Course((*self._latest(self._all), total)))

    def sign_ins(self, figures: Figures) -> Counter[str]:
        """Return the number of sign-ins of the last ten minutes by result."""
        counts = Counter(figures.of_sign_ins()) - self._last_sign_ins
        for step in tuple(self._sign_ins)[-(STEPS - 1) :]:
            counts += step
        return counts

    @staticmethod
    def _latest(steps: Iterable[StepCounts]) -> tuple[StepCounts, ...]:
        return tuple(steps)[-(STEPS - 1) :]


def quantile(times: Sequence[int], share: float) -> float | None:
    """Return the value below which `share` of a histogram lies, None for an empty one.

    As in Prometheus, values are spread evenly within a bucket, and those beyond the last bound
    count as that bound.
    """
    total = sum(times)
    if not total:
        return None
    wanted, below = share * total, 0
    for position, count in enumerate(times[: len(BUCKETS)]):
        if count and below + count >= wanted:
            low = BUCKETS[position - 1] if position else 0.0
            return low + (BUCKETS[position] - low) * max(wanted - below, 0.0) / count
        below += count
    return BUCKETS[-1]


def _difference(before: RouteFigures | None, now: RouteFigures) -> StepCounts:
    """Return the counts between two samples; all of `now` if a process began to count again."""
    if before is None or now.requests < before.requests:
        return StepCounts(now.requests, now.failed, _packed(now.times))
    if now.requests == before.requests:
        return _NOTHING
    times = _packed(b - a for a, b in zip(before.times, now.times, strict=True))
    return StepCounts(now.requests - before.requests, max(now.failed - before.failed, 0), times)


def _packed(counts: Iterable[int]) -> Sequence[int]:
    """Store the counts of one step in four bytes each."""
    return array("I", (min(max(count, 0), _MOST_COUNT) for count in counts))


def _both(first: StepCounts, second: StepCounts) -> StepCounts:
    """Add two steps of the same time."""
    if not second.requests:
        return first
    times = _sum((first.times, second.times))
    return StepCounts(first.requests + second.requests, first.failed + second.failed, times)


def _sum(histograms: Iterable[Sequence[int]]) -> list[int]:
    total: list[int] = []
    for histogram in histograms:
        if histogram:
            total = list(map(add, total, histogram)) if total else list(histogram)
    return total
