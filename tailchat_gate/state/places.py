"""Where a configuration stores state, in a directory or on a server, and the store for it."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from tailchat_gate.config.tables.process import State
from tailchat_gate.state.bookkeeping import Health
from tailchat_gate.state.redis.client import CALL_SECONDS
from tailchat_gate.state.redis.servers import RedisPlace
from tailchat_gate.state.redis.store import RedisStore
from tailchat_gate.state.sqlite.store import SqliteStore
from tailchat_gate.state.store import StoreError

#: A directory with a SQLite database, or a server.
Place = Path | RedisPlace

_REMEDIES: Final = {
    "path": (
        "; the directory must exist and be writable for the gate; "
        'set "" to keep state in memory only'
    ),
    "url": "; start that server, or name another one: without it the gate knows no locks",
}


def place_of(state: State) -> Place | None:
    """Return where a configuration stores state, None for in memory."""
    return server_of(state) or (Path(state.path) if state.path else None)


def server_of(state: State) -> RedisPlace | None:
    """Return the server that stores state, None if there is none."""
    if not state.url:
        return None
    return RedisPlace(state.url, state.password, state.sentinel_password)


def unusable(state: State, error: StoreError) -> tuple[str, str]:
    """Return the key of the store that did not open, and a sentence with what to do."""
    key = "url" if state.url else "path"
    remedy = "" if error.says_remedy else _REMEDIES[key]
    return key, f"[state] {key} cannot be used: {error}{remedy}"


def shared_store(
    place: Place, clock: Callable[[], float], health: Health, *, timeout: float = CALL_SECONDS
) -> SqliteStore | RedisStore:
    """Return the store of a place; it is not open yet.

    `timeout`: how many seconds a server may take for one call.
    """
    if isinstance(place, RedisPlace):
        return RedisStore(place, clock, health, timeout=timeout)
    return SqliteStore(place, clock, health)
