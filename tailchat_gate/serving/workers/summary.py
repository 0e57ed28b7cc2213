"""Combines the reports of several workers, as if they were one process."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from tailchat_gate.observe.families import Collected, Family, MetricKind, Plain, merged

Status = Mapping[str, Any]

#: Labels of configured things: the counts of a route or tool that no worker has any more are left
#: out.
_CONFIGURED: Final = ("route", "upstream")


def sums(
    families: Mapping[str, Family], living: Sequence[Plain], past: Plain
) -> Iterator[Collected]:
    """Yield the summed values of all workers; `past` are the counts of those that have ended."""
    return merged(families.values(), (*living, _still_configured(families, living, past)))


def together(families: Mapping[str, Family], processes: Iterable[Plain]) -> Plain:
    """Return the counts of several processes as those of one."""
    found: dict[str, list[tuple[tuple[str, ...], float | list[float]]]] = {}
    for family, samples in merged(families.values(), processes):
        if family.kind is not MetricKind.GAUGE:
            found[family.name] = [
                (labels, value if isinstance(value, float | int) else value.to_plain())
                for labels, value in samples
            ]
    return found


def _still_configured(
    families: Mapping[str, Family], living: Sequence[Plain], past: Plain
) -> Plain:
    found = {}
    for name, samples in past.items():
        family = families.get(name)
        if family is None:
            continue
        places = [at for at, label in enumerate(family.labels) if label in _CONFIGURED]
        known = {
            tuple(labels[at] for at in places)
            for process in living
            for labels, _ in process.get(name, ())
        }
        found[name] = [
            (labels, value)
            for labels, value in samples
            if not places or tuple(labels[at] for at in places) in known
        ]
    return found


#: The states of a tool, the most urgent last.
_STATES: Final = ("unknown", "up", "down")
_ALL_OF: Final = ("state_faults", "group_faults")


def status_of(found: Sequence[Status]) -> dict[str, Any]:
    """Return the status of some workers as one."""
    if not found:
        return {}
    whole = dict(found[0])
    for key in _ALL_OF:
        whole[key] = list(dict.fromkeys(fault for status in found for fault in status[key]))
    whole["locks"] = max(status["locks"] for status in found)
    whole["websockets_open"] = sum(status["websockets_open"] for status in found)
    whole["sign_in"] = max((status["sign_in"] for status in found), key=_checked_at)
    whole["tokens"] = _by(found, "tokens", "name", _last_used)
    whole["malformed_replies"] = _by(found, "malformed_replies", "upstream", _at)
    whole["backends"] = _by(found, "backends", "upstream", _is_down)
    whole["routes"] = _routes(found)
    return whole


def _routes(found: Sequence[Status]) -> list[dict[str, Any]]:
    """Return the routes of the first worker, each tool with the worst state any worker knows."""
    known = [
        {"tools": [tool for route in status["routes"] for tool in route["tools"]]}
        for status in found
    ]
    states = {tool["upstream"]: tool for tool in _by(known, "tools", "upstream", _urgency)}
    return [
        {**route, "tools": [states[tool["upstream"]] for tool in route["tools"]]}
        for route in found[0]["routes"]
    ]


def refusals_of(found: Sequence[Sequence[Mapping[str, Any]]], most: int) -> list[dict[str, Any]]:
    """Return at most `most` refusals of all workers, each once, the latest first.

    Workers share refusals through the store, so several of them report the same one.
    """
    latest: dict[tuple[Any, ...], dict[str, Any]] = {}
    for refusal in (one for each in found for one in each):
        key = refusal["sub"], refusal["route"], refusal["reason"]
        known = latest.get(key)
        if known is None or refusal["last"] > known["last"]:
            latest[key] = dict(refusal)
    return sorted(latest.values(), key=_last, reverse=True)[:most]


def _by(
    found: Sequence[Status], name: str, key: str, rank: Callable[[Mapping[str, Any]], Any]
) -> list[Any]:
    """Return the entries under `name`; of those with the same `key`, the one of highest rank."""
    best: dict[str, Any] = {}
    for entry in (one for status in found for one in status[name]):
        if entry[key] not in best or rank(entry) > rank(best[entry[key]]):
            best[entry[key]] = entry
    return list(best.values())


def _checked_at(sign_in: Mapping[str, Any]) -> Any:  # noqa: ANN401 - as it was sent
    return sign_in["checked_at"]


def _last_used(token: Mapping[str, Any]) -> Any:  # noqa: ANN401 - as it was sent
    return token["last_used"] or ""


def _at(reply: Mapping[str, Any]) -> Any:  # noqa: ANN401 - as it was sent
    return reply["at"]


def _last(refusal: Mapping[str, Any]) -> Any:  # noqa: ANN401 - as it was sent
    return refusal["last"]


def _urgency(tool: Mapping[str, Any]) -> tuple[int, int]:
    # A worker that cannot reach a tool fails requests, whatever the others do. Of several such
    # workers, the first to notice knows best since when.
    return _STATES.index(tool["state"]), -(tool["since"] or 0)


def _is_down(backend: Mapping[str, Any]) -> bool:
    return not backend["up"]
