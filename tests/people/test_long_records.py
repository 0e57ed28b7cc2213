"""Accounts whose record in Tailchat is longer than the gate reads: they choose what is in it."""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gatekit import Clock, until
from recheckkit import BOB, HOSHINO
from storykit import Story, story

from tailchat_gate.demo.faults import Rewrite
from tailchat_gate.people.facts import UNREADABLE, Facts
from tailchat_gate.reasons import Reason

LIST = "user/getUserInfoList"
#: Longer than what is read of one answer, and than what is read of one that was too long before.
TOO_LONG, LONG = 4_500_000, 100_000
WAYS: Mapping[str, Callable[[int], dict[str, Any]]] = {
    "a member of no use": lambda size: {"extra": {"a": "x" * size}},
    "a name of controls": lambda size: {"nickname": "\x01" * (size // 6 + 1)},
}


@pytest.fixture
async def scene(tmp_path: Path, clock: Clock) -> AsyncIterator[Story]:
    """Yield a gate that asks about people every second, and its Tailchat."""
    tailchat = {"people_refresh": "1s"}
    async with story(tmp_path / "access.log", clock, tailchat=tailchat) as found:
        yield found


def lengthen(scene: Story, size: int, way: str = "a member of no use") -> list[int]:
    """Make the record of one account longer; return how many people each call asks about."""
    asked: list[int] = []

    def change(members: dict[str, Any]) -> dict[str, Any]:
        asked.append(len(members["data"]))
        found = [
            {**record, **WAYS[way](size)} if record and record["_id"] == HOSHINO.sub else record
            for record in members["data"]
        ]
        return {**members, "data": found}

    scene.tailchat.faults.actions[LIST] = Rewrite(change)
    return asked


def mark(scene: Story, sub: str, **flags: Any) -> None:  # noqa: ANN401 - as replace
    """Change flags of an account in Tailchat."""
    users = scene.tailchat.store.users
    users[sub] = replace(users[sub], **flags)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("flag", ["banned", "temporary"])
async def test_nobody_hides_a_ban_or_being_a_guest(scene: Story, flag: str, way: str) -> None:
    """A record that is too long to be read lets nobody in; a usual one does, at once."""
    async with scene.visitor() as visitor:
        await visitor.sign_in(f"{scene.url}/", HOSHINO.email, HOSHINO.password)
        visitor.session.cookie_jar.clear(lambda cookie: cookie.key == "tailchat_gate")
        mark(scene, HOSHINO.sub, **{flag: True})
        lengthen(scene, TOO_LONG, way)
        # Tailchat's own session signs them in again.
        page = await visitor.open(f"{scene.url}/")
        assert (page.status, "403 account-unreadable" in page.text) == (403, True)

        mark(scene, HOSHINO.sub, **{flag: False})
        lengthen(scene, 10)
        assert (await visitor.open(f"{scene.url}/")).status == 200


async def test_long_records_delay_no_answer_about_others(scene: Story) -> None:
    """They are asked about alone from then on, after all others, and little of them is read."""
    process_state = scene.gate.generation.process_state
    people = process_state.tailchat.people
    for sub in tuple(scene.tailchat.store.users):
        people.seen(sub, process_state.monotonic())
    asked = lengthen(scene, TOO_LONG)
    await until(lambda: HOSHINO.sub in process_state.revocation.blocked())
    everybody = len(people)

    asked.clear()
    await until(lambda: len(asked) >= 5)
    # The list may have been cleared between the two questions of a round.
    rounds = asked[asked.index(everybody - 1) :][:4]
    assert rounds == [everybody - 1, 1, everybody - 1, 1]

    lengthen(scene, LONG)
    mark(scene, BOB.sub, banned=True)
    await until(lambda: BOB.sub in process_state.revocation.blocked())
    known = people.get(HOSHINO.sub)
    assert known is not None
    assert known.facts is UNREADABLE

    lengthen(scene, 10)
    await until(lambda: HOSHINO.sub not in process_state.revocation.blocked())
    assert isinstance(known.facts, Facts)
    assert process_state.revocation.blocked() == {BOB.sub: Reason.BANNED}
