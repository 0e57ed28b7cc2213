"""Settings that need a store, because memory is one process's and ends with it."""

from collections.abc import Iterator
from typing import Final

from tailchat_gate.config.problems import Conflict, shown

_WORKERS: Final = "workers"


def without_store(workers: int | str, *, stores_sessions: bool) -> Iterator[Conflict]:
    """Find what cannot be where state is in memory alone."""
    if stores_sessions:
        yield Conflict(("session", "store"), "true", "state.path or state.url, not memory alone")
    if workers != 1:
        wanted = (
            "1, or a store that the processes share, in state.path or state.url: in memory, each "
            "would have locks, ended sessions and used logins of its own"
        )
        yield Conflict(("server", _WORKERS), shown(workers), wanted)
