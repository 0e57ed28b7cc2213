"""Asks Tailchat about some people, and reads its answer."""

import asyncio
from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from typing import Final

from tailchat_gate.identity.oauth.back_channel import TOO_LONG
from tailchat_gate.identity.oauth.id_token import json_object
from tailchat_gate.people.api import CannotTell, Raw, RawResult, Refused, TailchatApi
from tailchat_gate.people.bot import Bot
from tailchat_gate.people.facts import UNREADABLE, Account, read_people
from tailchat_gate.reasons import Reason

MOST_ASKED: Final = 200
"""How many people are asked about in one call (Tailchat: 200 take 88 ms, 1,000 take 0.8 s)."""
#: The largest answer, in bytes. People can make their own record long: with any number of further
#: members of a megabyte each, and with names of which each byte takes six in JSON.
_LIMIT: Final = 4 << 20
#: The same for an account whose record was too long before; a usual record takes 500 bytes.
_LIMIT_AGAIN: Final = 64 << 10
#: How many accounts with such a record are remembered, and how many of them are asked about in one
#: round: a stranger with many of them must not delay the answers about others.
_MOST_LONG: Final = 10_000
_LONG_AT_ONCE: Final = 4
#: Answers of more bytes are parsed in a thread, because that would block the event loop.
_LARGE: Final = 16_384
_ACTION: Final = "user/getUserInfoList"

Records = dict[str, Account]


class Inquiry:
    """Asks about people: without a token, or as the `bot` if Tailchat requires one.

    `api_url` replaces `{BACKEND}` in addresses of pictures. Without `keeps_emails` no e-mail
    address is read.
    """

    def __init__(
        self, api: TailchatApi, bot: Bot | None, *, api_url: str, keeps_emails: bool
    ) -> None:
        self._api = api
        self._bot = bot
        self._api_url = api_url
        self._keeps_emails = keeps_emails
        #: Tailchat refuses the call without a token, but not to the bot.
        self._by_bot = False
        #: Accounts whose record was too long; those asked about longest ago come first.
        self._long: dict[str, None] = {}

    async def ask(self, subs: Sequence[str]) -> Records | Refused | CannotTell:
        """Return Tailchat's facts about some people; people without a valid record are left out.

        If the answer is too long, the two halves are asked about, so that one long record does not
        hide the others. A single record that is too long is UNREADABLE, because it could hide a ban
        or a guest.
        """
        if len(subs) > 1 and not self._long.keys().isdisjoint(subs):
            return await self._long_apart(subs)
        is_long = subs[0] in self._long
        result = await self._fetch(subs, limit=_LIMIT_AGAIN if is_long else _LIMIT)
        if isinstance(result, CannotTell) and result.problem == TOO_LONG:
            return await self._in_halves(subs)
        if is_long:
            del self._long[subs[0]]
        if not isinstance(result, Raw):
            return result
        read = partial(self._read, result.body, subs)
        records = await asyncio.to_thread(read) if len(result.body) > _LARGE else read()
        if records is None:
            return CannotTell(Reason.TAILCHAT_BROKEN, "an answer that is not in Tailchat's form")
        return records

    async def _in_halves(self, subs: Sequence[str]) -> Records | Refused | CannotTell:
        if len(subs) == 1:
            self._note_long(subs[0])
            return {subs[0]: UNREADABLE}
        records: Records = {}
        for part in (subs[: len(subs) // 2], subs[len(subs) // 2 :]):
            answer = await self.ask(part)
            if not isinstance(answer, dict):
                return answer
            records |= answer
        return records

    async def _long_apart(self, subs: Sequence[str]) -> Records | Refused | CannotTell:
        """Ask about the others first, then about some people whose record was too long."""
        wanted = set(subs)
        long = [sub for sub in self._long if sub in wanted]
        others = [sub for sub in subs if sub not in self._long]
        records: Records = dict.fromkeys(long, UNREADABLE)
        for part in ([others] if others else []) + [[sub] for sub in long[:_LONG_AT_ONCE]]:
            answer = await self.ask(part)
            if not isinstance(answer, dict):
                return answer
            records |= answer
        return records

    def _note_long(self, sub: str) -> None:
        self._long.pop(sub, None)
        self._long[sub] = None
        if len(self._long) > _MOST_LONG:
            del self._long[next(iter(self._long))]

    async def _fetch(self, subs: Sequence[str], *, limit: int) -> RawResult:
        body = {"userIds": list(subs)}
        if self._by_bot and self._bot is not None:
            result = await self._bot.fetch(_ACTION, body, limit=limit)
            if not isinstance(result, Refused):
                return result
        result = await self._api.fetch(_ACTION, body, limit=limit)
        if self._bot is None or not isinstance(result, Refused) or not result.is_closed:
            return result
        answer = await self._bot.fetch(_ACTION, body, limit=limit)
        self._by_bot = isinstance(answer, Raw)
        # If the bot is refused too, the result is the refusal without a token.
        return result if isinstance(answer, Refused) else answer

    def _read(self, body: bytes, subs: Sequence[str]) -> Records | None:
        try:
            members = json_object(body)
        except ValueError:
            return None
        if members.get("code") != HTTPStatus.OK:
            return None
        return read_people(
            subs, members.get("data"), api_url=self._api_url, keeps_emails=self._keeps_emails
        )
