"""What one of several workers gets of the limits of a gate."""

import pytest
from gatekit import make_settings

from tailchat_gate.serving.listening.tls import tls_connections
from tailchat_gate.serving.workers.worker import share_of

_LIMITS = {
    "client_connections": 10,
    "client_requests": 3,
    "handshakes": 5,
    "tls_connections": 7,
    "logins": "7/minute",
    "requests_per_person": "",
}
_ROUTE = {"name": "tool", "max_connections": 5, "rate": "9/second", "rate_per_client": ""}


@pytest.mark.parametrize(
    ("state", "rates"),
    [({"path": "/somewhere"}, ("4/minute", "5/second")), ({"url": "redis://h/0"}, None)],
)
def test_parts_together_are_the_whole(state: dict[str, str], rates: tuple[str, str] | None) -> None:
    """Each number is divided and rounded up, and no limit stays none.

    Rates are divided where nobody counts them for all; Redis does.
    """
    whole = make_settings("http://127.0.0.1:9", state=state, limits=_LIMITS, route=[_ROUTE])
    part = share_of(whole, 2)

    limits, (route,) = part.limits, part.route
    assert (limits.client_connections, limits.client_requests) == (5, 2)
    assert (limits.handshakes, limits.tls_connections, route.max_connections) == (3, 4, 3)
    assert (limits.logins, route.rate) == (rates or ("7/minute", "9/second"))
    assert limits.requests_per_person == route.rate_per_client == ""
    none = make_settings("http://127.0.0.1:9", limits={"tls_connections": 0})
    assert share_of(none, 8).limits.tls_connections == 0


def test_memory_is_that_of_all() -> None:
    """Two workers with half of the memory each have room for as many connections as one."""
    memory = 4 << 30
    assert 2 * tls_connections(memory // 2, uvloop=True) == tls_connections(memory, uvloop=True)
