"""Which configuration is in force, and how the last reload ended."""

from collections.abc import Callable, Iterator

from tailchat_gate.config.problems import Problem
from tailchat_gate.observe.families import Collected
from tailchat_gate.serving.process_gauges import GENERATION, RELOADED, RELOADED_AT


class Reloads:
    """The configuration in force, and the outcome of the last reload; `clock` gives Unix seconds.

    `generation` counts configurations, from 1. `changed_at` is when a configuration that differs
    from the one before came into force. `problems` say why the last attempt was refused, and are
    empty if it was not.
    """

    __slots__ = ("_clock", "changed_at", "generation", "loaded_at", "problems", "tried_at")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.loaded_at = self.tried_at = self.changed_at = clock()
        self.generation = 1
        self.problems: tuple[Problem, ...] = ()

    def took(self, *, changed: bool) -> None:
        """Record that another configuration is in force, and whether it differs."""
        self.generation += 1
        self.loaded_at = self.tried_at = self._clock()
        if changed:
            self.changed_at = self.loaded_at
        self.problems = ()

    def refused(self, problems: tuple[Problem, ...]) -> None:
        """Record that a configuration was refused."""
        self.tried_at = self._clock()
        self.problems = problems

    def metrics(self) -> Iterator[Collected]:
        """Yield the gauges about reloads."""
        for family, value in (
            (GENERATION, self.generation),
            (RELOADED, not self.problems),
            (RELOADED_AT, self.tried_at),
        ):
            yield family, (((), value),)

    def to_status(self) -> dict[str, object]:
        """Return the values for `/status`, as JSON."""
        return {
            "generation": self.generation,
            "loaded_at": int(self.loaded_at),
            "changed_at": int(self.changed_at),
            "tried_at": int(self.tried_at),
            "problems": [problem.to_json() for problem in self.problems],
        }
