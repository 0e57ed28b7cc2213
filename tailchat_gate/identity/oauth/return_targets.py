"""Stores return targets that are too long for a URL, for a while, under short names."""

import hashlib
import hmac
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote

from tailchat_gate.identity.oauth.login_state import STATE_LIFETIME

#: The longest quoted target that travels with a login: a handoff target quotes it again, and the
#: sealed state with it must fit into a URL that every server accepts.
LONGEST_CARRIED: Final = 1280
#: The longest quoted path in a short target, for when the full target is no longer stored.
_LONGEST_INSTEAD: Final = 512
#: The most bytes of stored targets, of all visitors and of one.
MAX_BYTES: Final = 16 << 20
MAX_BYTES_EACH: Final = 2 << 20
#: The memory that an entry takes beside its target.
_OVERHEAD: Final = 512
_NAME: Final = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class _StoredTarget:
    """A target on an origin, its visitor, and the Unix second at which it expires."""

    origin: str
    target: str
    visitor: str
    until: float

    @property
    def size(self) -> int:
        return len(self.target) + _OVERHEAD


class StoredTargets:
    """Stores targets under secret names; evicts the oldest, the visitor's own first.

    The same target of a visitor always has the same name, so that reloading a page costs no memory.
    `secret` is this process's own. `clock` returns Unix seconds.
    """

    def __init__(self, secret: bytes, clock: Callable[[], float]) -> None:
        self._secret = secret
        self._clock = clock
        self._all: OrderedDict[str, _StoredTarget] = OrderedDict()
        self._of: dict[str, OrderedDict[str, None]] = {}
        self._sizes: dict[str, int] = {}
        self.bytes = 0
        #: Asks other processes of the gate for the target of a name on an origin.
        self.others: Callable[[str, str], Awaitable[str | None]] | None = None

    def __len__(self) -> int:
        return len(self._all)

    def keep(self, target: str, *, origin: str, visitor: str) -> str:
        """Store a target for as long as a login may take; return its name.

        `visitor` is the network that sent the request (ClientAddress.network).
        """
        text = f"{origin}\n{visitor}\n{target}".encode("utf-8", "surrogatepass")
        name = hmac.digest(self._secret, text, hashlib.sha256).hex()[:32]
        if name in self._all:
            self._drop(name)
        stored = _StoredTarget(origin, target, visitor, self._clock() + STATE_LIFETIME)
        self._all[name] = stored
        self._of.setdefault(visitor, OrderedDict())[name] = None
        self._sizes[visitor] = self._sizes.get(visitor, 0) + stored.size
        self.bytes += stored.size
        while self._sizes.get(visitor, 0) > MAX_BYTES_EACH:
            self._drop(next(iter(self._of[visitor])))
        while self._all and (
            self.bytes > MAX_BYTES or next(iter(self._all.values())).until < self._clock()
        ):
            self._drop(next(iter(self._all)))
        return name

    def find(self, name: str, origin: str) -> str | None:
        """Return the target of a name on an origin, None if it is not stored."""
        stored = self._all.get(name)
        if stored is None or stored.origin != origin or stored.until < self._clock():
            return None
        return stored.target

    async def find_anywhere(self, name: str, origin: str) -> str | None:
        """Return the target of a name on an origin, whichever process stored it."""
        target = self.find(name, origin)
        if target is None and self.others is not None and _NAME.fullmatch(name):
            return await self.others(name, origin)
        return target

    def _drop(self, name: str) -> None:
        stored = self._all.pop(name)
        self.bytes -= stored.size
        self._sizes[stored.visitor] -= stored.size
        own = self._of[stored.visitor]
        del own[name]
        if not own:
            del self._of[stored.visitor], self._sizes[stored.visitor]


@dataclass(frozen=True, slots=True)
class ReturnTargets:
    """Shortens return targets, and finds them again; `prefix` is that of the gate's paths."""

    stored: StoredTargets
    prefix: str

    def short(self, target: str, *, origin: str, visitor: str) -> str:
        """Return `target` if it fits into a login, else a short target that stands for it."""
        # The length first, so that a long target is never quoted.
        if len(target) <= LONGEST_CARRIED and len(quote(target, safe="/")) <= LONGEST_CARRIED:
            return target
        path = quote(target.partition("?")[0].partition("#")[0], safe="/")
        instead = path if len(path) <= _LONGEST_INSTEAD else "/"
        name = self.stored.keep(target, origin=origin, visitor=visitor)
        return f"{self.prefix}/back?to={name}&else={instead}"

    def shown(self, target: str) -> str:
        """Return a target of a login as text for people."""
        start, mark, instead = target.partition("&else=")
        is_short = bool(mark) and start.startswith(f"{self.prefix}/back?")
        return unquote(instead) if is_short else target

    async def find(self, query: Mapping[str, str], origin: str) -> tuple[str | None, str]:
        """Return the full target of a short one, None if it is no longer stored, and its path."""
        target = await self.stored.find_anywhere(query.get("to", ""), origin)
        return target, query.get("else", "/")
