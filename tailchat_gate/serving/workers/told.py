"""Combines the reports of several workers for the admin page, as if they were one process."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from tailchat_gate.serving.dashboard.facts import SHOWN, rows
from tailchat_gate.serving.dashboard.inside import Values
from tailchat_gate.serving.dashboard.people_shown import MOST_LIVE

Told = Mapping[str, Any]
_NO_PEOPLE: Final[Told] = {
    "refusals": rows((), 0),
    "requests": (),
    "locks": (),
    "grants": (),
    "live": rows((), 0),
    "grantable": (),
    "people": (),
    "machines": (),
    "addresses": (),
    "called": {},
}


def together(page: str, found: Sequence[Told], problems: Iterable[str]) -> Values:
    """Combine the workers' reports, the first worker's first; `problems` are those of workers."""
    return _TOGETHER[page](found, problems)


def _overview(found: Sequence[Told], problems: Iterable[str]) -> Values:
    notices = [{"kind": "plain", "text": text, "what": "", "name": ""} for text in problems]
    for notice in (one for told in found for one in told["notices"]):
        if notice not in notices:
            notices.append(notice)
    up: dict[str, bool | None] = {}
    for url, is_up in (one for told in found for one in told["up"].items()):
        # One that cannot reach a tool fails requests, whatever the others do.
        known = up.get(url)
        up[url] = is_up if known is None else known and is_up is not False
    streams: Counter[str] = Counter()
    for told in found:
        streams.update(told["streams"])
    asking = found[0]["asking"] if found else ()
    return {"notices": notices, "up": up, "streams": streams, "asking": asking}


def _people(found: Sequence[Told], _: Iterable[str]) -> Values:
    """Return lists of the store as the first has them, and those of connections of all."""
    first = found[0] if found else _NO_PEOPLE
    latest: dict[tuple[str, ...], Told] = {}
    for one in (one for told in found for one in told["refusals"]["shown"]):
        key = one["who"], one["route"], one["reason"]
        if key not in latest or latest[key]["last"] < one["last"]:
            latest[key] = one
    refusals = sorted(latest.values(), key=lambda one: -one["last"])
    total = max((told["refusals"]["total"] for told in found), default=0)
    live = [one for told in found for one in told["live"]["shown"]]
    live.sort(key=lambda one: (one["who"], one["id"]))
    return {
        **first,
        "refusals": rows(refusals[:SHOWN], max(total, len(refusals))),
        "live": rows(live[:MOST_LIVE], sum(told["live"]["total"] for told in found)),
    }


def _configuration(found: Sequence[Told], _: Iterable[str]) -> Values:
    latest: dict[tuple[str, str], Told] = {}
    for one in (one for told in found for one in told["expiries"]):
        # A worker that has met the renewed certificate knows more than one that has not.
        key = one["what"], one["name"]
        if key not in latest or latest[key]["at"] < one["at"]:
            latest[key] = one
    order = sorted(latest.values(), key=lambda one: (one["at"], one["what"], one["name"]))
    return {"expiries": order}


def _checks(found: Sequence[Told], problems: Iterable[str]) -> Values:
    if found:
        return dict(found[0])
    return {**_NO_PEOPLE, "explained": {"allowed": False, "lines": list(problems)}}


_TOGETHER: Final[Mapping[str, Callable[[Sequence[Told], Iterable[str]], Values]]] = {
    "overview": _overview,
    "people": _people,
    "configuration": _configuration,
    "checks": _checks,
}
