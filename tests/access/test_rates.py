"""Rate limits as arithmetic: what passes, when the next request may come, and what is kept."""

from hypothesis import given
from hypothesis import strategies as st

from tailchat_gate.access import rates
from tailchat_gate.access.rates import Buckets, RateLimit, RequestRates, RouteRates
from tailchat_gate.config.values.quantities import Rate
from tailchat_gate.request.client import ClientAddress
from tailchat_gate.request.context import RequestContext

ANN, BEN = "660000000000000000000001", "660000000000000000000002"


def _limit(most: int = 3) -> RateLimit:
    return RateLimit(Buckets(), "requests_per_person", Rate(most, 60.0))


def _request(
    sub: str = "", *, token: str = "", route: str = "wiki", client: str = "192.0.2.1", at: float = 0
) -> RequestContext:
    address = ClientAddress(client, "http", client)
    return RequestContext("id", at, client_address=address, route=route, sub=sub, token=token)


def test_a_whole_period_comes_at_once_and_then_one_after_the_other() -> None:
    """Three a minute: three now, the fourth after 20 seconds, which Retry-After says."""
    limit = _limit(3)
    assert [limit.enter("a", 100.0) for _ in range(5)] == [0, 0, 0, 20, 20]
    assert limit.enter("a", 119.5) == 1
    assert [limit.enter("a", 120.0), limit.enter("a", 120.0)] == [0, 20]
    assert limit.enter("b", 120.0) == 0
    assert [limit.enter("a", 1000.0) for _ in range(4)] == [0, 0, 0, 20]


@given(
    st.integers(1, 20),
    st.lists(st.floats(0, 30), min_size=1, max_size=60),
    st.floats(0, 1e9),
)
def test_no_span_of_time_has_more_than_a_period_and_what_fills_up(
    most: int, pauses: list[float], start: float
) -> None:
    """In any span pass at most the whole period's requests and one for each interval in it."""
    limit, now = _limit(most), start
    passed = [start] * most
    # All of them at once, whatever the clock says.
    assert [limit.enter("a", start) for _ in passed] == [0] * most
    for pause in pauses:
        now += pause
        wait = limit.enter("a", now)
        if not wait:
            passed.append(now)
        else:
            assert wait >= 1
            # Who waits so long as it says may pass.
            assert limit.wait(limit.bucket("a"), now + wait) <= 0
    for first, begin in enumerate(passed):
        for last, end in enumerate(passed[first:], first):
            assert last - first + 1 <= most + (end - begin) * most / 60.0 + 1e-3


def test_keys_of_strangers_take_bounded_memory() -> None:
    """However many networks come, so many are kept, and one that goes on coming is among them."""
    buckets = Buckets()
    limit = RateLimit(buckets, "rate_per_client", Rate(3, 60.0))
    person = RateLimit(buckets, "requests_per_person", Rate(1, 60.0))
    person.enter(ANN, 0.0)
    limit.enter(BEN, 0.0)
    kept = limit.bucket("busy", stranger=True)
    of_ben = limit.bucket(BEN)
    for number in range(3 * rates.MOST):
        limit.enter(f"n{number}", 0.0, stranger=True)
        if number % 1000 == 0:
            limit.enter("busy", 0.0, stranger=True)

    assert len(buckets.strangers) <= rates.MOST
    # People are not pushed out by them.
    assert person.enter(ANN, 0.0) == 60
    assert limit.bucket(BEN) is of_ben
    assert limit.bucket("busy", stranger=True) is kept
    assert limit.enter("busy", 0.0, stranger=True) == 20


def test_what_waits_for_a_slow_store_is_bounded() -> None:
    """More networks than a slow store takes are counted by this gate alone."""
    buckets = Buckets()
    buckets.changed = []
    limit = RateLimit(buckets, "logins", Rate(1, 60.0))
    for number in range(rates.MOST + 10):
        assert limit.enter(f"n{number}", 0.0, stranger=True) == 0

    assert len(buckets.changed) == rates.MOST
    assert limit.enter(f"n{rates.MOST + 9}", 0.0, stranger=True) == 60


