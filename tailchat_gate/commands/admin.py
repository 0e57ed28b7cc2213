"""Commands that call the running gate at its admin listener."""

import http.client
import json
import os
import socket
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from tailchat_gate.commands.common import (
    EXIT_FAILED,
    EXIT_USAGE,
    config_option,
    fail,
    fit_for_a_terminal,
    json_option,
    refuse,
)
from tailchat_gate.config.load import ConfigError, admin_address, load
from tailchat_gate.config.problems import Problem
from tailchat_gate.config.values.address import TcpAddress, UnixAddress, listen_address
from tailchat_gate.config.values.quantities import format_timestamp
from tailchat_gate.request.field_names import ORDER_HEADER

Where = TcpAddress | UnixAddress

_CALL_SECONDS: Final = 3.0
_NO_GATE: Final = "another program does"
_T = TypeVar("_T")
_NO_HEADERS: Final[Mapping[str, str]] = {}

#: Enough for a large file on a busy machine; the gate finishes the reload even if this passes.
_RELOAD_SECONDS: Final = 60.0
_RELOAD_SIGNAL: Final = "reload needs server.admin_listen; without one, send the gate SIGHUP"
_UPGRADE_SIGNAL: Final = "upgrade needs server.admin_listen; without one, send the gate SIGUSR2"

admin_option = click.option(
    "--admin",
    metavar="ADDRESS",
    help="Address of the running gate's admin listener, if it is not the one in the file.",
)


