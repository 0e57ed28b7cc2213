"""Signing in: off to Tailchat, back with a code, and over to a tool's own host."""

import os
from collections.abc import Awaitable
from dataclasses import dataclass, replace

from aiohttp import web

from tailchat_gate.endpoints.login_refusals import LoginRefusals
from tailchat_gate.endpoints.login_targets import Bindings, Targets
from tailchat_gate.identity.host_sessions import (
    Pass,
    Sites,
    SiteSessions,
    arrival_url,
    make_pass,
    open_pass,
    read_arrival,
)
from tailchat_gate.identity.oauth.client import TailchatClient
from tailchat_gate.identity.oauth.login import (
    LoginRefused,
    PendingCallback,
    StrayLogin,
    accept_callback,
    begin_login,
    open_callback,
)
from tailchat_gate.identity.oauth.login_queue import Turns
from tailchat_gate.identity.oauth.login_state import browser_hash
from tailchat_gate.identity.oauth.redeemed_states import AlreadyUsed, UsedStates
from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.identity.sessions.session import SessionRecord, SessionTooLargeError
from tailchat_gate.identity.shared_claims import Codec
from tailchat_gate.observe.audit import Audit
from tailchat_gate.observe.metrics import Metrics
from tailchat_gate.reasons import Reason
from tailchat_gate.request.context import Visit
from tailchat_gate.request.intent import Intent, opens_page, read_intent
from tailchat_gate.request.target import cookie_fields, query_pairs
from tailchat_gate.responses.answers import Answers, locked_detail


