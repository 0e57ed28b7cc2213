"""The admin listener's reports of a gate with several workers; a slow worker cannot delay them."""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final

from prometheus_client.exposition import choose_encoder

from tailchat_gate import __version__
from tailchat_gate.observe.audit import MAX_REFUSALS
from tailchat_gate.observe.families import (
    Collected,
    Family,
    MetricKind,
    Plain,
    expose,
    gauge,
    merged,
    to_plain,
)
from tailchat_gate.observe.metrics import ProcessMetrics
from tailchat_gate.serving.admin.pages import Exposition
from tailchat_gate.serving.reload_outcome import Reloads
from tailchat_gate.serving.workers.answers import (
    counted,
    read_exemplars,
    read_metrics,
    with_exemplars,
)
from tailchat_gate.serving.workers.crew import Crew, Slot
from tailchat_gate.serving.workers.spawned import Spawned

#: How long a report waits for the workers.
ASK_SECONDS: Final = 2.0
#: The same for readiness: probes usually give up after a second, and one worker that hangs must not
#: take the others out of service.
_PROBE_SECONDS: Final = 0.5
WORKER_UP: Final = gauge(
    "gate_worker_up", "Whether a worker serves and answered this scrape.", ("worker",)
)
WORKER_RESTARTS: Final = Family(
    "gate_worker_restarts", "Workers that were started in place of one that ended.", ("worker",)
)


class CrewReports:
    """Asks all workers and adds up their answers.

    `is_ready`: whether the gate takes requests. `file` returns the configuration's name.
    """

    def __init__(
        self, crew: Crew, reloads: Reloads, is_ready: Callable[[], bool], file: Callable[[], str]
    ) -> None:
        self._crew = crew
        self._reloads = reloads
        self._is_ready = is_ready
        self._file = file
        self._started = time.monotonic()
        self._process = ProcessMetrics()
        self._families: dict[str, Family] = {}
        #: The last counts of each worker, and those of workers that have ended.
        self._last: dict[Spawned, Plain] = {}
        self._past: Plain = {}

    @property
    def is_ready(self) -> bool:
        """Whether the gate takes requests."""
        return self._is_ready()

    def gone(self, slot: Slot) -> None:
        """Keep the counts of a worker that has ended: sums of counters must not fall."""
        if slot.serving is not None and (last := self._last.pop(slot.serving, None)) is not None:
            self._past = together(self._families, (self._past, last))

    def counts(self) -> Iterable[Plain]:
        """Return the last known counts of each worker, and those of workers that have ended."""
        return (*self._last.values(), self._past)

    async def learn(self) -> None:
        """Fetch the workers' counts, so that they are not lost if a worker is killed."""
        await self._values(exemplars=False)

    async def _values(
        self, *, exemplars: bool
    ) -> tuple[Mapping[Spawned, Mapping[str, Any] | None], list[Plain], Plain]:
        """Return the workers' answers, the values of each, and the counts of ended workers."""
        answers = await self._crew.ask("metrics", ASK_SECONDS, exemplars=exemplars)
        values_of_workers = []
        for process, answer in answers.items():
            if process not in self._crew.serving:
                # It has ended meanwhile, so its counts are among the past ones.
                continue
            if answer is None:
                # The counts that it sent last; gauges would be out of date.
                values_of_workers.append(self._last.get(process, {}))
                continue
            families, values = read_metrics(answer["metrics"])
            self._families |= families
            self._last[process] = counted(families, values)
            values_of_workers.append(values)
        return answers, values_of_workers, self._past

    async def faults(self) -> list[str]:
        """Return what is wrong with workers, then the faults that workers report."""
        answers = await self._crew.ask("status", _PROBE_SECONDS)
        in_them = (fault for each in answers.values() if each for fault in each["faults"])
        return [*self.problems(answers), *dict.fromkeys(in_them)]

    def problems(self, answers: Mapping[Spawned, object | None]) -> list[str]:
        """Return a line for each worker that does not serve or has no answer in `answers`."""
        return [f"worker {slot.number}: {state}" for slot, state in self._states(answers)]

    async def metrics(self, accept: str) -> Exposition:
        """Return the sums of all workers in the format that the Accept field `accept` asks for."""
        _, media_type = choose_encoder(accept)
        openmetrics = media_type.startswith("application/openmetrics-text")
        answers, of_workers, past = await self._values(exemplars=openmetrics)
        about_parent = await asyncio.to_thread(self._process.collect)
        living = [to_plain((*about_parent, *self._reloads.metrics())), *of_workers]
        self._families |= {family.name: family for family, _ in about_parent}
        exemplars = [read_exemplars(answer["metrics"]) for answer in answers.values() if answer]
        whole = chain(
            with_exemplars(sums(self._families, living, past), exemplars),
            self._of_workers(answers),
        )
        parts = await expose(whole, openmetrics=openmetrics)
        return Exposition(b"".join((*parts, b"# EOF\n" if openmetrics else b"")), media_type)

    async def status(self) -> dict[str, object]:
        """Return the configuration in force, and the state of each worker."""
        answers = await self._crew.ask("status", ASK_SECONDS)
        statuses = [answer["status"] for answer in answers.values() if answer is not None]
        whole = status_of(statuses)
        retired = sum(status["configuration"]["retired"] for status in statuses)
        configuration = {
            **whole.get("configuration", {}),
            "file": self._file(),
            **self._reloads.to_status(),
            "retired": retired,
        }
        return {
            "version": __version__,
            **whole,
            "uptime_seconds": int(time.monotonic() - self._started),
            "ready": self.is_ready,
            "configuration": configuration,
            "workers": [self._of(slot, answers) for slot in self._crew.slots],
        }

    async def refusals(self) -> list[dict[str, object]]:
        """Return the last refusals of all workers."""
        answers = await self._crew.ask("refusals", ASK_SECONDS)
        refusals_of_workers = [
            answer["refusals"] for answer in answers.values() if answer is not None
        ]
        return refusals_of(refusals_of_workers, MAX_REFUSALS)

    def _states(self, answers: Mapping[Spawned, object | None]) -> Iterable[tuple[Slot, str]]:
        """Yield each worker that does not serve or answer, and what is wrong with it."""
        for slot in self._crew.slots:
            if slot.serving is None:
                yield slot, f"does not serve: {slot.problem or 'it has ended'}"
            elif answers.get(slot.serving) is None:
                yield slot, "does not answer"

    def _of(self, slot: Slot, answers: Mapping[Spawned, object | None]) -> dict[str, Any]:
        wrong = dict(self._states(answers))
        return {
            "worker": slot.number,
            "pid": slot.process.pid if slot.process is not None else None,
            "problem": wrong.get(slot, ""),
            "restarts": slot.restarts,
        }

    def _of_workers(self, answers: Mapping[Spawned, object | None]) -> Iterable[Collected]:
        slots, wrong = self._crew.slots, dict(self._states(answers))
        yield WORKER_UP, (((str(slot.number),), slot not in wrong) for slot in slots)
        yield WORKER_RESTARTS, (((str(slot.number),), slot.restarts) for slot in slots)


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
    summed: dict[str, list[tuple[tuple[str, ...], float | list[float]]]] = {}
    for family, samples in merged(families.values(), processes):
        if family.kind is not MetricKind.GAUGE:
            summed[family.name] = [
                (labels, value if isinstance(value, float | int) else value.to_plain())
                for labels, value in samples
            ]
    return summed


