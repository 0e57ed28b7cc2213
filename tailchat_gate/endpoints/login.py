"""The handlers of a sign-in: its start, Tailchat's callback, and the handoff to a tool's host."""

import os
from collections.abc import Awaitable
from dataclasses import dataclass

from aiohttp import web

from tailchat_gate.endpoints.login_answers import Bindings, LoginRefusals, Targets, check_page
from tailchat_gate.identity.host_sessions import HostSessions
from tailchat_gate.identity.oauth.client import TailchatClient
from tailchat_gate.identity.oauth.login import (
    LoginRefused,
    PendingCallback,
    StrayLogin,
    accept_callback,
    begin_login,
    open_callback,
)
from tailchat_gate.identity.oauth.login_queue import LoginQueue
from tailchat_gate.identity.oauth.login_state import browser_hash
from tailchat_gate.identity.oauth.redemptions import AlreadyUsed, Redemptions
from tailchat_gate.identity.oauth.shared_redemptions import Codec
from tailchat_gate.identity.oauth.sign_in_watch import SignInWatch
from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.identity.sessions.session_cookie import SessionTooLargeError
from tailchat_gate.identity.sites import (
    HandoffToken,
    Sites,
    handoff_url,
    open_handoff_token,
    read_handoff_target,
    seal_handoff_token,
)
from tailchat_gate.observe.audit import Audit
from tailchat_gate.observe.metrics import Metrics
from tailchat_gate.people.watch import PeopleWatch
from tailchat_gate.reasons import Reason
from tailchat_gate.request.context import RequestContext
from tailchat_gate.request.intent import Intent, opens_page, read_intent
from tailchat_gate.request.target import cookie_fields, query_pairs
from tailchat_gate.responses.answers import Answers
from tailchat_gate.responses.details import rejection_detail
from tailchat_gate.responses.refusals import Refusals


