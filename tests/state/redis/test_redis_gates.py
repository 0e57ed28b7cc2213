"""Two gates with one real Redis: single use, locks, and what goes on while it is away."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from gatekit import (
    SUB,
    Clock,
    RawUpstream,
    ask,
    cookie_value,
    elsewhere,
    make_settings,
    request_bytes,
    running_gate,
    until,
)
from rediskit import RedisServer, let_calls_last, redis_server
from reloadkit import file_text, sections
from storykit import callback_at, story, until_callback

from tailchat_gate.cli import main
from tailchat_gate.serving.server import StartError
from tailchat_gate.state.redis import store as store_module


@pytest.fixture(autouse=True)
def _long_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    let_calls_last(monkeypatch)


@pytest.fixture
async def server() -> AsyncIterator[RedisServer]:
    """A server of the test's own."""
    async with redis_server() as server:
        yield server


def _state(server: RedisServer) -> dict[str, str]:
    return {"url": server.place.url, "path": ""}


async def test_a_callback_at_two_gates_at_once_is_redeemed_once(
    server: RedisServer, tmp_path: Path, clock: Clock
) -> None:
    """A login that began at one gate is finished at both, with one use of its code."""
    async with story(tmp_path / "first.log", clock, state=_state(server)) as scene:
        settings = elsewhere(scene.gate.generation.settings)
        async with scene.visitor() as visitor:
            url = await until_callback(visitor, scene)
            cookies = visitor.cookie(scene.url)
        async with running_gate(settings, tmp_path / "second.log", clock) as second:
            both = (second, scene.gate, second, scene.gate)
            responses = await asyncio.gather(*(callback_at(gate, url, cookies) for gate in both))
        used = scene.tailchat.seen["token"].count

    assert [response.status for response in responses] == [303] * 4
    assert all(cookie_value(response, "tailchat_gate") for response in responses)
    assert used == 1


def _run(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments, "-c", str(config)])


def _write(config: Path, server: RedisServer, **further: Mapping[str, object]) -> None:
    tables = sections("http://127.0.0.1:9", state={"url": server.place.url}, **further)
    config.write_text(file_text(tables), "utf-8")
    config.chmod(0o600)


async def test_a_command_locks_at_every_gate(
    server: RedisServer, tmp_path: Path, clock: Clock
) -> None:
    """Locks and grants of the commands are in force at both gates, and are listed."""
    config, person = tmp_path / "gate.toml", f"sub:{SUB}"
    await asyncio.to_thread(_write, config, server)
    async with RawUpstream() as tool:
        settings = make_settings(tool.url, state=_state(server))
        async with (
            running_gate(settings, tmp_path / "1.log", clock) as first,
            running_gate(settings, tmp_path / "2.log", clock) as second,
        ):
            done = await asyncio.to_thread(_run, config, "lock", person, "--message", "no")
            states = [one.generation.process_state.revocation for one in (first, second)]
            await until(lambda: all(state.locks for state in states))
            listed = await asyncio.to_thread(_run, config, "locks", "--json")
            lifted = await asyncio.to_thread(_run, config, "unlock", person)
            await until(lambda: not any(state.locks for state in states))
            erased = await asyncio.to_thread(_run, config, "forget", person, "--in-force")

    assert [one.exit_code for one in (done, listed, lifted, erased)] == [0] * 4, done.output
    assert [row["target"] for row in json.loads(listed.stdout)] == [person]
    assert "erased: a lock that was lifted" in erased.output


@pytest.fixture
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a start give a server up at once."""
    monkeypatch.setattr(store_module, "START_SECONDS", 0.1)


@pytest.mark.usefixtures("_hasty")
async def test_a_gate_without_its_server_does_not_start(tmp_path: Path, clock: Clock) -> None:
    """The error names the key and the server, and says what to do about a server."""
    settings = make_settings("http://127.0.0.1:9", state={"url": "redis://127.0.0.1:1", "path": ""})

    with pytest.raises(StartError, match=r"^\[state\] url cannot be used: .*; start that server"):
        async with running_gate(settings, tmp_path / "1.log", clock):
            pass


@pytest.mark.usefixtures("_hasty")
async def test_a_lock_needs_no_faultless_configuration(server: RedisServer, tmp_path: Path) -> None:
    """The commands find the server in a file whose other tables have problems."""
    config = tmp_path / "gate.toml"
    await asyncio.to_thread(_write, config, server, pages={"contact": 7})
    done = await asyncio.to_thread(_run, config, "lock", f"sub:{SUB}")
    listed = await asyncio.to_thread(_run, config, "locks")
    await asyncio.to_thread(_write, config, server, pages={"contact": 7}, log={"level": "x"})
    await server.stop()
    refused = await asyncio.to_thread(_run, config, "lock", f"sub:{SUB}")

    assert (done.exit_code, listed.exit_code) == (0, 0), done.output + listed.output
    assert f"sub:{SUB}  until unlocked" in listed.output
    assert refused.exit_code == 1
    assert "[state] url: unix:///" in refused.output
    assert "cannot be reached" in refused.output


async def test_signed_in_people_go_on_without_the_server(
    server: RedisServer, tmp_path: Path, clock: Clock
) -> None:
    """While the server is stopped a session is served, a lock holds, and the fault is told."""
    config = tmp_path / "gate.toml"
    await asyncio.to_thread(_write, config, server)
    async with RawUpstream() as tool:
        settings = make_settings(tool.url, state=_state(server))
        async with running_gate(settings, tmp_path / "1.log", clock) as gate:
            await asyncio.to_thread(_run, config, "lock", "token:somebody")
            state = gate.generation.process_state
            await until(lambda: bool(state.revocation.locks))
            await server.stop()
            await until(lambda: bool(state.store.faults))
            served = await ask(gate.port, request_bytes("/", Cookie=gate.cookie()))
            assert [lock.target for lock in state.revocation.locks] == ["token:somebody"]
            assert "cannot be reached" in state.store.faults[0]
            await server.start()
            await until(lambda: not state.store.faults)
            listed = await asyncio.to_thread(_run, config, "locks")

    assert served.status == 200
    assert "token:somebody  until unlocked" in listed.output
