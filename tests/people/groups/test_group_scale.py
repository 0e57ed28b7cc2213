"""Large groups cost requests of their members nothing, and no request waits for their answer."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from gatekit import ALICE, Clock, RawClient, RawUpstream, request_bytes
from groupkit import GET_GROUPS, GroupScene, group_scene, known, status_of, watch_of
from reloadkit import FileGate

import tailchat_gate
from tailchat_gate.demo.faults import Response
from tailchat_gate.request.context import RequestContext

#: Many groups, and members of each: one more instruction for each of either is counted.
GROUPS, MEMBERS = 50, 1000
#: Groups, and members of each, of an answer that takes long enough to read.
MANY, CROWD = 10, 10_000
#: Requests of which the cheapest is counted: on a busy machine a timer falls into many of them.
TRIES = 32
#: Where a request passes, from its bytes to its record.
PATH = tuple(
    str(Path(tailchat_gate.__file__).parent / name)
    for name in ("access", "authorizer", "gate", "identity", "observe", "proxy", "request")
)


@pytest.fixture
async def scene(tmp_path: Path, clock: Clock) -> AsyncIterator[GroupScene]:
    """Return a Tailchat."""
    async with group_scene(tmp_path, clock) as found:
        yield found


def group_id(number: int) -> str:
    """Return the id of a group."""
    return f"6f{number:022x}"


def answer(groups: int, members: int) -> Response:
    """Return an answer in which Alice is in every group."""
    data = [
        {
            "_id": group_id(number),
            "members": [
                {"userId": ALICE.sub, "roles": []},
                *({"userId": f"67{each:022x}", "roles": []} for each in range(1, members)),
            ],
            "roles": [],
        }
        for number in range(groups)
    ]
    return Response(200, json.dumps({"code": 200, "data": data}, separators=(",", ":")).encode())


def tables(groups: int) -> dict[str, Any]:
    """Return a configuration in which all groups open the route."""
    names = {f"g{number}": [f"tailchat-group:{group_id(number)}"] for number in range(groups)}
    return {
        "groups": names,
        "route": [{"name": "tool", "allow": [f"group:{name}" for name in names]}],
        "tailchat": {"groups_max_bytes": "64MiB"},
    }


def steps_of_a_request(gate: FileGate) -> int:
    """Return how many of Python's instructions judging and naming a person take, once warm."""
    parts = gate.gate.generation.gate
    reader = gate.gate.generation.service.reader
    read = reader.read(request_bytes(Cookie=gate.gate.cookie()))
    assert read is not None
    head, count = read[0], 0

    def step(frame: FrameType, event: str, _: object) -> Any:  # noqa: ANN401 - a trace function
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return step

    for _ in range(3):
        count = 0
        context = RequestContext("id", 0.0, head)
        sys.settrace(step)
        try:
            verdict = parts.authorizer.judge(context, head.fields.host, head.method, head.target)
            assert verdict.match is not None
            assert verdict.visitor is not None
            parts.identity.fields(verdict.visitor, verdict.match.route)
        finally:
            sys.settrace(None)
        assert verdict.allowed
    return count


async def steps_of_the_whole_way(gate: FileGate) -> int:
    """Return the same for a request over sockets, of all that the gate does between them."""
    count = 0

    def step(frame: FrameType, event: str, _: object) -> Any:  # noqa: ANN401 - a trace function
        nonlocal count
        if not frame.f_code.co_filename.startswith(PATH):
            return None
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return step

    counts = []
    async with RawClient.connect(gate.port) as client:
        for _ in range(TRIES):
            count = 0
            sys.settrace(step)
            try:
                client.send(request_bytes(Cookie=gate.gate.cookie()))
                assert (await client.response()).status == 200
            finally:
                sys.settrace(None)
            counts.append(count)
    return min(counts)


async def test_a_request_costs_the_same_in_large_groups(
    scene: GroupScene, tmp_path: Path, upstream: RawUpstream
) -> None:
    """A request of a member of many large groups takes not one of Python's instructions more."""
    found: list[tuple[int, int]] = []
    for groups, members in ((1, 1), (GROUPS, MEMBERS)):
        scene.tailchat.faults.actions[GET_GROUPS] = answer(groups, members)
        async with scene.gate(tmp_path, upstream, **tables(groups)) as gate:
            await known(gate, sizes={f"g{number}": members for number in range(groups)})
            assert await status_of(gate, ALICE) == (200, "")
            judged = await asyncio.to_thread(steps_of_a_request, gate)
            found.append((judged, await steps_of_the_whole_way(gate)))
    assert found[0] == found[1]


async def test_requests_are_answered_while_a_large_answer_is_read(
    scene: GroupScene, tmp_path: Path, upstream: RawUpstream
) -> None:
    """The event loop answers between the slices of work, from the first byte to the last step."""
    scene.tailchat.faults.actions[GET_GROUPS] = answer(MANY, CROWD)
    config = tables(MANY)
    config["route"].append({"name": "other", "path": "/other"})
    async with scene.gate(tmp_path, upstream, **config) as gate:
        answered = 0
        async with RawClient.connect(gate.port) as client:
            while watch_of(gate).unknown:
                client.send(request_bytes("/other/x", Cookie=gate.gate.cookie()))
                assert (await client.response()).status == 200
                answered += 1
        assert answered > 20