@dataclass(frozen=True, slots=True)
class LoginEndpoints:
    """The handlers of a login for one configuration.

    `keeps_tokens`: whether sessions hold Tailchat's tokens, which rechecks need.
    """

    answers: Answers
    refusals: Refusals
    tailchat: TailchatClient
    sign_in_watch: SignInWatch
    people: PeopleWatch
    sessions: HostSessions
    bindings: Bindings
    targets: Targets
    sites: Sites
    used_states: Redemptions[SessionRecord]
    used_handoffs: Redemptions[SessionRecord]
    login_queue: LoginQueue
    states: KeyRing
    handoffs: KeyRing
    outcomes: Codec[SessionRecord]
    login_refusals: LoginRefusals
    metrics: Metrics
    audit: Audit
    prefix: str
    keeps_tokens: bool

    async def sign_in(
        self, _request: web.BaseRequest, context: RequestContext
    ) -> web.StreamResponse:
        """Show the sign-in page, which preserves the #fragment of the URL."""
        return_to = self.targets.return_to(context)
        if obstacle := await self.sign_in_watch.obstacle():
            return self.login_refusals.broken(context, obstacle, return_to)
        return self.answers.page(
            context,
            "sign_in",
            start_url=self.answers.start_url(return_to),
            return_to="" if return_to == "/" else self.targets.shown(return_to),
            tool=self.targets.tool(context, return_to),
        )

    async def start(self, request: web.BaseRequest, context: RequestContext) -> web.StreamResponse:
        """Begin a login: set a login cookie, and redirect to Tailchat or the public host."""
        headers = context.head.fields.headers
        intent = read_intent(context.method, headers)
        if not opens_page(headers, framed=True):
            # Only a page can go on to Tailchat's pages; other requests must not set cookies.
            if intent is Intent.NAVIGATION:
                return self.answers.problem(context, Reason.LOGIN_NOT_A_PAGE)
            return self.refusals.not_signed_in(context)
        cookie = self.bindings.for_login(request)
        query = query_pairs(context.target.query)
        prompt = "login" if ("prompt", "login") in query else ""
        again = ("again", "1") in query
        return_to = self.targets.return_to(context)
        if self.sites.is_tool(context.host):
            target = self._handoff_url(context, cookie.value, return_to, again=again)
            location = self.sites.public_url + self.answers.start_url(target, prompt=prompt)
        else:
            record = await self._record(request, context)
            if record is not None and not prompt and self.targets.is_handoff(return_to):
                return self._go_on(context, return_to, record)
            if intent is Intent.FRAME:
                # Tailchat's pages need a tab, because a page around a frame could cover them.
                return self.answers.in_frame(
                    context, Reason.NOT_SIGNED_IN, self.targets.at_last(return_to)
                )
            if obstacle := await self.sign_in_watch.obstacle():
                return self.login_refusals.broken(context, obstacle, return_to)
            self.sign_in_watch.login_began(headers.get("User-Agent", ""))
            self.metrics.login_stage("began")
            location = self._by_tailchat(cookie.value, return_to, prompt, again=again)
        answer = self.answers.redirect(location)
        self.bindings.set(request, answer, cookie)
        return answer

    async def callback(
        self, request: web.BaseRequest, context: RequestContext
    ) -> web.StreamResponse:
        """Finish a login: check the callback, redeem its code once, open the session."""
        try:
            check_page(context)
            pending = open_callback(
                query_pairs(context.target.query),
                self.bindings.values(request),
                keyring=self.states,
                now=self.sessions.clock(),
            )
            self.sign_in_watch.login_returned()
            self.metrics.login_stage("returned")
            return await self._returning_to(
                pending.state.return_to, self._finish_login(request, context, pending)
            )
        except StrayLogin as stray:
            return await self._stray(request, context, stray)
        except LoginRefused as refused:
            return self.login_refusals.refuse(request, context, refused)

    async def arrive(self, request: web.BaseRequest, context: RequestContext) -> web.StreamResponse:
        """Open a session on a tool's host with the handoff token of the public host."""
        if page := self.login_refusals.before(request, context):
            return page
        try:
            check_page(context, framed=True)
            handoff = open_handoff_token(
                dict(query_pairs(context.target.query)).get("pass", ""),
                self.bindings.values(request),
                host=context.host,
                keys=self.handoffs,
                now=self.sessions.clock(),
            )
            return await self._returning_to(
                handoff.return_to, self._take_over(request, context, handoff)
            )
        except StrayLogin as stray:
            return await self._stray(request, context, stray)
        except LoginRefused as refused:
            return self.login_refusals.refuse(request, context, refused)

    async def _returning_to(
        self, return_to: str, ending: Awaitable[web.StreamResponse]
    ) -> web.StreamResponse:
        """Return the result of `ending`; its refusals get the return target of the login."""
        try:
            return await ending
        except LoginRefused as refused:
            refused.detail.setdefault("return_to", return_to)
            raise
        except SessionTooLargeError:
            raise LoginRefused(Reason.SESSION_TOO_LARGE, {"return_to": return_to}) from None

    async def _take_over(
        self, request: web.BaseRequest, context: RequestContext, handoff: HandoffToken
    ) -> web.StreamResponse:
        async def take() -> SessionRecord:
            return handoff.record._replace(login=handoff.token_id[:16])

        record = await self.used_handoffs.redeem_once(
            handoff.token_id, handoff.expires_at, take, codec=self.outcomes
        )
        context.sub = record.sub
        self._check_revocation(record, handoff.return_to)
        answer = self.answers.redirect(
            self.targets.safe(handoff.return_to, context.host), status=303
        )
        await self._open(request, context, answer, record)
        if not record.embedded:
            self.targets.keep_language(answer, handoff.language)
        return answer

    async def _finish_login(
        self, request: web.BaseRequest, context: RequestContext, pending: PendingCallback
    ) -> web.StreamResponse:
        state = pending.state
        session = await self._record(request, context)
        if session is not None and session.login == state.short_id:
            # The visitor reloaded the callback page or went back to it: the login is done.
            return self._go_on(context, state.return_to, session)
        code = await self._code(pending)

        sent = False

        async def redeem() -> SessionRecord:
            nonlocal sent
            async with self.login_queue.turn(context.client_address.network):
                sent = True
                identity = await self.tailchat.identity(code, state)
            # A sign-out everywhere ended all sign-ins up to its second.
            earliest = self.sessions.revocation.signed_out_at(identity.profile.sub) + 1
            record = SessionRecord.begin(
                identity.profile,
                now=max(self.sessions.clock(), earliest),
                login=state.short_id,
                tokens=identity.tokens if self.keeps_tokens else None,
                password_at=identity.auth_time,
            )
            host_session = self.sessions.at(context.host)
            return host_session.joined(record, cookie_fields(request.raw_headers))

        try:
            record = await self.used_states.redeem_once(
                state.state_id,
                state.expires_at,
                redeem,
                is_sent=lambda: sent,
                codec=self.outcomes,
            )
        except AlreadyUsed:
            if session is None:
                raise
            # The visitor went back to this callback after another tab had signed in.
            return self._go_on(context, state.return_to, session)
        context.sub = record.sub
        # OAuth does not report a ban. If Tailchat does not answer, the sign-in succeeds, and the
        # next check finds a ban.
        await self.people.confirm(record.sub)
        self._check_revocation(record, state.return_to)
        answer = self._go_on(context, state.return_to, record)
        await self._open(request, context, answer, record)
        self.metrics.login(Reason.SIGNED_IN)
        self.audit.event("signed-in", context, nickname=record.nickname)
        return answer

    async def _code(self, pending: PendingCallback) -> str:
        """Return the code of a callback. Raises LoginRefused.

        If the callback names another issuer, fetches the issuer again, because somebody may have
        corrected Tailchat's API_URL meanwhile.
        """
        try:
            return accept_callback(pending, expected_issuer=await self.tailchat.issuer())
        except LoginRefused as refused:
            if refused.reason is not Reason.LOGIN_ISSUER_WRONG:
                raise
        newer = await self.tailchat.issuer(newer=True)
        return accept_callback(pending, expected_issuer=newer)

    async def _open(
        self,
        request: web.BaseRequest,
        context: RequestContext,
        answer: web.StreamResponse,
        record: SessionRecord,
    ) -> None:
        await self.sessions.at(context.host).open(request, answer, record)
        self.bindings.prune(request, answer, embedded=record.embedded)

    async def _record(
        self, request: web.BaseRequest, context: RequestContext
    ) -> SessionRecord | None:
        """Return the valid session that the browser has on this host, None if there is none."""
        host_session = self.sessions.at(context.host)
        return await host_session.stored_record(cookie_fields(request.raw_headers))

    async def _stray(
        self, request: web.BaseRequest, context: RequestContext, stray: StrayLogin
    ) -> web.StreamResponse:
        """Answer a callback that this browser cannot finish, without signing anybody in.

        If another tab has signed in meanwhile, continues with that session. Otherwise a browser
        that stores cookies is sent to another login.
        """
        # The target of a handoff may be forged, because anybody can write it into a URL.
        return_to = self.targets.safe(stray.return_to, context.host)
        record = await self._record(request, context)
        if record is not None and not stray.prompt:
            return self._go_on(context, return_to, record)
        is_unknown = stray.reason is Reason.LOGIN_OTHER_BROWSER
        if is_unknown and not stray.again and self.bindings.of(request):
            return self.answers.redirect(
                self.answers.start_url(return_to, prompt=stray.prompt, again=True),
                status=303,
            )
        return self.login_refusals.refuse(request, context, stray)

    def _check_revocation(self, record: SessionRecord, return_to: str) -> None:
        """Raise LoginRefused if the person is locked out or the session has been ended."""
        rejection = self.sessions.revocation.bar(record)
        if rejection is not None:
            details = rejection_detail(record, rejection, self.sessions.clock())
            raise LoginRefused(rejection.reason, {**details, "return_to": return_to})

    def _by_tailchat(self, browser: str, return_to: str, prompt: str, *, again: bool) -> str:
        login = begin_login(
            self.tailchat.registration,
            return_to=return_to,
            browser_cookie=browser,
            keyring=self.states,
            now=self.sessions.clock(),
            random_bytes=os.urandom,
            prompt=prompt,
            again=again,
        )
        return self.tailchat.authorization_url(login.params)

    def _handoff_url(
        self, context: RequestContext, browser: str, return_to: str, *, again: bool
    ) -> str:
        return handoff_url(
            self.sites.origin(context.host),
            self.prefix,
            browser=browser_hash(browser),
            return_to=return_to,
            again=again,
        )

    def _go_on(
        self, context: RequestContext, return_to: str, record: SessionRecord
    ) -> web.Response:
        """Return the redirect to a return target, with a handoff token if it is on another host."""
        target = read_handoff_target(return_to, self.sites, self.prefix)
        if target is None:
            return self.answers.redirect(return_to, status=303)
        now, language = self.sessions.clock(), self.targets.chosen_language(context)
        keys = self.handoffs
        sealed = seal_handoff_token(record, target, keys=keys, now=now, language=language)
        origin = self.sites.origin(target.host)
        page = "handed_over" if target.framed else "arrive"
        return self.answers.redirect(f"{origin}{self.prefix}/{page}?pass={sealed}", status=303)
