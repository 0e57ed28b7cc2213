"""The figures of several processes together, from the counts that each of them reports."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from tailchat_gate.observe.families import Plain
from tailchat_gate.observe.history import RouteFigures
from tailchat_gate.observe.metrics import DECISIONS, LOGINS, REQUESTS, SECONDS
from tailchat_gate.observe.request_counts import FAILED
from tailchat_gate.reasons import Reason


class SummedFigures:
    """Adds up the counts of processes; `counts` returns them in the form of `to_plain`."""

    def __init__(self, counts: Callable[[], Iterable[Plain]]) -> None:
        self._counts = counts

    def of_routes(self) -> Iterator[RouteFigures]:
        """Yield the figures of each route, as Figures does."""
        totals: dict[str, tuple[int, int]] = {}
        times: dict[str, list[int]] = {}
        for process in self._counts():
            for (route, _, code), count in process.get(REQUESTS.name, ()):
                all_, failed = totals.get(route, (0, 0))
                number = int(count) if not isinstance(count, list) else 0
                totals[route] = all_ + number, failed + (number if int(code) >= FAILED else 0)
            for (route, reason), count in process.get(DECISIONS.name, ()):
                if reason == Reason.MAINTENANCE and not isinstance(count, list):
                    all_, failed = totals.get(route, (0, 0))
                    totals[route] = all_, failed - int(count)
            for (route,), values in process.get(SECONDS.name, ()):
                if isinstance(values, list):
                    counted = map(int, values[:-1])
                    before = times.get(route)
                    times[route] = list(
                        counted if before is None else map(sum, zip(before, counted, strict=True))
                    )
        for route, counts in times.items():
            yield RouteFigures(route, *totals.get(route, (0, 0)), counts)

    def of_sign_ins(self) -> Mapping[str, int]:
        """Return the number of sign-ins by result, as Figures does."""
        sign_ins: dict[str, int] = {}
        for process in self._counts():
            for (result,), count in process.get(LOGINS.name, ()):
                if not isinstance(count, list) and count:
                    sign_ins[result] = sign_ins.get(result, 0) + int(count)
        return sign_ins
