"""The dashboard and the alerts name metrics and labels that the gate has, and a runbook."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped] # its types are a package of their own
from parts import missing
from prometheus_client.parser import text_string_to_metric_families
from tables import check_each

from tailchat_gate.observe.families import MetricKind
from tailchat_gate.observe.metrics import ProcessMetrics
from tailchat_gate.serving.process_state import ProcessState
from tailchat_gate.serving.workers.reports import WORKER_RESTARTS, WORKER_UP

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus/tailchat-gate.rules.yml"
SCRAPE = ROOT / "deploy/prometheus/prometheus.yml"
DASHBOARD = ROOT / "deploy/grafana/tailchat-gate.json"
RUNBOOK = ROOT / "docs/runbook.md"
#: Labels that Prometheus adds by itself.
ADDED = {"job", "instance", "le"}


def known() -> dict[str, set[str]]:
    """Return every name in the exposition with its labels."""
    found = {"up": set[str]()}
    families = [family for family, _ in ProcessState().metrics.collect()]
    for family in (*families, WORKER_UP, WORKER_RESTARTS):
        names = {
            MetricKind.COUNTER: [f"{family.name}_total"],
            MetricKind.GAUGE: [family.name],
            MetricKind.HISTOGRAM: [f"{family.name}_{end}" for end in ("bucket", "count", "sum")],
        }[family.kind]
        found |= {name: set(family.labels) for name in names}
    for about in text_string_to_metric_families(ProcessMetrics().render()[0].decode()):
        found |= {sample.name: set(sample.labels) for sample in about.samples}
    return found


def alerts() -> list[dict[str, Any]]:
    """Return the rules."""
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return list(group["rules"])


def queries() -> Iterator[str]:
    """Yield every expression of the alerts and of the dashboard."""
    yield from (rule["expr"] for rule in alerts())
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))


def used(query: str) -> Iterator[tuple[str, str]]:
    """Yield each metric with its matchers, "" for none."""
    pattern = r"\b((?:gate|process|python)_\w+|up)\b(?:\{([^}]*)\})?"
    without_labels = re.sub(r"\bby \([^)]*\)", "", query)
    yield from re.findall(pattern, without_labels)


def test_a_query_is_about_what_the_gate_counts() -> None:
    """Each metric exists under this name, with each label that is matched or grouped by."""
    check_each(sorted(set(queries())), _is_about_what_the_gate_counts)


def _is_about_what_the_gate_counts(query: str) -> None:
    names = known()
    labels = set[str]()
    for name, matchers in used(query):
        assert name in names, name
        labels |= names[name]
        matched = set(re.findall(r'(\w+)(?:=~|!~|!=|=)"', matchers))
        assert matched <= names[name] | ADDED, name
    assert list(used(query)), "no metric of the gate"
    grouped = {
        label for group in re.findall(r"by \(([^)]*)\)", query) for label in group.split(", ")
    }
    assert grouped <= labels | ADDED


def test_every_alert_has_its_chapter() -> None:
    """The runbook has one chapter for each alert, which its link names, and no other."""
    chapters = re.findall(r"^## (\w+)$", RUNBOOK.read_text(), re.MULTILINE)

    assert chapters == [rule["alert"] for rule in alerts()]
    for rule in alerts():
        link = rule["annotations"]["runbook_url"]
        assert link == f"docs/runbook.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in {"critical", "warning"}


def test_backends_are_watched() -> None:
    """An alert and a panel show each backend's state, ejections, connect and first-byte times."""
    watched = {
        *("gate_backend_up", "gate_backend_ejections_total"),
        *("gate_upstream_connect_seconds_bucket", "gate_upstream_first_byte_seconds_bucket"),
    }
    panels = json.loads(DASHBOARD.read_text())["panels"]
    drawn = [target["expr"] for panel in panels for target in panel.get("targets", ())]

    for found in ([rule["expr"] for rule in alerts()], drawn):
        assert watched <= {name for query in found for name, _ in used(query)}


def test_what_is_told_of_an_alert_names_its_labels() -> None:
    """A text uses only labels that the query keeps."""
    names = known()
    for rule in alerts():
        told = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
        grouped = re.findall(r"by \(([^)]*)\)", rule["expr"])
        kept = {label for group in grouped for label in group.split(", ")} or {
            label for name, _ in used(rule["expr"]) for label in names[name]
        }
        assert told <= kept, rule["alert"]


def test_the_dashboard_is_whole() -> None:
    """Its panels have ids of their own, a unit and a place, and none covers another."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]

    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23
    assert [panel["id"] for panel in panels] == list(range(1, len(panels) + 1))
    drawn = [panel for panel in panels if panel["type"] != "row"]
    assert all(panel["fieldConfig"]["defaults"]["unit"] for panel in drawn)


def test_prometheus_takes_the_rules_and_the_metrics() -> None:
    """Its own promtool checks the rules, the scrape settings and the exposition."""
    promtool = shutil.which("promtool")
    if promtool is None:
        missing("promtool")
    text = ProcessState().metrics.render() + ProcessMetrics().render()[0]
    for command, given in (
        (["check", "rules", "--lint-fatal", str(RULES)], b""),
        (["check", "config", "--syntax-only", str(SCRAPE)], b""),
        (["check", "metrics"], text),
    ):
        done = subprocess.run(
            [promtool, *command], input=given, capture_output=True, check=False, timeout=60
        )
        assert done.returncode == 0, (done.stdout + done.stderr).decode()
