"""The demo: a stand-in Tailchat, three sample tools, the gate and its admin page."""

import asyncio
import logging
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Final

import click
from aiohttp import web

from tailchat_gate.commands.common import program, toml
from tailchat_gate.config.load import Source
from tailchat_gate.config.values.url import is_loopback
from tailchat_gate.demo.store import App
from tailchat_gate.demo.tailchat import StandInTailchat
from tailchat_gate.demo.tool import SampleTool
from tailchat_gate.demo.users import USERS
from tailchat_gate.identity.seal import new_secret
from tailchat_gate.observe.log import AUDIT_LOGGER_NAME, set_up_logging
from tailchat_gate.observe.text_lines import shown
from tailchat_gate.serving.process import serve
from tailchat_gate.serving.signals import Signals
from tailchat_gate.serving.surroundings import no_surroundings
from tailchat_gate.serving.systemd import PassedSockets, name_for
from tailchat_gate.serving.wiring.build import build

_LOOPBACK: Final = "127.0.0.1"
_CLIENT_ID: Final = "tc_demo"
#: The route that only people with a role may use.
_GUARDED: Final = "oncall"
_OWNER, _MEMBER, *_OTHERS = USERS


class DemoError(RuntimeError):
    """The demo cannot start; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class _Tool:
    """A tool of the demo; `upstream` is its URL, "" for the sample tool."""

    name: str
    title: str
    description: str
    icon: str
    allow: str
    upstream: str = ""

    def route(self, port: int) -> dict[str, object]:
        """Return the table of its route; the sample tool listens at `port`."""
        return {
            "name": self.name,
            "host": f"{self.name}.localhost",
            "upstream": self.upstream or f"http://{_LOOPBACK}:{port}",
            "allow": [self.allow],
            "title": self.title,
            "description": self.description,
            "icon": self.icon,
        }


_TOOLS: Final = (
    _Tool("wiki", "Wiki", "For everybody who signs in", "📖", "signed-in"),
    _Tool(_GUARDED, "On call", "For the role “on call” in Tailchat", "🚨", "group:on-call"),
    _Tool("status", "Status", "For everybody, without a sign-in", "🟢", "public"),
)
_ADMIN: Final = _Tool(
    "admin", "Gate admin", "What the gate knows", "🛠️", "group:on-call", upstream="admin:"
)


@dataclass(frozen=True, slots=True)
class _Places:
    """The addresses and files of the demo; both ports are on `host`."""

    host: str
    port: int
    tailchat_port: int
    folder: Path
    client_secret: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)

    def url(self, name: str = "gate") -> str:
        """Return the address of the gate, or of a tool: browsers find *.localhost by themselves."""
        return f"http://{name}.localhost:{self.port}"

    @property
    def api_url(self) -> str:
        """Tailchat's address for browsers."""
        return f"http://tailchat.localhost:{self.tailchat_port}"

    @property
    def config(self) -> Path:
        """The gate's configuration."""
        return self.folder / "config.toml"


def run_demo(
    port: int, upstream: str = "", host: str = _LOOPBACK, *, as_json: bool = False
) -> None:
    """Run the demo on a port (0 = any) until Ctrl-C. Raises DemoError.

    `upstream` is the URL of the tool to protect, "" for sample tools: one for everybody who signs
    in, one for a role in Tailchat, one for the public. `host` is the address to listen on.
    `as_json`: print events as a gate logs them, and not as sentences.
    """
    signals = Signals()
    signals.take()
    names = {tool.name: tool.title for tool in (*_TOOLS, _ADMIN)}
    names |= {user.sub: user.name for user in USERS}
    set_up_logging("warning", formatter=None if as_json else _SentenceFormatter(names))
    if upstream and not is_loopback(host):
        raise DemoError(
            "everybody knows the demo's passwords, so --upstream works on this machine only: leave "
            "out --upstream or --host"
        )
    with ExitStack() as held:
        gate = held.enter_context(_listening(port, host))
        port = _port_of(gate)
        beside = held.enter_context(_neighbour(port, host))
        folder = held.enter_context(TemporaryDirectory(prefix="tailchat-gate-demo-"))
        places = _Places(host, port, _port_of(beside), Path(folder))
        app = App(_CLIENT_ID, places.client_secret, (f"{places.url()}/oauth2/callback",))
        tailchat = StandInTailchat(places.api_url, apps=[app])
        # Only the people whom the greeting lists have accounts.
        tailchat.store.client_config |= {"disableUserRegister": True, "disableGuestLogin": True}
        apps = {beside: tailchat.app(everywhere=not is_loopback(host))}
        tools = (_Tool("tool", "Your tool", upstream, "🔧", "signed-in", upstream),)
        listed, routes = tools if upstream else _TOOLS, []
        for tool in (*listed, _ADMIN):
            at = 0
            if not tool.upstream:
                listener = held.enter_context(_listening(0))
                apps[listener], at = SampleTool(title=tool.title).app(), _port_of(listener)
            routes.append(tool.route(at))
        _write(places, _on_call(tailchat), routes)
        asyncio.run(_run(places, signals, gate, apps, _greeting(places, listed)))
    click.echo("\nThe demo has ended and has deleted its files.")


