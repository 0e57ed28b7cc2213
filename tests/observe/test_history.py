"""The last ten minutes: what is kept of the counters, and what is read from it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pytest

from tailchat_gate.observe.families import BUCKETS, Histogram, Plain
from tailchat_gate.observe.history import STEPS, Courses, History, RouteFigures, quantile
from tailchat_gate.observe.metrics import DECISIONS, REQUESTS, SECONDS
from tailchat_gate.observe.request_counts import RouteCounts
from tailchat_gate.observe.summed_figures import SummedFigures
from tailchat_gate.people.slices import at_once
from tailchat_gate.reasons import Reason


@dataclass
class Counted:
    """Counters that a test moves."""

    routes: dict[str, tuple[int, int, Histogram]] = field(default_factory=dict)
    sign_ins: dict[str, int] = field(default_factory=dict)

    def add(self, route: str, *seconds: float, failed: int = 0) -> None:
        """Count requests of a route by their times."""
        requests, before, histogram = self.routes.get(route, (0, 0, Histogram()))
        for one in seconds:
            histogram.observe(one)
        self.routes[route] = requests + len(seconds), before + failed, histogram

    def of_routes(self) -> Iterator[RouteFigures]:
        """Yield what was counted."""
        for name, (requests, failed, histogram) in self.routes.items():
            yield RouteFigures(name, requests, failed, histogram.counts)

    def of_sign_ins(self) -> Mapping[str, int]:
        """Return how sign-ins ended."""
        return self.sign_ins


def _courses(history: History, counted: Counted) -> Courses:
    return at_once(history.courses(counted))


def test_ten_minutes_are_kept_and_no_more() -> None:
    """What was counted before the first sample and longer ago than ten minutes is left out."""
    counted, history = Counted(), History()
    counted.add("wiki", 0.004, 0.004, failed=1)
    at_once(history.sample(counted))
    for _ in range(3 * STEPS):
        counted.add("wiki", 0.004, failed=1)
        at_once(history.sample(counted))
    counted.add("wiki", 0.2, 0.2)

    course = _courses(history, counted).routes["wiki"]
    assert len(course.steps) == STEPS
    assert (course.requests, course.failed) == (STEPS - 1 + 2, STEPS - 1)
    assert course.steps[-1][:2] == (2, 0)
    assert course.quantile(0.5) == pytest.approx(0.0038, abs=0.001)
    assert course.quantile(0.99) == pytest.approx(0.2, abs=0.06)
    assert course.quantiles(0.5)[-1] == pytest.approx(0.175, abs=0.08)


def test_a_route_that_comes_later_ends_at_the_same_time() -> None:
    """Its steps are as many as those of others; one that is gone leaves nothing behind."""
    counted, history = Counted(), History()
    counted.add("wiki", 1.0)
    for _ in range(5):
        at_once(history.sample(counted))
    counted.add("mail", 1.0)
    at_once(history.sample(counted))
    found = _courses(history, counted)
    assert {name: len(one.steps) for name, one in found.routes.items()} == {"wiki": 6, "mail": 6}
    assert [step.requests for step in found.all.steps] == [0, 0, 0, 0, 1, 0]

    del counted.routes["mail"]
    at_once(history.sample(counted))
    assert set(_courses(history, counted).routes) == {"wiki"}


def test_a_route_apart_does_not_count_with_the_others() -> None:
    """It has steps of its own."""
    counted, history = Counted(), History(lambda: {"gate"})
    for name in ("wiki", "gate"):
        counted.add(name, 1.0)
    at_once(history.sample(counted))
    for name in ("wiki", "gate"):
        counted.add(name, 1.0)
    at_once(history.sample(counted))
    counted.add("gate", 1.0)
    found = _courses(history, counted)
    assert (found.all.requests, found.routes["gate"].requests) == (1, 2)


def test_counters_that_begin_again_count_from_zero() -> None:
    """A route that was removed and came back, or a worker that was replaced, is no minus."""
    counted, history = Counted(), History()
    counted.add("wiki", *[1.0] * 9)
    at_once(history.sample(counted))
    counted.routes.clear()
    counted.add("wiki", 1.0, 1.0)
    at_once(history.sample(counted))
    assert _courses(history, counted).routes["wiki"].requests == 2


def test_sign_ins_of_the_last_minutes_are_told_from_all() -> None:
    """Those before the first sample are not recent."""
    counted, history = Counted(sign_ins={"signed-in": 7}), History()
    at_once(history.sample(counted))
    counted.sign_ins = {"signed-in": 8, "login-refused": 1}
    assert history.sign_ins(counted) == {"signed-in": 1, "login-refused": 1}
    for _ in range(STEPS + 1):
        at_once(history.sample(counted))
    assert history.sign_ins(counted) == {}


def test_a_quantile_is_that_of_prometheus() -> None:
    """Even within a bucket, the last bound for what is beyond it, and nothing without requests."""
    histogram = Histogram()
    assert quantile(histogram.counts, 0.5) is None
    for _ in range(4):
        histogram.observe(0.3)
    assert quantile(histogram.counts, 0.5) == pytest.approx(0.375)
    histogram.observe(1e9)
    assert quantile(histogram.counts, 0.99) == BUCKETS[-1]


def test_a_maintenance_is_no_failure() -> None:
    """As in the alerts: of one process, and of several."""
    counts = RouteCounts()
    counts.add("GET", 503, Reason.MAINTENANCE)
    counts.add("GET", 502, Reason.UPSTREAM_DOWN)
    assert counts.totals() == (2, 1)
    one: Plain = {
        REQUESTS.name: [(("wiki", "GET", "503"), 2), (("wiki", "GET", "502"), 1)],
        DECISIONS.name: [(("wiki", "maintenance"), 2), (("wiki", "upstream-down"), 1)],
        SECONDS.name: [(("wiki",), [3.0] * (len(BUCKETS) + 1) + [0.1])],
    }
    (summed,) = SummedFigures(lambda: [one, one]).of_routes()
    assert (summed.requests, summed.failed) == (6, 2)
