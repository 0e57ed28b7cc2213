"""Asks the admin listener of the running gate, also where its file is wrong by now."""

import http.client
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tailchat_gate.commands.common import EXIT_FAILED, EXIT_USAGE, asked_at, fail
from tailchat_gate.config.address import TcpAddress, UnixAddress, listen_address
from tailchat_gate.config.admin_address import admin_address
from tailchat_gate.config.load import ConfigError, load, report

Where = TcpAddress | UnixAddress

_SECONDS: Final = 3.0
_OK: Final = 200
_NO_HEADERS: Final[Mapping[str, str]] = {}


class _UnixConnection(http.client.HTTPConnection):
    """A connection over a socket in the file system."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def asked(config: Path, path: str) -> bytes:
    """Return the body of a page of the admin listener; end the command where it does not answer.

    Nothing of the file has to be right but server.admin_listen: the gate goes on with the
    configuration before, and a health check that failed for the file would have it restarted.
    """
    where = admin_listener(config, None, "this needs server.admin_listen")
    try:
        status, body = exchange(where, "GET", path, seconds=_SECONDS)
        if status != _OK:
            raise ConnectionError(f"{status} {body.decode(errors='replace').strip()[:200]}")
    except (OSError, http.client.HTTPException) as error:
        end_if_unreadable(config)
        fail(f"no gate answers at {where}: {error}", EXIT_FAILED)
    return body


def admin_listener(config: Path, given: str | None, without: str) -> Where:
    """Return where to ask: the address given, or else the file's; end the command with neither.

    `without` is what to say where the file turns the admin listener off.
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
        address = asked_at(where)
        connection = http.client.HTTPConnection(address.host, address.port, timeout=seconds)
    try:
        connection.request(method, path, headers=dict(headers))
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def end_if_unreadable(config: Path) -> None:
    """End with what is wrong with a file that does not even tell where the gate is."""
    try:
        load(config, {})
    except ConfigError as error:
        wrong = [problem for problem in error.problems if problem.key_path == str(config)]
        if wrong:
            fail(f"{config}: {report(wrong)}", EXIT_USAGE)
