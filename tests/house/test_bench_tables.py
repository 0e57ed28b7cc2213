import math
from collections.abc import Sequence
from pathlib import Path

import goals
import matrix
import measure
import process
import pytest
import report
import work
import works
from benchkit import sampled


def test_ratios_are_taken_round_by_round() -> None:
    """A ratio relates two peers within a round, so a slow round does not spoil it."""
    rounds = {"gate": [sampled(60), sampled(120)], "caddy": [sampled(100), sampled(200)]}

    assert report.ratios(rounds, "gate", "caddy", "cpu_us") == [0.6, 0.6]


def test_the_table_shows_median_and_spread() -> None:
    """A cell holds median, least and greatest, and one value alone without brackets."""
    rounds = {"nginx": [sampled(20), sampled(25), sampled(90)], "gate": [sampled(50)]}

    head, nginx, gate_row = report.figures(rounds, "MB")
    assert list(head) == ["", "us CPU/MB", "MBs/s", "p50 ms", "p99 ms", "RSS MiB"]
    assert list(nginx[:2]) == ["nginx", "25.0 (20.0-90.0)"]
    assert list(gate_row[:2]) == ["gate", "50.0"]


def test_the_gate_is_divided_by_each_peer() -> None:
    """Without a baseline there is one ratio of the gate to every other entry."""
    rounds = {
        "nginx": [sampled(20), sampled(25)],
        "gate": [sampled(50, 2), sampled(50, 4)],
        "caddy": [sampled(100), sampled(100)],
    }

    assert [list(row) for row in report.compared(rounds)] == [
        ["ratio", "CPU", "p99"],
        ["gate / nginx", "2.25 (2.00-2.50)", "3.00 (2.00-4.00)"],
        ["gate / caddy", "0.50 (0.50-0.50)", "3.00 (2.00-4.00)"],
    ]


def test_entries_are_divided_by_the_baseline() -> None:
    """With a baseline every other entry is divided by it."""
    rounds = {"one": [sampled(20)], "two": [sampled(30)]}

    assert [list(row[:2]) for row in report.compared(rounds, "one")] == [
        ["ratio", "CPU"],
        ["two / one", "1.50"],
    ]


@pytest.mark.parametrize("names", [("nginx", "caddy"), ("gate",)])
def test_there_is_no_ratio_without_two_to_divide(names: Sequence[str]) -> None:
    """Peers without the gate, or the gate alone, have no ratios."""
    assert report.compared({name: [sampled(20)] for name in names}) == []


@pytest.mark.parametrize(
    ("cpu", "met"), [(35.0, "aim"), (35.1, "yes"), (45.0, "yes"), (45.1, "NO")]
)
def test_a_goal_is_met_up_to_its_bound(cpu: float, met: str) -> None:
    """A figure is within the aim, within reach, or too great."""
    rounds = {"small": {"gate": [sampled(cpu)], "caddy": [sampled(100.0, math.inf)]}}
    rows = {row[0]: row for row in goals.judged(rounds)}

    assert list(rows["small: CPU, gate / caddy"][1:3]) == ["0.45", "0.35"]
    assert rows["small: CPU, gate / caddy"][4] == met


def test_a_goal_of_memory_is_in_kilobytes() -> None:
    """Bytes a connection are judged in kB, without another peer."""
    rounds = {"idle": {"gate": [{"connections": 10, "bytes": 12_001, "rss_mib": 1}]}}

    assert [list(row[3:]) for row in goals.judged(rounds)] == [
        ["measured", "met"],
        ["12.00", "NO"],
    ]


def test_goals_that_were_not_measured_are_left_out() -> None:
    """A run of some works or peers judges what it has."""
    assert goals.judged({"small": {"gate": [sampled(1)], "nginx": [sampled(1)]}})[1:] != []
    assert goals.judged({"small": {"gate": [sampled(1)]}}) == []


def test_every_goal_is_about_something_measured() -> None:
    """The entries that a goal names are those of its work."""
    entries = {one.name: {entry.name for entry in one.entries} for one in works.works()}

    for goal in goals.GOALS:
        for name in goal.about:
            assert {goal.ours, goal.theirs or goal.ours} <= entries[name], goal
        assert goal.reach is None or goal.aim <= goal.reach


