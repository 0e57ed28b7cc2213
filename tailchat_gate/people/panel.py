"""Writes short messages into a panel of a Tailchat group, as the gate's bot."""

import asyncio
import logging
import re
from typing import Final

from tailchat_gate.observe.log import LOGGER_NAME, Pace
from tailchat_gate.people.api import Done, Raw
from tailchat_gate.people.bot import Bot
from tailchat_gate.people.group_answer import UnreadableError, read_groups
from tailchat_gate.people.slices import in_slices

#: Longest text of a person within a message, and the longest message, in characters.
MAX_TEXT: Final = 200
MAX_MESSAGE: Final = 1_000
_TEXT_PANEL: Final = 0
#: What would become markup, a link or a mention in Tailchat's clients (BBCode).
_MARKUP: Final = re.compile(r"[\[\]]")

_log: Final = logging.getLogger(LOGGER_NAME)


def plain(text: str) -> str:
    """Return a person's text as it can stand in a message: no brackets, one line, not too long.

    Tailchat's clients make a link of a bare address too, so its scheme is cut off from it.
    """
    bare = _MARKUP.sub("", text).replace("://", ": //")
    words = "".join(char if char.isprintable() else " " for char in bare).split()
    return " ".join(words)[:MAX_TEXT]


class Panel:
    """The panel `where` ("GROUP/PANEL" by ids; "" for none) of one configuration.

    `pace` outlives it, so that a reload brings no message sooner. `max_bytes` of the bot's groups
    are read: strangers can add the bot to theirs. A message that cannot be written is lost, and the
    log says why.
    """

    def __init__(self, bot: Bot, where: str, pace: Pace, *, max_bytes: int) -> None:
        self._bot = bot
        self._group, _, self._panel = where.partition("/")
        self._tasks: set[asyncio.Task[None]] = set()
        #: One message at a time, in their order: each reads the groups of the bot.
        self._turn = asyncio.Lock()
        self._pace = pace
        self._max_bytes = max_bytes
        self.problem = ""

    def say(self, kind: str, text: str) -> None:
        """Write a message soon, in the background; at most one of a kind a minute."""
        if not self._group:
            return
        count = self._pace.due(kind)
        if count is None:
            return
        more = f"\n(and {count - 1} more of this kind)" if count > 1 else ""
        task = asyncio.get_running_loop().create_task(self._write(text[:MAX_MESSAGE] + more))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Write nothing more."""
        for task in self._tasks:
            task.cancel()

    async def _write(self, text: str) -> None:
        async with self._turn:
            await self._send(text)

    async def _send(self, text: str) -> None:
        problem = await self.problem_now()
        if not problem:
            body = {"groupId": self._group, "converseId": self._panel, "content": text}
            result = await self._bot.call("chat/message/sendMessage", body)
            problem = "" if isinstance(result, Done) else f"it was not sent: {result}"
        if problem and problem != self.problem:
            _log.error("access.panel: %s", problem)
        self.problem = problem

    async def problem_now(self) -> str:
        """Return why the panel cannot be written to, "" if it can.

        Tailchat answers 200 for a panel that does not exist, and would write into one of another
        group.
        """
        result = await self._bot.fetch("group/getUserGroups", {}, limit=self._max_bytes)
        if not isinstance(result, Raw):
            return f"the bot's groups are not known: {result}"
        try:
            # In slices: requests must not wait for the members of groups that strangers made.
            groups = await in_slices(read_groups(result.body, {self._group}))
        except UnreadableError as error:
            return f"the bot's groups are not known: {error}"
        group = groups.get(self._group)
        if group is None:
            return f"the bot is not in the group {self._group}"
        kind = group.panels.get(self._panel)
        if kind is None:
            return f"the group {self._group} has no panel {self._panel}"
        return "" if kind == _TEXT_PANEL else f"{self._panel} takes no text"
