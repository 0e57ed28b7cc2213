"""Who decides requests for access by a group of Tailchat, while Tailchat does not answer."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from dashboardkit import DASH, at_route
from gatekit import ALICE, Clock, RawUpstream, ask, request_bytes, until
from groupkit import EVE, ROUTE, GroupScene, get, group_scene, known, watch_of
from reloadkit import FileGate

from tailchat_gate.identity.access_requests import OPEN
from tailchat_gate.identity.sessions.record import SessionRecord

APPROVALS = "/oauth2/approvals"


@pytest.fixture
async def gate(tmp_path: Path, clock: Clock, upstream: RawUpstream) -> AsyncIterator[FileGate]:
    """Return a gate whose approvers are a group of Tailchat, of which it cannot tell any more."""
    dash = {"name": "dash", "host": DASH, "upstream": "admin:", "allow": [f"sub:{ALICE.sub}"]}
    async with group_scene(tmp_path, clock) as scene:
        access = {"requests": True, "approvers": ["group:ops"]}
        async with scene.gate(tmp_path, upstream, access=access, route=[*ROUTE, dash]) as found:
            await known(found, sizes={"ops": 2})
            await _forget(scene, found)
            yield found


async def _forget(scene: GroupScene, gate: FileGate) -> None:
    assert (await get(gate, EVE, APPROVALS)).status == 403
    await scene.down()
    await until(lambda: watch_of(gate).problem != "")
    scene.clock.now += 700
    await until(lambda: bool(watch_of(gate).unknown))


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_page_names_the_outage(gate: FileGate, method: str) -> None:
    """An approver is not told that they are none; no form is read meanwhile."""
    request = request_bytes(APPROVALS, method=method, Cookie=gate.gate.cookie(ALICE))
    response = await ask(gate.port, request)
    assert (response.status, response.json["error"]) == (503, "groups-unknown")
    assert response.value("Retry-After")


async def test_the_admin_page_names_the_outage(gate: FileGate) -> None:
    """Beside the request instead of the buttons, and in the answer to an order made by hand."""
    requests = gate.gate.generation.process_state.access_requests
    asked = await requests.ask(
        SessionRecord.begin(EVE, now=gate.gate.clock(), login="x"), "tool", ""
    )
    desk = at_route(gate.gate, ALICE)
    page = await desk.text("/people")
    assert "Tailchat has not said lately who is in access.approvers" in page
    assert 'value="decide"' not in page
    form = {"order": "decide", "page": "people", "id": asked.key, "for": "8h"}
    response = await desk.send({**form, "csrf": await desk.token()})
    assert response.status == 503
    assert b"Tailchat has not said lately who is in access.approvers" in response.body
    assert [one.state for one in requests.open] == [OPEN]
