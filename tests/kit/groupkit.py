"""A gate whose groups have members from a stand-in Tailchat, for tests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gatekit import ALICE, Clock, RawUpstream, Response, ask, request_bytes, until
from process import free_port
from reloadkit import FileGate, file_gate
from storykit import served
from tailchat_browser import APP

from tailchat_gate.demo.groups import Group, Role
from tailchat_gate.demo.tailchat import StandInTailchat
from tailchat_gate.identity.oauth.responses import Profile
from tailchat_gate.people.groups.watch import GroupWatch

BOB = ALICE._replace(sub="660000000000000000000002", nickname="Bob")
EVE = ALICE._replace(sub="660000000000000000000004", nickname="Eve")
GET_GROUPS = "group/getUserGroups"
#: The ids of what `GroupScene.make` makes.
GROUP_ID, ROLE_ID = f"6b{2:022x}", f"6b{3:022x}"
OPS = [f"tailchat-role:{GROUP_ID}/{ROLE_ID}"]
ROUTE = [{"name": "tool", "allow": ["group:ops"]}]


@dataclass
class GroupScene:
    """A stand-in Tailchat with one group of Alice, Bob and Eve, of whom Alice and Bob are ops."""

    tailchat: StandInTailchat
    clock: Clock
    port: int
    state: Path
    group: Group = field(init=False)
    role: Role = field(init=False)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    def __post_init__(self) -> None:
        """Make the group, its role, and put the app's bot into it."""
        groups = self.tailchat.groups
        self.group = groups.add("Ops", EVE.sub, ALICE.sub, BOB.sub)
        self.role = groups.add_role(self.group, "oncall", ALICE.sub, BOB.sub)
        groups.add_bot(self.group, APP.client_id)
        assert (self.group.id, self.role.id) == (GROUP_ID, ROLE_ID)

    async def up(self) -> None:
        """Have Tailchat answer."""
        await self._stack.enter_async_context(served(self.tailchat.app(), self.port))

    async def down(self) -> None:
        """Have Tailchat refuse connections."""
        await self._stack.aclose()

    @property
    def asked(self) -> int:
        """How often Tailchat was asked for groups."""
        return self.tailchat.seen[GET_GROUPS].count

    def sections(self, **given: Any) -> dict[str, Any]:  # noqa: ANN401 - as in the file
        """Return the tables of a configuration for this Tailchat."""
        base: dict[str, Any] = {
            "tailchat": {
                "api_url": f"http://127.0.0.1:{self.port}",
                "client_id": APP.client_id,
                "client_secret": APP.client_secret,
                "groups_refresh": "1s",
            },
            "state": {"path": str(self.state)},
            "groups": {"ops": OPS},
            "route": ROUTE,
        }
        for name, values in given.items():
            base[name] = {**base[name], **values} if name == "tailchat" else values
        return base

    @asynccontextmanager
    async def gate(
        self,
        folder: Path,
        upstream: RawUpstream,
        **given: Any,  # noqa: ANN401 - as above
    ) -> AsyncIterator[FileGate]:
        """Serve a gate until the block ends."""
        sections = self.sections(**given)
        async with file_gate(folder, upstream.url, self.clock, **sections) as gate:
            yield gate


@asynccontextmanager
async def group_scene(folder: Path, clock: Clock) -> AsyncIterator[GroupScene]:
    """Set the scene; Tailchat is up."""
    state = folder / "state"
    await asyncio.to_thread(state.mkdir)
    tailchat = StandInTailchat(apps=(APP,), clock=clock)
    scene = GroupScene(tailchat, clock, free_port(), state)
    await scene.up()
    try:
        yield scene
    finally:
        await scene.down()


def watch_of(gate: FileGate) -> GroupWatch:
    """Return what follows the groups."""
    return gate.gate.generation.process_state.tailchat.group_watch


async def known(gate: FileGate, *, sizes: dict[str, int]) -> None:
    """Wait until the gate knows that its groups have so many people from Tailchat."""
    watch = watch_of(gate)
    await until(lambda: dict(watch.sizes) == sizes and not watch.unknown)


async def get(gate: FileGate, profile: Profile, target: str = "/") -> Response:
    """Return the response to a person's request."""
    return await ask(gate.port, request_bytes(target, Cookie=gate.gate.cookie(profile)))


async def status_of(gate: FileGate, profile: Profile) -> tuple[int, str]:
    """Return the status of a person's request and, where it is refused, the reason."""
    response = await get(gate, profile)
    return response.status, "" if response.status == 200 else str(response.json["error"])
