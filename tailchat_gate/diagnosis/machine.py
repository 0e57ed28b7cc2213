"""Checks this machine: its limits, the store, and what would prevent a start."""

import grp
import os
import resource
import shutil
import stat
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from tailchat_gate.config.lint.addresses import beside_the_gate, of_examples
from tailchat_gate.config.load import Loaded
from tailchat_gate.config.model import Settings
from tailchat_gate.config.state_directory import in_foreign_home, is_made, writable_by_all
from tailchat_gate.config.tables.process import State
from tailchat_gate.config.tables.server import PUBLIC_ADDRESSES
from tailchat_gate.config.values.address import UnixAddress, listen_address
from tailchat_gate.config.values.quantities import counted
from tailchat_gate.diagnosis.statement import (
    STATE_SERVER,
    Statement,
    ok,
    warning,
    wrong,
)
from tailchat_gate.observe.threads import in_thread
from tailchat_gate.proxy.sockets import shares
from tailchat_gate.state.bookkeeping import StoreFault
from tailchat_gate.state.places import server_of
from tailchat_gate.state.redis.database import evicts_at, peek_at
from tailchat_gate.state.redis.servers import RedisPlace
from tailchat_gate.state.sqlite.engine import Engine
from tailchat_gate.state.sqlite.files import NAME, Files, as_owner
from tailchat_gate.state.store import StoreError

CONFIGURATION: Final = "configuration"
SECRETS: Final = "secret-files"
START: Final = "start"
STORE: Final = "store"
DESCRIPTORS: Final = "file-descriptors"
#: With fewer, a few hundred people with one page each can use up the descriptors.
_FEW_DESCRIPTORS: Final = 4096
#: With fewer free bytes on the disk, the store may soon be unable to write a lock.
_LITTLE_ROOM: Final = 64 << 20


class Obstacle(NamedTuple):
    """Something that would prevent a start, with the key that names it.

    `missing`: a file, directory or group does not exist here, but may on the gate's machine.
    """

    key: str
    problem: str
    missing: bool = False


