import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from tailchat_gate import __version__
from tailchat_gate.observe.metrics import BUCKETS, Metrics
from tailchat_gate.reasons import Reason

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(metrics: Metrics) -> Samples:
    """Return what Prometheus reads: (name, sorted labels) to value."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def test_nothing_counted() -> None:
    """A gate without requests shows its version and no counters."""
    assert samples(Metrics()) == {("gate_build_info", (("version", __version__),)): 1.0}


def test_requests() -> None:
    """Requests are counted by route, method and status, their decisions by reason."""
    metrics = Metrics()
    for _ in range(3):
        metrics.request("tool", "GET", 200, Reason.SIGNED_IN, 0.004)
    metrics.request("tool", "POST", 502, Reason.UPSTREAM_DOWN, 3.0)
    metrics.request("", "GET", 404, Reason.NO_ROUTE, 0.0001)
    found = samples(metrics)

    assert (
        found["gate_requests_total", (("code", "200"), ("method", "GET"), ("route", "tool"))] == 3
    )
    assert (
        found["gate_requests_total", (("code", "502"), ("method", "POST"), ("route", "tool"))] == 1
    )
    assert found["gate_requests_total", (("code", "404"), ("method", "GET"), ("route", ""))] == 1
    assert found["gate_decisions_total", (("reason", "signed-in"), ("route", "tool"))] == 3
    assert found["gate_decisions_total", (("reason", "upstream-down"), ("route", "tool"))] == 1
    assert found["gate_decisions_total", (("reason", "no-route"), ("route", ""))] == 1
    assert found["gate_request_seconds_count", (("route", "tool"),)] == 4
    assert found["gate_request_seconds_sum", (("route", "tool"),)] == pytest.approx(3.012)


@pytest.mark.parametrize(
    ("seconds", "bound"),
    [
        (0, "0.001"),
        (0.001, "0.001"),
        (0.0011, "0.0025"),
        (10, "10.0"),
        (10.1, "+Inf"),
        (1e9, "+Inf"),
    ],
)
def test_buckets(seconds: float, bound: str) -> None:
    """A time is counted in each bucket whose upper bound it does not exceed, bounds inclusive."""
    metrics = Metrics()
    metrics.request("t", "GET", 200, Reason.PUBLIC, seconds)
    found = samples(metrics)
    bounds = [*map(str, BUCKETS), "+Inf"]
    counts = [found["gate_request_seconds_bucket", (("le", one), ("route", "t"))] for one in bounds]

    assert counts == [0.0 if index < bounds.index(bound) else 1.0 for index in range(len(bounds))]


def test_logins_and_calls() -> None:
    """Logins are counted by result; calls to Tailchat by kind and outcome, with their time."""
    metrics = Metrics()
    metrics.login("signed-in")
    metrics.login(Reason.LOGIN_REFUSED)
    metrics.login(Reason.LOGIN_REFUSED)
    metrics.tailchat_call("token", 0.2, "ok")
    metrics.tailchat_call("token", 0.3, "tailchat-slow")
    metrics.tailchat_call("me", 0.1, "ok")
    found = samples(metrics)

    assert found["gate_logins_total", (("result", "signed-in"),)] == 1
    assert found["gate_logins_total", (("result", "login-refused"),)] == 2
    assert found["gate_tailchat_calls_total", (("call", "token"), ("outcome", "ok"))] == 1
    assert (
        found["gate_tailchat_calls_total", (("call", "token"), ("outcome", "tailchat-slow"))] == 1
    )
    assert found["gate_tailchat_seconds_count", (("call", "token"),)] == 2
    assert found["gate_tailchat_seconds_sum", (("call", "me"),)] == pytest.approx(0.1)


def test_gauges_are_read_when_asked() -> None:
    """A gauge shows what is true when the metrics are read."""
    value = [1.0]
    metrics = Metrics([("gate_open", "Open connections.", lambda: value[0])])

    assert samples(metrics)["gate_open", ()] == 1
    value[0] = 7
    assert samples(metrics)["gate_open", ()] == 7


def test_rechecks_are_counted_by_outcome() -> None:
    """Each session that Tailchat was asked about again counts under what came of it."""
    metrics = Metrics()
    for outcome in ("ok", "ok", "revoked"):
        metrics.recheck(outcome)

    found = samples(metrics)
    assert found["gate_rechecks_total", (("outcome", "ok"),)] == 2
    assert found["gate_rechecks_total", (("outcome", "revoked"),)] == 1


def test_two_gates_count_apart() -> None:
    """Metrics belong to their gate: nothing is shared through the library's global registry."""
    one, other = Metrics(), Metrics()
    one.login("signed-in")

    assert ("gate_logins_total", (("result", "signed-in"),)) not in samples(other)


@given(methods=st.lists(st.text(max_size=10), max_size=50))
def test_labels_are_bounded(methods: list[str]) -> None:
    """However many methods visitors make up, they are counted under one label."""
    metrics = Metrics()
    for method in methods:
        metrics.request("t", method, 405, Reason.METHOD_REFUSED, 0.0)
    known = {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "other"}
    found = samples(metrics)
    labels = [dict(key[1])["method"] for key in found if key[0] == "gate_requests_total"]

    assert set(labels) <= known
    assert sum(v for k, v in found.items() if k[0] == "gate_requests_total") == len(methods)


def test_exposition_is_documented() -> None:
    """Every family has its type and a sentence of help."""
    metrics = Metrics([("gate_open", "Open connections.", lambda: 1.0)])
    metrics.request("t", "GET", 200, Reason.PUBLIC, 0.1)
    families = {f.name: f for f in text_string_to_metric_families(metrics.render().decode())}

    assert {name: family.type for name, family in families.items()} == {
        "gate_requests": "counter",
        "gate_decisions": "counter",
        "gate_request_seconds": "histogram",
        "gate_logins": "counter",
        "gate_sessions_ended": "counter",
        "gate_live_ended": "counter",
        "gate_state_errors": "counter",
        "gate_rechecks": "counter",
        "gate_tailchat_calls": "counter",
        "gate_tailchat_seconds": "histogram",
        "gate_log_lines": "counter",
        "gate_log_lines_lost": "counter",
        "gate_open": "gauge",
        "gate_build_info": "gauge",
    }
    assert all(family.documentation.endswith(".") for family in families.values())
