"""Stores return targets that are too long for an address, for a while, under short names."""

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_network
from typing import Final
from urllib.parse import quote, unquote

from tailchat_gate.identity.oauth.login_state import STATE_LIFETIME

#: The longest target that travels with a login, quoted: a handoff target holds it quoted, and
#: the sealed state with it has to fit into an address that every server accepts.
LONGEST_CARRIED: Final = 1280
#: The longest path, quoted, that the short address shows once the full target is gone.
_LONGEST_INSTEAD: Final = 512
#: Bytes of stored targets, of all visitors and of one.
MAX_BYTES: Final = 16 << 20
MAX_BYTES_EACH: Final = 2 << 20
#: The memory that an entry takes beside its target.
_OVERHEAD: Final = 512
#: An IPv6 visitor counts by network: one visitor has very many addresses.
_IPV6_PREFIX: Final = 64


@dataclass(frozen=True, slots=True)
class _Kept:
    """A target on an origin, the visitor it is stored for, and until when."""

    origin: str
    target: str
    visitor: str
    until: float

    @property
    def size(self) -> int:
        return len(self.target) + _OVERHEAD


class StoredTargets:
    """Stores targets under secret names; evicts the oldest, the visitor's own first.

    The same target has one name, so that a page that is loaded again and again costs no more.
    `secret` is the process's own: other processes do not know its names. `clock`: Unix seconds.
    """

    def __init__(self, secret: bytes, clock: Callable[[], float]) -> None:
        self._secret = secret
        self._clock = clock
        self._all: OrderedDict[str, _Kept] = OrderedDict()
        self._of: dict[str, OrderedDict[str, None]] = {}
        self._sizes: dict[str, int] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._all)

    def keep(self, target: str, *, origin: str, visitor: str) -> str:
        """Store a target for as long as a login may take; return its name.

        `visitor` is the address that sent the request.
        """
        visitor = _network(visitor)
        text = f"{origin}\n{visitor}\n{target}".encode("utf-8", "surrogatepass")
        name = hmac.digest(self._secret, text, hashlib.sha256).hex()[:32]
        if name in self._all:
            self._drop(name)
        kept = _Kept(origin, target, visitor, self._clock() + STATE_LIFETIME)
        self._all[name] = kept
        self._of.setdefault(visitor, OrderedDict())[name] = None
        self._sizes[visitor] = self._sizes.get(visitor, 0) + kept.size
        self.bytes += kept.size
        while self._sizes.get(visitor, 0) > MAX_BYTES_EACH:
            self._drop(next(iter(self._of[visitor])))
        while self._all and (
            self.bytes > MAX_BYTES or next(iter(self._all.values())).until < self._clock()
        ):
            self._drop(next(iter(self._all)))
        return name

    def find(self, name: str, origin: str) -> str | None:
        """Return the target of a name on an origin, None if it is not stored."""
        kept = self._all.get(name)
        if kept is None or kept.origin != origin or kept.until < self._clock():
            return None
        return kept.target

    def _drop(self, name: str) -> None:
        kept = self._all.pop(name)
        self.bytes -= kept.size
        self._sizes[kept.visitor] -= kept.size
        own = self._of[kept.visitor]
        del own[name]
        if not own:
            del self._of[kept.visitor], self._sizes[kept.visitor]


@dataclass(frozen=True, slots=True)
class ReturnTargets:
    """Shortens return targets, and finds them again; `prefix` is that of the gate's paths."""

    kept: StoredTargets
    prefix: str

    def short(self, target: str, *, origin: str, visitor: str) -> str:
        """Return a target that fits into a login and represents `target` on `origin`."""
        # The length first: quoting a short one is cheap, and a long one is never quoted.
        if len(target) <= LONGEST_CARRIED and len(quote(target, safe="/")) <= LONGEST_CARRIED:
            return target
        path = quote(target.partition("?")[0].partition("#")[0], safe="/")
        instead = path if len(path) <= _LONGEST_INSTEAD else "/"
        name = self.kept.keep(target, origin=origin, visitor=visitor)
        return f"{self.prefix}/back?to={name}&else={instead}"

    def shown(self, target: str) -> str:
        """Return the text that shows a person a target that travels with a login."""
        start, mark, instead = target.partition("&else=")
        is_short = bool(mark) and start.startswith(f"{self.prefix}/back?")
        return unquote(instead) if is_short else target

    def find(self, query: Mapping[str, str], origin: str) -> tuple[str | None, str]:
        """Return the full target of a short one, None if it is gone, and its path."""
        return self.kept.find(query.get("to", ""), origin), query.get("else", "/")


def _network(address: str) -> str:
    """Return the network of an IPv6 address, or any other address as it is."""
    if ":" not in address:
        return address
    try:
        return str(ip_network((IPv6Address(address), _IPV6_PREFIX), strict=False))
    except ValueError:
        return address
