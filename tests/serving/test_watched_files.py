"""Files that change by themselves: seen however they are replaced, loaded once they are whole."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from configkit import OTHER_SECRET, SESSION_SECRET
from gatekit import RawUpstream, ask, request_bytes, until
from reloadkit import FileGate, file_gate, file_text, sections
from tlskit import Authority

from tailchat_gate.config.load import Source, file_states, load
from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.serving.reload import Reloader

POLL = 0.01


@asynccontextmanager
async def watched(
    folder: Path,
    upstream: str,
    **given: Any,  # noqa: ANN401 - as in reloadkit.sections
) -> AsyncIterator[FileGate]:
    """Serve a file, and look for its changes a hundred times a second."""
    given["server"] = {"watch": True, **given.get("server", {})}
    async with file_gate(folder, upstream, **given) as gate:
        assert gate.gate.server.reloader is not None
        watching = asyncio.create_task(gate.gate.server.reloader.watch(POLL))
        try:
            yield gate
        finally:
            watching.cancel()


def _generation(gate: FileGate) -> int:
    return gate.gate.generation.process_state.reloads.generation


def _via(gate: FileGate) -> str:
    return gate.gate.generation.settings.server.via


async def _until_via(gate: FileGate, via: str) -> None:
    await until(lambda: _via(gate) == via)


async def _looks(gate: FileGate, count: int = 5) -> None:
    """Let the files be looked at a few times."""
    reloader = gate.gate.server.reloader
    assert reloader is not None
    for _ in range(count):
        await asyncio.sleep(POLL)


async def _replace(path: Path, text: str) -> None:
    """Write a file beside and rename it over the old one, as most editors do."""
    beside = path.with_suffix(".new")
    await asyncio.to_thread(beside.write_text, text, "utf-8")
    await asyncio.to_thread(os.replace, beside, path)


async def _write_again(path: Path, text: str) -> None:
    """Write over the old text at once; a file that is emptied first may be seen, and loaded."""

    def write() -> None:
        with path.open("r+b", buffering=0) as file:
            file.write(text.encode())
            file.truncate()

    await asyncio.to_thread(write)


@pytest.mark.parametrize("write", [_write_again, _replace], ids=["in place", "by a rename"])
async def test_a_changed_file_is_loaded(
    tmp_path: Path, upstream: RawUpstream, write: Callable[[Path, str], Awaitable[None]]
) -> None:
    """A file that is written or replaced comes into force without anybody asking."""
    async with watched(tmp_path, upstream.url) as gate:
        for number in range(3):
            text = file_text(
                sections(upstream.url, server={"watch": True, "via": f"version-{number}"})
            )
            await write(gate.path, text)
            await _until_via(gate, f"version-{number}")
        await _looks(gate)

        assert _generation(gate) == 4
        assert (await ask(gate.port, request_bytes(Cookie=gate.gate.cookie()))).status == 200


async def test_what_does_not_change_is_not_loaded(tmp_path: Path, upstream: RawUpstream) -> None:
    """A file that is left alone is never loaded."""
    async with watched(tmp_path, upstream.url) as gate:
        await _looks(gate, 20)

        assert _generation(gate) == 1


async def test_a_file_is_loaded_once_it_is_left_alone(
    tmp_path: Path, upstream: RawUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While every look finds another state nothing is read; the last one is."""
    async with watched(tmp_path, upstream.url) as gate:
        text = file_text(sections(upstream.url, server={"watch": True, "via": "whole"}))
        looks = 0

        def write_part_by_part(paths: Any) -> Any:  # noqa: ANN401 - as marks_of
            nonlocal looks
            looks += 1
            part = len(text) * min(looks, 10) // 10
            if looks <= 10:
                gate.path.write_text(text[:part], "utf-8")
            return file_states(paths)

        monkeypatch.setattr("tailchat_gate.serving.reload.file_states", write_part_by_part)
        await until(lambda: _via(gate) == "whole")
        assert gate.gate.generation.process_state.reloads.generation == 2
        assert looks >= 11


