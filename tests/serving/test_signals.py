"""How long a stop may take, by a clock that the tests set."""

from collections.abc import Callable

import pytest

from tailchat_gate.serving import signals
from tailchat_gate.serving.signals import GRACE_SECONDS, LEAVE_SECONDS, Signals


class Timers:
    """Stands for Timer, and knows when the last one would have killed the process."""

    def __init__(self) -> None:
        self.now = self.kills_at = 0.0
        self.daemon = False

    def __call__(self, seconds: float, kill: Callable[[], None]) -> "Timers":
        """Begin a timer."""
        del kill
        self.kills_at = self.now + seconds
        return self

    def start(self) -> None:
        """Nothing is to be done."""

    cancel = start


@pytest.mark.parametrize("closed_after", [0.0, 30.0, 37.5])
def test_a_stop_never_takes_longer_than_its_limit(
    monkeypatch: pytest.MonkeyPatch, closed_after: float
) -> None:
    """What hangs after everything is closed gets its seconds, or what is left of the limit."""
    timers = Timers()
    monkeypatch.setattr(signals, "Timer", timers)
    monkeypatch.setattr(signals, "monotonic", lambda: timers.now)
    stopping = Signals()
    stopping.listen(lambda _: None, lambda: 30.0)
    stopping.ending()
    assert timers.kills_at == 30 + GRACE_SECONDS

    timers.now = closed_after
    stopping.ended()

    assert timers.kills_at == min(closed_after + LEAVE_SECONDS, 30 + GRACE_SECONDS)
