"""The tables that a family of works shares: a row a work, a column a peer."""

import statistics
from collections.abc import Mapping, Sequence

from report import Rounds, Row, ratios, spread
from work import Work

# The peers that the summary compares the gate with.
_BESIDE = ("caddy", "nginx", "oauth2-proxy", "envoy")
_OURS = "gate"


def matrix(
    works: Sequence[Work], measured: Mapping[str, Rounds], head: str
) -> list[tuple[str, list[Row]]]:
    """Tables with their captions: the gate's summary, then each figure of every peer."""
    peers = list(dict.fromkeys(peer for work in works for peer in measured[work.name]))
    unit = works[0].unit
    tables = [
        (f"CPU time, us/{unit}", _by_peer(works, measured, peers, "cpu_us", ".1f")),
        ("p99, ms", _by_peer(works, measured, peers, "p99_ms", ".2f")),
        ("RSS after the work, MiB", _by_peer(works, measured, peers, "rss_mib", ".1f")),
        ("Cores that the load generator used", _by_peer(works, measured, peers, "loader", ".2f")),
    ]
    if _OURS in peers:
        tables.insert(0, ("The gate", _summary(works, measured, peers, head)))
    return tables


def _by_peer(
    works: Sequence[Work],
    measured: Mapping[str, Rounds],
    peers: Sequence[str],
    key: str,
    form: str,
) -> list[Row]:
    rows: list[Row] = [["", *peers]]
    for work in works:
        rounds = measured[work.name]
        rows.append([work.title, *(_cell(rounds, peer, key, form) for peer in peers)])
    return rows


def _cell(rounds: Rounds, peer: str, key: str, form: str) -> str:
    return spread((one[key] for one in rounds[peer]), form) if peer in rounds else ""


def _summary(
    works: Sequence[Work], measured: Mapping[str, Rounds], peers: Sequence[str], title: str
) -> list[Row]:
    beside = [peer for peer in _BESIDE if peer in peers]
    head = [title, f"us CPU/{works[0].unit}", "p99 ms", "RSS MiB"]
    head += [f"CPU, {_OURS} / {peer}" for peer in beside]
    head += [f"p99, {_OURS} / {peer}" for peer in beside[:1]]
    rows: list[Row] = [head]
    for work in works:
        rounds = measured[work.name]
        row = [work.title]
        for key, form in (("cpu_us", ".1f"), ("p99_ms", ".2f"), ("rss_mib", ".1f")):
            row.append(f"{statistics.median(one[key] for one in rounds[_OURS]):{form}}")
        row += [_ratio(rounds, peer, "cpu_us") for peer in beside]
        row += [_ratio(rounds, peer, "p99_ms") for peer in beside[:1]]
        rows.append(row)
    return rows


def _ratio(rounds: Rounds, peer: str, key: str) -> str:
    return spread(ratios(rounds, _OURS, peer, key), ".2f") if peer in rounds else ""
