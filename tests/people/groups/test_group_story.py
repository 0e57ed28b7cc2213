"""Groups of Tailchat open the gate's doors, over real sockets, and close them again."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
from clikit import invoke
from gatekit import ALICE, Clock, RawClient, RawUpstream, Received, ask, request_bytes, until
from groupkit import (
    BOB,
    EVE,
    GET_GROUPS,
    GROUP_ID,
    OPS,
    GroupScene,
    get,
    group_scene,
    known,
    status_of,
    watch_of,
)
from reloadkit import FileGate
from tailchat_browser import APP
from tlskit import write_key
from websocketkit import UPGRADE

from tailchat_gate.commands.state import read_store
from tailchat_gate.config.values.group import MemberSource
from tailchat_gate.demo.faults import Fault, Hang, Response
from tailchat_gate.people.groups import watch as group_watch
from tailchat_gate.people.groups.watch import GroupWatch
from tailchat_gate.proxy.client.server import SWEEP_SECONDS
from tailchat_gate.proxy.message.websocket_frames import close_frame

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
PING = b"\x82\x04ping"
FROZEN_REDIS = Response(
    401, b'{"name":"UnAuthorizedError","message":"401","code":401,"type":"INVALID_TOKEN"}'
)


@pytest.fixture
async def scene(tmp_path: Path, clock: Clock) -> AsyncIterator[GroupScene]:
    """Return a Tailchat with one group."""
    async with group_scene(tmp_path, clock) as found:
        yield found


@pytest.fixture(autouse=True)
def _rounds_come_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a tenth of each pause between two rounds, of which a test waits for several."""
    pause = GroupWatch._pause
    monkeypatch.setattr(GroupWatch, "_pause", lambda watch, terms: pause(watch, terms) / 10)


