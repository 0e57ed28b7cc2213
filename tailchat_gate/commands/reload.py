"""The command that has a running gate load its configuration anew."""

import http.client
import json
import os
import socket
from pathlib import Path
from typing import Any, Final

import click

from tailchat_gate.admin import ORDER_HEADER
from tailchat_gate.commands.common import EXIT_FAILED, EXIT_USAGE, asked_at, config_option, fail
from tailchat_gate.config.address import TcpAddress, UnixAddress, listen_address
from tailchat_gate.config.admin_address import admin_address
from tailchat_gate.config.load import ConfigError, load, report
from tailchat_gate.config.problem import Problem

#: For a large file on a busy machine; the gate goes on whether or not it is waited for.
_SECONDS: Final = 60.0
_OK: Final = 200
_REFUSED: Final = 422


class _UnixConnection(http.client.HTTPConnection):
    """A connection over a socket in the file system."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@click.command()
@config_option
@click.option(
    "--admin",
    metavar="ADDRESS",
    help="Where the running gate's admin listener is, where the file now says another address.",
)
def reload(config: Path, admin: str | None) -> None:
    """Have the running gate load its configuration anew, and tell how it went.

    The gate is asked at server.admin_listen, and reads the file that it was started with. Ends
    with 2 and every problem where that file is refused; the gate then goes on as before.
    """
    where = _where(config, admin)
    try:
        status, body = _order(where)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if admin is None:
            _tell_unreadable(config)
        fail(f"no gate answers at {where}: {error}; --admin names another address", EXIT_FAILED)
    if status == _REFUSED:
        problems = [Problem(**problem) for problem in body["problems"]]
        fail(f"{body['file']}: {report(problems)}\n\nnothing has changed", EXIT_USAGE)
    for warning in body["warnings"]:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"{body['file']}: in force, generation {body['generation']}")
    for change in body["changes"] or ["nothing in it has changed"]:
        click.echo(f"  {change}")


def _where(config: Path, admin: str | None) -> TcpAddress | UnixAddress:
    try:
        where = listen_address(admin) if admin else admin_address(config, os.environ)
    except ValueError as wrong:
        fail(f"{'--admin' if admin else 'server.admin_listen'}: expected {wrong}", EXIT_USAGE)
    if where is None:
        fail("reload needs server.admin_listen; without one, send the gate SIGHUP", EXIT_USAGE)
    return where


def _order(where: TcpAddress | UnixAddress) -> tuple[int, dict[str, Any]]:
    """Give the order; return the status and the outcome. Raises OSError where nobody answers."""
    connection: http.client.HTTPConnection
    if isinstance(where, UnixAddress):
        connection = _UnixConnection(where.path, _SECONDS)
    else:
        asked = asked_at(where)
        connection = http.client.HTTPConnection(asked.host, asked.port, timeout=_SECONDS)
    try:
        connection.request("POST", "/reload", headers={ORDER_HEADER: "reload"})
        response = connection.getresponse()
        text = response.read().decode()
    finally:
        connection.close()
    if response.status not in {_OK, _REFUSED}:
        raise ConnectionError(f"{response.status} {text.strip()[:200]}")
    body = json.loads(text)
    if not isinstance(body, dict):
        raise ValueError("an answer that is no gate's")  # noqa: TRY004 - of what was received
    return response.status, body


def _tell_unreadable(config: Path) -> None:
    """End with what is wrong with a file that does not even tell where the gate is."""
    try:
        load(config, {})
    except ConfigError as error:
        wrong = [problem for problem in error.problems if problem.key_path == str(config)]
        if wrong:
            fail(f"{config}: {report(wrong)}", EXIT_USAGE)
