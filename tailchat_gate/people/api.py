"""Calls actions of Tailchat's API gateway (`/api/SERVICE/ACTION`)."""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, TypeVar

from tailchat_gate.identity.oauth.back_channel import MAX_ANSWER, Answer, BackChannel
from tailchat_gate.identity.oauth.client import Observer
from tailchat_gate.identity.oauth.id_token import JsonObject, json_object
from tailchat_gate.identity.oauth.login import LoginRefused, short_text
from tailchat_gate.identity.oauth.responses import busy, quotes_any
from tailchat_gate.reasons import Reason
from tailchat_gate.syntax import COMPACT

#: The longest name and type of an error that is logged, in characters.
_LONGEST_NAME: Final = 64
#: Members of a request that a server may echo, but that must not get into a log.
_SECRETS: Final = ("token", "jwt")
#: The actions that say which groups the bot is in, and what one of them is.
USER_GROUPS: Final = "group/getUserGroups"
GROUP_INFO: Final = "group/getGroupBasicInfo"


@dataclass(frozen=True, slots=True)
class Done:
    """The action was done; `data` is its result, any JSON value, not yet checked."""

    data: object


@dataclass(frozen=True, slots=True)
class Refused:
    """Tailchat answered with an error of its own; members that it left out are "".

    Decide by `status`, `name` and `type`: Tailchat writes `message` in the language of the request,
    and it is "" here if it quotes a secret. A 401 to a call with a token can also be an outage
    (Tailchat: its Redis does not answer).
    """

    status: int
    name: str = ""
    type: str = ""
    message: str = ""

    @property
    def is_closed(self) -> bool:
        """Whether this caller may not call the action, or it does not exist: 401, 403 or 404."""
        return self.status in _CLOSED


@dataclass(frozen=True, slots=True)
class CannotTell:
    """There was no readable answer; this says nothing about any person."""

    reason: Reason
    problem: str = ""

    @property
    def why(self) -> str:
        """Why there was none, for an admin."""
        return self.problem or self.reason


@dataclass(frozen=True, slots=True)
class Raw:
    """The action was done; `body` is the whole answer, not yet parsed JSON."""

    body: bytes


ApiResult = Done | Refused | CannotTell
RawResult = Raw | Refused | CannotTell
_Result = TypeVar("_Result", Done | Refused | CannotTell, Raw | Refused | CannotTell)

_CLOSED: Final = frozenset((HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND))
#: Statuses of servers between the gate and the action; they say nothing about the call.
_OUTAGES: Final = frozenset(
    (
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    )
)


class TailchatApi:
    """Calls the actions of one Tailchat server over the connections of `channel`.

    `clock`: Unix seconds. `observe(call, seconds, outcome)` is called after every call: `call` is
    the last part of the action's name, `outcome` ok, refused or a reason.
    """

    def __init__(
        self,
        channel: BackChannel,
        *,
        clock: Callable[[], float],
        observe: Observer | None = None,
    ) -> None:
        self._channel = channel
        self._clock = clock
        self._observe = observe
        #: The Unix second before which Tailchat asked for no further call.
        self._rests_until = 0.0

    async def call(
        self,
        action: str,
        body: Mapping[str, object],
        token: str | None = None,
        *,
        limit: int = MAX_ANSWER,
    ) -> ApiResult:
        """Return the result of an action, for example `user/getUserInfo`; raises nothing.

        The request is sent once. `token` is the JWT of a user or bot, None for none. An answer of
        more than `limit` bytes is CannotTell.
        """
        return await self._observed(action, body, token, limit, _read)

    async def fetch(
        self, action: str, body: Mapping[str, object], token: str | None = None, *, limit: int
    ) -> RawResult:
        """Call an action as `call` does, but return the answer unparsed.

        Parsing a large answer would block the event loop for too long.
        """
        return await self._observed(action, body, token, limit, _unread)

    async def _observed(
        self,
        action: str,
        body: Mapping[str, object],
        token: str | None,
        limit: int,
        read: Callable[[Answer, list[str]], _Result],
    ) -> _Result:
        loop = asyncio.get_running_loop()
        start, outcome = loop.time(), "cancelled"
        try:
            result = await self._result(action, body, token, limit, read)
            outcome = _outcome(result)
        finally:
            if self._observe is not None:
                self._observe(action.rpartition("/")[2], loop.time() - start, outcome)
        return result

    async def _result(
        self,
        action: str,
        body: Mapping[str, object],
        token: str | None,
        limit: int,
        read: Callable[[Answer, list[str]], _Result],
    ) -> _Result:
        if self._clock() < self._rests_until:
            return CannotTell(Reason.TAILCHAT_BUSY, "it asked for fewer calls")
        headers = {"Content-Type": "application/json"}
        if token is not None:
            headers["X-Token"] = token
        data = json.dumps(body, separators=COMPACT).encode()
        try:
            answer = await self._channel.exchange(
                action, "POST", f"/api/{action}", headers, data, limit=limit
            )
        except LoginRefused as refused:
            return CannotTell(refused.reason, refused.detail.get("problem", ""))
        if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
            refusal = busy(action, answer.retry_after)
            self._rests_until = self._clock() + int(refusal.detail["retry_after"])
            return CannotTell(refusal.reason, "it asked for fewer calls")
        secrets = [token or "", *(str(body.get(name, "")) for name in _SECRETS)]
        return read(answer, [secret for secret in secrets if secret])


def _outcome(result: ApiResult | RawResult) -> str:
    if isinstance(result, CannotTell):
        return result.reason
    return "refused" if isinstance(result, Refused) else "ok"


def _unread(answer: Answer, secrets: list[str]) -> RawResult:
    if answer.status == HTTPStatus.OK:
        return Raw(answer.body)
    result = _read(answer, secrets)
    assert not isinstance(result, Done)  # noqa: S101 - only 200 is done
    return result


def _read(answer: Answer, secrets: list[str]) -> ApiResult:
    """Parse an answer (Tailchat: `{"code":200,"data":...}`, or the members of an error)."""
    if answer.status in _OUTAGES:
        return CannotTell(Reason.TAILCHAT_BROKEN, f"status {int(answer.status)}")
    members = _members(answer)
    if members is None:
        return CannotTell(Reason.TAILCHAT_BROKEN, f"status {answer.status}, not a JSON object")
    if answer.status == HTTPStatus.OK and members.get("code") == HTTPStatus.OK:
        # Tailchat: an action without a result sends no `data`.
        return Done(members.get("data"))
    if answer.status < HTTPStatus.BAD_REQUEST or not isinstance(members.get("name"), str):
        return CannotTell(Reason.TAILCHAT_BROKEN, f"status {answer.status}, not Tailchat's form")
    name, kind, message = (_text(members, key, secrets) for key in ("name", "type", "message"))
    return Refused(answer.status, name[:_LONGEST_NAME], kind[:_LONGEST_NAME], message)


def _members(answer: Answer) -> JsonObject | None:
    if not answer.is_json:
        return None
    try:
        return json_object(answer.body)
    except ValueError:
        return None


def _text(members: JsonObject, key: str, secrets: list[str]) -> str:
    text = members.get(key)
    if not isinstance(text, str) or quotes_any(text, secrets):
        return ""
    return short_text(text)
