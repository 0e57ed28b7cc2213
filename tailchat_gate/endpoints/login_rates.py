"""Limits how often one client may begin a login, and how often it may finish one."""

from dataclasses import dataclass

from aiohttp import web

from tailchat_gate.access.rates import RateLimit
from tailchat_gate.endpoints.login import LoginEndpoints
from tailchat_gate.identity.oauth.login import LoginRefused
from tailchat_gate.reasons import Reason
from tailchat_gate.request.client import SITE_BITS, network_of
from tailchat_gate.request.context import RequestContext


@dataclass(frozen=True, slots=True)
class LoginRates:
    """The handlers of the two steps of `login` that anybody can request; None is no limit."""

    login: LoginEndpoints
    starts: RateLimit | None
    callbacks: RateLimit | None

    async def start(self, request: web.BaseRequest, context: RequestContext) -> web.StreamResponse:
        """Begin a login."""
        if wait := _wait(self.starts, context):
            return self.login.login_refusals.too_many(context, wait)
        return await self.login.start(request, context)

    async def callback(
        self, request: web.BaseRequest, context: RequestContext
    ) -> web.StreamResponse:
        """Finish a login; the page of an earlier refusal is not limited, as it calls nobody."""
        refusals = self.login.login_refusals
        if page := refusals.before(request, context):
            return page
        if wait := _wait(self.callbacks, context):
            detail = {"retry_after": str(wait)}
            refused = LoginRefused(Reason.LOGIN_RATE_LIMITED, detail)
            return refusals.refuse(request, context, refused)
        return await self.login.callback(request, context)


def _wait(limit: RateLimit | None, context: RequestContext) -> int:
    if limit is None:
        return 0
    network = network_of(context.client_address.network, SITE_BITS)
    wait = limit.enter(network, context.started, stranger=True)
    if wait:
        context.limit = limit.name
    return wait
