"""Who is signed in, as a page or as JSON, and the keys that verify assertions."""

import json
import math
from collections.abc import Callable

from aiohttp import web

from tailchat_gate.endpoints.sign_out import FormTokens
from tailchat_gate.identity.host_sessions import HostSessions
from tailchat_gate.identity.machine_tokens import TokenRefused, Tokens
from tailchat_gate.proxy.message.identity_headers import IdentityHeaders
from tailchat_gate.reasons import Reason
from tailchat_gate.request.context import RequestContext
from tailchat_gate.request.intent import Intent, read_intent
from tailchat_gate.request.target import cookie_fields
from tailchat_gate.responses.answers import Answers
from tailchat_gate.responses.refusals import Refusals


class KeySet:
    """The handler of /oauth2/jwks.json, for everybody."""

    def __init__(self, *, answers: Answers, key_set: bytes | None) -> None:
        """Take the key set as JSON (RFC 7517 section 5), None where nothing is signed."""
        self._answers = answers
        self._key_set = key_set

    async def answer(
        self, _request: web.BaseRequest, context: RequestContext
    ) -> web.StreamResponse:
        """Return the key set; 404 where there is none, so that nobody keeps an empty one."""
        if self._key_set is None:
            return self._answers.problem(context, Reason.NO_ROUTE)
        return self._answers.key_set(self._key_set)


class UserInfo:
    """The handler of /oauth2/userinfo."""

    def __init__(
        self,
        *,
        refusals: Refusals,
        sessions: HostSessions,
        tokens: Tokens,
        identity: IdentityHeaders,
        forms: FormTokens,
        has_tool: Callable[[str], bool],
    ) -> None:
        """`has_tool` tells of a host's name whether there is a tool at its "/"."""
        self._forms = forms
        self._has_tool = has_tool
        self._answers = refusals.answers
        self._refusals = refusals
        self._sessions = sessions
        self._tokens = tokens
        self._identity = identity

    async def answer(self, request: web.BaseRequest, context: RequestContext) -> web.StreamResponse:
        """Tell who is signed in or presents a token; send a navigation of nobody to the login."""
        if context.head.fields.bearer is not None:
            return self._machine(context)
        host_session, cookies = self._sessions.at(context.host), cookie_fields(request.raw_headers)
        record = await host_session.settled_record(cookies)
        if record is None:
            return self._refusals.not_let_in(
                context, host_session.authenticator.explain_rejection(context.head.fields)
            )
        context.sub = record.sub
        until = self._sessions.lifetimes.expires_at(record)
        groups = self._identity.groups_of(record.sub)
        if read_intent(context.method, request.headers) is Intent.NAVIGATION:
            return self._answers.page(
                context,
                "userinfo",
                sub=record.sub,
                nickname=record.nickname,
                discriminator=record.discriminator,
                groups=groups,
                signed_in_at=record.signed_in_at,
                until=until,
                csrf=self._forms.token(record),
                has_tool=self._has_tool(context.head.fields.host.name),
            )
        body = {
            "sub": record.sub,
            "nickname": record.nickname,
            "discriminator": record.discriminator,
            "avatar": record.avatar,
            "groups": groups,
            "signed_in_at": record.signed_in_at,
            "expires_at": int(until),
        }
        return self._answers.json(json.dumps(body).encode("ascii"))

    def _machine(self, context: RequestContext) -> web.StreamResponse:
        """Tell a machine which token it presents."""
        try:
            machine = self._tokens.machine_of(context.head.fields)
        except TokenRefused as refused:
            context.token = refused.name
            return self._refusals.token_refused(context, refused.reason, refused.lock)
        context.token = machine.name
        ends_at = int(machine.ends_at) if machine.ends_at < math.inf else None
        body = {"token": machine.name, "expires_at": ends_at}
        return self._answers.json(json.dumps(body).encode("ascii"))