class _UnixConnection(http.client.HTTPConnection):
    """A connection over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def admin_page(config: Path, path: str, read: Callable[[bytes], _T]) -> _T:
    """Get a page of the admin listener and parse it with `read`; end the command if that fails.

    `read` raises ValueError for a body that no gate sends: the port may be another program's.

    Only server.admin_listen must be valid in the file. A gate keeps serving when its file becomes
    invalid, and a health check that failed because of the file would restart it.
    """
    where = admin_listener(config, None, "this needs server.admin_listen")
    try:
        status, body = exchange(where, "GET", path, seconds=_CALL_SECONDS)
        if status != HTTPStatus.OK:
            raise ConnectionError(f"{status} {body.decode(errors='replace').strip()[:200]}")
        return read(body)
    except (OSError, http.client.HTTPException) as error:
        _end_if_unreadable(config)
        fail(_unanswered(where, error, "--config"), EXIT_FAILED)
    except ValueError:
        fail(f"no gate answers at {where}: {_NO_GATE}", EXIT_FAILED)


def admin_listener(config: Path, given: str | None, without: str) -> Where:
    """Return the address `given`, or else the one in the file; end the command without either.

    `without` is the message for a file that turns the admin listener off.
    """
    try:
        where = listen_address(given) if given else admin_address(config, os.environ)
    except ValueError as wrong:
        fail(f"{'--admin' if given else 'server.admin_listen'}: expected {wrong}", EXIT_USAGE)
    if where is None:
        fail(without, EXIT_USAGE)
    return where


def exchange(
    where: Where,
    method: str,
    path: str,
    headers: Mapping[str, str] = _NO_HEADERS,
    *,
    seconds: float,
) -> tuple[int, bytes]:
    """Send a request and return status and body. Raises OSError and http.client.HTTPException."""
    connection: http.client.HTTPConnection
    if isinstance(where, UnixAddress):
        connection = _UnixConnection(where.path, seconds)
    else:
        # A listener on all addresses is reached by loopback.
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(where.host, where.host)  # noqa: S104 - compared only
        connection = http.client.HTTPConnection(host, where.port, timeout=seconds)
    try:
        connection.request(method, path, headers=dict(headers))
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def ordered(
    config: Path, admin: str | None, order: str, without: str, *, seconds: float
) -> tuple[bool, dict[str, Any]]:
    """Post an order ("reload" or "upgrade"); return whether the gate refused it, and its answer.

    The command ends if no gate answers, or, with the message `without`, if there is no listener.
    """
    where = admin_listener(config, admin, without)
    try:
        return _order(where, order, seconds)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if admin is None:
            _end_if_unreadable(config)
        fail(_unanswered(where, error, "--admin"), EXIT_FAILED)


def _unanswered(where: Where, error: Exception, option: str) -> str:
    """Say why no gate answers, and what to do; `option` is the one that names another gate."""
    cause = (error.strerror if isinstance(error, OSError) else None) or str(error)
    names = "file" if option == "--config" else "address"
    step = f"start the gate, or name the {names} of the one that runs with {option}"
    if isinstance(error, PermissionError):
        step = "run this as the gate's user or as root"
    elif isinstance(error, ConnectionRefusedError) and isinstance(where, UnixAddress):
        step = f"the socket is left over from a gate that has ended; {step}"
    elif isinstance(error, TimeoutError):
        step = "the gate is busy or hangs: look at its log"
    return f"no gate answers at {where}: {cause}; {step}"


def _order(where: Where, order: str, seconds: float) -> tuple[bool, dict[str, Any]]:
    status, text = exchange(where, "POST", f"/{order}", {ORDER_HEADER: order}, seconds=seconds)
    if status not in {HTTPStatus.OK, HTTPStatus.UNPROCESSABLE_ENTITY}:
        raise ConnectionError(f"{status} {text.decode(errors='replace').strip()[:200]}")
    try:
        body = json.loads(text)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise ValueError(_NO_GATE)  # noqa: TRY004 - about received bytes
    return status == HTTPStatus.UNPROCESSABLE_ENTITY, body


def _end_if_unreadable(config: Path) -> None:
    """End the command with the problems of a file from which no admin address can be read."""
    try:
        load(config, os.environ)
    except ConfigError as error:
        wrong = [problem for problem in error.problems if problem.key_path == str(config)]
        if wrong:
            refuse(str(config), wrong)


@click.command()
@config_option
@admin_option
def reload(config: Path, admin: str | None) -> None:
    """Make the running gate reload its configuration, and print the outcome.

    The command asks the gate at server.admin_listen; the gate reads the file that it was started
    with. If the gate refuses the file, it keeps serving as before, and the command prints every
    problem and exits with 2.
    """
    is_refused, body = ordered(config, admin, "reload", _RELOAD_SIGNAL, seconds=_RELOAD_SECONDS)
    if is_refused:
        problems = [Problem.from_json(problem) for problem in body["problems"]]
        refuse(body["file"], problems, "nothing has changed")
    for warning in body["warnings"]:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"{body['file']}: in force, generation {body['generation']}")
    since = format_timestamp(body["since"])
    for change in body["changes"] or [f"the gate already serves with this, since {since}"]:
        click.echo(f"  {change}")


@click.command()
@config_option
@admin_option
def upgrade(config: Path, admin: str | None) -> None:
    """Replace the running gate by the program that is installed now, and lose no request.

    The running gate starts the new process with its own arguments, passes it its sockets, and ends
    once that process serves. If the new process cannot start, the running gate continues, and the
    command prints why and exits with 1.
    """
    from tailchat_gate.serving.upgrade import START_SECONDS  # noqa: PLC0415 - not for `health`

    seconds = START_SECONDS + 10
    is_refused, outcome = ordered(config, admin, "upgrade", _UPGRADE_SIGNAL, seconds=seconds)
    if is_refused:
        after = (
            "no process took over; the gate stops"
            if outcome.get("stops")
            else "the running gate continues to serve"
        )
        fail(f"{outcome['problem']}\n\n{after}", EXIT_FAILED)
    click.echo(f"process {outcome['pid']} serves, version {outcome['version']}")


def _healthy(body: bytes) -> str:
    if body != b"ok\n":
        raise ValueError(_NO_GATE)
    return "ok"


def _refusals(body: bytes) -> list[dict[str, Any]]:
    answer = json.loads(body)
    listed = answer.get("refusals") if isinstance(answer, dict) else None
    if not isinstance(listed, list):
        raise ValueError(_NO_GATE)  # noqa: TRY004 - about received bytes
    return listed


@click.command()
@config_option
def health(config: Path) -> None:
    """Check the running gate's health at its admin listener; for container health checks."""
    click.echo(admin_page(config, "/healthz", _healthy))


@click.command()
@config_option
@json_option
def refusals(config: Path, *, as_json: bool) -> None:
    """List the people and machines that were last refused a tool, the latest first."""
    people = admin_page(config, "/refusals", _refusals)
    if as_json:
        click.echo(json.dumps({"refusals": people}))
        return
    if not people:
        click.echo("nobody was refused in the last 30 days")
    for person in people:
        # A machine has neither a nickname nor a discriminator.
        named = person["nickname"] or person["discriminator"]
        who = (
            fit_for_a_terminal(f"  {person['nickname']}#{person['discriminator']}") if named else ""
        )
        times = "once" if person["count"] == 1 else f"{person['count']} times"
        click.echo(f"{person['last']}  {person['sub']}{who}")
        click.echo(f"    {person['route']}: {person['reason']}, {times}")
