"""Signs visitors in inside a frame in a page of another site, through a new window.

Browsers send a frame's requests without its site's cookies, so a frame lacks the session of a tab.
Tailchat's pages must not be framed, because the page around could cover parts of them.
"""

from dataclasses import dataclass

from aiohttp import web

from tailchat_gate.access.browser_origin import Embedders
from tailchat_gate.endpoints.login_answers import Bindings, Targets
from tailchat_gate.identity.oauth.login_state import browser_hash
from tailchat_gate.identity.sites import Sites, handoff_url
from tailchat_gate.request.context import RequestContext
from tailchat_gate.request.intent import is_frame
from tailchat_gate.responses.answers import Answers


@dataclass(frozen=True, slots=True)
class FrameSignIn:
    """The two pages of a sign-in in a frame: the first in the frame, the last in the window."""

    answers: Answers
    bindings: Bindings
    targets: Targets
    sites: Sites
    embedders: Embedders
    prefix: str

    async def offer(self, request: web.BaseRequest, context: RequestContext) -> web.StreamResponse:
        """Show a link that opens the sign-in in a window, whose session the frame takes over.

        The session is bound to a login cookie that only this frame has, so a page that opens such
        a window itself gets nothing.
        """
        origins = self.embedders.of_host(context.host)
        return_to = self.targets.return_to(context)
        if not origins or not is_frame(context.method, context.head.fields.headers):
            return self.answers.redirect(self.answers.start_url(return_to))
        cookie = self.bindings.for_login(request)
        target = handoff_url(
            self.sites.origin(context.host),
            self.prefix,
            browser=browser_hash(cookie.value),
            return_to=return_to,
            framed=True,
        )
        answer = self.answers.page(
            context,
            "embedded",
            ancestors=origins,
            start_url=self.sites.public_url + self.answers.start_url(target),
            arrive_url=f"{self.prefix}/arrive",
            tab_url=return_to,
        )
        self.bindings.set(request, answer, cookie, embedded=True)
        return answer

    async def hand_over(
        self, _request: web.BaseRequest, context: RequestContext
    ) -> web.StreamResponse:
        """Show the window's last page, whose script gives the handoff token to the frame."""
        url = f"{self.sites.origin(context.host)}/"
        return self.answers.page(context, "handed_over", tab_url=url)
