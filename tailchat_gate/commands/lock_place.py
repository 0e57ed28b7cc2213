"""Where the commands find the locks: by the configuration, by a wrong one too, or by --file."""

import http.client
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from tailchat_gate.commands.admin_listener import exchange
from tailchat_gate.commands.common import EXIT_FAILED, EXIT_USAGE, fail
from tailchat_gate.config.admin_address import admin_address
from tailchat_gate.config.load import ConfigError, load, report
from tailchat_gate.config.lock_path import lock_path
from tailchat_gate.config.model import LONGEST_SESSION
from tailchat_gate.config.state_directory import in_foreign_home, make_for
from tailchat_gate.identity.lock_file import LockFile, LockFileError
from tailchat_gate.identity.locks import Entry, Standing

file_option = click.option(
    "--file",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file of locks itself, for when the configuration cannot be read.",
)

#: How long the running gate may take to say where it keeps locks.
_SECONDS: Final = 2.0
_OK: Final = 200
_EMPTY: Final = "locks.file is empty: the running gate keeps locks in its memory alone"


@dataclass(frozen=True, slots=True)
class LockPlace:
    """Where locks are kept, and what else the commands need of a configuration.

    `lifetime`: seconds that a session can last; `tokens`: the names of all, None where unknown.
    """

    path: Path
    lifetime: float = LONGEST_SESSION
    tokens: frozenset[str] | None = None


def lock_place(config: Path, file: Path | None) -> LockPlace:
    """Return where the locks are; end the command where nothing tells.

    Whoever has to be kept out has to be kept out now, not when somebody has found the mistake in
    the file: only locks.file has to be right.
    """
    if file is not None:
        return LockPlace(file)
    try:
        settings = load(config, os.environ).settings
    except ConfigError as error:
        problems = error.problems
    else:
        if not settings.locks.file:
            fail(_EMPTY, EXIT_USAGE)
        _check_running(config, settings.locks.file)
        tokens = frozenset(token.name for token in settings.token)
        return LockPlace(Path(settings.locks.file), settings.session.lifetime, tokens)
    found = lock_path(config, os.environ)
    if found is None:
        fail(f"{config}: {report(problems)}\n\n--file names the file of locks itself", EXIT_USAGE)
    if not found:
        fail(_EMPTY, EXIT_USAGE)
    told = f"{config} has problems, which `tailchat-gate check` tells; locks are kept in {found}"
    click.echo(f"warning: {told}", err=True)
    _check_running(config, found)
    return LockPlace(Path(found))


def _check_running(config: Path, file: str) -> None:
    """End the command where the gate that runs with this file keeps its locks elsewhere.

    It may run as another user, or from before the file was changed; a lock that it never reads
    keeps nobody out. Its word is no order, though: anybody could listen at that address, and the
    commands often run as root.
    """
    try:
        where = admin_address(config, os.environ)
        if where is None:
            return
        status, body = exchange(where, "GET", "/status", seconds=_SECONDS)
        found = json.loads(body)["configuration"] if status == _OK else {}
    except (OSError, ValueError, LookupError, TypeError, http.client.HTTPException):
        return
    if not isinstance(found, dict) or not _is_same(found.get("file"), config):
        return
    used = found.get("locks_file")
    if isinstance(used, str) and used != file:
        fail(
            f"the gate that runs keeps locks in {used or 'its memory alone'}, not in {file}: "
            "--file names the file",
            EXIT_FAILED,
        )


def _is_same(file: object, config: Path) -> bool:
    return isinstance(file, str) and Path(file).resolve() == config.resolve()


def standing(path: Path) -> Standing:
    """Return what the file says, nothing where there is none yet. Raises LockFileError."""
    try:
        found = LockFile(path, time.time).read()
    except LockFileError as error:
        if error.missing:
            return Standing(time.time)
        raise
    if found.damaged:
        lines = "line" if found.damaged == 1 else "lines"
        click.echo(f"warning: {found.damaged} damaged {lines} in {path}", err=True)
    read = Standing(time.time)
    read.renew(found.entries)
    return read


def standing_or_end(path: Path) -> Standing:
    """As `standing`; ends the command where the file cannot be read."""
    try:
        return standing(path)
    except LockFileError as error:
        fail(f"[locks] file: {error}", EXIT_FAILED)


def append(path: Path, entry: Entry) -> None:
    """Write an entry; end the command where that cannot be done."""
    file = LockFile(path, time.time)
    if told := in_foreign_home(str(path), os.environ):
        click.echo(f"warning: locks.file: {told}", err=True)
    try:
        make_for(str(path), os.environ)
        file.open()
        file.append((entry,))
    except LockFileError as error:
        fail(f"[locks] file: {error}", EXIT_FAILED)
    except OSError as error:
        fail(f"[locks] file: {path}: {error.strerror or error}", EXIT_FAILED)
