"""What would prevent a start on this machine."""

import grp
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tailchat_gate.config.model import Settings
from tailchat_gate.config.state_directory import is_made, writable_by_all
from tailchat_gate.config.tables.server import PUBLIC_ADDRESSES
from tailchat_gate.config.values.address import UnixAddress, listen_address
from tailchat_gate.state.files import NAME


class Obstacle(NamedTuple):
    """What would prevent a start, with the key that names it.

    `missing`: a file, directory or group does not exist, as on a machine other than the gate's.
    """

    key: str
    problem: str
    missing: bool = False


def obstacles(settings: Settings) -> Iterator[Obstacle]:
    """Check what a start opens: files, the directories of files and sockets, a group.

    Write permission is not checked, because it depends on the gate's user. Free addresses are not
    checked either, because a running gate uses them.
    """
    if settings.state.path and not settings.state.url:
        yield from _of_state("state.path", Path(settings.state.path))
    for key in ("access_file", "audit_file"):
        if path := getattr(settings.log, key):
            yield from _of_file(f"log.{key}", Path(path))
    server = settings.server
    public = ((key, getattr(server, key)) for key in PUBLIC_ADDRESSES)
    for key, texts in (*public, ("admin_listen", (server.admin_listen,))):
        for text in filter(None, texts):
            yield from _of_listener(f"server.{key}", listen_address(text))
    if server.unix_group and not server.unix_group.isdecimal():
        try:
            grp.getgrnam(server.unix_group)
        except KeyError:
            problem = f"there is no group {server.unix_group} here"
            yield Obstacle("server.unix_group", problem, missing=True)


def _of_state(key: str, folder: Path) -> Iterator[Obstacle]:
    """Check the directory of the stored locks."""
    if is_made(str(folder), os.environ) and not folder.exists():
        there = next(parent for parent in folder.parents if parent.exists())
        if not there.is_dir():
            yield Obstacle(key, f"{there} is no directory")
        return
    file = folder / NAME
    yield from _of_file(key, file)
    if file.is_symlink():
        yield Obstacle(key, f"{file} is a symbolic link, which may lead anywhere")
    else:
        yield from (Obstacle(key, found) for found in map(_open_to_all, (folder, file)) if found)


def _open_to_all(path: Path) -> str:
    try:
        return writable_by_all(path, path.stat().st_mode)
    except OSError:
        return ""


def _of_file(key: str, file: Path) -> Iterator[Obstacle]:
    yield from _of_directory(key, file.parent)
    if file.is_dir():
        yield Obstacle(key, f"{file} is a directory")


def _of_listener(key: str, where: object) -> Iterator[Obstacle]:
    if not isinstance(where, UnixAddress):
        return
    path = Path(where.path)
    yield from _of_directory(key, path.parent)
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except OSError:
        return
    if not is_socket:
        yield Obstacle(key, f"{path} is there and is no socket")


def _of_directory(key: str, folder: Path) -> Iterator[Obstacle]:
    if folder.is_dir():
        return
    if folder.exists():
        yield Obstacle(key, f"{folder} is no directory")
    else:
        yield Obstacle(key, f"there is no directory {folder} here", missing=True)
