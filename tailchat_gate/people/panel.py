"""Writes messages into a panel of a Tailchat group: requests for access, and notices of the log."""

import asyncio
import logging
import re
from collections.abc import Callable, Collection, Mapping
from typing import Final

from tailchat_gate.config.values.quantities import counted
from tailchat_gate.observe.log import AUDIT_LOGGER_NAME, LOGGER_NAME, Pace
from tailchat_gate.observe.sink import REPEAT_SECONDS
from tailchat_gate.people.api import Done, Raw
from tailchat_gate.people.bot import Bot
from tailchat_gate.people.groups.answer import UnreadableError, read_groups
from tailchat_gate.people.slices import in_slices
from tailchat_gate.state.store import ReservationStatus, Store

#: The longest text of a person within a message, and the longest message, in characters.
MAX_TEXT: Final = 200
MAX_MESSAGE: Final = 1_000
_TEXT_PANEL: Final = 0
#: Characters of BBCode, which Tailchat's clients show as markup, a link or a mention.
_MARKUP: Final = re.compile(r"[\[\]]")
#: Beginnings of addresses that these clients turn into a link.
_ADDRESS: Final = re.compile(r"/{2,}|www\.", re.IGNORECASE)

#: The kind of the reservations, one a minute, and how many of them are stored: a day and a half.
_MINUTE: Final = "panel-minute"
_ROOM: Final = 4_096

LOCKS: Final = "locks"
RELOADS: Final = "reloads"
SIGN_INS: Final = "sign-ins"
TOOLS: Final = "tools"
#: Seconds for which a tool has to be unreachable before that is written.
DOWN_SECONDS: Final = 60.0

Details = Mapping[str, object]
Outages = dict[str, tuple[float, bool]]

_log: Final = logging.getLogger(LOGGER_NAME)


def plain(text: str) -> str:
    """Return a person's text for a message: without markup and links, on one line, not too long.

    Tailchat's clients turn bare addresses into links, so the beginnings of addresses are broken.
    """
    bare = _ADDRESS.sub(lambda address: f"{address[0].strip('/') or '/'} ", _MARKUP.sub("", text))
    words = "".join(char if char.isprintable() else " " for char in bare).split()
    return " ".join(words)[:MAX_TEXT]


class Panel:
    """The panel `where` ("GROUP/PANEL" by ids; "" for none) of one configuration.

    `pace` survives a reload, so that a reload brings no message sooner. At most `max_bytes` of the
    bot's groups are read, because strangers can add the bot to theirs. By `store` the workers agree
    on which of them writes. A message that cannot be written is lost, and the log says why.
    """

    def __init__(
        self, bot: Bot, where: str, pace: Pace, *, max_bytes: int, store: Store | None = None
    ) -> None:
        self._bot = bot
        self._group, _, self._panel = where.partition("/")
        self._tasks: set[asyncio.Task[None]] = set()
        #: Messages are written one at a time and in order, since each reads the bot's groups.
        self._turn = asyncio.Lock()
        self._pace = pace
        self._max_bytes = max_bytes
        self._store = store
        self.problem = ""

    def say(self, kind: str, text: str, *, for_all: bool = False) -> None:
        """Write a message in the background, at most one of each kind in a minute.

        `for_all`: only the first worker in a minute writes it; the others count theirs for the
        next.
        """
        if not self._group:
            return
        count = self._pace.due(kind)
        if count is None:
            return
        more = f"\n(and {count - 1} more of this kind)" if count > 1 else ""
        text = text[:MAX_MESSAGE] + more
        writing = self._write_first(kind, count, text) if for_all else self._write(text)
        task = asyncio.get_running_loop().create_task(writing)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Write nothing more."""
        for task in self._tasks:
            task.cancel()

    async def _write_first(self, kind: str, count: int, text: str) -> None:
        """Write a message unless another worker wrote one of its kind in this minute."""
        if self._store is not None:
            minute = int(self._pace.now // REPEAT_SECONDS)
            until = (minute + 1) * REPEAT_SECONDS
            key = f"{kind} {minute}"
            reservation = await self._store.reserve(_MINUTE, key, until=until, room=_ROOM)
            if reservation.status is ReservationStatus.TAKEN:
                self._pace.leave_out(kind, count)
                return
        await self._write(text)

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

        Tailchat does not check this itself: it accepts messages for panels that do not exist, and
        for those of other groups.
        """
        result = await self._bot.fetch("group/getUserGroups", {}, limit=self._max_bytes)
        if not isinstance(result, Raw):
            return f"the bot's groups are not known: {result}"
        try:
            # In slices, because strangers' groups can have so many members that requests wait.
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


