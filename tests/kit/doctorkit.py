"""A Tailchat for `doctor`: the real provider for sign-ins, the stand-in for all the rest.

One server is in front of both, as Traefik is in Tailchat's compose file. A test can break it in the
ways in which real ones are broken.
"""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from clikit import invoke, run
from gatekit import SECRET
from openid_provider_process import OpenIdProvider
from reloadkit import file_text, sections
from storykit import served

from tailchat_gate.demo.tailchat import StandInTailchat

#: Fields that the server in front or the client sets itself.
_OWN_FIELDS = frozenset(("connection", "content-length", "date", "server", "transfer-encoding"))


@dataclass
class Front:
    """The server in front of Tailchat's parts.

    `hangs` are starts of paths that are never answered, `answers` a status for every path that
    begins so. `tells_scheme`: whether the provider learns of https. `date` is a Date of its own.
    """

    provider: str
    stand_in: str
    hangs: tuple[str, ...] = ()
    answers: dict[str, int] = field(default_factory=dict)
    tells_scheme: bool = True
    date: str = ""
    url: str = ""
    _closing: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Pass a request on, and its response back."""
        if self.hangs and request.path.startswith(self.hangs):
            await self._closing.wait()
            return web.Response(status=504)
        for start, status in self.answers.items():
            if request.path.startswith(start):
                return web.Response(status=status, text="Bad Gateway")
        target = self.provider if request.path.startswith("/open/") else self.stand_in
        headers = {key: value for key, value in request.headers.items() if key != "Connection"}
        if self.tells_scheme and request.secure:
            headers["X-Forwarded-Proto"] = "https"
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(
                request.method,
                target + request.path_qs,
                headers=headers,
                data=await request.read() or None,
                allow_redirects=False,
            ) as response,
        ):
            passed = [
                (name, value)
                for name, value in response.headers.items()
                if name.lower() not in _OWN_FIELDS
            ]
            own = [("Date", self.date)] if self.date else []
            body = await response.read()
            return web.Response(status=response.status, body=body, headers=[*passed, *own])

    def stop(self) -> None:
        """Answer the requests that hang."""
        self._closing.set()


@asynccontextmanager
async def tailchat_front(
    provider: OpenIdProvider,
    stand_in: StandInTailchat,
    *,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Front]:
    """Serve the front until the block ends, as localhost where it speaks TLS."""
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(served(stand_in.app()))
        front = Front(provider.url, f"http://127.0.0.1:{port}")
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", front.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        stack.callback(front.stop)
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        own = runner.addresses[0][1]
        front.url = f"https://localhost:{own}" if tls else f"http://127.0.0.1:{own}"
        yield front


@dataclass(frozen=True)
class Diagnosis:
    """What `doctor` printed as JSON, and its exit code."""

    code: int
    checks: tuple[Mapping[str, str], ...]

    def said(self, name: str) -> list[tuple[str, str]]:
        """Return mark and text of the statements of a name."""
        return [(one["mark"], one["text"]) for one in self.checks if one["check"] == name]

    def marks(self, name: str) -> set[str]:
        """Return the marks of the statements of a name."""
        return {mark for mark, _ in self.said(name)}

    def next_of(self, name: str) -> str:
        """Return the next steps of a name, joined."""
        return " ".join(one["next"] for one in self.checks if one["check"] == name)

    def held_up(self, name: str) -> set[str]:
        """Return the checks that could not run because of a name's statements."""
        texts = (text for _, text in self.said(name))
        found = (text.rpartition("not checked because of this: ")[1:] for text in texts)
        return {one for mark, names in found if mark for one in names.split(", ")}

    @property
    def wrong(self) -> set[str]:
        """The names of what is wrong."""
        return {one["check"] for one in self.checks if one["mark"] == "wrong"}


def write_config(folder: Path, **given: Any) -> Path:  # noqa: ANN401 - as in the file
    """Write a file; its tables are those of reloadkit, a key that is None is left out."""
    path = folder / "doctor.toml"
    given.setdefault("server", {})
    given["server"] = {"admin_listen": "", "public_url": "http://127.0.0.1:9", **given["server"]}
    tables = sections("static:204", **{"session": {"secrets": [SECRET]}, **given})
    for name in ("server", "session", "tailchat"):
        tables[name] = {key: value for key, value in tables[name].items() if value is not None}
    path.write_text(file_text(tables), "utf-8")
    path.chmod(0o600)
    return path


async def diagnose(path: Path, *, apart: bool = False) -> Diagnosis:
    """Run `doctor --json` beside the servers of this loop; `apart`: in a process of its own.

    aiohttp leaves a TLS connection to its peer's close_notify, which the end of the command does
    not wait for.
    """
    command = ("doctor", "--json", "--config", str(path))
    if apart:
        code, out, _ = await run(*command)
    else:
        code, out, _ = await asyncio.to_thread(invoke, *command)
    found = json.loads(out)
    assert found["ok"] == (code == 0)
    return Diagnosis(code, tuple(found["checks"]))