def test_tables_are_aligned_and_written_as_markdown() -> None:
    """Names stand to the left and figures to the right, on the terminal and in Markdown."""
    rows = [["", "CPU"], ["gate", "7"]]

    assert report.align(rows) == ["      CPU", "gate    7"]
    assert report.markdown(rows) == ["|  | CPU |", "| --- | ---: |", "| gate | 7 |", ""]


def test_a_document_keeps_what_is_around_the_tables(tmp_path: Path) -> None:
    """Only what is between the marks of a block is replaced; a new file has the tables alone."""
    document, new = tmp_path / "document.md", tmp_path / "new.md"
    begin, end = report.marks("mixed")
    other = "\n".join(report.marks("other"))
    document.write_text(f"before\n{begin}\nold\n{end}\nafter\n{other}\n")
    for path in (document, new):
        report.put(path, {"mixed": ["one", "two", ""]})

    assert document.read_text() == f"before\n{begin}\none\ntwo\n{end}\nafter\n{other}\n"
    assert new.read_text() == "one\ntwo\n"


def test_a_document_without_marks_is_left_alone(tmp_path: Path) -> None:
    """A file that was not made for a block is not overwritten, and no other block of it is."""
    document = tmp_path / "document.md"
    only = "\n".join(("my only copy", *report.marks("mixed"), ""))
    document.write_text(only)

    with pytest.raises(process.BenchError, match="other:begin"):
        report.put(document, {"mixed": ["tables"], "other": ["tables"]})
    assert document.read_text() == only


def row(name: str, title: str) -> work.Work:
    """A work that is one row of tables."""
    return work.Work(name, title, "request", (), family=work.Family("kin", "", "what"))


def test_a_family_of_works_shares_its_tables() -> None:
    """A row a work and a column a peer; first the gate beside each peer, then every figure."""
    kin = [row("one", "nothing"), row("two", "all")]
    found = {
        "one": {"caddy": [full(100, 4)] * 2, "gate": [full(50, 2), full(60, 3)]},
        "two": {"caddy": [full(200, 4)], "gate": [full(50, 1)]},
    }
    tables = dict(matrix.matrix(kin, found, "what differs"))

    assert [list(line) for line in tables["The gate"]] == [
        [
            "what differs",
            "us CPU/request",
            "p99 ms",
            "RSS MiB",
            "CPU, gate / caddy",
            "p99, gate / caddy",
        ],
        ["nothing", "55.0", "2.50", "1.0", "0.55 (0.50-0.60)", "0.62 (0.50-0.75)"],
        ["all", "50.0", "1.00", "1.0", "0.25", "0.25"],
    ]
    assert [list(line) for line in tables["CPU time, us/request"]] == [
        ["", "caddy", "gate"],
        ["nothing", "100.0 (100.0-100.0)", "55.0 (50.0-60.0)"],
        ["all", "200.0", "50.0"],
    ]


def full(cpu_us: float, p99_ms: float) -> measure.Sample:
    """A sample with what a load of wrk has besides."""
    return {**sampled(cpu_us, p99_ms), "loader": 0.5}


def test_a_goal_for_several_works_is_judged_by_the_worst() -> None:
    """The goal of every row names the row that is furthest from it."""
    found = {
        "differ-path": {"gate": [full(30, 3)], "envoy": [full(20, 10)], "caddy": [full(100, 10)]},
        "differ-ids": {"gate": [full(20, 8)], "envoy": [full(20, 10)], "caddy": [full(100, 10)]},
    }
    rows = {line[0]: list(line[1:]) for line in goals.judged(found)}

    assert rows["differ, every row: p99, gate / caddy"] == [
        "0.7",
        "0.7",
        "0.80 (differ-ids)",
        "NO",
    ]
    assert rows["differ, every row: CPU, gate / envoy"] == [
        "",
        "1.3",
        "1.50 (differ-path)",
        "not yet",
    ]
