"""Finds the account that has a name in Tailchat."""

import re
from typing import Final, NamedTuple

from tailchat_gate.config.model import Settings
from tailchat_gate.people.api import ApiResult, Done
from tailchat_gate.people.bot import Bot
from tailchat_gate.people.facts import Facts, blocked_because, is_askable, read_people
from tailchat_gate.reasons import Reason

_SEARCH: Final = "user/searchUserWithUniqueName"


class FoundAccount(NamedTuple):
    """The account that has a name now; `refusal` is why the gate refuses it, None if it does not.

    `since` is the end of a sentence about the account, with the date of its registration, or "".
    """

    sub: str
    since: str
    refusal: Reason | None


async def search(bot: Bot, name: str) -> ApiResult:
    """Ask Tailchat for the account with a name such as Name#2114, whose case matters.

    Names are not unique: after renames two people can have the same, and Tailchat finds the first.
    """
    return await bot.call(_SEARCH, {"uniqueName": name})


def read_account(settings: Settings, name: str, result: Done) -> FoundAccount | None:
    """Read the account from an answer; None if the answer is malformed or has another name."""
    record = result.data if isinstance(result.data, dict) else {}
    sub, since = record.get("_id"), record.get("createdAt")
    if not isinstance(sub, str) or not is_askable(sub):
        return None
    if f"{record.get('nickname')}#{record.get('discriminator')}" != name:
        return None
    read = read_people([sub], [record], api_url=settings.tailchat.api_url)
    facts = read.get(sub) if read else None
    if not isinstance(facts, Facts):
        return None
    dated = isinstance(since, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T.{1,20}", since)
    return FoundAccount(
        sub,
        f", registered on {since[:10]}" if dated and isinstance(since, str) else "",
        blocked_because(facts, guests=settings.access.guests),
    )
