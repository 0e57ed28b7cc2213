"""Where logins return to: what was asked for, made safe and short, and the way to a long one."""

from dataclasses import dataclass

from aiohttp import web

from tailchat_gate.answers import Answers
from tailchat_gate.identity.handoff import Sites, read_arrival
from tailchat_gate.identity.kept_targets import ReturnTargets
from tailchat_gate.identity.login import MAX_RETURN_TO, safe_return_to
from tailchat_gate.reasons import Reason
from tailchat_gate.request.query import query_pairs
from tailchat_gate.request.visit import Visit


@dataclass(frozen=True, slots=True)
class Targets:
    """The return targets of one configuration; `longest` is how long one may be."""

    answers: Answers
    sites: Sites
    returns: ReturnTargets
    prefix: str
    longest: int

    def asked(self, visit: Visit) -> str:
        """Return where a login is to return to, short enough to travel with it."""
        wanted = dict(query_pairs(visit.target.query)).get("rd", "/")
        found = self.safe(wanted, visit.host)
        if len(found) <= MAX_RETURN_TO and self.is_arrival(found):
            # It was made short where it began, and is for another host.
            return found
        origin = self.sites.origin(visit.host)
        return self.returns.short(found, origin=origin, visitor=visit.client)

    def safe(self, return_to: str, host: str = "") -> str:
        """Return a target on a host as it is, "/" where it is not surely the gate's."""
        return safe_return_to(
            return_to,
            longest=self.longest,
            public_origin=self.sites.origin(host),
            allowed_origins=self.sites,
            prefix=self.prefix,
        )

    def is_arrival(self, return_to: str) -> bool:
        """Tell whether a target is the arrival of a sign-in at a tool's host."""
        return read_arrival(return_to, self.sites, self.prefix) is not None

    def at_last(self, return_to: str) -> str:
        """Return the address that a login is to return to at last, for a link."""
        arrival = read_arrival(return_to, self.sites, self.prefix)
        if arrival is None:
            return return_to
        return f"{self.sites.origin(arrival.host)}{self.safe(arrival.return_to, arrival.host)}"

    def shown(self, return_to: str) -> str:
        """Return what a person is told of a target."""
        return self.returns.shown(return_to)

    async def back(self, _request: web.BaseRequest, visit: Visit) -> web.StreamResponse:
        """Lead to a return target that was too long to travel with a login."""
        origin = self.sites.origin(visit.host)
        found, instead = self.returns.find(dict(query_pairs(visit.target.query)), origin)
        if found is not None:
            return self.answers.onward(visit, self.safe(found, visit.host))
        path = self.safe(instead, visit.host)
        url = f"{origin}{path if path.startswith('/') else '/'}"
        return self.answers.problem(visit, Reason.LOGIN_TARGET_LOST, retry_url=url)
