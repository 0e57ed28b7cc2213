"""The origins of the gate's hosts, and the handoff of a session from one host to another."""

import hashlib
import json
import re
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from typing import Final
from urllib.parse import quote, urlsplit

from tailchat_gate.identity.oauth.login import LoginRefused, StrayLogin
from tailchat_gate.identity.oauth.login_state import is_bound_to
from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.reasons import Reason
from tailchat_gate.request.target import HostPatterns, query_pairs
from tailchat_gate.syntax import CLOCK_SKEW, COMPACT, HTTP_ORIGIN

#: Seconds for which a handoff token is valid: a redirect uses it at once, on a slow phone too.
HANDOFF_LIFETIME: Final = 60
_PORT: Final = re.compile(r":[0-9]+$")
_ORIGIN: Final = re.compile(HTTP_ORIGIN)


class Sites:
    """The origins that one gate serves: its public one, and one for each host of a route.

    A session cookie belongs to one host, so that one tool's host cannot use another's. `hosts`
    are the hosts in routes, wildcards included. `origin in sites` (in normal form) is true if a
    route's host covers the origin, so that a login may return there.
    """

    def __init__(self, public_url: str, hosts: Iterable[str]) -> None:
        self.public_url: Final = public_url
        #: Hosts as routes write them.
        self.hosts: Final = frozenset(hosts)
        self._scheme, _, authority = public_url.partition("://")
        self._port = (_PORT.search(authority) or [""])[0]
        #: The host name of the public origin.
        self.public_host: Final = authority.removesuffix(self._port)
        self._covered = HostPatterns(dict.fromkeys(self.hosts, True))

    def origin(self, host: str) -> str:
        """Return the origin of a host: its own for a tool's host, else the public one."""
        if not self.is_tool(host):
            return self.public_url
        return f"{self._scheme}://{host}{self._port}"

    def is_tool(self, host: str) -> bool:
        """Whether a host is a tool's own, other than the public one."""
        return self._covered.get(host) is not None and host != self.public_host

    def is_known(self, host: str) -> bool:
        """Whether a host is the public one or a tool's."""
        return host == self.public_host or self.is_tool(host)

    def port(self, host: str) -> str:
        """Return the port that visitors add to a host of the gate, "" for the scheme's default.

        A proxy in front may leave it out of the Host field.
        """
        return self._port.removeprefix(":") if self.is_known(host) else ""

    def __contains__(self, origin: object) -> bool:
        text = str(origin)
        host = text.partition("://")[2].removesuffix(self._port)
        covered = self._covered.get(host) is not None and self.origin(host) == text
        # A wildcard covers any text before its name, and an Origin field may have any.
        return covered and _ORIGIN.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class HandoffTarget:
    """Where to sign in: the tool's `host`, the `browser` there, and the path to continue at.

    `again`: this target replaces one that reached another browser. `framed`: the session is for a
    frame in a page of another site.
    """

    host: str
    browser: str
    return_to: str
    again: bool = False
    framed: bool = False


@dataclass(frozen=True, slots=True)
class HandoffToken:
    """A sign-in on its way to a tool's host; `token_id` identifies it, so that it is used once."""

    token_id: str
    record: SessionRecord
    return_to: str
    expires_at: float
    language: str = ""


def handoff_url(
    origin: str,
    prefix: str,
    *,
    browser: str,
    return_to: str,
    again: bool = False,
    framed: bool = False,
) -> str:
    """Return the URL on a tool's host that finishes a sign-in there.

    `browser` is the hash of a login cookie on that host. It needs no seal: a forged hash only
    yields a token for a browser with that cookie.
    """
    flags = ("&again=1" if again else "") + ("&framed=1" if framed else "")
    query = f"for={quote(browser)}&rd={quote(return_to, safe='/')}{flags}"
    return f"{origin}{prefix}/arrive?{query}"


def read_handoff_target(return_to: str, sites: Sites, prefix: str) -> HandoffTarget | None:
    """Return the handoff target in a return target, None for any other return target."""
    parts = urlsplit(return_to)
    query = dict(query_pairs("?" + parts.query))
    framed = query.get("framed") == "1"
    # A target on the public host is a path; only a frame there needs a handoff.
    host = parts.hostname or sites.public_host
    if parts.path != f"{prefix}/arrive" or not (framed or sites.is_tool(host)):
        return None
    browser, target = query.get("for", ""), query.get("rd", "/")
    again = query.get("again") == "1"
    return HandoffTarget(host, browser, target, again, framed) if browser else None


def seal_handoff_token(
    record: SessionRecord, target: HandoffTarget, *, keys: KeyRing, now: float, language: str = ""
) -> str:
    """Return a sealed token that gives one browser on one host the session of `record`."""
    if target.framed:
        record = record._replace(embedded=True)
    body = {"record": record._asdict(), "arrival": asdict(target), "at": int(now)}
    body |= {"language": language} if language else {}
    return keys.seal(json.dumps(body, ensure_ascii=False, separators=COMPACT).encode())


def open_handoff_token(
    sealed: str, browser_cookies: Collection[str], *, host: str, keys: KeyRing, now: float
) -> HandoffToken:
    """Return the sign-in in a token.

    This gate must have sealed it for this host and browser, at most HANDOFF_LIFETIME seconds ago.
    Raises LoginRefused for a forged token or another host, StrayLogin for an expired token or
    another browser.
    """
    data = keys.open(sealed)
    if data is None:
        raise LoginRefused(Reason.LOGIN_STATE_FORGED)
    body = json.loads(data)
    record = SessionRecord.from_fields(body["record"])
    target = HandoffTarget(**body["arrival"])
    if record is None or target.host != host:
        raise LoginRefused(Reason.LOGIN_STATE_FORGED)
    reason = None
    if not -CLOCK_SKEW <= now - body["at"] <= HANDOFF_LIFETIME:
        reason = Reason.LOGIN_STATE_EXPIRED
    elif not is_bound_to(target.browser, browser_cookies):
        reason = Reason.LOGIN_OTHER_BROWSER if browser_cookies else Reason.COOKIES_BLOCKED
    if reason is not None:
        raise StrayLogin(reason, return_to=target.return_to, again=target.again)
    token_id = hashlib.sha256(sealed.encode()).hexdigest()[:32]
    ends_at = body["at"] + HANDOFF_LIFETIME
    return HandoffToken(token_id, record, target.return_to, ends_at, body.get("language", ""))
