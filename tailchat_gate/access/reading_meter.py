"""Limits how many readings of paths one client may cause; pure, the time is the request's."""

from typing import Final

from tailchat_gate.bounded import BoundedCache
from tailchat_gate.request.client import SITE_BITS, network_of
from tailchat_gate.request.context import RequestContext
from tailchat_gate.request.readings import MAX_READINGS

#: Readings of a path that are not counted: honest paths have a handful.
FREE: Final = 8
#: Further readings that may come at once, and per second; one takes up to 50 microseconds.
MOST: Final = 5000
A_SECOND: Final = 1000
#: In a long path, each this many characters count as a reading.
CHARACTERS: Final = 256
_INTERVAL: Final = 1 / A_SECOND
_AHEAD: Final = MOST * _INTERVAL
#: Networks that are remembered, each with the time at which it may have all of MOST again.
_NETWORKS: Final = 4096


class ReadingMeter:
    """Counts the readings of paths by the client's network.

    A path of a hundred bytes can take forty times as long to read as the rest of its request. A
    path with few readings is not counted and always passes, so a client that sends crafted paths
    does not harm others in the same network.
    """

    __slots__ = ("_due", "asker")

    def __init__(self) -> None:
        #: The request that is being judged, None if its readings are not counted.
        self.asker: RequestContext | None = None
        self._due: Final[BoundedCache[str, float]] = BoundedCache(_NETWORKS)

    def most(self) -> int:
        """Return how many readings the next path may have."""
        asker = self.asker
        if asker is None or not len(self._due):
            return MAX_READINGS
        due = self._due.get(_network(asker))
        return MAX_READINGS if due is None or due - asker.started <= _AHEAD else FREE

    def count(self, made: int, length: int = 0) -> None:
        """Count the `made` readings of a path with `length` characters."""
        asker = self.asker
        made = max(made, made * length // CHARACTERS)
        if asker is None or made <= FREE:
            return
        network = _network(asker)
        due = max(self._due.get(network) or 0.0, asker.started)
        self._due.keep(network, due + (made - FREE) * _INTERVAL)


def _network(asker: RequestContext) -> str:
    return network_of(asker.client_address.network, SITE_BITS)