@dataclass(frozen=True, slots=True)
class LoginEndpoints:
    """The handlers of a login for one configuration.

    `keeps_tokens`: whether sessions hold Tailchat's tokens, to ask about them again.
    """

    answers: Answers
    tailchat: TailchatClient
    sessions: SiteSessions
    bindings: Bindings
    targets: Targets
    sites: Sites
    used_states: UsedStates[SessionRecord]
    used_passes: UsedStates[SessionRecord]
    turns: Turns
    states: KeyRing
    passes: KeyRing
    outcomes: Codec[SessionRecord]
    refusals: LoginRefusals
    metrics: Metrics
    audit: Audit
    prefix: str
    keeps_tokens: bool

    async def sign_in(self, _request: web.BaseRequest, visit: Visit) -> web.StreamResponse:
        """Show the sign-in page, which keeps the #fragment of the address."""
        return_to = self.targets.asked(visit)
        return self.answers.page(
            visit,
            "sign_in",
            start_url=self.answers.start_url(return_to),
            return_to="" if return_to == "/" else self.targets.shown(return_to),
            tool=visit.host if self.sites.is_tool(visit.host) else "",
        )

    async def start(self, request: web.BaseRequest, visit: Visit) -> web.StreamResponse:
        """Begin a login: set a login cookie, and send the browser on."""
        headers = visit.head.fields.headers
        intent = read_intent(visit.method, headers)
        if not opens_page(headers, framed=True):
            # What is no tab cannot show Tailchat's pages, and must not leave cookies behind.
            if intent is Intent.NAVIGATION:
                return self.answers.problem(visit, Reason.LOGIN_NOT_A_PAGE)
            return self.answers.not_signed_in(visit)
        cookie = self.bindings.for_login(request)
        query = query_pairs(visit.target.query)
        prompt = "login" if ("prompt", "login") in query else ""
        again = ("again", "1") in query
        return_to = self.targets.asked(visit)
        if self.sites.is_tool(visit.host):
            arrival = self._arrival_url(visit, cookie.value, return_to, again=again)
            location = self.sites.public_url + self.answers.start_url(arrival, prompt=prompt)
        else:
            record = self._record(request, visit)
            if record is not None and not prompt and self.targets.is_arrival(return_to):
                return self._go_on(return_to, record)
            if intent is Intent.FRAME:
                # Tailchat's pages are for a tab: in a frame, anybody could lay something over them.
                return self.answers.in_frame(
                    visit, Reason.NOT_SIGNED_IN, self.targets.at_last(return_to)
                )
            location = self._by_tailchat(cookie.value, return_to, prompt, again=again)
        answer = self.answers.redirect(location)
        self.bindings.set(request, answer, cookie)
        return answer

    async def callback(self, request: web.BaseRequest, visit: Visit) -> web.StreamResponse:
        """Finish a login: believe the callback, redeem its code once, open the session."""
        if page := self.refusals.before(request, visit):
            return page
        try:
            _check_page(visit)
            pending = open_callback(
                query_pairs(visit.target.query),
                self.bindings.values(request),
                keyring=self.states,
                now=self.sessions.clock(),
            )
            return await self._returning_to(
                pending.state.return_to, self._finish_login(request, visit, pending)
            )
        except StrayLogin as stray:
            return self._stray(request, visit, stray)
        except LoginRefused as refused:
            return self.refusals.refuse(request, visit, refused)

    async def arrive(self, request: web.BaseRequest, visit: Visit) -> web.StreamResponse:
        """Open a session on a tool's host with the pass that the public host gave."""
        if page := self.refusals.before(request, visit):
            return page
        try:
            _check_page(visit, framed=True)
            handed = open_pass(
                dict(query_pairs(visit.target.query)).get("pass", ""),
                self.bindings.values(request),
                host=visit.host,
                keys=self.passes,
                now=self.sessions.clock(),
            )
            return await self._returning_to(
                handed.return_to, self._take_over(request, visit, handed)
            )
        except StrayLogin as stray:
            return self._stray(request, visit, stray)
        except LoginRefused as refused:
            return self.refusals.refuse(request, visit, refused)

    async def _returning_to(
        self, return_to: str, ending: Awaitable[web.StreamResponse]
    ) -> web.StreamResponse:
        """Return what `ending` does; its refusals say where the login was to return to."""
        try:
            return await ending
        except LoginRefused as refused:
            refused.detail.setdefault("return_to", return_to)
            raise
        except SessionTooLargeError:
            raise LoginRefused(Reason.SESSION_TOO_LARGE, {"return_to": return_to}) from None

    async def _take_over(
        self, request: web.BaseRequest, visit: Visit, handed: Pass
    ) -> web.StreamResponse:
        async def take() -> SessionRecord:
            return replace(handed.record, login=handed.pass_id[:16])

        record = await self.used_passes.redeem_once(
            handed.pass_id, handed.expires_at, take, codec=self.outcomes
        )
        visit.sub = record.sub
        self._check_standing(record, handed.return_to)
        answer = self.answers.redirect(self.targets.safe(handed.return_to, visit.host), status=303)
        await self._open(request, visit, answer, record)
        return answer

    async def _finish_login(
        self, request: web.BaseRequest, visit: Visit, pending: PendingCallback
    ) -> web.StreamResponse:
        state = pending.state
        session = self._record(request, visit)
        if session is not None and session.login == state.short_id:
            # The callback page was reloaded or gone back to: the login is done already.
            return self._go_on(state.return_to, session)
        code = await self._code(pending)

        sent = False

        async def redeem() -> SessionRecord:
            nonlocal sent
            async with self.turns.turn(visit.client_address.network):
                sent = True
                found = await self.tailchat.identity(code, state)
            # Not within a second whose sign-ins are all over.
            earliest = self.sessions.standing.signed_out_at(found.profile.sub) + 1
            begun = SessionRecord.begin(
                found.profile,
                now=max(self.sessions.clock(), earliest),
                login=state.short_id,
                tokens=found.tokens if self.keeps_tokens else None,
            )
            site = self.sessions.at(visit.host)
            return site.joined(begun, cookie_fields(request.raw_headers))

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
            # Gone back to, after another tab had signed in.
            return self._go_on(state.return_to, session)
        visit.sub = record.sub
        self._check_standing(record, state.return_to)
        answer = self._go_on(state.return_to, record)
        await self._open(request, visit, answer, record)
        self.metrics.login(Reason.SIGNED_IN)
        self.audit.event("signed-in", visit, nickname=record.nickname)
        return answer

    async def _code(self, pending: PendingCallback) -> str:
        """Return the code of a callback; another issuer than was learned is asked for once more.

        Tailchat's API_URL may have been mended meanwhile.
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
        visit: Visit,
        answer: web.StreamResponse,
        record: SessionRecord,
    ) -> None:
        await self.sessions.at(visit.host).open(request, answer, record)
        self.bindings.prune(request, answer)

    def _record(self, request: web.BaseRequest, visit: Visit) -> SessionRecord | None:
        """Return the session that the browser has on this host, None without a good one."""
        return self.sessions.at(visit.host).load_record(cookie_fields(request.raw_headers))

    def _stray(
        self, request: web.BaseRequest, visit: Visit, stray: StrayLogin
    ) -> web.StreamResponse:
        """Answer a login that this browser cannot end: nobody is signed in by it.

        Of several tabs that began at once, another may have signed in meanwhile: then this one
        goes on as well. Else a browser that keeps cookies begins once more, by itself.
        """
        # Of a pass, it is what somebody wrote into the address of an arrival.
        return_to = self.targets.safe(stray.return_to, visit.host)
        record = self._record(request, visit)
        if record is not None and not stray.prompt:
            return self._go_on(return_to, record)
        is_unknown = stray.reason is Reason.LOGIN_OTHER_BROWSER
        if is_unknown and not stray.again and self.bindings.of(request):
            return self.answers.redirect(
                self.answers.start_url(return_to, prompt=stray.prompt, again=True),
                status=303,
            )
        return self.refusals.refuse(request, visit, stray)

    def _check_standing(self, record: SessionRecord, return_to: str) -> None:
        """Raise LoginRefused for who is kept out, and for a session that was ended meanwhile."""
        barred = self.sessions.standing.bar(record)
        if barred is not None:
            told = locked_detail(record, barred.lock) if barred.lock is not None else {}
            raise LoginRefused(barred.reason, {**told, "return_to": return_to})

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

    def _arrival_url(self, visit: Visit, browser: str, return_to: str, *, again: bool) -> str:
        return arrival_url(
            self.sites.origin(visit.host),
            self.prefix,
            browser=browser_hash(browser),
            return_to=return_to,
            again=again,
        )

    def _go_on(self, return_to: str, record: SessionRecord) -> web.Response:
        """Return the redirect to where a login was begun, by a pass where that is another host."""
        arrival = read_arrival(return_to, self.sites, self.prefix)
        if arrival is None:
            return self.answers.redirect(return_to, status=303)
        sealed = make_pass(record, arrival, keys=self.passes, now=self.sessions.clock())
        origin = self.sites.origin(arrival.host)
        return self.answers.redirect(f"{origin}{self.prefix}/arrive?pass={sealed}", status=303)


def outcome_codec(keys: KeyRing) -> Codec[SessionRecord]:
    """Return how the outcome of a login is stored for those who repeat its last step."""
    return Codec(keys, SessionRecord.to_bytes, SessionRecord.from_bytes, lambda record: record.sub)


def _check_page(visit: Visit, *, framed: bool = False) -> None:
    """Raise LoginRefused where a step is not for a tab to show: its address is a script's then.

    `framed`: it may be for a frame in a page of the same site.
    """
    if not opens_page(visit.head.fields.headers, framed=framed):
        raise LoginRefused(Reason.LOGIN_NOT_A_PAGE)
