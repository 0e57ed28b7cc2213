"""A real file that goes wrong under the store: nothing known is lost, and everything is told."""

import asyncio
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from statekit import START, Clock, Process, keys_on_disk, running, until

from tailchat_gate.state import bookkeeping
from tailchat_gate.state.rows import to_row
from tailchat_gate.state.sqlite import database
from tailchat_gate.state.sqlite import store as sqlite_store
from tailchat_gate.state.sqlite.database import Database, ReplacedError
from tailchat_gate.state.sqlite.files import NAME, Files
from tailchat_gate.state.sqlite.schema import PUT_RECORD, VERSION
from tailchat_gate.state.store import EXPIRY_MARGIN, Outcome, Record, ReservationStatus, StoreError

NOBODY = 65534
PAGE = 4096
KILLED_WRITERS = Path(__file__).parent / "killed_writers.py"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let retries and copies come soon, and at the end, however long they take."""
    monkeypatch.setattr(sqlite_store, "RETRY_SECONDS", 0.1)
    monkeypatch.setattr(bookkeeping, "COPY_SECONDS", 0.1)
    monkeypatch.setattr(bookkeeping, "_COPY_SHARE", 1)
    monkeypatch.setattr(bookkeeping, "_QUICK_SECONDS", 60.0)
    monkeypatch.setattr(bookkeeping, "CLOSE_SECONDS", 60.0)


@pytest.fixture
def open_tmp() -> Iterator[Path]:
    """A directory that every user can reach."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@contextmanager
def _mounted(directory: Path, options: str) -> Iterator[None]:
    """Put a small file system on a directory; skip the test where that is not allowed."""
    command = ["/bin/mount", "-t", "tmpfs", "-o", f"mode=0700,{options}", "none", str(directory)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["/bin/umount", "-l", str(directory)], check=True)


async def _remount(directory: Path, mode: str) -> None:
    command = ["/bin/mount", "-o", f"remount,{mode}", str(directory)]
    await asyncio.to_thread(subprocess.run, command, check=True)


