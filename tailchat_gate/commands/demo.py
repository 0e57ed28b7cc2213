"""The demo: a stand-in Tailchat, a sample tool and the gate, only on this machine."""

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import click
from aiohttp import web

from tailchat_gate.config.model import Settings
from tailchat_gate.demo.store import App
from tailchat_gate.demo.tailchat import StandInTailchat
from tailchat_gate.demo.tool import SampleTool
from tailchat_gate.demo.users import USERS
from tailchat_gate.identity.seal import new_secret
from tailchat_gate.observe.log import set_up_logging
from tailchat_gate.serving.generations import Generation
from tailchat_gate.serving.server import serve
from tailchat_gate.serving.signals import Signals
from tailchat_gate.serving.wiring import build

_HOST: Final = "127.0.0.1"
_CLIENT_ID: Final = "tc_demo"


class DemoError(RuntimeError):
    """The demo cannot start; the text says why and what to do."""


def run_demo(port: int, upstream: str = "") -> None:
    """Run the demo on a port of this machine (0 = any) until Ctrl-C. Raises DemoError.

    `upstream` is the URL of the tool to protect, "" for the sample tool.
    """
    signals = Signals()
    signals.take()
    set_up_logging("warning")
    port = _usable(port)
    tailchat_port = _neighbour(port)
    tools: dict[int, web.Application] = {} if upstream else {_usable(0): SampleTool().app()}
    client_secret = secrets.token_urlsafe(32)
    tool = upstream or "".join(f"http://{_HOST}:{tool_port}" for tool_port in tools)
    settings = _settings(port, tailchat_port, tool, client_secret)
    _run_with(settings, signals, tailchat_port, tools, client_secret)
    click.echo("\nThe demo has ended, and nothing is left of it.")


def _run_with(
    settings: Settings,
    signals: Signals,
    tailchat_port: int,
    tools: dict[int, web.Application],
    client_secret: str,
) -> None:
    redirect_uri = f"{settings.server.public_url}/oauth2/callback"
    tailchat = StandInTailchat(
        settings.tailchat.api_url, apps=[App(_CLIENT_ID, client_secret, (redirect_uri,))]
    )
    generation = build(settings)
    asyncio.run(
        _run(
            generation,
            signals,
            {tailchat_port: tailchat.app(), **tools},
            _greet(settings),
        )
    )


async def _run(
    generation: Generation,
    signals: Signals,
    apps: dict[int, web.Application],
    greet: Callable[[], None],
) -> None:
    async with AsyncExitStack() as stack:
        for port, app in apps.items():
            await stack.enter_async_context(_served(app, port))
        await serve(generation, signals, started=greet)


def _settings(port: int, tailchat_port: int, upstream: str, client_secret: str) -> Settings:
    return Settings.model_validate(
        {
            "server": {
                "public_url": f"http://{_HOST}:{port}",
                "listen": [f"{_HOST}:{port}"],
                "admin_listen": "",
                "shutdown_timeout": "2s",
            },
            # Not the gate's host name: cookies ignore ports.
            "tailchat": {
                "api_url": f"http://localhost:{tailchat_port}",
                "client_id": _CLIENT_ID,
                "client_secret": client_secret,
            },
            "session": {"secrets": [new_secret()]},
            "state": {"path": ""},
            "route": [{"name": "tool", "upstream": upstream}],
            "log": {"access": False},
        }
    )


def _greet(settings: Settings) -> Callable[[], None]:
    def greet() -> None:
        click.echo("\nTailchat Gate, the demo.\n")
        click.secho(f"  Open {settings.server.public_url}/", bold=True)
        click.echo(f"\n  You come to a stand-in Tailchat at {settings.tailchat.api_url}")
        click.echo("  and sign in as any of its people:\n")
        click.echo(f"    {'EMAIL':<28} PASSWORD")
        for user in USERS:
            click.echo(f"    {user.email:<28} {user.password}")
        click.echo("\n  Everything listens on this machine alone. Ctrl-C ends it.\n")

    return greet


def _neighbour(port: int) -> int:
    """Return the next port if it is free: adjacent ports are easy to forward together."""
    try:
        return _usable(port + 1)
    except DemoError:
        return _usable(0)


def _usable(port: int) -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            raise DemoError(
                f"port {port} cannot be had ({error.strerror}); try --port 0 for any"
            ) from None
        found: int = probe.getsockname()[1]
        return found


@asynccontextmanager
async def _served(app: web.Application, port: int) -> AsyncIterator[None]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, _HOST, port).start()
    try:
        yield
    finally:
        await runner.cleanup()
