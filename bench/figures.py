"""Writes the figures of docs/performance.md into README.md, between its marks.

    python bench/figures.py

A test compares the two, so that neither can be changed alone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from report import Row, markdown, marks, put

_ROOT = Path(__file__).parent.parent
DOCUMENT, README = _ROOT / "docs" / "performance.md", _ROOT / "README.md"
BLOCK, BULLETS = "figures", "bullets"

_HEAD = (
    "requests",
    "gate, CPU",
    "gate / oauth2-proxy",
    "gate / Caddy",
    "gate / Envoy",
    "gate / nginx",
)
_PEERS = ("oauth2-proxy", "caddy", "envoy", "nginx")
_ROWS = {
    "all of these": "path, ids, Referer, validator and a cookie differ each time",
    "path, X-Request-Id and traceparent": "path and an edge's ids differ each time",
    "nothing": "the same request again and again (the best case)",
}
_PAGE = "page loads of JupyterLab, recorded"

#: What README.md says about page loads; README.zh.md has the same figures.
_SENTENCES: Final = (
    "**CPU**: {cpu_proxy} of what oauth2-proxy takes, and {cpu_caddy} of Caddy's.",
    "**Requests/s** of one core: {gate_rate}; oauth2-proxy {proxy_rate}, Caddy {caddy_rate}.",
    "**99 %** of requests take at most {gate_p99} ms; oauth2-proxy {proxy_p99}, Caddy {caddy_p99}.",
    "**Memory**: {gate_room} MiB, which is more; oauth2-proxy {proxy_room}, Caddy {caddy_room}.",
)


def tables(text: str) -> dict[str, list[list[Row]]]:
    """The tables of a document by the word with which their title begins."""
    by_title: dict[str, list[list[Row]]] = {}
    title, before = "", ""
    for line in text.splitlines():
        if line.startswith("### "):
            title = line.removeprefix("### ").partition(":")[0]
        elif line.startswith("|") and not line.startswith("| ---"):
            if not before.startswith("|"):
                by_title.setdefault(title, []).append([])
            by_title[title][-1].append([cell.strip() for cell in line.strip("|").split("|")])
        before = line
    return by_title


def figures(document: str) -> list[Row]:
    """The rows of README.md out of the tables of the document."""
    known = tables(document)
    summary = _by_name(known["differ"][0])
    load, ratio = (_by_name(table) for table in known["page"][:2])
    rows: list[Row] = [_HEAD]
    for title, words in _ROWS.items():
        cells = summary[title]
        ratios = (cells.get(f"CPU, gate / {peer}", "") for peer in _PEERS)
        rows.append([words, _cpu(cells["us CPU/request"]), *map(_median, ratios)])
    own = load["gate"]["us CPU/request"]
    page = (ratio.get(f"gate / {peer}", {}).get("CPU", "") for peer in _PEERS)
    rows.insert(-1, [_PAGE, _cpu(own), *map(_median, page)])
    return rows


def bullets(document: str) -> str:
    """The sentences of README.md about page loads, out of the tables of the document."""
    load, ratio = (_by_name(table) for table in tables(document)["page"][:2])
    values = {
        f"{name}_{column}": f"{float(_median(load[title][measured])):.0f}"
        for name, title in {"gate": "gate", "proxy": "oauth2-proxy", "caddy": "caddy"}.items()
        for column, measured in {"rate": "requests/s", "p99": "p99 ms", "room": "RSS MiB"}.items()
    }
    cpu = {
        name: _median(ratio[f"gate / {title}"]["CPU"])
        for name, title in {"cpu_proxy": "oauth2-proxy", "cpu_caddy": "caddy"}.items()
    }
    return "\n".join(f"- {line.format(**values, **cpu)}" for line in _SENTENCES)


def _by_name(table: Sequence[Row]) -> Mapping[str, Mapping[str, str]]:
    """The cells of a table by the first cell of their row and the head of their column."""
    head, *body = table
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in body}


def _cpu(cell: str) -> str:
    return f"{float(_median(cell)):.0f} us"


def _median(cell: str) -> str:
    return cell.partition(" (")[0]


def block(document: str) -> str:
    """What is to be between the marks of README.md."""
    return "\n".join(markdown(figures(document))).rstrip()


def main() -> None:
    """Write the block."""
    document = DOCUMENT.read_text(encoding="utf-8")
    put(README, {BLOCK: [block(document)], BULLETS: [bullets(document)]})
    print(f"{README.name}: {marks(BLOCK)[0]} {marks(BULLETS)[0]}")


if __name__ == "__main__":
    main()