def _fill(directory: Path) -> Path:
    """Write until nothing more fits."""
    path = directory / "fill"
    with path.open("wb", buffering=0) as file:
        for size in (PAGE, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return path


@contextmanager
def _largest_file(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


DYING_WRITER = """
import os, signal, sys, time
from pathlib import Path
from tailchat_gate.state.sqlite.database import Database
from tailchat_gate.state.sqlite.files import Files
from tailchat_gate.state.store import Record
database = Database(Files(Path(sys.argv[1])), time.time, {})
database.open()
database.write([Record("note", sys.argv[2], "{}")])
os.kill(os.getpid(), signal.SIGKILL)
"""


def _write_and_die(directory: Path, key: str) -> None:
    """Write a key in a process that dies without closing the database, so that its log stays."""
    arguments = [sys.executable, "-c", DYING_WRITER, str(directory), key]
    assert subprocess.run(arguments, check=False).returncode == -signal.SIGKILL
    assert (directory / f"{NAME}-wal").stat().st_size


async def test_a_full_disk_while_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be written is in force, is told, and is written when there is room."""
    # The next attempt comes when the test wants it.
    monkeypatch.setattr(sqlite_store, "RETRY_SECONDS", 3600.0)
    async with running(tmp_path) as process:
        await process.put("before")
        with _largest_file(128 * 1024):
            await process.put("big", body="x" * 200_000)
            assert process.store.faults[0].startswith("unwritable: ")
            await process.put("a")
            assert process.keys == {"before", "big", "a"}
            assert "unwritable" in process.counted
            reservation = await process.store.reserve("login", "a", until=START + 9, room=9)
            assert reservation.status is ReservationStatus.UNAVAILABLE
            await process.store.settle("login", "a", Outcome(b"sealed", START + 60))
        process.store._retry_at = 0.0
        await until(lambda: not process.store.faults)

        assert {"before", "a"} <= await keys_on_disk(tmp_path)
        again = await process.store.reserve("login", "a", until=START + 9, room=9)
        assert (again.status, again.outcome) == (ReservationStatus.TAKEN, b"sealed")


@pytest.mark.parametrize("after_a_crash", [False, True])
async def test_a_start_on_a_full_disk(tmp_path: Path, *, after_a_crash: bool) -> None:
    """The gate starts with everything that was known, and writes when there is room."""
    with _mounted(tmp_path, "size=2m"):
        async with running(tmp_path) as process:
            await process.put("a")
        (tmp_path / f"{NAME}.copy").unlink()
        if after_a_crash:
            _write_and_die(tmp_path, "b")
            (tmp_path / f"{NAME}-shm").unlink()
        fill = _fill(tmp_path)
        async with running(tmp_path) as process:
            assert process.keys == ({"a", "b"} if after_a_crash else {"a"})
            assert process.store.faults[0].startswith("unwritable: ")
            await process.put("c")
            fill.unlink()
            await until(lambda: not process.store.faults)
            assert "c" in await keys_on_disk(tmp_path)


async def test_a_first_start_on_a_full_disk(tmp_path: Path) -> None:
    """With nothing there yet, state is in memory until there is room."""
    with _mounted(tmp_path, "size=1m"):
        fill = _fill(tmp_path)
        async with running(tmp_path) as process:
            await process.put("a")
            assert process.store.faults[0].startswith("unwritable: ")
            fill.unlink()
            await until(lambda: not process.store.faults)
            assert await keys_on_disk(tmp_path) == {"a"}


async def test_a_start_where_no_file_can_grow(tmp_path: Path) -> None:
    """SQLite has no room for its index of the log; what is known is read without it."""
    async with running(tmp_path) as process:
        await process.put("a")
    with _largest_file(4 * PAGE):
        process = Process(tmp_path, Clock())
        await process.store.open()
        assert process.keys == {"a"}
        assert process.store.faults[0].startswith("unwritable: ")
        assert not process.notes.seen[0].doubtful
        process.store.start()
        await process.put("b")
    await until(lambda: not process.store.faults)
    await process.store.close()

    assert await keys_on_disk(tmp_path) == {"a", "b"}


@pytest.mark.parametrize("after_a_crash", [False, True])
async def test_a_read_only_file_system(tmp_path: Path, *, after_a_crash: bool) -> None:
    """The gate starts with what can be read, says so, and writes once it may."""
    with _mounted(tmp_path, "size=2m"):
        async with running(tmp_path) as process:
            await process.put("a")
        if after_a_crash:
            _write_and_die(tmp_path, "b")
        await _remount(tmp_path, "ro")
        async with running(tmp_path) as process:
            assert process.keys == ({"a", "b"} if after_a_crash else {"a"})
            assert process.store.faults[0].startswith("unwritable: ")
            assert not process.notes.seen[0].doubtful
            await process.put("c")
            await _remount(tmp_path, "rw")
            await until(lambda: not process.store.faults)
            assert "c" in await keys_on_disk(tmp_path)


@contextmanager
def _protected(directory: Path) -> Iterator[None]:
    """Let this process read a directory and its files, and write nothing in it."""
    for path in directory.iterdir():
        path.chmod(0o444)
    directory.chmod(0o555)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        directory.chmod(0o755)


async def test_a_file_that_the_user_may_only_read(open_tmp: Path) -> None:
    """A database whose mode and directory forbid writing is read all the same."""
    async with running(open_tmp) as process:
        await process.put("a")
    with _protected(open_tmp):
        async with running(open_tmp) as process:
            assert process.keys == {"a"}
            assert process.store.faults[0].startswith("unwritable: ")


@pytest.mark.parametrize("names", [(NAME,), (f"{NAME}-wal",), (NAME, f"{NAME}-wal", f"{NAME}-shm")])
async def test_a_file_that_is_deleted_under_the_gate(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    """What was known, and what is written meanwhile, is in a new file within moments."""
    async with running(tmp_path) as process:
        await process.put("a")
        await process.store.reserve("login", "k", until=START + 9, room=9)
        await process.copied()
        # Between two of them the gate would miss one, and would make all of them anew.
        async with process.store._using:
            for name in names:
                await asyncio.to_thread((tmp_path / name).unlink)
        await process.put("b")

        assert "replaced" in process.counted
        assert process.keys == {"a", "b"}
        assert not process.store.faults
        assert await keys_on_disk(tmp_path) == {"a", "b"}
        reservation = await process.store.reserve("login", "k", until=START + 9, room=9)
        assert reservation.status is ReservationStatus.TAKEN


def test_a_file_that_is_deleted_during_a_write(tmp_path: Path) -> None:
    """SQLite reports no error, and the write is not taken for durable."""
    files = Files(tmp_path)
    files.prepare()
    database = Database(files, Clock(), {})
    database.open()
    with pytest.raises(ReplacedError), database.transaction():
        files.database.unlink()
    database.close()


async def test_a_file_that_is_deleted_while_nothing_happens(tmp_path: Path) -> None:
    """The next look finds it, without anything to write."""
    async with running(tmp_path) as process:
        await process.put("a")
        await asyncio.to_thread((tmp_path / NAME).unlink)
        await until(lambda: "replaced" in process.counted)
        await until((tmp_path / NAME).exists)

        assert await keys_on_disk(tmp_path) == {"a"}


async def test_two_processes_lose_their_file(tmp_path: Path) -> None:
    """One of them makes the new file, and both write what they know into it."""
    async with running(tmp_path) as here, running(tmp_path) as there:
        await here.put("a")
        await until(lambda: there.keys == {"a"})
        await asyncio.to_thread((tmp_path / NAME).unlink)
        await asyncio.gather(here.put("b"), there.put("c"))
        await until(lambda: here.keys == there.keys == {"a", "b", "c"})

        assert await keys_on_disk(tmp_path) == {"a", "b", "c"}


async def test_a_change_that_waits_is_not_forgotten_with_the_file(tmp_path: Path) -> None:
    """The look that finds another file hands out its content; a write under way is not in it."""
    async with running(tmp_path) as process:
        await process.put("a")
        await process.copied()
        async with process.store._using:
            putting = asyncio.create_task(process.put("b"))
            await asyncio.sleep(0)
            await asyncio.to_thread((tmp_path / f"{NAME}.copy").rename, tmp_path / NAME)
            await process.store._look_once(0.0)
            assert "replaced" in process.counted
            assert process.keys == {"a", "b"}
        await putting

        assert await keys_on_disk(tmp_path) == {"a", "b"}


async def test_an_older_file_is_put_back(tmp_path: Path) -> None:
    """A backup that is restored under the gate is read, and gets what it lacks."""
    async with running(tmp_path) as process:
        await process.put("a")
        await process.copied()
        backup = await asyncio.to_thread((tmp_path / f"{NAME}.copy").read_bytes)
        await process.put("b")

        def restore() -> None:
            (tmp_path / "restored").write_bytes(backup)
            (tmp_path / "restored").rename(tmp_path / NAME)

        await asyncio.to_thread(restore)
        await until(lambda: "replaced" in process.counted)
        await until(lambda: process.notes.seen[-1].complete)

        assert "a" in process.keys
        assert not process.store.faults


async def test_an_emptied_file(tmp_path: Path) -> None:
    """A file of which nothing is left is written again from memory."""
    async with running(tmp_path) as process:
        await process.put("a")
        for name in (NAME, f"{NAME}-wal"):
            await asyncio.to_thread(os.truncate, tmp_path / name, 0)
        await process.put("b")
        await until(lambda: not process.store.faults)

        assert process.keys == {"a", "b"}
        assert await keys_on_disk(tmp_path) == {"a", "b"}


def _damage(path: Path, page: int, *, bit_of: bytes = b"") -> None:
    """Overwrite a page, counted from 0, or flip one bit of a text in it."""
    with path.open("r+b") as file:
        file.seek(page * PAGE)
        data = bytearray(file.read(PAGE))
        assert len(data) == PAGE
        if bit_of:
            data[data.index(bit_of) + len(bit_of) - 1] ^= 1
        else:
            data[:] = os.urandom(PAGE)
        file.seek(page * PAGE)
        file.write(data)


def _page_with(path: Path, text: bytes) -> int:
    return path.read_bytes().index(text) // PAGE


async def _filled(directory: Path) -> set[str]:
    """Write three hundred notes, which are copied, reserve a key, and stop."""
    keys = {f"note-{number:03}" for number in range(300)}
    async with running(directory) as process:
        await process.put(*sorted(keys), body='{"text":"marker' + "x" * 100 + '"}')
        await process.copied()
        await process.store.reserve("login", "k", until=START + 9, room=9)
    return keys


@pytest.mark.parametrize("with_copy", [True, False])
@pytest.mark.parametrize("page", ["first", "middle"])
async def test_a_damaged_page_at_the_start(tmp_path: Path, page: str, *, with_copy: bool) -> None:
    """With the copy nothing is lost; without it, a page in the middle costs what was on it."""
    keys = await _filled(tmp_path)
    middle = _page_with(tmp_path / NAME, b"note-150")
    _damage(tmp_path / NAME, 0 if page == "first" else middle)
    if not with_copy:
        (tmp_path / f"{NAME}.copy").unlink()
    async with running(tmp_path) as process:
        if with_copy:
            assert process.keys == keys
            reservation = await process.store.reserve("login", "k", until=START + 9, room=9)
            assert reservation.status is ReservationStatus.TAKEN
        elif page == "middle":
            assert len(keys) > len(process.keys) > 200
        assert "damaged" in process.counted
        assert process.notes.seen[0].doubtful
        found = process.keys
    assert (tmp_path / f"{NAME}.damaged").exists()
    assert await keys_on_disk(tmp_path) == found


async def test_a_damaged_page_on_a_full_disk(tmp_path: Path) -> None:
    """Both at once: the copy is read, and the database written again when there is room."""
    with _mounted(tmp_path, "size=2m"):
        async with running(tmp_path) as process:
            await process.put("a")
        _damage(tmp_path / NAME, 0)
        fill = await asyncio.to_thread(_fill, tmp_path)
        async with running(tmp_path) as process:
            assert process.keys == {"a"}
            assert len(process.store.faults) == 2
            await process.put("b")
            await asyncio.to_thread(fill.unlink)
            await until(lambda: not process.store.faults)
            assert await keys_on_disk(tmp_path) == {"a", "b"}


async def test_a_damaged_page_under_the_gate(tmp_path: Path) -> None:
    """The next copy finds it, and the database is written again from memory."""
    keys = await _filled(tmp_path)
    async with running(tmp_path) as process:
        at = _page_with(tmp_path / NAME, b"note-150")
        await asyncio.to_thread(_damage, tmp_path / NAME, at)
        await process.put("after")
        await until(lambda: "damaged" in process.counted)
        await until(lambda: not process.store.faults)

        assert process.keys == {*keys, "after"}
        assert await keys_on_disk(tmp_path) == {*keys, "after"}


async def test_a_damaged_first_page_under_the_gate(tmp_path: Path) -> None:
    """The log has a newer one, which takes its place; nothing is lost."""
    keys = await _filled(tmp_path)
    async with running(tmp_path) as process:
        await asyncio.to_thread(_damage, tmp_path / NAME, 0)
        await process.put("after")
        await until(lambda: not process.store._upkeep.uncopied)
        assert process.keys == {*keys, "after"}

    assert await keys_on_disk(tmp_path) == {*keys, "after"}


@pytest.mark.parametrize("text", [b"marker", b"note-150{"])
async def test_a_flipped_bit_is_noticed(tmp_path: Path, text: bytes) -> None:
    """The record's checksum tells, and the copy has the record; no other one takes its place."""
    keys = await _filled(tmp_path)
    page = _page_with(tmp_path / NAME, b"note-150{")
    await asyncio.to_thread(_damage, tmp_path / NAME, page, bit_of=text[:8])
    async with running(tmp_path) as process:
        assert process.keys == keys
        assert "damaged" in process.counted
        assert {record.body[:15] for record in process.notes.held.values()} == {'{"text":"marker'}


async def test_the_copy_is_never_replaced_by_a_damaged_one(tmp_path: Path) -> None:
    """A database that was found damaged is mended, and only then copied."""
    keys = await _filled(tmp_path)
    async with running(tmp_path) as process:
        at = _page_with(tmp_path / NAME, b"note-150")
        await asyncio.to_thread(lambda: _damage(tmp_path / NAME, at, bit_of=b"marker"))
        process.store._upkeep.uncopied = True
        await until(lambda: "damaged" in process.counted)
    (tmp_path / NAME).unlink()

    assert await keys_on_disk(tmp_path) == keys


async def test_a_file_of_something_else(tmp_path: Path) -> None:
    """A file that is no database is put aside; the gate starts with nothing, and says so."""
    (tmp_path / NAME).write_bytes(b"nonsense\n" * 1000)
    async with running(tmp_path) as process:
        await process.put("a")
        assert process.counted == ["damaged"]

    assert (tmp_path / f"{NAME}.damaged").read_bytes().startswith(b"nonsense")
    assert await keys_on_disk(tmp_path) == {"a"}


LOCKER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


@contextmanager
def _locked_by_another(path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Let another process hold the database's write lock."""
    arguments = [sys.executable, "-c", LOCKER, str(path)]
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


async def test_a_process_that_keeps_the_database_locked(tmp_path: Path) -> None:
    """What is written meanwhile is in force, is told, and is written when the lock is gone."""
    async with running(tmp_path) as process:
        await process.put("a")
        with _locked_by_another(tmp_path / NAME):
            await process.put("b")
            assert process.store.faults == ("unwritable: database is locked",)
            assert process.keys == {"a", "b"}
            reservation = await process.store.reserve("login", "k", until=START + 9, room=9)
            assert reservation.status is ReservationStatus.UNAVAILABLE
        await until(lambda: not process.store.faults)

        assert await keys_on_disk(tmp_path) == {"a", "b"}


async def test_a_short_gap_between_the_writes_of_others_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that waits to write looks every few milliseconds, however long it has waited."""
    pauses: list[float] = []
    async with running(tmp_path, busy=5) as process:
        with closing(
            sqlite3.connect(tmp_path / NAME, isolation_level=None, check_same_thread=False)
        ) as other:
            other.execute("BEGIN IMMEDIATE")

            def pause(seconds: float) -> None:
                pauses.append(seconds)
                if len(pauses) == 100:
                    other.execute("ROLLBACK")

            clock = SimpleNamespace(sleep=pause, monotonic=time.monotonic)
            monkeypatch.setattr(database, "time", clock)
            reservation = await process.store.reserve("login", "k", until=START + 9, room=9)

    assert reservation.status is ReservationStatus.GRANTED
    assert max(pauses) < 0.01


def test_a_sweep_needs_no_long_gap_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To free the space of what expired is a second write, which looks as often for its turn."""
    files, clock, pauses = Files(tmp_path), Clock(), list[float]()
    files.prepare()
    swept = Database(files, clock, {}, busy=5)
    swept.open()
    swept.write([Record("note", "a", "{}", until=int(START) + 1)])
    clock.now = START + EXPIRY_MARGIN + 2
    with closing(sqlite3.connect(tmp_path / NAME, isolation_level=None)) as other:

        def lock(statement: str) -> None:
            if statement.startswith("PRAGMA incremental_vacuum") and not pauses:
                other.execute("BEGIN IMMEDIATE")

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 100:
                other.execute("ROLLBACK")

        swept.connection.set_trace_callback(lock)
        monkeypatch.setattr(database, "time", SimpleNamespace(sleep=pause, monotonic=lambda: 0.0))
        assert swept.sweep()
    swept.close()

    assert len(pauses) == 100


async def test_a_start_while_the_database_is_locked(tmp_path: Path) -> None:
    """Everything that was known is in force at once."""
    async with running(tmp_path) as process:
        await process.put("a")
    with _locked_by_another(tmp_path / NAME):
        process = Process(tmp_path, Clock())
        await process.store.open()
        assert process.keys == {"a"}
        assert process.store.faults == ("unwritable: database is locked",)
        process.store.start()
    await until(lambda: not process.store.faults)
    await process.store.close()


def _write_as_newer(path: Path, record: Record) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(PUT_RECORD, to_row(None, record))


async def test_a_newer_version_of_the_gate(tmp_path: Path) -> None:
    """Its database is read and followed, and never written, at the start and later."""
    async with running(tmp_path) as process:
        await process.put("a")

        def migrate() -> None:
            connection = sqlite3.connect(tmp_path / NAME)
            connection.execute(f"PRAGMA user_version = {VERSION + 1}")
            connection.close()

        await asyncio.to_thread(migrate)
        await process.put("b")
        assert "newer version" in process.store.faults[0]
        assert process.keys == {"a", "b"}
        async with running(tmp_path) as later:
            assert later.keys == {"a"}
            assert "newer version" in later.store.faults[0]
            await later.put("c")
            await asyncio.to_thread(_write_as_newer, tmp_path / NAME, Record("note", "n", "{}"))
            await until(lambda: "n" in later.keys and "n" in process.keys)
    connection = sqlite3.connect(tmp_path / NAME)
    assert connection.execute("SELECT key FROM record").fetchall() == [("a",), ("n",)]
    connection.close()


async def test_a_clock_that_jumps_back(tmp_path: Path) -> None:
    """What expired by a clock hours ahead is there when the clock is set back."""
    clock = Clock()
    async with running(tmp_path, clock) as process:
        await process.store.put([Record("note", "a", "{}", "", int(START) + 3600)])
        await process.store.reserve("login", "k", until=START + 3600, room=9)
        clock.now += EXPIRY_MARGIN
        await process.swept()
        clock.now -= EXPIRY_MARGIN
        reservation = await process.store.reserve("login", "k", until=START + 9, room=9)

        assert reservation.status is ReservationStatus.TAKEN
        assert await keys_on_disk(tmp_path) == {"a"}


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda path: path.rmdir(), "No such file"),
        (lambda path: (path / NAME).mkdir(), "Is a directory"),
        (lambda path: (path / NAME).symlink_to("/etc/passwd"), "symbolic link"),
        (lambda path: (path / f"{NAME}-wal").symlink_to("/etc/passwd"), "symbolic link"),
        (lambda path: (path / f"{NAME}.copy").symlink_to("/etc/passwd"), "symbolic link"),
        (lambda path: path.chmod(0o777), "every user of this machine"),
        (lambda path: os.mkfifo(path / NAME), "not a file"),
    ],
)
async def test_a_place_that_cannot_be_used(
    tmp_path: Path, spoil: Callable[[Path], None], text: str
) -> None:
    """No directory, a link, a file that anybody could change: the gate does not start."""
    place = tmp_path / "state"
    place.mkdir()
    spoil(place)
    process = Process(place, Clock())
    with pytest.raises(StoreError, match=text):
        await process.store.open()
    await process.store.close()


@pytest.mark.timeout(300)
def test_a_writer_that_is_killed_at_any_point(tmp_path: Path) -> None:
    """Of two hundred writers that are killed, none loses what it wrote, or damages the file."""
    arguments = [sys.executable, str(KILLED_WRITERS), str(tmp_path), "200"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    written, lost, check = done.stdout.split()

    assert int(written) > 300
    assert (lost, check) == ("0", "ok")
