"""A worker's share of the limits that a configuration sets for the whole gate."""

from collections.abc import Iterable
from typing import Final, TypeVar

from pydantic import BaseModel

from tailchat_gate.config.model import Settings

_LIMITS: Final = ("client_connections", "client_requests", "handshakes", "tls_connections")
_RATES: Final = ("logins", "requests_per_person", "requests_per_token")
_Table = TypeVar("_Table", bound=BaseModel)


def share_of(settings: Settings, count: int) -> Settings:
    """Return the settings with each limit divided by the number of workers, rounded up.

    A limit of 0 stays 0.
    """
    # With a state server, rates are counted there for all processes together.
    of_rates = 1 if settings.state.url else count
    routes = tuple(
        _shared(route, ("max_connections",), count, ("rate", "rate_per_client"), of_rates)
        for route in settings.route
    )
    limits = _shared(settings.limits, _LIMITS, count, _RATES, of_rates)
    return settings.model_copy(update={"limits": limits, "route": routes})


def _shared(
    table: _Table, limits: Iterable[str], count: int, rates: Iterable[str], of_rates: int
) -> _Table:
    parts: dict[str, int | str] = {name: _part(getattr(table, name), count) for name in limits}
    for name in rates:
        number, mark, unit = getattr(table, name).partition("/")
        parts[name] = f"{_part(int(number), of_rates)}{mark}{unit}" if mark else ""
    return table.model_copy(update=parts)


def _part(limit: int, count: int) -> int:
    return -(-limit // count)