class Notices(logging.Handler):
    """Listens to the log, and writes notices of the `kinds` that are switched on into `panel`.

    `routes` has the names of routes by the address of their tool, which is not shown in a chat.
    `down` survives a reload: since when tools are unreachable, and whether that was written.
    `clock` gives Unix seconds. The configured level of the log does not matter here.
    """

    def __init__(
        self,
        panel: Panel,
        kinds: Collection[str],
        routes: Mapping[str, Collection[str]],
        clock: Callable[[], float],
        down: Outages,
    ) -> None:
        super().__init__(logging.INFO)
        self._panel = panel
        self._routes = routes
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._last: logging.LogRecord | None = None
        self._down = down
        known: dict[str, tuple[str, Callable[[Details], str]]] = {
            "a lock is in force": (LOCKS, _locked),
            "a lock is lifted": (LOCKS, _unlocked),
            "the configuration was not loaded": (RELOADS, _not_loaded),
            "an upstream cannot be reached": (TOOLS, self._cannot_be_reached),
            "an upstream can be reached again": (TOOLS, self._can_be_reached),
            "sign-ins-left-out": (SIGN_INS, _refused),
        }
        self._known = {name: sentence for name, sentence in known.items() if sentence[0] in kinds}

    def start(self) -> None:
        """Begin to listen, if any kind is switched on; needs a running event loop."""
        if not self._known:
            return
        self._loop = asyncio.get_running_loop()
        for tool in self._down.keys() - self._routes.keys():
            del self._down[tool]
        for name in (LOGGER_NAME, AUDIT_LOGGER_NAME):
            logging.getLogger(name).addHandler(self)

    def stop(self) -> None:
        """Stop listening."""
        self._loop = None
        for name in (LOGGER_NAME, AUDIT_LOGGER_NAME):
            logging.getLogger(name).removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a record, which may come from any thread, to the event loop."""
        details = getattr(record, "details", None)
        loop = self._loop
        if loop is None or record is self._last or not isinstance(details, Mapping):
            return
        # A record of the audit log may arrive again when it propagates to the gate's own logger.
        self._last = record
        is_audit = record.name == AUDIT_LOGGER_NAME
        name = str(details.get("event", "")) if is_audit else str(record.msg)
        if name in self._known and not loop.is_closed():
            loop.call_soon_threadsafe(self.hear, name, dict(details))

    def hear(self, name: str, details: Details) -> None:
        """Write the notice for a log message or for the name of an audit event, if there is one."""
        if name not in self._known:
            return
        kind, text_of = self._known[name]
        if text := text_of(details):
            self._panel.say(kind, text)

    def _cannot_be_reached(self, details: Details) -> str:
        tool, now = str(details.get("upstream", "")), self._clock()
        since, was_said = self._down.setdefault(tool, (now, False))
        if was_said or now < since + DOWN_SECONDS:
            return ""
        self._down[tool] = (since, True)
        return f"{self._names(tool)} cannot be reached since {int(now - since)} seconds."

    def _can_be_reached(self, details: Details) -> str:
        tool = str(details.get("upstream", ""))
        _, was_said = self._down.pop(tool, (0.0, False))
        return f"{self._names(tool)} can be reached again." if was_said else ""

    def _names(self, tool: str) -> str:
        return ", ".join(map(plain, self._routes.get(tool, ()))) or "A tool"


def _locked(details: Details) -> str:
    return f"A lock on {plain(str(details.get('target', '')))} is in force."


def _unlocked(details: Details) -> str:
    return f"The lock on {plain(str(details.get('target', '')))} is lifted."


def _not_loaded(details: Details) -> str:
    problems = details.get("problems")
    count = len(problems) if isinstance(problems, list) else 0
    why = counted(count, "problem")
    return f"A changed configuration was refused for {why}; the previous one stays."


def _refused(details: Details) -> str:
    count, reason = details.get("count"), plain(str(details.get("reason", "")))
    return f"More sign-ins were refused than usual: {count} beyond the first ones, {reason}."
