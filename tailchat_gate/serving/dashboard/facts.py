"""Values of the admin page's overview: figures, tools, sign-ins, faults."""

import asyncio
import logging
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from tailchat_gate.config.model import RouteSettings, Settings
from tailchat_gate.config.values.address import OwnAddress, upstream_address
from tailchat_gate.observe.history import STEP_SECONDS, Course, Figures, History
from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.people.slices import in_slices
from tailchat_gate.reasons import Reason
from tailchat_gate.serving.process_state import ProcessState

#: The rows of a table that are shown at first, and at most.
SHOWN: Final = 50
MOST_ROWS: Final = 1000
#: How many seconds before an expiry there is a notice about it: two weeks.
SOON_SECONDS: Final = 14 * 86_400.0
_MEDIAN: Final = 0.5
_SLOWEST: Final = 0.99


_log: Final = logging.getLogger(LOGGER_NAME)


class Sampler:
    """Samples `figures`, of one process or of all workers.

    `apart` returns the routes that are not part of the total.
    """

    def __init__(self, figures: Figures, apart: Callable[[], Collection[str]]) -> None:
        self.figures: Final = figures
        self.history: Final = History(apart)
        #: How many samples were taken.
        self.count = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to take samples; needs a running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def close(self) -> None:
        """Stop taking samples."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while True:
            try:
                await in_slices(self.history.sample(self.figures))
                self.count += 1
            except Exception:  # noqa: BLE001 - the next sample may succeed
                _log.exception("a sample for the admin page's plots could not be taken")
            await asyncio.sleep(STEP_SECONDS)


def rows(shown: Sequence[Mapping[str, object]], total: int) -> dict[str, object]:
    """Return the rows of a table that are shown, and how many there are."""
    return {"shown": shown, "total": total}


def overview(
    settings: Settings,
    up: Mapping[str, bool | None],
    streams: Mapping[str, int],
    sampler: Sampler,
    *,
    every: bool,
) -> Generator[None, None, dict[str, object]]:
    """Return values of the page, with the busiest routes, or with `every` route.

    `up` tells whether a tool answers, by its address; `streams` counts the open ones by route.
    """
    courses = yield from sampler.history.courses(sampler.figures)
    named = {route.name: route for route in settings.route}
    urgency: list[tuple[tuple[object, ...], str]] = []
    for name, route in named.items():
        urgency.append((_urgency(route, courses.routes.get(name), up), name))
        yield
    listed = sorted(urgency)
    shown: list[dict[str, object]] = []
    for _, name in listed[: MOST_ROWS if every else SHOWN]:
        row = _row(named[name], courses.routes.get(name), up)
        shown.append({**row, "open": streams.get(name, 0)})
        yield
    return {
        "plots": _plots(courses.all),
        "routes": rows(shown, len(listed)),
        "every": every,
        "sign_ins": _sign_ins(sampler),
    }


class Notice(NamedTuple):
    """A notice for the operator; `kind` and `what` are keys of the catalogue.

    `text` is a sentence that is also in the log; `what` and `name` say what expires.
    """

    kind: str
    text: str = ""
    what: str = ""
    name: str = ""


def notices(settings: Settings, process_state: ProcessState) -> Iterator[Notice]:
    """Yield the notices for the operator."""
    yield from (
        Notice("sign_in", finding.text) for finding in process_state.tailchat.sign_in.findings
    )
    yield from (Notice("plain", fault) for fault in process_state.tailchat.group_watch.faults)
    yield from (Notice("store", fault) for fault in process_state.store.faults)
    yield from (
        Notice("plain", text) for text in sorted(process_state.tailchat.told_of_registration)
    )
    now = process_state.clock()
    for expiry in expiries(settings, process_state):
        if expiry.at <= now + SOON_SECONDS:
            yield Notice(
                "expired" if expiry.at <= now else "soon", what=expiry.what, name=expiry.name
            )


class Expiry(NamedTuple):
    """A certificate or token, and the Unix second at which it expires.

    `what` is a key of the catalogue: file, tailchat, upstream or token; `name` says which one.
    """

    what: str
    name: str
    at: float


def expiries(settings: Settings, process_state: ProcessState) -> list[Expiry]:
    """Return all known expiry times, the earliest first."""
    files = {**process_state.certificates.expiries, **dict(process_state.certificate_expiries)}
    dates = [Expiry("file", file, at) for file, at in files.items()]
    if process_state.tailchat.reachability.certificate_expires:
        dates.append(
            Expiry("tailchat", "", process_state.tailchat.reachability.certificate_expires)
        )
    for url, counts in tuple(process_state.upstream_pools.counts.items()):
        if counts.certificate_expires:
            dates.append(Expiry("upstream", url, counts.certificate_expires))
    dates += [
        Expiry("token", token.name, token.expires) for token in settings.token if token.expires
    ]
    return sorted(dates, key=lambda expiry: (expiry.at, expiry.what, expiry.name))


def _sign_ins(sampler: Sampler) -> list[dict[str, object]]:
    lately, all_ = sampler.history.sign_ins(sampler.figures), sampler.figures.of_sign_ins()
    return [
        {"result": result, "lately": lately[result], "total": total, "good": _is_good(result)}
        for result, total in sorted(
            all_.items(), key=lambda item: (not _is_good(item[0]), -item[1])
        )
    ]


def _is_good(result: str) -> bool:
    return result == Reason.SIGNED_IN


def _plots(course: Course) -> dict[str, object]:
    """Return the series of the large plots; durations are in milliseconds."""
    return {
        "requests": [step.requests - step.failed for step in course.steps],
        "failed": [step.failed for step in course.steps],
        "median": _milliseconds(course.quantiles(_MEDIAN)),
        "slowest": _milliseconds(course.quantiles(_SLOWEST)),
        "most": max((step.requests for step in course.steps), default=0),
        "total": course.requests,
        "total_failed": course.failed,
        "step": int(STEP_SECONDS),
    }


def _milliseconds(values: tuple[float | None, ...]) -> list[float]:
    return [round((value or 0.0) * 1000, 2) for value in values]


def _row(
    route: RouteSettings, course: Course | None, up: Mapping[str, bool | None]
) -> dict[str, object]:
    course = course or Course(())
    requests = course.requests
    seconds = max(len(course.steps), 1) * STEP_SECONDS
    return {
        "name": route.name,
        "title": route.shown_name,
        "where": f"{route.host or '*'}{route.path}",
        "tool": route.upstream_text,
        "state": _state(route, up),
        "rate": requests / seconds,
        "failed": course.failed / requests if requests else None,
        "median": course.quantile(_MEDIAN),
        "slowest": course.quantile(_SLOWEST),
        "series": [step.requests for step in course.steps],
        "total": requests,
    }


def backends_up(process_state: ProcessState) -> dict[str, bool | None]:
    """Return whether each tool answers, by its address; None before the first request to it."""
    pools = process_state.upstream_pools
    up = {url: counts.up for url, counts in tuple(pools.counts.items())}
    return {**up, **{health.backend.url: health.up for health in pools.health}}


def _state(route: RouteSettings, up: Mapping[str, bool | None]) -> str:
    """Return "up", "down" or "partly"; "unknown" before a request, "own" for the gate itself."""
    if isinstance(upstream_address(route.backends[0]), OwnAddress):
        return "own"
    known = [up.get(url) for url in route.backends]
    if all(known):
        return "up"
    if False not in known:
        return "unknown"
    return "partly" if any(known) else "down"


def _urgency(
    route: RouteSettings, course: Course | None, up: Mapping[str, bool | None]
) -> tuple[object, ...]:
    """Return the sort key of a route: down first, then by failures, then by requests."""
    course = course or Course(())
    return (_state(route, up) not in {"down", "partly"}, -course.failed, -course.requests)