def _still_configured(
    families: Mapping[str, Family], living: Sequence[Plain], past: Plain
) -> Plain:
    configured = {}
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
        configured[name] = [
            (labels, value)
            for labels, value in samples
            if not places or tuple(labels[at] for at in places) in known
        ]
    return configured


#: The states of a tool, the most urgent last.
_STATES: Final = ("unknown", "up", "down")
_ALL_OF: Final = ("state_faults", "group_faults")


def status_of(statuses: Sequence[Status]) -> dict[str, Any]:
    """Return the status of some workers as one."""
    if not statuses:
        return {}
    whole = dict(statuses[0])
    for key in _ALL_OF:
        whole[key] = list(dict.fromkeys(fault for status in statuses for fault in status[key]))
    whole["locks"] = max(status["locks"] for status in statuses)
    whole["websockets_open"] = sum(status["websockets_open"] for status in statuses)
    whole["sign_in"] = max((status["sign_in"] for status in statuses), key=_checked_at)
    whole["tokens"] = _by(statuses, "tokens", "name", _last_used)
    whole["malformed_replies"] = _by(statuses, "malformed_replies", "upstream", _at)
    whole["backends"] = _by(statuses, "backends", "upstream", _is_down)
    whole["routes"] = _routes(statuses)
    return whole


def _routes(statuses: Sequence[Status]) -> list[dict[str, Any]]:
    """Return the routes of the first worker, each tool with the worst state any worker knows."""
    known = [
        {"tools": [tool for route in status["routes"] for tool in route["tools"]]}
        for status in statuses
    ]
    states = {tool["upstream"]: tool for tool in _by(known, "tools", "upstream", _urgency)}
    return [
        {**route, "tools": [states[tool["upstream"]] for tool in route["tools"]]}
        for route in statuses[0]["routes"]
    ]


def refusals_of(lists: Sequence[Sequence[Mapping[str, Any]]], most: int) -> list[dict[str, Any]]:
    """Return at most `most` refusals of all workers, each once, the latest first.

    Workers share refusals through the store, so several of them report the same one.
    """
    latest: dict[tuple[Any, ...], dict[str, Any]] = {}
    for refusal in (refused for each in lists for refused in each):
        key = refusal["sub"], refusal["route"], refusal["reason"]
        known = latest.get(key)
        if known is None or refusal["last"] > known["last"]:
            latest[key] = dict(refusal)
    return sorted(latest.values(), key=_last, reverse=True)[:most]


def _by(
    statuses: Sequence[Status], name: str, key: str, rank: Callable[[Mapping[str, Any]], Any]
) -> list[Any]:
    """Return the entries under `name`; of those with the same `key`, the one of highest rank."""
    best: dict[str, Any] = {}
    for entry in (row for status in statuses for row in status[name]):
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
