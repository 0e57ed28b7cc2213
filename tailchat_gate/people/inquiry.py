"""One question to Tailchat about some people, and the reading of its answer."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import Final

from tailchat_gate.identity.oauth.back_channel import TOO_LONG
from tailchat_gate.identity.oauth.id_token import json_object
from tailchat_gate.people.api import CannotTell, Raw, RawResult, Refused, TailchatApi
from tailchat_gate.people.bot import Bot
from tailchat_gate.people.facts import Deleted, Facts, read_people
from tailchat_gate.reasons import Reason

MOST_ASKED: Final = 200
"""People in one call (Tailchat: 200 take 88 ms, 1,000 take 0.8 s)."""
#: Bytes of one answer. Tailchat takes requests of a megabyte, so an account has a name and a
#: picture of a megabyte each at most: the answer about a single person is always shorter.
_LIMIT: Final = 4 << 20
#: Bytes from which an answer is read in a thread: the event loop must not wait for it.
_LARGE: Final = 16_384
_ACTION: Final = "user/getUserInfoList"

Records = dict[str, Facts | Deleted]


class Inquiry:
    """Asks about people: without a token, or as the `bot` where Tailchat wants one.

    `api_url` replaces `{BACKEND}` in pictures; without `keeps_emails` no address is read.
    """

    def __init__(
        self, api: TailchatApi, bot: Bot | None, *, api_url: str, keeps_emails: bool
    ) -> None:
        self._api = api
        self._bot = bot
        self._api_url = api_url
        self._keeps_emails = keeps_emails
        #: Tailchat lets nobody ask without a token, and the bot may.
        self._by_bot = False

    async def ask(self, subs: Sequence[str]) -> Records | Refused | CannotTell:
        """Return what Tailchat says of some people; those of whom it says nothing are left out.

        An answer that is too long is asked for in halves: nobody's long name hides the others.
        """
        result = await self._fetch(subs)
        if isinstance(result, CannotTell) and result.problem == TOO_LONG:
            return await self._in_halves(subs)
        if not isinstance(result, Raw):
            return result
        read = partial(self._read, result.body, subs)
        found = await asyncio.to_thread(read) if len(result.body) > _LARGE else read()
        if found is None:
            return CannotTell(Reason.TAILCHAT_BROKEN, "an answer of another form")
        return found

    async def _in_halves(self, subs: Sequence[str]) -> Records | Refused | CannotTell:
        if len(subs) == 1:
            return {}
        found: Records = {}
        for part in (subs[: len(subs) // 2], subs[len(subs) // 2 :]):
            answer = await self.ask(part)
            if not isinstance(answer, dict):
                return answer
            found |= answer
        return found

    async def _fetch(self, subs: Sequence[str]) -> RawResult:
        body = {"userIds": list(subs)}
        if self._by_bot and self._bot is not None:
            result = await self._bot.fetch(_ACTION, body, limit=_LIMIT)
            if not isinstance(result, Refused):
                return result
        result = await self._api.fetch(_ACTION, body, limit=_LIMIT)
        if self._bot is None or not isinstance(result, Refused) or not result.is_closed:
            return result
        found = await self._bot.fetch(_ACTION, body, limit=_LIMIT)
        self._by_bot = isinstance(found, Raw)
        # A bot that may not sign in is none: then the call is closed.
        return result if isinstance(found, Refused) else found

    def _read(self, body: bytes, subs: Sequence[str]) -> Records | None:
        try:
            members = json_object(body)
        except ValueError:
            return None
        if members.get("code") != HTTPStatus.OK:
            return None
        found = read_people(subs, members.get("data"), api_url=self._api_url)
        if found is None or self._keeps_emails:
            return found
        return {
            sub: replace(facts, email="") if isinstance(facts, Facts) else facts
            for sub, facts in found.items()
        }