def obstacles(settings: Settings) -> Iterator[Obstacle]:
    """Check the files, directories, sockets and the group that a start needs.

    Permission to write is not checked, because it depends on the gate's user, nor whether addresses
    are free, because a running gate uses them.
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
            problem = f"this machine has no group {server.unix_group}"
            yield Obstacle("server.unix_group", problem, missing=True)


def _of_state(key: str, folder: Path) -> Iterator[Obstacle]:
    """Check the directory of the state."""
    if is_made(str(folder), os.environ) and not folder.exists():
        there = next(parent for parent in folder.parents if parent.exists())
        if not there.is_dir():
            yield Obstacle(key, f"{there} is not a directory")
        return
    file = folder / NAME
    yield from _of_file(key, file)
    if file.is_symlink():
        yield Obstacle(key, f"{file} is a symbolic link, which may lead anywhere")
    else:
        yield from (
            Obstacle(key, problem) for problem in map(_open_to_all, (folder, file)) if problem
        )


def _open_to_all(path: Path) -> str:
    try:
        return writable_by_all(path, path.stat().st_mode)
    except OSError:
        return ""


def _of_file(key: str, file: Path) -> Iterator[Obstacle]:
    yield from _of_parent(key, file.parent)
    if file.is_dir():
        yield Obstacle(key, f"{file} is a directory")


def _of_listener(key: str, where: object) -> Iterator[Obstacle]:
    if not isinstance(where, UnixAddress):
        return
    path = Path(where.path)
    yield from _of_parent(key, path.parent)
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except OSError:
        return
    if not is_socket:
        yield Obstacle(key, f"{path} exists and is not a socket")


def _of_parent(key: str, folder: Path) -> Iterator[Obstacle]:
    if folder.is_dir():
        return
    if folder.exists():
        yield Obstacle(key, f"{folder} is not a directory")
    else:
        yield Obstacle(key, f"this machine has no directory {folder}", missing=True)


async def configuration(
    loaded: Loaded, name: str, environ: Mapping[str, str]
) -> AsyncIterator[Statement]:
    """Repeat the warnings of `check`, except those about secrets."""
    settings = loaded.settings
    routes = counted(len(settings.route), "route")
    yield ok(CONFIGURATION, f"{name} is valid, with {routes}")
    for sentence in loaded.warnings:
        if sentence not in loaded.exposed:
            yield warning(CONFIGURATION, sentence)
    for sentence in (*of_examples(settings), *beside_the_gate(settings)):
        yield warning(CONFIGURATION, sentence)
    sentence = await in_thread(partial(in_foreign_home, settings.state.path, environ))
    if sentence:
        yield warning(CONFIGURATION, f"state.path: {sentence}")


async def secret_files(loaded: Loaded) -> AsyncIterator[Statement]:
    """Say which secrets every user of the machine can read."""
    for sentence in loaded.exposed:
        yield warning(SECRETS, sentence)
    if not loaded.exposed:
        yield ok(SECRETS, "no other user of this machine can read a secret")


async def start(settings: Settings) -> AsyncIterator[Statement]:
    """Say what would prevent a start."""
    in_the_way = await in_thread(lambda: list(obstacles(settings)))
    for obstacle in in_the_way:
        yield wrong(
            START, f"{obstacle.key}: {obstacle.problem}", "correct this, or the gate does not start"
        )
    if not in_the_way:
        yield ok(START, "the files and directories of the configuration exist")


async def store(state: State, environ: Mapping[str, str]) -> AsyncIterator[Statement]:
    """Say whether the store can be read and written, as its owner."""
    if (place := server_of(state)) is not None:
        yield await _of_server(place)
        return
    path = state.path
    if not path:
        text = "state.path is empty, so a restart forgets locks, grants and ended sessions"
        yield warning(STORE, text, "set state.path to a directory that the gate can write to")
        return
    for statement in await in_thread(partial(_of_store, Path(path), environ)):
        yield statement


async def _of_server(place: RedisPlace) -> Statement:
    try:
        server, policy = await peek_at(place), await evicts_at(place)
    except StoreError as error:
        return wrong(STORE, str(error), "install the gate with its extra for Redis")
    except StoreFault as fault:
        remedy = "start the server, and check state.url and its password"
        return wrong(STORE, str(fault), remedy)._replace(lacks=STATE_SERVER)
    if server.lost:
        remedy = "see docs/operate/redis.md"
        return wrong(STORE, f"{place}: records are missing or damaged", remedy)
    if policy:
        text = f"{place} deletes records when it is full, also of used logins ({policy})"
        return warning(STORE, text, "set its maxmemory-policy to noeviction")
    return ok(STORE, f"{place} answers")


def _of_store(directory: Path, environ: Mapping[str, str]) -> list[Statement]:
    if is_made(str(directory), environ) and not directory.exists():
        return [ok(STORE, f"{directory} does not exist yet; the gate creates it")]
    try:
        with as_owner(directory):
            return list(_of_directory(directory))
    except StoreError as error:
        remedy = "" if error.says_remedy else "give the gate's user a directory of its own there"
        return [wrong(STORE, str(error), remedy)]


def _of_directory(directory: Path) -> Iterator[Statement]:
    files = Files(directory)
    engine = Engine(files, time.time, {})
    loaded = engine.open(create=False)
    engine.close()
    for fault, problem in loaded.faults.items():
        yield wrong(STORE, f"{directory}: {fault}: {problem}", "see docs/operate/state.md")
    needed = [directory, *(path for path in (files.database,) if path.exists())]
    for path in needed:
        if not os.access(path, os.R_OK | os.W_OK, effective_ids=True):
            yield wrong(STORE, f"{path} cannot be written", "make the gate's user its owner")
            return
    if files.exposed():
        text = f"every user of this machine can read {files.database}"
        yield warning(STORE, text, f"run `chmod o-r {files.database}`")
    free = shutil.disk_usage(directory).free
    if free < _LITTLE_ROOM:
        yield warning(
            STORE, f"{directory}: only {free >> 20} MiB are free", "free space on that disk"
        )
    if not loaded.faults:
        yield ok(STORE, f"{directory} can be read and written")


async def descriptors(of_gate: int | None) -> AsyncIterator[Statement]:
    """Say whether the limit of file descriptors is high enough.

    `of_gate` is the running gate's limit. If it is None, the hard limit of this process counts, to
    which a gate raises its own.
    """
    whose = "the running gate"
    limit = of_gate
    if limit is None:
        whose, (_, limit) = "a gate started here", resource.getrlimit(resource.RLIMIT_NOFILE)
    _, room = shares(limit)
    text = f"{whose} has room for {room} connections of visitors and to tools"
    if room < shares(_FEW_DESCRIPTORS)[1]:
        yield warning(DESCRIPTORS, text, "raise LimitNOFILE= or `docker run --ulimit nofile=`")
    else:
        yield ok(DESCRIPTORS, text)
