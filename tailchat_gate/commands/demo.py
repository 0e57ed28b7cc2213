"""The demo: a stand-in Tailchat, three sample tools and the gate, only on this machine."""

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
from tailchat_gate.serving.process import serve
from tailchat_gate.serving.signals import Signals
from tailchat_gate.serving.wiring import build

_HOST: Final = "127.0.0.1"
_CLIENT_ID: Final = "tc_demo"


class DemoError(RuntimeError):
    """The demo cannot start; the text says why and what to do."""


def run_demo(port: int, upstream: str = "") -> None:
    """Run the demo on a port of this machine (0 = any) until Ctrl-C. Raises DemoError.

    `upstream` is the URL of the tool to protect, "" for sample tools: one for everybody who signs
    in, one for a role in Tailchat, one for the public.
    """
    signals = Signals()
    signals.take()
    set_up_logging("warning")
    port = _usable(port)
    tailchat_port = _neighbour(port)
    tools: dict[int, web.Application] = {} if upstream else {_usable(0): SampleTool().app()}
    tool = upstream or "".join(f"http://{_HOST}:{tool_port}" for tool_port in tools)
    # Tailchat's host name is not the gate's: cookies ignore ports.
    public_url, api_url = f"http://{_HOST}:{port}", f"http://localhost:{tailchat_port}"
    app = App(_CLIENT_ID, secrets.token_urlsafe(32), (f"{public_url}/oauth2/callback",))
    tailchat = StandInTailchat(api_url, apps=[app])
    # Its people are listed below, and nobody else can get an account.
    tailchat.store.client_config |= {"disableUserRegister": True, "disableGuestLogin": True}
    role = _on_call(tailchat)
    routes = _tools(tool)[:1] if upstream else _tools(tool)
    settings = _settings(public_url, api_url, app.client_secret, role, routes)
    apps = {tailchat_port: tailchat.app(), **tools}
    asyncio.run(_run(build(settings), signals, apps, _greet(settings, shows_all=not upstream)))
    click.echo("\nThe demo has ended, and nothing is left of it.")


def _on_call(tailchat: StandInTailchat) -> str:
    """Make a group with a role, and the gate's bot in it; return the role as [groups] names it."""
    owner, member, *_ = USERS
    group = tailchat.groups.add("Ops", owner.sub, member.sub)
    role = tailchat.groups.add_role(group, "on call", owner.sub)
    tailchat.groups.add_bot(group, _CLIENT_ID)
    return f"tailchat-role:{group.id}/{role.id}"


def _tools(upstream: str) -> list[dict[str, object]]:
    """Return the routes of the three tools, which are one program."""
    below = {"upstream": upstream, "upstream_path": "/"}
    return [
        {"name": "tool", "upstream": upstream},
        {"name": "ops", "path": "/ops", "allow": ["group:on-call"], **below},
        {"name": "status", "path": "/status", "allow": ["public"], **below},
    ]


async def _run(
    generation: Generation,
    signals: Signals,
    apps: dict[int, web.Application],
    greet: Callable[[], None],
) -> None:
    async with AsyncExitStack() as stack:
        for port, app in apps.items():
            await stack.enter_async_context(_served(app, port))
        await serve(generation, signals, started=lambda _: greet())


def _settings(
    public_url: str, api_url: str, client_secret: str, role: str, routes: list[dict[str, object]]
) -> Settings:
    return Settings.model_validate(
        {
            "server": {
                "public_url": public_url,
                "listen": [public_url.removeprefix("http://")],
                "admin_listen": "",
                "shutdown_timeout": "2s",
            },
            "tailchat": {
                "api_url": api_url,
                "client_id": _CLIENT_ID,
                "client_secret": client_secret,
            },
            "session": {"secrets": [new_secret()]},
            "state": {"path": ""},
            "groups": {"on-call": [role]},
            "access": {"requests": True, "approvers": ["group:on-call"]},
            "route": routes,
            "log": {"access": False},
        }
    )


def _greet(settings: Settings, *, shows_all: bool) -> Callable[[], None]:
    url = settings.server.public_url

    def greet() -> None:
        click.echo("\nTailchat Gate, the demo.\n")
        click.secho(f"  Open {url}/", bold=True)
        click.echo(f"\n  You come to a stand-in Tailchat at {settings.tailchat.api_url}")
        click.echo("  and sign in as any of its people:\n")
        click.echo(f"    {'EMAIL':<28} PASSWORD")
        for user in USERS:
            click.echo(f"    {user.email:<28} {user.password}")
        if shows_all:
            owner, member, *_ = USERS
            click.echo(f"\n  {url}/status is for everybody, {url}/ops/ for a role in Tailchat")
            click.echo(f"  that {owner.name} has. Open it as {member.name} and ask for access;")
            click.echo(f"  then, in a private window, sign in as {owner.name} and decide at")
            click.echo(f"  {url}/oauth2/approvals.")
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
