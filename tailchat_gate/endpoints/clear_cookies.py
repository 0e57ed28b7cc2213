"""Clears the cookies in a browser that sends more of them than the gate or a tool takes."""

from dataclasses import dataclass

from aiohttp import web

from tailchat_gate.identity.sites import Sites
from tailchat_gate.reasons import Reason
from tailchat_gate.request.context import RequestContext
from tailchat_gate.request.intent import is_own_form
from tailchat_gate.responses.answers import Answers


@dataclass(frozen=True, slots=True)
class ClearCookies:
    """The handler of /oauth2/clear_cookies; `Answers.unreadable` answers where the gate reads none.

    It ends no session in the store: nobody has to be known for it.
    """

    answers: Answers
    sites: Sites

    async def answer(
        self, _request: web.BaseRequest, context: RequestContext
    ) -> web.StreamResponse:
        """Show the form on GET, clear the cookies on POST: no link and no other page does."""
        headers = context.head.fields.headers
        if not self.answers.may_clear(context.host):
            return self.answers.problem(context, Reason.NO_ROUTE)
        if context.method != "POST":
            return self.answers.page(context, "clear_cookies")
        if not is_own_form(headers, self.sites.origin(context.host)):
            return self.answers.problem(context, Reason.CROSS_ORIGIN)
        return self.answers.cookies_cleared(self.answers.language(context))
