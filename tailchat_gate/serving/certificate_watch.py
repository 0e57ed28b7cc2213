"""Tells of the gate's own certificates: when they expire, in a metric and, in time, in the log."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from tailchat_gate.config.certificates import CertificateFacts, date_problem
from tailchat_gate.observe.families import Collected, Family
from tailchat_gate.observe.log import LOGGER_NAME

#: How often the dates are looked at while the gate serves; at a start and a reload the warnings of
#: the configuration tell of them.
LOOK_SECONDS: Final = 86_400.0
#: What may become of a connection that is being opened; "crowded": it made room for another one,
#: and counts as "failed" too, "refused": there was no room for it.
OUTCOMES: Final = ("opened", "failed", "slow", "refused", "crowded", "no-proxy-header")

_OPENED: Final = Family(
    "gate_connections_opened",
    "TLS handshakes and PROXY headers of clients that ended, by outcome.",
    ("outcome",),
)

_log: Final = logging.getLogger(LOGGER_NAME)


class CertificateWatch:
    """Looks at the dates of the certificates in force; `clock` gives Unix seconds.

    `openings` counts TLS handshakes and PROXY headers by their outcome.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._facts: Sequence[CertificateFacts] = ()
        self._timer: asyncio.TimerHandle | None = None
        self.openings: Final[Counter[str]] = Counter()

    def use(self, facts: Sequence[CertificateFacts]) -> None:
        """Look at these certificates from now on; needs a running event loop."""
        self._facts = facts
        self.close()
        if facts:
            self._wait()

    def close(self) -> None:
        """Look at no certificate any longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def look(self) -> None:
        """Log each certificate that has expired or will soon."""
        for facts in self._facts:
            if problem := date_problem(facts, self._clock()):
                details = {"file": facts.file, "names": facts.names, "problem": problem}
                _log.warning("a certificate of the gate needs renewal", extra={"details": details})

    @property
    def expiries(self) -> dict[str, float]:
        """When the certificates expire, by file."""
        return {facts.file: facts.expires for facts in self._facts}

    def metrics(self) -> Iterator[Collected]:
        """Yield what became of connections being opened."""
        yield _OPENED, (((outcome,), self.openings[outcome]) for outcome in OUTCOMES)

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._wait()
        self.look()
