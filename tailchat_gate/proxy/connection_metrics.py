"""The metrics of connections: how many are open, and what went wrong with upstreams."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from tailchat_gate.proxy.traffic import Traffic


class ConnectionMetrics:
    """Reads them off the traffic when they are asked for; nothing is counted twice for them."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic: Final = traffic

    def __call__(self) -> Iterator[Metric]:
        """Yield the metric families."""
        traffic, descriptors = self._traffic, self._traffic.descriptors
        yield GaugeMetricFamily(
            "gate_client_connections", "Connections of clients open.", value=descriptors.clients
        )
        upstreams = GaugeMetricFamily(
            "gate_upstream_connections", "Connections to upstreams open.", labels=("upstream",)
        )
        found: Counter[str] = Counter()
        for pool in traffic.pools:
            found[pool.backend.url] += pool.open
        for url, count in found.items():
            upstreams.add_metric((url,), count)
        yield upstreams
        failures = CounterMetricFamily(
            "gate_upstream_failures",
            "Connections and exchanges that an upstream failed.",
            labels=("upstream", "kind"),
        )
        for (url, kind), count in traffic.failures.items():
            failures.add_metric((url, kind), count)
        yield failures
        yield CounterMetricFamily(
            "gate_descriptors_exhausted",
            "How often a connection found all file descriptors in use.",
            value=descriptors.exhausted,
        )
