"""Forward-auth: tells a proxy in front who a visitor is."""

from typing import Final

from aiohttp import web

from tailchat_gate.answers import Answers
from tailchat_gate.identity.site import SiteSessions
from tailchat_gate.proxy.identity_headers import IdentityHeaders
from tailchat_gate.reasons import Reason
from tailchat_gate.request.visit import Visit

# A name of its own, because an enum's attribute costs ten times a global.
_OWN_PATH: Final = Reason.OWN_PATH
_ACCEPTED: Final = 202


class ForwardAuth:
    """The handler of /oauth2/auth."""

    def __init__(
        self, *, answers: Answers, sessions: SiteSessions, identity: IdentityHeaders
    ) -> None:
        self._answers = answers
        self._sessions = sessions
        self._identity = identity

    def ready_answer(self, visit: Visit, *, keep: bool) -> bytes | None:
        """Return the answer for a signed-in visitor, None for anybody else.

        It is asked for with every request that the proxy gets, so it is made without a page.
        `keep`: the client's connection stays behind it.
        """
        fields = visit.head.fields
        authenticator = self._sessions.at(fields.host.name).authenticator
        visitor = authenticator.visitor_of(fields)
        if visitor is None:
            return None
        visit.reason, visit.status, visit.sub = _OWN_PATH, _ACCEPTED, visitor.record.sub
        return self._answers.identity(self._identity.plain_fields(visitor), visit.head, keep=keep)

    async def answer(self, _request: web.BaseRequest, visit: Visit) -> web.StreamResponse:
        """Refuse a visitor who is not signed in; never with a redirect."""
        return self._answers.problem(visit, Reason.NOT_SIGNED_IN)
