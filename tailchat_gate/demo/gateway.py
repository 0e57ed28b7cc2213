"""The actions of the stand-in Tailchat's gateway (`/api/SERVICE/ACTION`), as a real one answers."""

import json
import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl

from aiohttp import web

from tailchat_gate.demo.store import Store
from tailchat_gate.demo.users import User
from tailchat_gate.demo.wire import json_answer, read_body

Params = Mapping[str, object]
#: What an action does: its parameters and the caller (None without a token) to its result.
Action = Callable[[Params, User | None], object]

_OBJECT_ID: Final = re.compile("[0-9a-fA-F]{24}")
#: Every account is as old.
_CREATED_AT: Final = "2026-01-01T00:00:00.000Z"
#: Tailchat's own status for a value that it does not accept.
INVALID: Final = 442


class ActionError(Exception):
    """The error response of an action; `type` is left out of it if it is empty."""

    def __init__(self, status: int, message: str, *, name: str = "Error", kind: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.members = {"name": name, "message": message, "code": status}
        if kind:
            self.members["type"] = kind


class Gateway:
    """Answers calls of actions.

    `actions` by their name, for example `user/getUserInfo`; `open_actions` are those that need no
    token. Both may be changed while it runs. A token is one of `store.api_tokens`.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.actions: dict[str, Action] = {
            "user/getUserInfo": self._user_info,
            "user/getUserInfoList": self._user_info_list,
            "user/searchUserWithUniqueName": self._search,
            "config/client": lambda _params, _caller: dict(store.client_config),
        }
        self.open_actions: set[str] = {"user/getUserInfo", "user/getUserInfoList", "config/client"}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one call."""
        try:
            action = request.match_info["action"]
            caller = self._caller(request)
            if caller is None and action not in self.open_actions:
                raise _unauthorized("NO_TOKEN")
            done = self.actions.get(action)
            if done is None:
                raise _unknown(action)
            data = done(await _params(request), caller)
        except ActionError as error:
            return json_answer(error.members, status=error.status)
        return json_answer({"code": 200, "data": data})

    def _caller(self, request: web.Request) -> User | None:
        """Return whose token a call has, None without one; raises ActionError for an unknown one.

        Tailchat: only X-Token counts, never Authorization.
        """
        token = request.headers.get("X-Token")
        if not token:
            return None
        caller = self._store.users.get(self._store.api_tokens.get(token, ""))
        if caller is None:
            raise _unauthorized("INVALID_TOKEN")
        return caller

    def _user_info(self, params: Params, _caller: User | None) -> object:
        sub = params.get("userId")
        if not isinstance(sub, str) or not _OBJECT_ID.fullmatch(sub):
            text = f'Cast to ObjectId failed for value "{sub}" at path "_id"'
            raise ActionError(HTTPStatus.INTERNAL_SERVER_ERROR, text, name="CastError")
        return self._public(sub)

    def _user_info_list(self, params: Params, _caller: User | None) -> object:
        subs = params.get("userIds")
        if not isinstance(subs, list):
            raise ActionError(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "Parameters validation error!",
                name="ValidationError",
                kind="VALIDATION_ERROR",
            )
        if any(not isinstance(sub, str) or not _OBJECT_ID.fullmatch(sub) for sub in subs):
            # One malformed id fails the whole call.
            raise ActionError(INVALID, "Include invalid userId", name="EntityError")
        return [self._public(sub) for sub in subs]

    def _search(self, params: Params, _caller: User | None) -> object:
        """Return the first account of a name; two can share one after a rename."""
        nickname, mark, discriminator = str(params.get("uniqueName", "")).partition("#")
        for user in self._store.users.values():
            claims = user.claims
            found = (claims.get("nickname"), claims.get("discriminator"))
            if mark and found == (nickname, discriminator):
                return self._public(user.sub)
        return None

    def _public(self, sub: str) -> object:
        """Return what everybody may read of an account, None for an unknown or deleted one."""
        user = self._store.users.get(sub)
        if user is None:
            return None
        return {
            "_id": user.sub,
            "email": user.email,
            **user.claims,
            "temporary": user.temporary,
            "type": user.kind,
            "emailVerified": user.email_verified,
            "banned": user.banned,
            "createdAt": _CREATED_AT,
        }


def _unknown(action: str) -> ActionError:
    text = f"Service '{action.replace('/', '.')}' is not found."
    return ActionError(
        HTTPStatus.NOT_FOUND, text, name="ServiceNotFoundError", kind="SERVICE_NOT_FOUND"
    )


def _unauthorized(kind: str) -> ActionError:
    return ActionError(HTTPStatus.UNAUTHORIZED, "401", name="UnAuthorizedError", kind=kind)


async def _params(request: web.Request) -> Params:
    """Return the parameters of a call: a query, JSON or a form alike."""
    params: dict[str, object] = dict(parse_qsl(request.rel_url.raw_query_string))
    body = await read_body(request) or b""
    if request.content_type == "application/json" and body:
        try:
            params |= json.loads(body)
        except (ValueError, TypeError):
            raise ActionError(HTTPStatus.BAD_REQUEST, "invalid json") from None
    elif body:
        params |= dict(parse_qsl(body.decode("utf-8", "replace")))
    return params
