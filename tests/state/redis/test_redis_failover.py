"""Real Sentinels and a real Cluster whose primary is killed, or hangs, under gates that work."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner
from failoverkit import (
    PASSWORD,
    SENTINEL_PASSWORD,
    SERVICE,
    Secured,
    Several,
    cluster,
    sentinels,
)
from gatekit import (
    Clock,
    RunningGate,
    ask,
    cookie_value,
    elsewhere,
    request_bytes,
    running_gate,
    until,
)
from pydantic import SecretStr
from rediskit import let_calls_last
from reloadkit import file_text, sections
from statekit import Notes
from storykit import Story, callback_at, story, until_callback

from tailchat_gate.cli import main
from tailchat_gate.identity.oauth.responses import Profile
from tailchat_gate.state.bookkeeping import Health, StoreFault
from tailchat_gate.state.redis import store as store_module
from tailchat_gate.state.redis.database import peek_at
from tailchat_gate.state.redis.servers import RedisPlace
from tailchat_gate.state.redis.store import RedisStore
from tailchat_gate.state.store import Record, Store

BOB = Profile("660000000000000000000002", "Bob", "0001", "")
#: Seconds of one call: a server that hangs is told from a machine that is busy by more than that.
TIMEOUT = 2.0
#: Of the gates', whose servers are killed: a Sentinel has but an eighth of it for an answer by TLS.
_OF_GATES = 16.0


@pytest.fixture(autouse=True)
def _unhurried_gates(monkeypatch: pytest.MonkeyPatch) -> None:
    let_calls_last(monkeypatch, _OF_GATES)
    # The servers of a busy machine take longer to name the new primary.
    monkeypatch.setattr(store_module, "START_SECONDS", 60.0)


def _table(place: RedisPlace) -> dict[str, object]:
    table: dict[str, object] = {"url": place.url, "path": ""}
    for key in ("password", "sentinel_password"):
        if (secret := getattr(place, key)) is not None:
            table[key] = secret.get_secret_value()
    return table


async def _lock_bob(place: RedisPlace, config: Path) -> None:
    text = file_text(sections("http://127.0.0.1:9", state=_table(place)))
    await asyncio.to_thread(config.write_text, text, "utf-8")
    await asyncio.to_thread(config.chmod, 0o600)
    arguments = ["lock", f"sub:{BOB.sub}", "-c", str(config)]
    done = await asyncio.to_thread(CliRunner().invoke, main, arguments)
    assert done.exit_code == 0, done.output


class Load:
    """Asks two gates without a pause, as somebody who may and as somebody who is locked out."""

    def __init__(self, gates: tuple[RunningGate, RunningGate], host: str) -> None:
        self._gates = gates
        self._host = host
        self.good: list[int] = []
        self.locked: list[int] = []

    async def run(self) -> None:
        """Ask until it is cancelled."""
        while True:
            for gate in self._gates:
                for statuses, profile in ((self.good, None), (self.locked, BOB)):
                    cookie = gate.cookie(profile) if profile else gate.cookie()
                    response = await ask(
                        gate.port, request_bytes("/", host=self._host, Cookie=cookie)
                    )
                    statuses.append(response.status)


@asynccontextmanager
async def _loaded(load: Load) -> AsyncIterator[None]:
    task = asyncio.create_task(load.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))
    assert task.cancelled(), task.exception()


def _faults(*gates: RunningGate) -> list[bytes]:
    """Return what the gates have counted of faults of their store."""
    texts = [gate.generation.process_state.metrics.render() for gate in gates]
    lines = [line for text in texts for line in text.splitlines()]
    return [line for line in lines if line.startswith(b"gate_state_errors_total")]


async def _signs_in_once(scene: Story, second: RunningGate) -> None:
    """Finish a login of the first gate at both at once; its code is used once.

    Where the machine is so busy that a call of the store takes a second, that is not promised.
    """
    for _ in range(5):
        known = _faults(scene.gate, second)
        used = await _sign_in_at_both(scene, second)
        if _faults(scene.gate, second) == known:
            break
    assert used == 1


async def _sign_in_at_both(scene: Story, second: RunningGate) -> int:
    """Return how often the code was used."""
    before = scene.tailchat.seen["token"].count
    async with scene.visitor() as visitor:
        url = await until_callback(visitor, scene)
        cookies = visitor.cookie(scene.url)
    both = (second, scene.gate)
    responses = await asyncio.gather(*(callback_at(gate, url, cookies) for gate in both))
    assert [response.status for response in responses] == [303] * 2
    assert all(cookie_value(response, "tailchat_gate") for response in responses)
    return scene.tailchat.seen["token"].count - before


async def _looks_without_fault(store: Store) -> None:
    """Wait for a look that begins after this call and finds a primary.

    A gate that is slow to look may have no fault: it has another primary by then.
    """
    await store.next_look()
    while store.faults:
        await store.next_look()


async def _survives(several: Several, folder: Path, clock: Clock) -> None:
    """Kill the primary under the load of two gates; what held before holds after it."""
    state = _table(several.place)
    async with story(folder / "1.log", clock, state=state) as scene:
        settings = elsewhere(scene.gate.generation.settings)
        async with running_gate(settings, folder / "2.log", clock) as second:
            gates = (scene.gate, second)
            await _lock_bob(several.place, folder / "gate.toml")
            states = [gate.generation.process_state for gate in gates]
            await until(lambda: all(state.revocation.locks for state in states))
            load = Load(gates, urlsplit(scene.url).netloc)
            async with _loaded(load):
                await _signs_in_once(scene, second)
                await several.primary.stop()
                async with asyncio.timeout(60):
                    await asyncio.gather(*(_looks_without_fault(one.store) for one in states))
                await _signs_in_once(scene, second)
                async with running_gate(settings, folder / "3.log", clock) as third:
                    cookie = third.cookie(BOB)
                    fresh = await ask(
                        third.port, request_bytes("/", host=load._host, Cookie=cookie)
                    )

    assert set(load.good) == {200}
    assert len(load.locked) > 10
    assert 200 not in load.locked
    assert fresh.status in {401, 403}


async def test_a_primary_of_sentinels_is_killed(tmp_path: Path, clock: Clock) -> None:
    """Signed-in people go on, a lock holds at every gate, and logins are single-use again.

    Two of three Sentinels must agree, and everybody speaks TLS alone.
    """
    async with sentinels(await Secured.create(tmp_path), count=3) as several:
        await _survives(several, tmp_path, clock)


async def test_a_primary_of_a_cluster_is_killed(tmp_path: Path, clock: Clock) -> None:
    """The same; all keys are in one slot, and the gate finds the node that has it now, by TLS."""
    async with cluster(await Secured.create(tmp_path)) as several:
        await _survives(several, tmp_path, clock)


async def test_a_primary_that_was_replaced_while_it_hung_is_left(clock: Clock) -> None:
    """What is written at the new one is read, and the old one's data are not, once it goes on."""
    async with sentinels() as several:
        counted: tuple[list[str], list[str]] = ([], [])
        here, there = (
            RedisStore(several.place, clock, Health(count.append), timeout=TIMEOUT)
            for count in counted
        )
        notes = Notes(room=20)
        here.follow(notes)
        await here.open()
        await there.open()
        here.start()
        there.start()
        try:
            several.primary.freeze()
            await until(lambda: all(counted))
            await until(lambda: not here.faults and not there.faults)
            await there.put([Record("note", "new", "{}")])
            several.primary.thaw()
            await until(lambda: "new" in notes.held)
            await there.put([Record("note", "newer", "{}")])
            await until(lambda: "newer" in notes.held)
        finally:
            await here.close()
            await there.close()
        found = await peek_at(several.place)

    assert {row[1].key for row in found.rows} >= {"new", "newer"}


async def test_what_is_wrong_is_said() -> None:
    """A wrong password of either and an unknown service are named, and no password is told."""
    async with sentinels() as several:
        for password, sentinel_password, service, said in (
            (PASSWORD, "wrong-hush", SERVICE, "a Sentinel refuses the user or the password"),
            ("wrong-hush", SENTINEL_PASSWORD, SERVICE, "refuses the user or the password"),
            (PASSWORD, SENTINEL_PASSWORD, "others", "no Sentinel that answers names one"),
        ):
            url = several.place.url.replace(SERVICE, service)
            place = RedisPlace(url, SecretStr(password), SecretStr(sentinel_password))
            with pytest.raises(StoreFault, match=said) as refused:
                await peek_at(place)
            assert "hush" not in str(refused.value)