def _on_call(tailchat: StandInTailchat) -> str:
    """Make a group with a role and the gate's bot; return the role's entry for [groups]."""
    group = tailchat.groups.add("Ops", _OWNER.sub, _MEMBER.sub)
    role = tailchat.groups.add_role(group, "on call", _OWNER.sub)
    tailchat.groups.add_bot(group, _CLIENT_ID)
    return f"tailchat-role:{group.id}/{role.id}"


def _write(places: _Places, role: str, routes: list[dict[str, object]]) -> None:
    """Write the configuration file, so that people can read, change and reload it."""
    state = places.folder / "state"
    state.mkdir(mode=0o700)
    tables: dict[str, dict[str, object]] = {
        "server": {
            "public_url": places.url(),
            "listen": f"{_bracketed(places.host)}:{places.port}",
            "admin_listen": f"unix:{places.folder / 'admin.sock'}",
            "shutdown_timeout": "2s",
        },
        "tailchat": {
            "api_url": places.api_url,
            "internal_url": f"http://{_reachable(places.host)}:{places.tailchat_port}",
            "client_id": _CLIENT_ID,
            "client_secret": places.client_secret,
        },
        "session": {"secret": new_secret()},
        "state": {"path": str(state)},
        "access": {"requests": True, "approvers": ["group:on-call"]},
        "groups": {"on-call": [role]},
        "log": {"access": False, "level": "warning"},
    }
    parts = [(f"[{name}]", table) for name, table in tables.items()]
    parts += [("[[route]]", route) for route in routes]
    text = "\n".join(
        "\n".join((heading, *(f"{key} = {toml(value)}" for key, value in table.items()), ""))
        for heading, table in parts
    )
    places.config.touch(mode=0o600)
    places.config.write_text(text, encoding="utf-8")


async def _run(
    places: _Places,
    signals: Signals,
    gate: socket.socket,
    apps: Mapping[socket.socket, web.Application],
    greeting: str,
) -> None:
    source = Source(places.config, {})
    loaded = source.read()
    generation = build(loaded.settings, sources=loaded.sources)
    (address,) = loaded.settings.server.listen
    around = no_surroundings()
    around.passed.add(PassedSockets([(name_for(address), gate)]))
    async with AsyncExitStack() as stack:
        for listener, app in apps.items():
            await stack.enter_async_context(_served(app, listener))
        await serve(
            generation,
            signals,
            source,
            started=lambda _: click.echo(greeting),
            surroundings=around,
        )


def _greeting(places: _Places, listed: tuple[_Tool, ...]) -> str:
    """Say which address to open, who can sign in, and what to try."""
    command = program()
    tried = places.url(_GUARDED if len(listed) > 1 else listed[0].name)
    lines = [
        "\nTailchat Gate, the demo.\n",
        click.style(f"  Open {places.url()}/ in a browser", bold=True),
        f"\n  A stand-in Tailchat at {places.api_url} signs you in as one of:\n",
        f"    {'EMAIL':<23} PASSWORD",
        f"    {_OWNER.email:<23} {_OWNER.password:<15} has the role “on call”, decides requests",
        f"    {_MEMBER.email:<23} {_MEMBER.password:<15} has no role\n",
        f"  And {', '.join(user.name for user in _OTHERS)}, whose names are hard to show.",
        "\n  Behind the gate are:\n",
        *(f"    {places.url(tool.name) + '/':<34} {tool.description}" for tool in listed),
        f"    {places.url(_ADMIN.name) + '/':<34} The gate's own page, for {_OWNER.name}\n",
        *(_refusal(places, tried) if len(listed) > 1 else ()),
        "  Two commands to try, in another terminal:\n",
        f"    {command} explain {tried}/ --as {_MEMBER.sub} --config {places.config}",
        f"    {command} lock sub:{_MEMBER.sub} --for 1m --config {places.config}\n",
        f"  The first shows what happens to a request of {_MEMBER.name}, and why.",
        f"  The second keeps {_MEMBER.name} out for a minute; open pages end within a second.",
        "  A change of that file is in force within two seconds: add these two lines to it,",
        "  and load the page with the tools again.\n",
        "    [pages]",
        '    title = "My lab"\n',
        "  Everything listens on this machine alone. Ctrl-C ends it.\n"
        if is_loopback(places.host)
        else f"  It listens on {places.host}, and its passwords are public. Ctrl-C ends it.\n",
        "  What happens:\n",
    ]
    return "\n".join(lines)


