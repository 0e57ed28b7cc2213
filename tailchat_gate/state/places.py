"""Where state is stored: a directory, a server, or nowhere; and the store for each."""

from collections.abc import Callable
from pathlib import Path

from tailchat_gate.config.tables.process import State
from tailchat_gate.state.bookkeeping import Health
from tailchat_gate.state.redis import RedisStore
from tailchat_gate.state.redis_client import CALL_SECONDS
from tailchat_gate.state.redis_servers import RedisPlace
from tailchat_gate.state.sqlite import SqliteStore

#: A directory with a SQLite database, or a server.
Place = Path | RedisPlace


def place_of(state: State) -> Place | None:
    """Return where a configuration stores state; None: in memory."""
    return server_of(state) or (Path(state.path) if state.path else None)


def server_of(state: State) -> RedisPlace | None:
    """Return the server that stores state, None if there is none."""
    if not state.url:
        return None
    return RedisPlace(state.url, state.password, state.sentinel_password)


def shared_store(
    place: Place, clock: Callable[[], float], health: Health, *, patience: float = CALL_SECONDS
) -> SqliteStore | RedisStore:
    """Return the store of a place; it is not open yet.

    `patience`: how many seconds a server may take for one call.
    """
    if isinstance(place, RedisPlace):
        return RedisStore(place, clock, health, patience=patience)
    return SqliteStore(place, clock, health)
