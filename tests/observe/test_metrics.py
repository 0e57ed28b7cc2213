import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from tailchat_gate import __version__
from tailchat_gate.observe.families import (
    BUCKETS,
    Collected,
    Family,
    Merge,
    expose,
    gauge,
    merged,
    text,
    to_plain,
)
from tailchat_gate.observe.metrics import FAULTS, Metrics
from tailchat_gate.reasons import Reason
from tailchat_gate.request.context import RequestContext
from tailchat_gate.request.fields import FieldSection
from tailchat_gate.request.head import RequestHead
from tailchat_gate.request.target import Target

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(metrics: Metrics) -> Samples:
    """Return what Prometheus reads: (name, sorted labels) to value."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def count(
    metrics: Metrics, route: str, method: str, status: int, reason: Reason, seconds: float
) -> None:
    """Count a request."""
    head = RequestHead(method, False, Target(b"/", "/", ""), FieldSection([]))
    context = RequestContext("0123456789abcdef01234567", 0.0, head)
    context.route, context.status, context.reason = route, status, reason
    context.seconds = seconds
    metrics.request(context, seconds)


def test_nothing_counted() -> None:
    """A gate without requests shows its version, and 0 in every counter and histogram."""
    found = samples(Metrics())

    assert found.pop(("gate_build_info", (("version", __version__),))) == 1
    assert set(found.values()) == {0}


def test_the_first_fault_is_an_increase() -> None:
    """Every fault of a known route has a count of 0 before it happens, as Prometheus needs it."""
    metrics = Metrics()
    metrics.know_routes(["tool"])
    before = samples(metrics)
    for reason in FAULTS:
        count(metrics, "tool", "GET", 502, reason, 0.1)
        key = ("gate_decisions_total", (("reason", reason.value), ("route", "tool")))
        assert (before[key], samples(metrics)[key]) == (0, 1)


def test_only_known_routes_are_counted_on() -> None:
    """A route that is in no configuration any more is forgotten; requests without one stay."""
    metrics = Metrics()
    metrics.know_routes(["old", "kept"])
    count(metrics, "old", "GET", 200, Reason.PUBLIC, 0.1)
    count(metrics, "", "GET", 404, Reason.NO_ROUTE, 0.1)
    metrics.know_routes(["kept", "new"])
    routes = {dict(labels).get("route") for _, labels in samples(metrics)}

    assert routes == {None, "", "kept", "new"}


def test_a_websocket_is_counted_while_it_is_open() -> None:
    """Its request counts when it opens; its lifetime, at its end, is in no time of requests."""
    metrics = Metrics()
    head = RequestHead("GET", False, Target(b"/", "/", ""), FieldSection([]))
    context = RequestContext("id", 0.0, head)
    context.route, context.status, context.reason = "tool", 101, Reason.SIGNED_IN
    for _ in range(100):
        count(metrics, "tool", "GET", 200, Reason.SIGNED_IN, 0.001)
    metrics.route("tool").tunnel_began(context)
    route = (("route", "tool"),)
    during = samples(metrics)
    metrics.route("tool").tunnel_ended(3.0, 70)
    after = samples(metrics)

    assert during["gate_websockets_total", route] == 1
    switched = (("code", "101"), ("method", "GET"), *route)
    assert during["gate_requests_total", switched] == after["gate_requests_total", switched] == 1
    assert after["gate_request_seconds_sum", route] == pytest.approx(0.1)
    assert after["gate_websocket_seconds_sum", route] == 3
    assert after["gate_websocket_seconds_bucket", (("le", "10.0"), *route)] == 1
    assert after["gate_websocket_sent_bytes_total", route] == 70


@pytest.mark.parametrize(
    ("stream", "query", "fields", "seconds", "histogram"),
    [
        (True, "", [], 0.2, "stream"),
        (True, "", [], 3.0, "stream"),
        (False, "?EIO=4&transport=polling", [], 25.0, "stream"),
        (False, "?feed=longpoll", [], 25.0, "stream"),
        (False, "?watch=1", [], 25.0, "stream"),
        (False, "?index=7&wait=30s", [], 25.0, "stream"),
        (False, "", [(b"Prefer", b"respond-async, wait=10")], 9.0, "stream"),
        (False, "?transport=polling", [], 0.2, "request"),
        (False, "?transport=websocket&timeout=30", [], 25.0, "request"),
        (False, "", [], 25.0, "request"),
    ],
)
def test_what_lasts_as_long_as_somebody_waits_is_no_slow_request(
    stream: bool,
    query: str,
    fields: list[tuple[bytes, bytes]],
    seconds: float,
    histogram: str,
) -> None:
    """Event streams and long polls have a histogram of their own; all are counted as requests."""
    metrics = Metrics()
    head = RequestHead("GET", False, Target(b"/", "/", query), FieldSection(fields))
    context = RequestContext("0123456789abcdef01234567", 0.0, head, stream=stream)
    context.route, context.status, context.reason = "tool", 200, Reason.SIGNED_IN
    context.seconds = seconds
    metrics.request(context, seconds)
    found, route = samples(metrics), (("route", "tool"),)

    counts = {one: found[f"gate_{one}_seconds_count", route] for one in ("request", "stream")}
    assert counts == {"request": 0, "stream": 0, histogram: 1}
    (figures,) = [one for one in metrics.of_routes() if one.route == "tool"]
    assert (figures.requests, sum(figures.times)) == (1, counts["request"])


def test_requests() -> None:
    """Requests are counted by route, method and status, their decisions by reason."""
    metrics = Metrics()
    for _ in range(3):
        count(metrics, "tool", "GET", 200, Reason.SIGNED_IN, 0.004)
    count(metrics, "tool", "POST", 502, Reason.UPSTREAM_DOWN, 3.0)
    count(metrics, "", "GET", 404, Reason.NO_ROUTE, 0.0001)
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
        (0, "0.0005"),
        (0.001, "0.001"),
        (0.0011, "0.0025"),
        (600, "900.0"),
        (3600, "3600.0"),
        (3600.1, "+Inf"),
        (1e9, "+Inf"),
    ],
)
def test_buckets(seconds: float, bound: str) -> None:
    """A time is counted in each bucket whose upper bound it does not exceed, bounds inclusive."""
    metrics = Metrics()
    count(metrics, "t", "GET", 200, Reason.PUBLIC, seconds)
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
    family = gauge("gate_open", "Open connections.")
    metrics = Metrics(sources=[lambda: [(family, [((), value[0])])]])

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

    assert samples(other)["gate_logins_total", (("result", "signed-in"),)] == 0


@given(methods=st.lists(st.text(max_size=10), max_size=50))
def test_labels_are_bounded(methods: list[str]) -> None:
    """However many methods visitors make up, they are counted under one label."""
    metrics = Metrics()
    for method in methods:
        count(metrics, "t", method, 405, Reason.METHOD_REFUSED, 0.0)
    known = {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "other"}
    found = samples(metrics)
    labels = [dict(key[1])["method"] for key in found if key[0] == "gate_requests_total"]

    assert set(labels) <= known
    assert sum(v for k, v in found.items() if k[0] == "gate_requests_total") == len(methods)


def test_exposition_is_documented() -> None:
    """Every family has a type, a sentence of help, and its unit in its name."""
    metrics = Metrics()
    count(metrics, "t", "GET", 200, Reason.PUBLIC, 0.1)
    families = {f.name: f for f in text_string_to_metric_families(metrics.render().decode())}

    assert len(families) == 21
    assert all(name.startswith("gate_") for name in families)
    assert all(family.documentation.endswith(".") for family in families.values())
    histograms = [name for name, found in families.items() if found.type == "histogram"]
    assert all(name.endswith("_seconds") for name in histograms)
    assert {found.type for found in families.values()} == {"counter", "histogram", "gauge"}


def test_openmetrics_names_a_request_for_each_time() -> None:
    """In OpenMetrics, the bucket of a request has its id, its time and when it ended."""
    metrics = Metrics()
    metrics.know_routes(["tool"])
    count(metrics, "tool", "GET", 200, Reason.PUBLIC, 0.004)
    document = b"".join(text(metrics.collect(), openmetrics=True)).decode() + "# EOF\n"
    found = {
        sample.labels["le"]: sample.exemplar
        for family in openmetrics(document)  # type: ignore[no-untyped-call]
        if family.name == "gate_request_seconds"
        for sample in family.samples
        if sample.labels["route"] == "tool" and "le" in sample.labels
    }

    named = {bound: exemplar for bound, exemplar in found.items() if exemplar is not None}
    assert list(named) == ["0.005"]
    assert named["0.005"].labels == {"request_id": "0123456789abcdef01234567"}
    assert named["0.005"].value == pytest.approx(0.004)
    assert float(named["0.005"].timestamp) > 1e9


def test_labels_are_escaped() -> None:
    """Quotes, backslashes and line breaks in a value are read back as they were."""
    family = Family("gate_odd", "Odd.", ("name",))
    value = 'a"b\\c\nd'
    document = b"".join(text([(family, [((value,), 1.5)])])).decode()
    (found,) = text_string_to_metric_families(document)

    assert [(one.labels, one.value) for one in found.samples] == [({"name": value}, 1.5)]


async def test_a_thousand_routes_do_not_hold_the_loop() -> None:
    """While their metrics are written, other work of the event loop gets its turns."""
    metrics = Metrics()
    metrics.know_routes([f"tool-{number}" for number in range(1000)])
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    try:
        parts = await expose(metrics.collect())
    finally:
        beside.cancel()

    # One part is the lines of one label value: nothing longer is written in one go.
    assert max(map(len, parts)) < 4096
    assert len(parts) > 30_000
    assert turns > 20


def test_the_values_of_processes_add_up() -> None:
    """Values that processes send as JSON become those of one, gauges by their rule."""
    open_, oldest = gauge("gate_open", "Open."), gauge("gate_old", "Old.", merge=Merge.MIN)
    plains = []
    for number in (1, 2):
        mine: list[Collected] = [(open_, [((), number)]), (oldest, [((), number)])]
        metrics = Metrics(sources=[mine.__iter__])
        metrics.know_routes(["a"])
        for _ in range(number):
            count(metrics, "a", "GET", 200, Reason.PUBLIC, 0.3)
        plains.append(json.loads(json.dumps(to_plain(metrics.collect()))))
    families = [family for family, _ in metrics.collect()]
    document = b"".join(text(merged(families, plains))).decode()
    found = {
        (sample.name, *(v for _, v in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(document)
        for sample in family.samples
    }

    assert found["gate_requests_total", "200", "GET", "a"] == 3
    assert found["gate_request_seconds_bucket", "0.5", "a"] == 3
    assert found["gate_request_seconds_bucket", "0.25", "a"] == 0
    assert found["gate_request_seconds_sum", "a"] == pytest.approx(0.9)
    assert (found["gate_open",], found["gate_old",]) == (3, 1)


def test_what_is_counted_during_a_scrape_has_one_sample() -> None:
    """A count that begins between two samples of its family does not give it a second one."""
    metrics = Metrics()
    calls = next(
        found for family, found in metrics.collect() if family.name == "gate_tailchat_calls"
    )
    rest = iter(calls)
    first, _ = next(rest)
    metrics.tailchat_call(first[0], 0.1, first[1])
    labels = [first, *(found for found, _ in rest)]

    assert len(labels) == len(set(labels))