def _refusal(places: _Places, guarded: str) -> tuple[str, ...]:
    return (
        f"  {guarded}/ refuses {_MEMBER.name}, who can ask for access there.",
        f"  In a private window {_OWNER.name} decides at {places.url()}/oauth2/approvals.\n",
    )


def _reachable(host: str) -> str:
    """Return the address at which this machine reaches a listener, with brackets for IPv6."""
    own = {"0.0.0.0": _LOOPBACK, "::": "::1"}  # noqa: S104 - compared only
    return _bracketed(own.get(host, host))


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _neighbour(port: int, host: str) -> socket.socket:
    """Listen on the port after the next if it is free, else on any: near ports suit forwarding.

    The next port is left free, because commands look there for the admin listener of a gate.
    """
    try:
        return _listening(port + 2, host)
    except DemoError:
        return _listening(0, host)


def _listening(port: int, host: str = _LOOPBACK) -> socket.socket:
    """Listen on a port of an address, or on any free port for 0. Raises DemoError.

    From then on the port is the demo's; what connects waits until it is served.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    try:
        return socket.create_server((host, port), family=family, dualstack_ipv6=both)
    except (OSError, OverflowError) as error:
        problem = os.strerror(error.errno or 0) if isinstance(error, OSError) else str(error)
        raise DemoError(
            f"port {port} of {host} cannot be used ({problem}); --port 0 takes any"
        ) from None


def _port_of(listener: socket.socket) -> int:
    port: int = listener.getsockname()[1]
    return port


@asynccontextmanager
async def _served(app: web.Application, listener: socket.socket) -> AsyncIterator[None]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    try:
        yield
    finally:
        await runner.cleanup()


#: The sentence for each audit event, with fields of its record.
_SENTENCES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "signed-in": "{sub} signed in",
        "signed-out": "{sub} signed out",
        "sign-in-refused": "a sign-in was refused: {reason}",
        "refused": "{sub} was refused by {route}: {reason}",
        "access-requested": "{sub} asks for {route}: “{why}”",
        "access-approved": "{by} approved the request of {sub} for {route}",
        "access-declined": "{by} declined the request of {sub} for {route}",
        "granted": "{sub} may enter {route} for a while",
        "grant-ended": "{sub} may no longer enter {route} by a grant",
        "session-ended": "a session of {sub} has ended: {reason}",
        "account-blocked": "{sub} is blocked: {reason}",
        "account-let-in": "{sub} may come in again",
        "group-joined": "{sub} is in the group {group} now",
        "group-left": "{sub} is no longer in the group {group}",
        "admin-order": "{by} on the admin page: {order}",
    }
)


class _SentenceFormatter(logging.Formatter):
    """Formats records as sentences; `names` has people by their subs and tools by their routes."""

    def __init__(self, names: Mapping[str, str]) -> None:
        super().__init__()
        self._names = names

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for `record`, with less of it than the log of a gate has."""
        details = getattr(record, "details", {})
        at = time.strftime("%H:%M:%S", time.localtime(record.created))
        return f"  {at}  {shown(self._sentence(record, details))}"

    def _sentence(self, record: logging.LogRecord, details: Mapping[str, object]) -> str:
        event = str(details.get("event", ""))
        if record.name != AUDIT_LOGGER_NAME or event not in _SENTENCES:
            further = (f"{name}={value}" for name, value in details.items() if name != "event")
            level = "" if event else f"{record.levelname.lower()}: "
            return f"{level}{event or record.getMessage()} {' '.join(further)}".rstrip()
        members = {name: self._names.get(str(value), value) for name, value in details.items()}
        return _SENTENCES[event].format_map({"why": "", "by": "", **members})
