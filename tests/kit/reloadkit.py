"""A gate that serves a configuration file, which a test rewrites and reloads."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import aiohttp
from gatekit import SECRET, Clock, RunningGate, running_gate

from tailchat_gate.config.load import Source
from tailchat_gate.request.field_names import ORDER_HEADER
from tailchat_gate.serving.reload import ReloadOutcome

Sections = dict[str, Any]


def toml(value: object) -> str:
    """Return a value as TOML, a table as an inline one."""
    if isinstance(value, Mapping):
        pairs = (f"{json.dumps(key)} = {toml(inner)}" for key, inner in value.items())
        return f"{{ {', '.join(pairs)} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(value, ensure_ascii=False)


def sections(upstream: str, **given: Any) -> Sections:  # noqa: ANN401 - as in the file
    """Return the tables of a file for one tool; a given table's keys override the usual ones."""
    base: Sections = {
        "server": {
            "public_url": "http://gate.test",
            "listen": "127.0.0.1:0",
            "admin_listen": "127.0.0.1:0",
            "shutdown_timeout": "2s",
            "watch": False,
        },
        "tailchat": {
            "api_url": "http://127.0.0.1:9",
            "client_id": "tc_test",
            "client_secret": "app-secret-of-the-test",
            "people_refresh": "0",
        },
        "session": {"secrets": [SECRET]},
        "state": {"path": ""},
        "groups": {},
        "route": [{"name": "tool"}],
    }
    for name, values in given.items():
        base[name] = {**base[name], **values} if isinstance(base.get(name), dict) else values
    base["route"] = [{"upstream": upstream, **route} for route in base["route"]]
    return base


@dataclass
class FileGate:
    """A gate that serves its file as it was last loaded."""

    gate: RunningGate
    path: Path
    upstream: str

    @property
    def port(self) -> int:
        """The port of the first public listener."""
        return self.gate.port

    async def write(self, **given: Any) -> None:  # noqa: ANN401 - as in sections
        """Rewrite the file, without a reload."""
        await self.write_text(file_text(sections(self.upstream, **given)))

    async def write_text(self, text: str) -> None:
        """Replace the file by any text at once: a reader gets the old file or the new one."""

        def replace() -> None:
            beside = self.path.with_suffix(".new")
            beside.write_text(text, "utf-8")
            beside.chmod(0o600)
            beside.replace(self.path)

        await asyncio.to_thread(replace)

    async def load(self) -> ReloadOutcome:
        """Reload the file and return the outcome."""
        reloader = self.gate.server.reloader
        assert reloader is not None
        return await reloader.reload("a test")

    async def change(self, **given: Any) -> ReloadOutcome:  # noqa: ANN401 - as in sections
        """Rewrite the file and reload it, which must succeed."""
        await self.write(**given)
        outcome = await self.load()
        assert outcome.problems == ()
        return outcome

    async def ask_admin(
        self, path: str, method: str = "GET", headers: Iterable[tuple[str, str]] = ()
    ) -> tuple[int, str]:
        """Return the status and text of a response of the admin listener."""
        host, port = self.gate.admin_address
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                method, f"http://{host}:{port}{path}", headers=list(headers)
            ) as response,
        ):
            return response.status, await response.text()

    async def order(self) -> tuple[int, dict[str, Any]]:
        """Send the order to reload, as the command does."""
        status, text = await self.ask_admin("/reload", "POST", [(ORDER_HEADER, "reload")])
        body = json.loads(text)
        assert isinstance(body, dict)
        return status, body

    async def status(self) -> dict[str, Any]:
        """Return /status."""
        found = json.loads((await self.ask_admin("/status"))[1])
        assert isinstance(found, dict)
        return found

    async def metric(self, name: str) -> float:
        """Return the value of a metric that has no labels."""
        text = (await self.ask_admin("/metrics"))[1]
        return float(next(x.split(" ")[1] for x in text.splitlines() if x.startswith(f"{name} ")))


def file_text(tables: Sections) -> str:
    """Return a file with these tables."""
    return "".join(f"{name} = {toml(table)}\n" for name, table in tables.items())


@asynccontextmanager
async def file_gate(
    folder: Path,
    upstream: str,
    clock: Clock | None = None,
    environ: Mapping[str, str] = MappingProxyType({}),
    **given: Any,  # noqa: ANN401 - as in sections
) -> AsyncIterator[FileGate]:
    """Serve a file in `folder` until the block ends."""
    path = folder / "gate.toml"
    text = file_text(sections(upstream, **given))
    await asyncio.to_thread(path.write_text, text, "utf-8")
    await asyncio.to_thread(path.chmod, 0o600)
    source = Source(path, environ)
    loaded = await asyncio.to_thread(source.read)
    async with running_gate(loaded.settings, folder / "access.log", clock, source) as gate:
        yield FileGate(gate, path, upstream)
