"""What the gate's figures are to reach, and whether they do."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import differing
import others
from report import Rounds, Row, ratios

_FIGURES = {"cpu_us": "CPU", "p99_ms": "p99", "bytes": "kB a connection"}


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure of the gate must not exceed: `reach`, and better `aim`.

    The figure is the median of the ratio of two entries of one work, round by round, or where
    `theirs` is "" the figure itself divided by `scale`. Of several `works`, called `name`, it is
    the worst. Where `reach` is None the aim is beyond what is asked for.
    """

    name: str
    ours: str
    theirs: str
    key: str
    reach: float | None
    aim: float
    scale: float = 1.0
    works: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """What it says, without the figures."""
        what = f"{self.name}: {_FIGURES[self.key]}, {self.ours}"
        return what + (f" / {self.theirs}" if self.theirs else "")

    @property
    def about(self) -> tuple[str, ...]:
        """The works that it is about."""
        return self.works or (self.name,)

    def measured(self, found: Mapping[str, Rounds]) -> dict[str, float]:
        """The figure of each work that was measured."""
        return {
            work: self._figure(found[work])
            for work in self.about
            if {self.ours, self.theirs or self.ours} <= set(found.get(work, ()))
        }

    def _figure(self, rounds: Rounds) -> float:
        if self.theirs:
            return statistics.median(ratios(rounds, self.ours, self.theirs, self.key))
        return statistics.median(one[self.key] for one in rounds[self.ours]) / self.scale

    def met(self, value: float) -> str:
        """Whether `value` is within the aim, within reach, or too great."""
        if value <= self.aim:
            return "aim"
        if self.reach is None:
            return "not yet"
        return "yes" if value <= self.reach else "NO"


ONE = "one session"
PLAIN_GATE = "one route"
_DIFFER = tuple(differing.ROWS)
_EVERY = "differ, every row"
_OTHER = "other, every row but new-person"
_OTHERS = tuple(name for name in others.ROWS if name != "new-person")
GOALS: Sequence[Goal] = (
    Goal("differ-all", "gate", "caddy", "cpu_us", 0.60, 0.45),
    Goal("differ-edge", "gate", "caddy", "cpu_us", 0.50, 0.40),
    Goal("differ-nothing", "gate", "caddy", "cpu_us", 0.36, 0.36),
    Goal(_EVERY, "gate", "caddy", "p99_ms", 0.7, 0.7, works=_DIFFER),
    Goal("differ-all", "gate", "nginx", "cpu_us", 3.5, 3.5),
    Goal(_EVERY, "gate", "oauth2-proxy", "cpu_us", 0.25, 0.25, works=_DIFFER),
    Goal(_EVERY, "gate", "envoy", "cpu_us", None, 1.3, works=_DIFFER),
    Goal(_OTHER, "gate", "caddy", "cpu_us", 0.7, 0.7, works=_OTHERS),
    Goal(_OTHER, "gate", "caddy", "p99_ms", 0.7, 0.7, works=_OTHERS),
    # Apart, because each of its requests waits for Tailchat, as none of Caddy's does.
    Goal("new-person", "gate", "caddy", "cpu_us", 0.7, 0.7),
    Goal("new-person", "gate", "caddy", "p99_ms", 0.7, 0.7),
    Goal("page", "gate", "caddy", "cpu_us", 0.60, 0.45),
    Goal("page", "gate", "caddy", "p99_ms", 0.7, 0.7),
    Goal("page", "gate", "oauth2-proxy", "cpu_us", 0.25, 0.25),
    Goal("small", "gate", "caddy", "cpu_us", 0.45, 0.35),
    Goal("small", "gate", "mod_auth_openidc", "cpu_us", 0.40, 0.30),
    Goal("small", "gate", "nginx", "cpu_us", 3.3, 2.5),
    Goal("small", "gate", "caddy", "p99_ms", 0.6, 0.4),
    Goal("1m", "gate", "caddy", "cpu_us", 1.0, 0.7),
    Goal("upload", "gate", "caddy", "cpu_us", 1.0, 0.7),
    Goal("gate", "/oauth2/auth", ONE, "cpu_us", 0.6, 0.45),
    Goal("gate", "2000 sessions in turn", ONE, "cpu_us", 1.15, 1.05),
    Goal("policy", "1000 routes", PLAIN_GATE, "cpu_us", 1.1, 1.0),
    Goal("policy", "all of policy", PLAIN_GATE, "cpu_us", 1.03, 1.0),
    Goal("tunnel", "gate", "caddy", "cpu_us", 0.7, 0.5),
    Goal("tunnel", "gate", "nginx", "cpu_us", 2.0, 1.4),
    Goal("idle", "gate", "", "bytes", 12, 8, scale=1000),
    Goal("idle-ws", "gate", "", "bytes", 30, 20, scale=1000),
)


def judged(found: Mapping[str, Rounds]) -> list[Row]:
    """One row a goal whose work was measured: the figure, and whether it was met."""
    rows: list[Row] = []
    for goal in GOALS:
        if figures := goal.measured(found):
            worst = max(figures, key=figures.__getitem__)
            value = figures[worst]
            where = f" ({worst})" if goal.works else ""
            reach = "" if goal.reach is None else f"{goal.reach:g}"
            rows.append([goal.text, reach, f"{goal.aim:g}", f"{value:.2f}{where}", goal.met(value)])
    return [["goal", "to reach", "aim", "measured", "met"], *rows] if rows else []
