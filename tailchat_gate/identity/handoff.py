"""Carries a sign-in from the gate's public host to a tool's host, once and to one browser."""

import hashlib
import json
import re
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from typing import Final
from urllib.parse import quote, urlsplit

from tailchat_gate.identity.login import LoginRefused, StrayLogin
from tailchat_gate.identity.login_cookie import is_bound_to
from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.identity.session import SessionRecord
from tailchat_gate.reasons import Reason
from tailchat_gate.request.hosts import HostPatterns
from tailchat_gate.request.query import query_pairs
from tailchat_gate.syntax import CLOCK_SKEW, COMPACT

#: A pass is used by the redirect that carries it; a minute allows for a slow phone.
PASS_LIFETIME: Final = 60
_PORT: Final = re.compile(r":[0-9]+$")


class Sites:
    """The origins that one gate serves: its public one, and one for each host of a route.

    A session cookie belongs to one host, so that a tool's host cannot use another's. `hosts` are
    the hosts that routes name, wildcards among them. An origin in normal form is `in` it where a
    route's host covers it: a login may return there.
    """

    def __init__(self, public_url: str, hosts: Iterable[str]) -> None:
        self.public_url: Final = public_url
        #: Hosts as routes name them.
        self.hosts: Final = frozenset(hosts)
        self._scheme, _, authority = public_url.partition("://")
        self._port = (_PORT.search(authority) or [""])[0]
        #: The host name of the public origin.
        self.public_host: Final = authority.removesuffix(self._port)
        self._covered = HostPatterns(dict.fromkeys(self.hosts, True))

    def origin(self, host: str) -> str:
        """Return the origin of a host: that of a tool, or the public one for any other host."""
        if not self.is_tool(host):
            return self.public_url
        return f"{self._scheme}://{host}{self._port}"

    def is_tool(self, host: str) -> bool:
        """Tell whether a host is a tool's own, other than the public one."""
        return self._covered.get(host) is not None and host != self.public_host

    def port(self, host: str) -> str:
        """Return the port that visitors name with a host of the gate's, "" for that of the scheme.

        A proxy in front may leave it out of the Host that it passes on.
        """
        known = host == self.public_host or self.is_tool(host)
        return self._port.removeprefix(":") if known else ""

    def __contains__(self, origin: object) -> bool:
        host = str(origin).partition("://")[2].removesuffix(self._port)
        return self._covered.get(host) is not None and self.origin(host) == origin


@dataclass(frozen=True, slots=True)
class Arrival:
    """Where a sign-in is wanted: the tool's `host`, the `browser` there, the path to go on to.

    `again`: it is asked for in the place of one that came to another browser.
    """

    host: str
    browser: str
    return_to: str
    again: bool = False


@dataclass(frozen=True, slots=True)
class Pass:
    """A sign-in on its way; `pass_id` names it, so that it is used once."""

    pass_id: str
    record: SessionRecord
    return_to: str
    expires_at: float


def arrival_url(
    origin: str, prefix: str, *, browser: str, return_to: str, again: bool = False
) -> str:
    """Return the address on a tool's host that finishes a sign-in there.

    `browser` is the hash of a login cookie on that host. It needs no seal: whoever forges it
    gets a pass that only the browser with that cookie can use, and that goes to the visitor.
    """
    once_more = "&again=1" if again else ""
    query = f"for={quote(browser)}&rd={quote(return_to, safe='/')}{once_more}"
    return f"{origin}{prefix}/arrive?{query}"


def read_arrival(return_to: str, sites: Sites, prefix: str) -> Arrival | None:
    """Return the arrival that a return target names, None for any other target."""
    parts = urlsplit(return_to)
    host = parts.hostname or ""
    if parts.path != f"{prefix}/arrive" or not sites.is_tool(host):
        return None
    query = dict(query_pairs("?" + parts.query))
    browser, target = query.get("for", ""), query.get("rd", "/")
    return Arrival(host, browser, target, query.get("again") == "1") if browser else None


def make_pass(record: SessionRecord, arrival: Arrival, *, keys: KeyRing, now: float) -> str:
    """Return the sealed pass that lets one browser on one host take over `record`."""
    body = {"record": asdict(record), "arrival": asdict(arrival), "at": int(now)}
    return keys.seal(json.dumps(body, ensure_ascii=False, separators=COMPACT).encode())


def open_pass(
    sealed: str, browser_cookies: Collection[str], *, host: str, keys: KeyRing, now: float
) -> Pass:
    """Return the sign-in that a pass carries, or raise LoginRefused: StrayLogin for one of ours.

    It must be sealed by this gate, for this host and this browser, at most PASS_LIFETIME
    seconds ago.
    """
    data = keys.open(sealed)
    if data is None:
        raise LoginRefused(Reason.LOGIN_STATE_FORGED)
    body = json.loads(data)
    record = SessionRecord.from_fields(body["record"])
    arrival = Arrival(**body["arrival"])
    if record is None or arrival.host != host:
        raise LoginRefused(Reason.LOGIN_STATE_FORGED)
    reason = None
    if not -CLOCK_SKEW <= now - body["at"] <= PASS_LIFETIME:
        reason = Reason.LOGIN_STATE_EXPIRED
    elif not is_bound_to(arrival.browser, browser_cookies):
        reason = Reason.LOGIN_OTHER_BROWSER if browser_cookies else Reason.COOKIES_BLOCKED
    if reason is not None:
        raise StrayLogin(reason, return_to=arrival.return_to, again=arrival.again)
    pass_id = hashlib.sha256(sealed.encode()).hexdigest()[:32]
    return Pass(pass_id, record, arrival.return_to, body["at"] + PASS_LIFETIME)