def test_the_buckets_of_a_person_are_forgotten() -> None:
    """Those of others stay, and those of a token that is named like the person."""
    buckets = Buckets()
    buckets.changed = []
    one = Rate(1, 60.0)
    person, token = (RateLimit(buckets, name, one) for name in (rates.PERSON, rates.TOKEN))
    client = RateLimit(buckets, rates.CLIENT, one, of="wiki")
    found = RequestRates(person, token, {"wiki": RouteRates(None, client)})
    requests = [_request(ANN), _request(BEN), _request(token=ANN)]
    assert [found.enter(request) for request in requests] == [0, 0, 0]
    buckets.forget(ANN)

    assert not any(bucket.key.endswith(ANN) for bucket in buckets.changed if bucket.limit is person)
    assert [found.enter(request) for request in requests] == [0, 60, 60]


def test_a_refused_request_counts_nowhere() -> None:
    """What one limit refuses takes nothing from the others, whichever is asked first."""
    buckets = Buckets()
    person = RateLimit(buckets, "requests_per_person", Rate(5, 60.0))
    of_all = RateLimit(buckets, "rate", Rate(2, 60.0), of="wiki")
    found = RequestRates(person, None, {"wiki": RouteRates(of_all, None)})

    assert [found.enter(_request(ANN)) for _ in range(4)] == [0, 0, 30, 30]
    # Three are left for another tool.
    assert [found.enter(_request(ANN, route="docs")) for _ in range(4)] == [0, 0, 0, 12]
    assert buckets.refused == {"rate": 2, "requests_per_person": 1}


def test_a_request_waits_for_the_slowest_of_its_limits() -> None:
    """Whichever of several limits is asked first, who waits as long as it says may pass."""
    buckets = Buckets()
    person = RateLimit(buckets, "requests_per_person", Rate(1, 60.0))
    of_all = RateLimit(buckets, "rate", Rate(1, 3600.0), of="wiki")
    found = RequestRates(person, None, {"wiki": RouteRates(of_all, None)})
    assert found.enter(_request(ANN)) == 0
    refused = _request(ANN)

    assert found.enter(refused) == 3600
    assert refused.limit == "rate"
    assert found.enter(_request(ANN, at=3600)) == 0


def test_a_client_is_a_person_a_machine_or_a_network() -> None:
    """Each has a bucket of its own at a tool, wherever it comes from; other routes have none."""
    limit = RateLimit(Buckets(), "rate_per_client", Rate(1, 60.0), of="wiki")
    found = RequestRates(None, None, {"wiki": RouteRates(None, limit)})

    assert found.enter(_request(ANN, client="192.0.2.1")) == 0
    assert found.enter(_request(ANN, client="192.0.2.9")) == 60
    assert found.enter(_request(BEN, client="192.0.2.1")) == 0
    assert found.enter(_request(client="192.0.2.1")) == 0
    assert found.enter(_request(client="192.0.2.1")) == 60
    assert found.enter(_request(client="192.0.2.2")) == 0
    assert found.enter(_request(client="2001:db8::1")) == 0
    assert found.enter(_request(client="2001:db8::ffff")) == 60
    assert found.enter(_request(client="2001:db8:0:1::1")) == 0
    assert found.enter(_request(token="ci")) == 0
    assert found.enter(_request(token="ci", client="192.0.2.7")) == 60
    # A token may be named like a sub.
    assert found.enter(_request(token=ANN)) == 0
    assert [found.enter(_request(ANN, route="docs")) for _ in range(2)] == [0, 0]


def test_another_rate_has_buckets_of_its_own() -> None:
    """After a change of the rate nobody waits for what the old one said; the same one goes on."""
    buckets = Buckets()
    for _ in range(2):
        slow = RateLimit(buckets, "requests_per_person", Rate(1, 86400.0))
        slow.enter("a", 0.0)
    assert slow.enter("a", 0.0) == 86400
    quick = RateLimit(buckets, "requests_per_person", Rate(1, 1.0))
    assert quick.enter("a", 0.0) == 0