async def test_a_bad_file_is_told_once(
    tmp_path: Path, upstream: RawUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    """A file with a problem is refused once for each of its states, and a good one then loads."""
    with caplog.at_level(logging.ERROR, LOGGER_NAME):
        async with watched(tmp_path, upstream.url) as gate:
            for count, text in enumerate(("route = [", "route = [["), 1):
                await _replace(gate.path, text)
                while len(caplog.records) < count:
                    await _looks(gate)
                await _looks(gate)
                assert len(caplog.records) == count
            await asyncio.to_thread(gate.path.unlink)
            await until(lambda: len(caplog.records) == 3)
            await _looks(gate)
            await gate.write(server={"watch": True, "via": "good"})
            await until(lambda: _via(gate) == "good")

    assert [record.message for record in caplog.records] == ["the configuration was not loaded"] * 3


async def test_a_config_map_is_exchanged(tmp_path: Path, upstream: RawUpstream) -> None:
    """Links through a directory that is exchanged as a whole, as Kubernetes does, are followed."""
    mounted = tmp_path / "mounted"

    def publish(number: int) -> None:
        version = mounted / f"..version-{number}"
        version.mkdir(parents=True)
        tables = sections(upstream.url, server={"watch": True, "via": f"version-{number}"})
        (version / "gate.toml").write_text(file_text(tables), "utf-8")
        (version / "gate.toml").chmod(0o600)
        link = mounted / "..data_tmp"
        link.symlink_to(version.name)
        link.replace(mounted / "..data")
        if not (mounted / "gate.toml").is_symlink():
            (mounted / "gate.toml").symlink_to("..data/gate.toml")

    async with watched(tmp_path, upstream.url) as gate:
        await asyncio.to_thread(publish, 0)
        reloader = gate.gate.server.reloader
        assert reloader is not None
        source = Source(mounted / "gate.toml", {})
        await asyncio.to_thread(source.read)
        other = Reloader(source, gate.gate.server)
        watching = asyncio.create_task(other.watch(POLL))
        for number in (1, 2):
            await asyncio.to_thread(publish, number)
            await _until_via(gate, f"version-{number}")
        watching.cancel()


async def test_the_files_that_are_named_are_watched(tmp_path: Path, upstream: RawUpstream) -> None:
    """Secret files and PEM files are loaded when they change, also those named only later."""
    first, second, pem = tmp_path / "first", tmp_path / "second", tmp_path / "ca.pem"
    authority = await asyncio.to_thread(Authority.create, tmp_path)
    for path, content in ((first, SESSION_SECRET), (second, OTHER_SECRET)):
        await asyncio.to_thread(path.write_text, content)
        await asyncio.to_thread(path.chmod, 0o600)
    await asyncio.to_thread(pem.write_bytes, await asyncio.to_thread(authority.file.read_bytes))
    tables = sections(upstream.url, server={"watch": True})
    tables["session"] = {"secret_file": str(first)}

    def secrets() -> list[str]:
        return [
            secret.get_secret_value() for secret in gate.gate.generation.settings.session.secrets
        ]

    async with watched(tmp_path, upstream.url) as gate:
        await gate.write_text(file_text(tables))
        await until(lambda: secrets() == [SESSION_SECRET])
        await _replace(first, f"{OTHER_SECRET}\n{SESSION_SECRET}\n")
        await until(lambda: secrets() == [OTHER_SECRET, SESSION_SECRET])
        tables["session"] = {"secret_file": "second"}
        await gate.write_text(file_text(tables))
        await until(lambda: secrets() == [OTHER_SECRET])
        tables["route"][0] |= {"upstream": "https://localhost:9", "tls_ca": str(pem)}
        await gate.write_text(file_text(tables))
        await until(lambda: bool(gate.gate.generation.settings.route[0].tls_ca))
        before = _generation(gate)
        await _replace(pem, await asyncio.to_thread(authority.file.read_text))
        await until(lambda: _generation(gate) == before + 1)
        await _replace(first, OTHER_SECRET)
        await _looks(gate)

        assert _generation(gate) == before + 1


async def test_a_file_that_a_refused_one_names_is_watched(
    tmp_path: Path, upstream: RawUpstream
) -> None:
    """A secret file that is not there yet is loaded when it comes."""
    late = tmp_path / "late"
    tables = sections(upstream.url, server={"watch": True})
    tables["session"] = {"secret_file": str(late)}
    async with watched(tmp_path, upstream.url) as gate:
        reloads = gate.gate.generation.process_state.reloads
        await gate.write_text(file_text(tables))
        await until(lambda: bool(reloads.problems))
        await _looks(gate)
        assert _generation(gate) == 1
        await _replace(late, SESSION_SECRET)
        await until(lambda: _generation(gate) == 2)


async def test_watching_is_turned_off_and_on(tmp_path: Path, upstream: RawUpstream) -> None:
    """With watch = false a change waits for an order; the order turns it on again."""
    async with watched(tmp_path, upstream.url, server={"watch": False}) as gate:
        await gate.write(server={"watch": False, "via": "one"})
        await _looks(gate, 20)
        assert _generation(gate) == 1
        await gate.change(server={"watch": True, "via": "two"})
        await gate.write(server={"watch": True, "via": "three"})
        await until(lambda: _via(gate) == "three")
        await gate.write(server={"watch": False, "via": "four"})
        await until(lambda: _via(gate) == "four")
        await gate.write(server={"watch": False, "via": "five"})
        await _looks(gate, 20)

        assert _via(gate) == "four"


# What is known of a file


def test_a_mark_changes_with_every_kind_of_change(tmp_path: Path) -> None:
    """Content, a rename over it, its mode, its absence and its return are other states."""
    path = tmp_path / "file"
    seen = [file_states([path])[path]]
    assert seen == [None]
    path.write_text("one")
    seen.append(file_states([path])[path])
    path.write_text("other")
    seen.append(file_states([path])[path])
    (tmp_path / "new").write_text("other")
    (tmp_path / "new").replace(path)
    seen.append(file_states([path])[path])
    path.chmod(0o600)
    seen.append(file_states([path])[path])

    assert len(set(seen)) == len(seen)
    assert file_states([path])[path] == seen[-1]


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """Return where a configuration is read from, whose secret stands in a file of its own."""
    (tmp_path / "secret").write_text(SESSION_SECRET)
    tables = sections("http://127.0.0.1:9")
    tables["session"] = {"secret_file": "secret"}
    path = tmp_path / "gate.toml"
    path.write_text(file_text(tables))
    return Source(path, {})


def _write_behind_each_load(monkeypatch: pytest.MonkeyPatch, path: Path, *texts: str) -> None:
    """Have a text written whenever the configuration has just been loaded."""
    left = list(texts)

    def load_and_write(*arguments: Any) -> Any:  # noqa: ANN401 - as load
        loaded = load(*arguments)
        path.write_text(left.pop(0))
        return loaded

    monkeypatch.setattr("tailchat_gate.config.load.load", load_and_write)


def test_what_is_written_during_a_reading_is_a_change(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The states are those from before the reading."""
    source.read()
    assert file_states(source.states) == source.states
    _write_behind_each_load(monkeypatch, tmp_path / "secret", OTHER_SECRET)
    source.read()

    assert file_states(source.states) != source.states


def test_a_file_that_was_not_known_is_read_again(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a file names for the first time is read behind a look at its state."""
    _write_behind_each_load(monkeypatch, tmp_path / "secret", f"{OTHER_SECRET}\n", OTHER_SECRET)
    (secret,) = source.read().settings.session.secrets

    assert secret.get_secret_value() == OTHER_SECRET
    assert set(source.states) == {source.path, tmp_path / "secret"}


def test_files_that_are_no_longer_named_are_forgotten(source: Source, tmp_path: Path) -> None:
    """Only what the last reading named is looked at."""
    source.read()
    source.path.write_text(file_text(sections("http://127.0.0.1:9")))
    source.read()

    assert set(source.states) == {source.path}


def test_the_environment_stays_that_of_the_start(tmp_path: Path) -> None:
    """What is put into the environment later changes nothing, and none of it is in a repr."""
    path = tmp_path / "gate.toml"
    path.write_text(file_text(sections("http://127.0.0.1:9")))
    environ = {"TAILCHAT_GATE_SERVER__VIA": "of-the-start"}
    source = Source(path, environ)
    environ["TAILCHAT_GATE_SERVER__VIA"] = "later"

    assert source.read().settings.server.via == "of-the-start"
    assert source.read().settings.server.via == "of-the-start"
    assert "of-the-start" not in repr(source)
