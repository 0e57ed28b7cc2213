"""What people on call read in a panel of Tailchat, out of the gate's own log."""

import asyncio
import json
import logging
import re
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from accounts import user_named
from gatekit import Clock, RawUpstream, until
from groupkit import GET_GROUPS, GROUP_ID, GroupScene, group_scene
from storekit import StoredEntries
from storykit import CLIENT_ID, Story, story

from tailchat_gate.demo.faults import Rewrite
from tailchat_gate.demo.groups import Group
from tailchat_gate.identity.revocation.state import Lock
from tailchat_gate.observe.log import (
    AUDIT_LOGGER_NAME,
    LOGGER_NAME,
    Pace,
    close_logging,
    set_up_logging,
)
from tailchat_gate.observe.sink import REPEAT_SECONDS
from tailchat_gate.people import panel as real_panel
from tailchat_gate.people.api import Done, Raw
from tailchat_gate.people.panel import DOWN_SECONDS, Notices
from tailchat_gate.state.memory import MemoryStore

BOB = user_named("bob")
GROUP, PANEL = "6a" + 11 * "01", "6b" + 11 * "02"

Log = Callable[..., None]


class Panel:
    """Records what is said."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []

    def say(self, kind: str, text: str) -> None:
        """Take a message."""
        self.said.append((kind, text))


@pytest.fixture(autouse=True)
def _as_when_serving() -> None:
    """Let the loggers pass what they pass in a process that serves."""
    logging.getLogger(LOGGER_NAME).setLevel(logging.INFO)


@pytest.fixture
async def scene(tmp_path: Path, clock: Clock) -> AsyncIterator[Story]:
    """Return the usual setting with a panel of a Tailchat group."""
    sections: dict[str, Any] = {
        "access": {"panel": f"{GROUP}/{PANEL}"},
        "state": {"path": str(tmp_path)},
        "route": [{"name": "wiki", "allow": ["public"]}],
    }
    async with story(tmp_path / "access.log", clock, **sections) as found:
        group = Group(GROUP, "Ops", BOB.sub, {BOB.sub: []}, panels={PANEL: "general"})
        found.tailchat.groups.by_id[GROUP] = group
        found.tailchat.groups.add_bot(group, CLIENT_ID)
        yield found


async def test_a_lock_is_told_in_the_panel(scene: Story, tmp_path: Path) -> None:
    """Any process may have set it. Its message is for the person alone."""
    lock = Lock("sub:660000000000000000000001", int(scene.clock()), None, "a private word")
    await asyncio.to_thread(StoredEntries(tmp_path, scene.clock).append, (lock,))
    await until(lambda: bool(scene.tailchat.messages.sent))

    (message,) = scene.tailchat.messages.sent
    assert message["content"] == "A lock on sub:660000000000000000000001 is in force."


@pytest.fixture
def quiet_log() -> Iterator[Path]:
    """Have the log of the process as with log.level = "error"; return where it is written."""
    with tempfile.NamedTemporaryFile() as file:
        set_up_logging("error", descriptor=file.fileno())
        yield Path(file.name)
        close_logging()


async def test_the_level_of_the_log_decides_nothing(
    scene: Story, tmp_path: Path, quiet_log: Path
) -> None:
    """A lock is told although its line is not logged; an error is."""
    lock = Lock("sub:660000000000000000000001", int(scene.clock()), None)
    await asyncio.to_thread(StoredEntries(tmp_path, scene.clock).append, (lock,))
    await until(lambda: bool(scene.tailchat.messages.sent))
    logging.getLogger(LOGGER_NAME).error("an error")
    await asyncio.to_thread(close_logging)

    written = await asyncio.to_thread(quiet_log.read_text)
    assert "a lock is in force" not in written
    assert "an error" in written


def _notices(panel: Any, clock: Clock, *kinds: str) -> Notices:  # noqa: ANN401 - a stand-in
    return Notices(panel, kinds, {"http://tool": ["wiki", "mail"]}, clock, {})


@pytest.fixture
def log() -> Log:
    """Return what writes a line as the gate does."""

    def write(message: str, name: str = LOGGER_NAME, **details: object) -> None:
        logging.getLogger(name).info(message, extra={"details": details})

    return write


@pytest.fixture
async def panel(clock: Clock) -> AsyncIterator[Panel]:
    """Return a panel with every kind of notice."""
    logging.getLogger(LOGGER_NAME).setLevel("INFO")
    found = Panel()
    notices = _notices(found, clock, "locks", "reloads", "sign-ins", "tools")
    notices.start()
    yield found
    notices.stop()


async def test_an_outage_is_told_after_a_minute_and_once(
    panel: Panel, log: Log, clock: Clock
) -> None:
    """And its end, if its beginning was told."""
    for seconds in (0.0, DOWN_SECONDS - 1, 1.0, DOWN_SECONDS):
        clock.now += seconds
        log("an upstream cannot be reached", upstream="http://tool", error="refused")
        await asyncio.sleep(0)
    log("an upstream can be reached again", upstream="http://tool")
    log("an upstream cannot be reached", upstream="http://tool")
    log("an upstream can be reached again", upstream="http://tool")
    await until(lambda: len(panel.said) >= 2)

    assert panel.said == [
        ("tools", "wiki, mail cannot be reached since 60 seconds."),
        ("tools", "wiki, mail can be reached again."),
    ]


async def test_refused_reloads_and_sign_ins_are_told_without_values(panel: Panel, log: Log) -> None:
    """What was wrong is in the log, which fewer people read."""
    log("the configuration was not loaded", problems=["session.secrets: found hunter2"])
    log("audit", AUDIT_LOGGER_NAME, event="sign-ins-left-out", reason="login-refused", count=7)
    log("audit", AUDIT_LOGGER_NAME, event="signed-in", nickname="[b]")
    log("something else", upstream="http://tool")
    await until(lambda: len(panel.said) >= 2)

    assert panel.said == [
        (
            "reloads",
            "A changed configuration was refused for 1 problem; the previous one stays.",
        ),
        (
            "sign-ins",
            "More sign-ins were refused than usual: 7 beyond the first ones, login-refused.",
        ),
    ]


async def test_each_kind_can_be_switched_off(log: Log, clock: Clock) -> None:
    """Only what is named is told."""
    found = Panel()
    notices = _notices(found, clock, "reloads")
    notices.start()
    log("a lock is in force", target="all")
    log("the configuration was not loaded", problems=[])
    await until(lambda: bool(found.said))
    notices.stop()
    log("the configuration was not loaded", problems=[])
    await asyncio.sleep(0)

    assert [kind for kind, _ in found.said] == ["reloads"]


async def test_one_message_of_a_kind_a_minute(scene: Story) -> None:
    """The next one tells how many were left out."""
    panel = scene.gate.generation.panel
    for number in range(4):
        panel.say("locks", f"message {number}")
    scene.clock.now += REPEAT_SECONDS
    panel.say("locks", "later")
    await until(lambda: len(scene.tailchat.messages.sent) == 2)

    assert [message["content"] for message in scene.tailchat.messages.sent] == [
        "message 0",
        "later\n(and 3 more of this kind)",
    ]


@pytest.fixture
async def grouped(tmp_path: Path, clock: Clock) -> AsyncIterator[GroupScene]:
    """Return a Tailchat with one group that has a panel."""
    async with group_scene(tmp_path, clock) as found:
        found.group.panels[PANEL] = "general"
        yield found


async def test_a_reload_repeats_no_message_and_forgets_no_outage(
    grouped: GroupScene, tmp_path: Path, upstream: RawUpstream, log: Log
) -> None:
    """The minute of a kind goes on, and an end is told of what the configuration before told."""
    sent = grouped.tailchat.messages.sent
    access = {"panel": f"{GROUP_ID}/{PANEL}"}
    async with grouped.gate(tmp_path, upstream, access=access) as gate:
        (tool,) = gate.gate.generation.notices._routes
        gate.gate.generation.panel.say("locks", "one")
        log("an upstream cannot be reached", upstream=tool)
        await asyncio.sleep(0)
        grouped.clock.now += DOWN_SECONDS
        log("an upstream cannot be reached", upstream=tool)
        await until(lambda: len(sent) == 2)
        gate.gate.generation.panel.say("locks", "two")
        await until(lambda: len(sent) == 3)
        before = gate.gate.generation.panel
        assert (await gate.load()).problems == ()
        assert gate.gate.generation.panel is not before

        gate.gate.generation.panel.say("locks", "three")
        grouped.clock.now += REPEAT_SECONDS
        log("an upstream can be reached again", upstream=tool)
        await until(lambda: len(sent) == 4)
        gate.gate.generation.panel.say("locks", "four")
        await until(lambda: len(sent) == 5)

    assert [message["content"] for message in sent] == [
        "one",
        "tool cannot be reached since 60 seconds.",
        "two",
        "tool can be reached again.",
        "four\n(and 1 more of this kind)",
    ]


async def test_the_panel_reads_as_much_as_the_groups_do(
    grouped: GroupScene, tmp_path: Path, upstream: RawUpstream
) -> None:
    """The bound that an admin raises against groups of strangers is that of the panel as well."""
    access = {"panel": f"{GROUP_ID}/{PANEL}"}
    sections = {"access": access, "tailchat": {"groups_max_bytes": "2KiB"}}
    async with grouped.gate(tmp_path, upstream, **sections) as gate:
        panel = gate.gate.generation.panel
        assert await panel.problem_now() == ""
        blown_up = Rewrite(lambda answer: {**answer, "more": "x" * 2048})
        grouped.tailchat.faults.actions[GET_GROUPS] = blown_up
        assert "too long" in await panel.problem_now()


class LargeAnswer:
    """A bot whose groups strangers have filled; it takes messages."""

    def __init__(self, strangers: int = 20_000) -> None:
        members = [{"userId": f"{number:024x}", "roles": []} for number in range(strangers)]
        self.texts: list[str] = []
        groups = [{"_id": "6c" * 12, "members": members, "roles": [], "panels": []}]
        groups += [{"_id": GROUP, "members": [], "panels": [{"id": PANEL, "type": 0}]}]
        self.body = json.dumps({"code": 200, "data": groups}, separators=(",", ":")).encode()
        self.sent = asyncio.Event()

    async def fetch(self, action: str, body: object, *, limit: int) -> Raw:
        """Return the groups."""
        assert (action, body, len(self.body) < limit) == ("group/getUserGroups", {}, True)
        return Raw(self.body)

    async def call(self, action: str, body: Mapping[str, str]) -> Done:
        """Take a message."""
        assert action == "chat/message/sendMessage"
        self.texts.append(body["content"])
        self.sent.set()
        return Done(None)


async def test_groups_that_strangers_filled_hold_up_no_request(clock: Clock) -> None:
    """The answer that says whether the panel is there is read with pauses."""
    bot: Any = LargeAnswer()
    panel = real_panel.Panel(bot, f"{GROUP}/{PANEL}", Pace(clock), max_bytes=8 << 20)
    panel.say("locks", "x")
    turns = 0
    while not bot.sent.is_set():
        await asyncio.sleep(0)
        turns += 1

    assert turns > 100


async def test_workers_write_one_request_a_minute(clock: Clock) -> None:
    """The one that was not first counts what it left out, and tells the number later."""
    store, bots = MemoryStore(clock), (LargeAnswer(1), LargeAnswer(1))

    def worker(bot: Any) -> real_panel.Panel:  # noqa: ANN401 - as large as the real one
        where = f"{GROUP}/{PANEL}"
        return real_panel.Panel(bot, where, Pace(clock), max_bytes=8 << 20, store=store)

    first, second = map(worker, bots)

    async def say(panel: real_panel.Panel, text: str) -> None:
        panel.say("access-request", text, for_all=True)
        await asyncio.gather(*panel._tasks)

    await say(first, "one")
    await say(second, "two")
    await say(second, "three")
    clock.now += REPEAT_SECONDS
    await say(second, "four")
    await say(first, "five")
    assert bots[0].texts == ["one"]
    assert bots[1].texts == ["four\n(and 2 more of this kind)"]


@pytest.mark.parametrize(
    "text",
    [
        "https://evil.example.com/x",
        "//evil.example.com",
        "https:////evil.example.com",
        "/[/]evil.example.com",
        "www.evil.example.com",
        "wW[wW.evil.example.com",
    ],
)
def test_no_text_of_a_person_becomes_a_link(text: str) -> None:
    """Tailchat's clients make one of a host behind "//" or "www.", with a scheme or without."""
    found = real_panel.plain(text)
    assert "evil.example.com" in found
    assert re.search(r"(//|www\.)\S", found, re.IGNORECASE) is None