async def _echo(_: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(SWITCH)
    while data := await reader.read(2**16):
        writer.write(data)


async def _open_socket(client: RawClient, gate: FileGate, profile: Any = ALICE) -> None:  # noqa: ANN401 - any profile
    client.send(request_bytes("/ws", Cookie=gate.gate.cookie(profile), **UPGRADE))
    assert b" 101 " in await client.head()


@asynccontextmanager
async def _hanging_store(gate: FileGate) -> AsyncIterator[None]:
    """Have the gate's store read and write nothing until the block ends."""
    store: Any = gate.gate.generation.process_state.store
    async with store._using:
        yield


async def _closed(client: RawClient, code: int, text: str) -> bool:
    """Tell whether a client hears the end of its WebSocket, at the next look at all of them."""
    assert SWEEP_SECONDS <= 1
    expected = close_frame(code, text)
    async with asyncio.timeout(30):
        return await client.reader.readexactly(len(expected)) == expected


@pytest.mark.both_loops
async def test_a_role_in_tailchat_opens_a_route(
    scene: GroupScene, tmp_path: Path, upstream: RawUpstream
) -> None:
    """A person with the role is in, with the group's name in the gate; other members are not."""
    async with scene.gate(tmp_path, upstream) as gate:
        await known(gate, sizes={"ops": 2})
        assert await status_of(gate, ALICE) == (200, "")
        assert upstream.requests[-1].value("X-Tailchat-Groups") == b"ops"
        assert await status_of(gate, EVE) == (403, "denied")

        scene.tailchat.groups.by_id[GROUP_ID].members[EVE.sub] = [scene.role.id]
        await known(gate, sizes={"ops": 3})
        assert await status_of(gate, EVE) == (200, "")


async def test_a_group_of_the_same_name_opens_nothing(
    scene: GroupScene, tmp_path: Path, upstream: RawUpstream
) -> None:
    """A stranger's group "Ops" with a role "oncall" and the bot in it counts for nothing."""
    groups = scene.tailchat.groups
    mine = groups.add("Ops", EVE.sub)
    groups.add_role(mine, "oncall", EVE.sub)
    groups.add_bot(mine, APP.client_id)
    scene.group.members[EVE.sub] = list(mine.roles)  # a role's id that its group does not have
    async with scene.gate(tmp_path, upstream) as gate:
        await known(gate, sizes={"ops": 2})
        assert await status_of(gate, EVE) == (403, "denied")


async def test_a_role_that_is_gone_counts_for_nobody(
    scene: GroupScene, tmp_path: Path, upstream: RawUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    """Members keep the id of a role that was deleted; it opens nothing from then on."""
    async with scene.gate(tmp_path, upstream) as gate:
        await known(gate, sizes={"ops": 2})
        del scene.group.roles[scene.role.id]
        await known(gate, sizes={"ops": 0})
        assert await status_of(gate, ALICE) == (403, "denied")
    (told,) = [x.__dict__["details"] for x in caplog.records if "it is gone" in x.message]
    assert told == {"entry": OPS[0], "why": "the group has no such role"}


@pytest.mark.parametrize("removed", ["bot", "group"])
async def test_a_bot_that_was_removed_and_a_group_that_was_deleted_mean_nobody(
    scene: GroupScene,
    tmp_path: Path,
    upstream: RawUpstream,
    caplog: pytest.LogCaptureFixture,
    removed: str,
) -> None:
    """Both close the door at once and loudly, without waiting until the answer is old."""
    async with scene.gate(tmp_path, upstream) as gate:
        await known(gate, sizes={"ops": 2})
        if removed == "bot":
            scene.group.members.popitem()
        else:
            scene.tailchat.groups.by_id.clear()
        await known(gate, sizes={"ops": 0})
        assert await status_of(gate, ALICE) == (403, "denied")
        assert f"{OPS[0]} is gone, so it lets nobody in" in (await gate.ask_admin("/readyz"))[1]
        await until(lambda: any("it is gone" in x.message for x in caplog.records))
    (told,) = [x.__dict__["details"] for x in caplog.records if "it is gone" in x.message]
    why = {"bot": "the gate's bot is not in this group", "group": "there is no such group"}
    assert told["why"] == why[removed]


async def test_a_lost_right_waits_neither_for_the_log_nor_for_the_store(
    scene: GroupScene, tmp_path: Path, upstream: RawUpstream
) -> None:
    """Round after round counts while a store hangs, and the question why a group is gone."""
    groups = {"ops": OPS, "all": [f"tailchat-group:{GROUP_ID}"]}
    async with scene.gate(tmp_path, upstream, groups=groups) as gate:
        await known(gate, sizes={"ops": 2, "all": 3})
        async with _hanging_store(gate):
            scene.group.members[ALICE.sub] = []
            await known(gate, sizes={"ops": 1, "all": 3})
            assert await status_of(gate, ALICE) == (403, "denied")
            scene.group.members[ALICE.sub] = [scene.role.id]
            await known(gate, sizes={"ops": 2, "all": 3})
        hang = scene.tailchat.faults.actions["group/getGroupBasicInfo"] = Hang()
        group = scene.tailchat.groups.by_id.pop(GROUP_ID)
        await known(gate, sizes={"ops": 0, "all": 0})
        assert await status_of(gate, ALICE) == (403, "denied")
        await hang.started.wait()
        scene.tailchat.groups.by_id[GROUP_ID] = group
        await known(gate, sizes={"ops": 2, "all": 3})
        assert scene.tailchat.seen["group/getGroupBasicInfo"].count == 1


@pytest.mark.parametrize("then", ["reload", "stop"])
async def test_members_that_change_during_a_write_are_stored_whole(
    scene: GroupScene, tmp_path: Path, upstream: RawUpstream, then: str
) -> None:
    """A reload or a stop leaves no new head over old parts: a restart in an outage knows all."""
    groups = {"ops": OPS, "all": [f"tailchat-group:{GROUP_ID}"]}
    everybody = MemberSource(GROUP_ID)
    async with scene.gate(tmp_path, upstream, groups=groups) as gate:
        await known(gate, sizes={"ops": 2, "all": 3})
        memberships = watch_of(gate).memberships

        def heard() -> bool:
            said = memberships.get(everybody)
            return said is not None and len(said.people) == 4

        async with _hanging_store(gate):
            scene.group.members["66" * 12] = [scene.role.id]
            assert (await gate.load()).problems == ()
            await until(heard)
            if then == "reload":
                assert (await gate.load()).problems == ()
        if then == "reload":
            await known(gate, sizes={"ops": 3, "all": 4})
            asked = scene.asked
            await until(lambda: scene.asked > asked + 1)
    await scene.down()
    async with scene.gate(tmp_path, upstream, groups=groups) as gate:
        assert watch_of(gate).unknown == []
        assert watch_of(gate).sizes == {"ops": 3, "all": 4}


@pytest.mark.both_loops
async def test_who_loses_a_role_loses_the_websocket(
    scene: GroupScene, tmp_path: Path, upstream: RawUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    """It ends within the refresh and a second, with the reason of a new request, and is audited."""
    caplog.set_level(logging.INFO)
    upstream.answer = _echo
    async with (
        scene.gate(tmp_path, upstream) as gate,
        RawClient.connect(gate.port) as alices,
        RawClient.connect(gate.port) as bobs,
    ):
        await known(gate, sizes={"ops": 2})
        await _open_socket(alices, gate)
        await _open_socket(bobs, gate, BOB)
        scene.group.members[ALICE.sub] = []
        assert await _closed(alices, 3003, "denied")
        bobs.send(PING)
        assert await bobs.reader.readexactly(len(PING)) == PING
        await until(lambda: len(gate.gate.generation.forwarder.tunnels) == 1)
        line = next(x for x in await gate.gate.log() if x["reason"] == "denied")
        assert (line["sub"], line["path"]) == (ALICE.sub, "/ws")

    audited = [x.__dict__["details"] for x in caplog.records if x.message == "audit"]
    changes = [x for x in audited if x["event"].startswith("group-")]
    assert changes == [{"event": "group-left", "sub": ALICE.sub, "group": "ops"}]


async def test_an_outage_keeps_members_until_the_answer_is_too_old(
    scene: GroupScene, tmp_path: Path, upstream: RawUpstream
) -> None:
    """Then nobody is known to be in the group: 503 says why, and who is listed by sub goes on."""
    upstream.answer = _echo
    groups = {"ops": [*OPS, EVE.sub]}
    async with scene.gate(tmp_path, upstream, groups=groups) as gate:
        await known(gate, sizes={"ops": 2})
        async with RawClient.connect(gate.port) as alices, RawClient.connect(gate.port) as eves:
            await _open_socket(alices, gate)
            await _open_socket(eves, gate, EVE)
            await scene.down()
            await until(lambda: watch_of(gate).problem != "")
            scene.clock.now += 599
            alices.send(PING)
            assert await alices.reader.readexactly(len(PING)) == PING

            scene.clock.now += 2
            assert await _closed(alices, 1013, "groups-unknown")
            eves.send(PING)
            assert await eves.reader.readexactly(len(PING)) == PING

        refused = await get(gate, ALICE)
        assert (refused.status, refused.json["error"]) == (503, "groups-unknown")
        assert refused.value("Retry-After")
        assert await gate.metric("gate_tailchat_groups_age_seconds") == 601
        assert await gate.metric("gate_tailchat_groups_unknown") == 1
        ready = (await gate.ask_admin("/readyz"))[1]
        assert "the members of ops are unknown" in ready

        upstream.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        await scene.up()
        await known(gate, sizes={"ops": 2})
        assert await status_of(gate, ALICE) == (200, "")


async def test_a_fault_in_a_question_lets_no_answer_count_for_longer(
    scene: GroupScene,
    tmp_path: Path,
    upstream: RawUpstream,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What is known grows too old all the same, and the log has the fault once."""
    async with scene.gate(tmp_path, upstream) as gate:
        await known(gate, sizes={"ops": 2})
        asked: list[object] = []

        async def fail(terms: object) -> str:
            asked.append(terms)
            raise LookupError("a fault")

        monkeypatch.setattr(watch_of(gate), "_refresh", fail)
        # A question of before may be under way.
        await until(lambda: bool(asked))
        scene.clock.now += 601
        await until(lambda: len(asked) > 2 and watch_of(gate).unknown == ["ops"])
        assert await status_of(gate, ALICE) == (503, "groups-unknown")
        assert "a fault of the gate, LookupError" in (await gate.ask_admin("/readyz"))[1]
        monkeypatch.undo()
        await known(gate, sizes={"ops": 2})
    assert [one.exc_info is not None for one in caplog.records if "be asked" in one.message] == [
        True
    ]


async def test_a_restart_during_an_outage_changes_nothing(
    scene: GroupScene, tmp_path: Path, upstream: RawUpstream
) -> None:
    """The store knows the last answer and its age: members are in, others are not."""
    async with scene.gate(tmp_path, upstream) as gate:
        await known(gate, sizes={"ops": 2})
    await scene.down()
    scene.clock.now += 500
    async with scene.gate(tmp_path, upstream) as gate:
        assert await status_of(gate, ALICE) == (200, "")
        assert await status_of(gate, EVE) == (403, "denied")
        assert await gate.metric("gate_tailchat_groups_age_seconds") == 500
    scene.clock.now += 101
    async with scene.gate(tmp_path, upstream) as gate:
        assert await status_of(gate, ALICE) == (503, "groups-unknown")


async def test_a_gate_that_never_had_an_answer_cannot_tell(
    scene: GroupScene, tmp_path: Path, upstream: RawUpstream
) -> None:
    """Before the first answer it is 503, not 403: nobody has said that Eve is not in the group."""
    await scene.down()
    async with scene.gate(tmp_path, upstream) as gate:
        assert await status_of(gate, EVE) == (503, "groups-unknown")


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(FROZEN_REDIS, id="redis"),
        pytest.param(Response(500, b'{"name":"Error","message":"x","code":500}'), id="error"),
        pytest.param(Response(200, b'{"code":200,"data":[{"_id":1}]}'), id="odd"),
        pytest.param(Response(200, b'{"code":200,"data":[]'), id="cut"),
        pytest.param(Response(200, b'{"code":200,"data":null}'), id="null"),
        pytest.param(Response(200, b"<html></html>", content_type="text/html"), id="page"),
        pytest.param(Response(200, b'{"code":200,"data":[]}' + b" " * 2048), id="large"),
    ],
)
async def test_what_cannot_be_read_is_never_nobody(
    scene: GroupScene, tmp_path: Path, upstream: RawUpstream, fault: Fault
) -> None:
    """A 401 of an outage, an error, half an answer, one blown up by a stranger: the last counts."""
    async with scene.gate(tmp_path, upstream, tailchat={"groups_max_bytes": "2KiB"}) as gate:
        await known(gate, sizes={"ops": 2})
        scene.tailchat.faults.actions[GET_GROUPS] = fault
        await until(lambda: watch_of(gate).problem != "")
        assert await status_of(gate, ALICE) == (200, "")
        assert await status_of(gate, EVE) == (403, "denied")
        assert "cannot be read" in (await gate.ask_admin("/readyz"))[1]
        scene.clock.now += 601
        await until(lambda: watch_of(gate).unknown == ["ops"])
        assert await status_of(gate, ALICE) == (503, "groups-unknown")


@pytest.mark.both_loops
async def test_a_reload_asks_at_once_and_keeps_what_is_known(
    scene: GroupScene, tmp_path: Path, upstream: RawUpstream
) -> None:
    """A reload does not wait for the refresh; open WebSockets see no gap in what is known."""
    upstream.answer = _echo
    slow = {"groups_refresh": "1h", "groups_max_age": "1h"}
    async with scene.gate(tmp_path, upstream, tailchat=slow) as gate:
        await known(gate, sizes={"ops": 2})
        async with RawClient.connect(gate.port) as alices, RawClient.connect(gate.port) as bobs:
            await _open_socket(alices, gate)
            await _open_socket(bobs, gate, BOB)
            hang = scene.tailchat.faults.actions[GET_GROUPS] = Hang()
            asked = scene.asked
            assert (await gate.load()).problems == ()
            await until(lambda: scene.asked > asked)
            for client in (alices, bobs):
                client.send(PING)
                assert await client.reader.readexactly(len(PING)) == PING

            scene.group.members[ALICE.sub] = []
            del scene.tailchat.faults.actions[GET_GROUPS]
            hang.release()
            assert await _closed(alices, 3003, "denied")


async def test_one_sign_in_of_the_bot_serves_all_reloads(
    scene: GroupScene, tmp_path: Path, upstream: RawUpstream
) -> None:
    """A reload does not sign the bot in again."""
    async with scene.gate(tmp_path, upstream) as gate:
        await known(gate, sizes={"ops": 2})
        asked = scene.asked
        await gate.load()
        await until(lambda: scene.asked > asked)
    assert scene.tailchat.seen["openapi/bot/login"].count == 1


async def test_a_tailchat_with_the_public_key_opens_nothing(
    scene: GroupScene, tmp_path: Path, upstream: RawUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    """Where anybody can make tokens its groups count for nothing, and the log says what to do."""
    scene.tailchat.store.secret = "tailchat"
    async with scene.gate(tmp_path, upstream) as gate:
        await until(lambda: watch_of(gate).key_is_public is True)
        await known(gate, sizes={"ops": 0})
        assert await status_of(gate, ALICE) == (403, "denied")
        assert "set SECRET" in (await gate.ask_admin("/readyz"))[1]
        assert scene.asked == 0

        scene.tailchat.store.secret = "another"
        await gate.load()
        await known(gate, sizes={"ops": 2})
    assert [x.message for x in caplog.records if x.levelno == logging.ERROR] == [
        group_watch.KEY_IS_PUBLIC,
        "Tailchat's groups cannot be read",
    ]


async def test_the_public_key_is_found_without_groups(
    scene: GroupScene, tmp_path: Path, upstream: RawUpstream
) -> None:
    """A gate that uses no group of Tailchat is told as well."""
    scene.tailchat.store.secret = "tailchat"
    async with scene.gate(tmp_path, upstream, groups={"ops": [ALICE.sub]}) as gate:
        await until(lambda: watch_of(gate).key_is_public is True)
        assert "set SECRET" in (await gate.ask_admin("/readyz"))[1]
        assert await status_of(gate, ALICE) == (200, "")


async def test_more_members_than_max_are_refused_whole(
    scene: GroupScene, tmp_path: Path, upstream: RawUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    """The bot does not count; one person too many closes the group to all whom Tailchat names."""
    groups = {"ops": {"members": [*OPS, EVE.sub], "max": 3}}
    async with scene.gate(tmp_path, upstream, groups=groups) as gate:
        await known(gate, sizes={"ops": 2})
        assert await status_of(gate, ALICE) == (200, "")
        scene.group.members["66" * 12] = [scene.role.id]
        await known(gate, sizes={"ops": 0})
        assert await status_of(gate, ALICE) == (403, "denied")
        assert await status_of(gate, EVE) == (200, "")
        assert "ops has 4 members, more than its max" in (await gate.ask_admin("/readyz"))[1]
    (told,) = [x.__dict__["details"] for x in caplog.records if "its max" in x.message]
    assert told == {"group": "ops", "members": 4}


async def test_names_of_groups_follow_tailchat_in_every_header(
    scene: GroupScene, tmp_path: Path, upstream: RawUpstream
) -> None:
    """The header of a person who stays signed in changes with the next answer, in all its forms."""
    groups = {"ops": OPS, "all": [f"tailchat-group:{GROUP_ID}"]}
    route = [{"name": "tool", "headers": {"X-Roles": "{groups}"}}]
    async with scene.gate(tmp_path, upstream, groups=groups, route=route) as gate:
        await known(gate, sizes={"ops": 2, "all": 3})
        cookie = gate.gate.cookie()
        for roles, expected in (([scene.role.id], b"all,ops"), ([], b"all")):
            scene.group.members[ALICE.sub] = roles
            await known(gate, sizes={"ops": 1 + len(roles), "all": 3})
            async with RawClient.connect(gate.port) as client:
                client.send(request_bytes(Cookie=cookie))
                assert (await client.response()).status == 200
            sent = upstream.requests[-1]
            assert sent.value("X-Tailchat-Groups") == sent.value("X-Roles") == expected


async def test_the_refusal_names_the_groups_of_the_configuration(
    scene: GroupScene, tmp_path: Path, upstream: RawUpstream
) -> None:
    """Who is in a group that does not open the tool reads its name on the page and in the JSON."""
    groups = {"ops": OPS, "all": [f"tailchat-group:{GROUP_ID}"]}
    async with scene.gate(tmp_path, upstream, groups=groups) as gate:
        await known(gate, sizes={"ops": 2, "all": 3})
        assert (await get(gate, EVE)).json["groups"] == "all"
        page = request_bytes(
            Cookie=gate.gate.cookie(EVE),
            Accept="text/html",
            Sec_Fetch_Dest="document",
            Sec_Fetch_Mode="navigate",
        )
        async with RawClient.connect(gate.port) as client:
            client.send(page)
            shown = await client.response()
        assert shown.status == 403
        assert b"<dt>Groups here</dt><dd><bdi>all</bdi></dd>" in shown.body


async def test_who_is_forgotten_is_out_until_tailchat_names_them_again(
    scene: GroupScene, tmp_path: Path, upstream: RawUpstream
) -> None:
    """`forget` takes them out of a running gate and its store; the next answer counts as ever."""
    async with scene.gate(tmp_path, upstream) as gate:
        await known(gate, sizes={"ops": 2})
        await _stored(scene, {ALICE.sub, BOB.sub})
        await scene.down()
        arguments = ("forget", f"sub:{ALICE.sub}", "--state", str(scene.state))
        code, said, _ = await asyncio.to_thread(invoke, *arguments)
        await known(gate, sizes={"ops": 1})
        without = (await status_of(gate, ALICE), await status_of(gate, BOB))
        await scene.up()
        await known(gate, sizes={"ops": 2})
        again = await status_of(gate, ALICE)
        await _stored(scene, {ALICE.sub, BOB.sub})

    assert (code, said) == (0, f"erased: a member, as Tailchat said: {OPS[0]}\n")
    assert without == ((403, "denied"), (200, ""))
    assert again == (200, "")


async def _stored(scene: GroupScene, people: set[str]) -> None:
    """Wait until the store has these members, which no round waits for."""
    async with asyncio.timeout(60):
        while True:
            found = (await asyncio.to_thread(read_store, scene.state)).memberships
            stored = [found.get(source) for source in found.sources]
            if any(entry is not None and entry.people == people for entry in stored):
                return


#: The clock of the gate is the test's.
TIMELESS: Any = {"verify_exp": False, "verify_iat": False, "verify_nbf": False}


async def test_the_signed_identity_names_groups_from_tailchat(
    scene: GroupScene, tmp_path: Path, upstream: RawUpstream
) -> None:
    """By the config's name, as the plain header does; one that is lost is in no assertion more."""
    key = await asyncio.to_thread(write_key, tmp_path / "key.pem")
    route = [{"name": "tool", "allow": ["signed-in"]}]
    found: list[tuple[bytes | None, list[str]]] = []
    async with scene.gate(tmp_path, upstream, route=route, assertion={"key_files": [key]}) as gate:
        keys = (await ask(gate.port, request_bytes("/oauth2/jwks.json"))).json
        (public,) = jwt.PyJWKSet.from_dict(keys).keys
        for size in (2, 1):
            await known(gate, sizes={"ops": size})
            assert await status_of(gate, ALICE) == (200, "")
            received = upstream.requests[-1]
            (token,) = received.values("X-Tailchat-Assertion")
            claims = jwt.decode(token, public, ["ES256"], audience="tool", options=TIMELESS)
            found.append((received.value("X-Tailchat-Groups"), claims["groups"]))
            scene.group.members[ALICE.sub] = []

    assert found == [(b"ops", ["ops"]), (None, [])]
