"""What a backend that comes back gets of its route's requests, by a clock of the test's own."""

from collections import Counter
from typing import Final

import pytest
from gatekit import Clock

from tailchat_gate.proxy.upstream.backends import Backend
from tailchat_gate.proxy.upstream.balancer import Balancer, Member
from tailchat_gate.proxy.upstream.health import BackendHealth, HealthRules
from tailchat_gate.serving.process_state import ProcessState

WINDOW: Final = 100.0
RULES: Final = HealthRules(max_fails=1, fail_timeout=10.0, slow_start=WINDOW, check=None)
REQUESTS: Final = 120


@pytest.mark.parametrize("in_turn", [False, True])
def test_a_backend_that_comes_back_begins_with_few_requests(*, in_turn: bool) -> None:
    """Its share grows with the time since it is back, until it has half of two; before, none."""
    clock, pools = Clock(), ProcessState().upstream_pools
    backends = [Backend(f"http://tool-{number}") for number in range(2)]
    members = [
        Member(pools.take(one.url, one), BackendHealth(one, RULES, clock, Counter()))
        for one in backends
    ]
    rules = {"in_turn": in_turn, "sticky": False, "panic_threshold": 0}
    health = members[0].health

    def share() -> int:
        """Return how many of some requests at once the first backend gets."""
        balancer = Balancer(members, clock, **rules)  # type: ignore[arg-type] # one dict for all
        for member in members:
            member.turn = 0.0
        chosen = []
        for _ in range(REQUESTS):
            found = balancer.choose("")
            assert found is not None
            found.pool.enter("", REQUESTS, REQUESTS)
            chosen.append(found)
        for found in chosen:
            found.pool.leave("")
        return chosen.count(members[0])

    shares = [share()]
    health.failed("refused")
    shares.append(share())
    clock.now += RULES.fail_timeout
    health.sweep(clock())
    for step in (0.0, WINDOW / 5, WINDOW * 3 / 10, WINDOW / 2):
        clock.now += step
        shares.append(share())

    even, out, *growing = shares
    assert (even, out, growing[-1]) == (REQUESTS // 2, 0, REQUESTS // 2)
    # Of two, one with a weight w gets w / (1 + w).
    expected = [REQUESTS * weight / (1 + weight) for weight in (0.1, 0.2, 0.5)]
    assert all(abs(got - wanted) <= 3 for got, wanted in zip(growing, expected, strict=False))
    assert 0 < growing[0] < growing[1] < growing[2] < growing[3]
