import re

import differing
import figures
import others
import pytest
import report

DOCUMENT = figures.DOCUMENT.read_text(encoding="utf-8")
README = figures.README.read_text(encoding="utf-8")


def between(text: str, block: str) -> str:
    """What a document has between the marks of a block."""
    begin, end = report.marks(block)
    return text.partition(f"{begin}\n")[2].partition(f"\n{end}")[0]


@pytest.mark.parametrize("block", ["mixed", "other", "soak", "repeated"])
def test_the_document_of_performance_takes_each_block(block: str) -> None:
    """The page about performance has one place for each block, and tables in it."""
    begin, end = report.marks(block)

    assert DOCUMENT.count(begin) == DOCUMENT.count(end) == 1
    assert "\n| " in between(DOCUMENT, block)


def test_the_readme_has_the_figures_of_the_document() -> None:
    """The README's figures are what `bench/figures.py` makes of docs/performance.md."""
    assert between(README, figures.BLOCK) == figures.block(DOCUMENT)
    assert between(README, figures.BULLETS) == figures.bullets(DOCUMENT)


def test_the_chinese_readme_has_the_same_figures() -> None:
    """README.zh.md has the figures of README.md about page loads, in the same order."""
    chinese = figures.README.with_suffix(".zh.md").read_text(encoding="utf-8")
    own, english = (
        re.findall(r"\d+(?:\.\d+)?", between(text, figures.BULLETS).replace("oauth2-proxy", ""))
        for text in (chinese, README)
    )

    assert len(own) == 12
    assert own == english


def test_the_document_leads_with_requests_that_differ() -> None:
    """Every row of requests that differ is in the first tables, before any that repeat."""
    known = figures.tables(between(DOCUMENT, "mixed"))
    other = figures.tables(between(DOCUMENT, "other"))

    assert [row[0] for row in known["differ"][0][1:]] == [
        title for title, _ in differing.ROWS.values()
    ]
    assert [row[0] for row in other["other"][0][1:]] == list(others.ROWS.values())
    assert DOCUMENT.index("mixed:begin") < DOCUMENT.index("repeated:begin")


def test_figures_are_the_medians_of_the_tables() -> None:
    """A cell of the README is the median of a cell of the document, without its spread."""
    differ = [
        ["what differs", "us CPU/request", "CPU, gate / caddy", "CPU, gate / envoy"],
        ["nothing", "30.4", "0.35 (0.33-0.36)", "0.90"],
        ["path, X-Request-Id and traceparent", "40.0", "0.45", "1.20"],
        ["all of these", "50.6", "0.55 (0.50-0.70)", "1.50"],
    ]
    page = [["", "us CPU/request"], ["caddy", "200.0"], ["gate", "80.5 (80.0-90.0)"]]
    ratio = [["ratio", "CPU"], ["gate / caddy", "0.40 (0.39-0.41)"]]
    text = ["### differ: requests", "The gate:", "", *report.markdown(differ)]
    text += ["### page: loads", "", *report.markdown(page), *report.markdown(ratio)]
    rows = figures.figures("\n".join(text))

    assert [list(row[1:]) for row in rows[1:]] == [
        ["51 us", "", "0.55", "1.50", ""],
        ["40 us", "", "0.45", "1.20", ""],
        ["80 us", "", "0.40", "", ""],
        ["30 us", "", "0.35", "0.90", ""],
    ]
