"""The file with the locks: several writers, crashes at any byte, and the rights of others."""

import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from gatekit import Clock
from hypothesis import given, settings
from hypothesis import strategies as st

from tailchat_gate.identity import lock_file
from tailchat_gate.identity.lock_file import History, LockFile, LockFileError
from tailchat_gate.identity.lock_lines import to_line
from tailchat_gate.identity.locks import KEPT_AFTER, EndedSession, Entry, Lock, Unlock

NOW = int(Clock.now)
LOCK = Lock("sub:66a", NOW, None, "星野 ☆")
OTHER = Lock("sub:66b", NOW)
WRITER = Path(__file__).parent / "lock_writer.py"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the file is to be."""
    return tmp_path / "locks"


@pytest.fixture
def make(path: Path, clock: Clock) -> Callable[..., LockFile]:
    """Return a function that makes what one process has of the file."""

    def make(**named: int) -> LockFile:
        return LockFile(path, clock, **named)

    return make


Make = Callable[..., LockFile]


def _ended(number: int, *, until: int = NOW + 3600) -> EndedSession:
    return EndedSession("s", f"sub-{number}", NOW, until)


def _start(path: Path, name: str, count: int, room: int) -> "subprocess.Popen[str]":
    arguments = [sys.executable, str(WRITER), str(path), name, str(count), str(room)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def _made(path: Path) -> int:
    """Make the file, and return its inode, which no later file can have while it is linked."""
    LockFile(path, time.time).open()
    path.with_name("first").hardlink_to(path)
    return path.stat().st_ino


def _subs(entries: list[Entry]) -> set[str]:
    return {entry.sub for entry in entries if isinstance(entry, EndedSession)}


def test_it_is_made_for_its_owner_alone(make: Make, path: Path) -> None:
    """A missing file is made empty, with mode 0600."""
    file = make()

    assert file.open() == History([], whole=True, damaged=0)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not file.exposed
    assert file.read_new() is None


def test_what_one_process_adds_another_reads(make: Make) -> None:
    """A reader gets what was added since it looked last, once, and nothing while nothing is."""
    writer, reader = make(), make()
    assert reader.open().entries == []
    writer.append((LOCK, OTHER))
    assert reader.read_new() == History([LOCK, OTHER], whole=True, damaged=0)
    writer.append((Unlock("sub:66b", NOW),))

    assert reader.read_new() == History([Unlock("sub:66b", NOW)], whole=False, damaged=0)
    assert reader.read_new() is None
    assert make().open().entries == [LOCK, OTHER, Unlock("sub:66b", NOW)]


@pytest.mark.parametrize("cut", range(len(to_line(OTHER))))
def test_a_writer_that_dies_at_any_byte_costs_its_own_line(
    make: Make, path: Path, cut: int
) -> None:
    """A line cut anywhere is not read, swallows no other, and the next one is.

    One that lacks its end alone is whole, and is read once the next writer has closed it.
    """
    torn, closed = 0 < cut < len(to_line(OTHER)) - 1, cut == len(to_line(OTHER)) - 1
    expected = [OTHER] if closed else []
    reader = make()
    reader.open()
    make().append((LOCK,))
    with path.open("ab") as file:
        file.write(to_line(OTHER)[:cut])
    assert reader.read_new() is not None
    third = Lock("sub:66c", NOW)
    make().append((third,))

    found = reader.read_new()

    assert found is not None
    assert found.damaged == torn
    assert found.entries[-1] == third
    assert make().open() == History([LOCK, *expected, third], whole=True, damaged=int(torn))


@settings(max_examples=60)
@given(st.data())
def test_a_reader_never_sees_half_of_anything(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """However the bytes of lines reach the disk, a reader has each entry once, and in order."""
    path = tmp_path_factory.mktemp("cuts") / "locks"
    entries = [_ended(number) for number in range(4)]
    written = b"".join(map(to_line, entries))
    reader = LockFile(path, Clock())
    found = list(reader.open().entries)
    start = 0
    while start < len(written):
        end = data.draw(st.integers(start + 1, len(written)))
        with path.open("ab") as file:
            file.write(written[start:end])
        start = end
        news = reader.read_new()
        assert news is not None
        assert news.damaged == 0
        found += news.entries

    assert found == entries


def test_a_killed_writer_leaves_a_good_file(path: Path) -> None:
    """Writers killed while they write and shorten lose nothing that they had said was written."""
    said: set[str] = set()
    for name in "abcd":
        with _start(path, name, 10_000, 4096) as process:
            assert process.stdout is not None
            for _ in range(40):
                said.add(f"{name}-{int(process.stdout.readline())}")
            process.kill()
            said |= {f"{name}-{int(line)}" for line in process.stdout if line.endswith("\n")}
    file = LockFile(path, time.time)
    file.append((LOCK,))

    found = file.open()

    assert said <= _subs(found.entries)
    assert LOCK in found.entries


def test_writers_at_once_lose_nothing(path: Path) -> None:
    """Four processes that write and shorten the same file at once leave all their entries."""
    inode = _made(path)
    names, count = "abcd", 50
    writers = [_start(path, name, count, 2048) for name in names]
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0

    found = LockFile(path, time.time).open()

    assert found.damaged == 0
    assert _subs(found.entries) - {"over"} == {
        f"{name}-{n}" for name in names for n in range(count)
    }
    assert path.stat().st_ino != inode


def test_a_long_file_is_made_shorter(make: Make, path: Path, clock: Clock) -> None:
    """What ended a day ago goes when the file has grown; owner and mode stay, and no rest."""
    file, reader = make(), make()
    reader.open()
    file.open()
    path.chmod(0o640)
    file.append(_ended(number, until=NOW + 60) for number in range(20))
    file.append((LOCK,))
    inode = path.stat().st_ino
    clock.now += 60 + KEPT_AFTER
    make(room=1000).append((OTHER,))

    assert path.stat().st_ino != inode
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert path.read_bytes() == to_line(LOCK) + to_line(OTHER)
    assert reader.read_new() == History([LOCK, OTHER], whole=True, damaged=0)
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_cannot_be_shorter_stays(make: Make, path: Path) -> None:
    """What is all in force is not rewritten again and again, however much it is."""
    file = make(room=1000)
    inodes = set()
    for number in range(100):
        file.append((_ended(number),))
        inodes.add(path.stat().st_ino)

    assert len(inodes) == 1
    assert len(make().open().entries) == 100


def test_a_rest_of_a_crash_is_in_nobodys_way(make: Make, path: Path, clock: Clock) -> None:
    """A half-written replacement is thrown away, whatever it is."""
    beside = path.with_name("locks.new")
    beside.symlink_to(path.with_name("elsewhere"))
    make().append(_ended(number, until=NOW + 60) for number in range(20))
    clock.now += 60 + KEPT_AFTER
    make(room=500).append((LOCK,))

    assert path.read_bytes() == to_line(LOCK)
    assert list(path.parent.iterdir()) == [path]


def test_no_room_for_a_shorter_file_is_no_fault(
    make: Make, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the directory takes no second file the entry is in the long one, and nothing fails."""

    def full(_file: LockFile, _descriptor: int, shorter: bytes) -> None:
        tried.append(shorter)
        raise OSError(28, "No space left on device")

    tried: list[bytes] = []
    make().append(_ended(number, until=NOW + 60) for number in range(20))
    clock.now += 60 + KEPT_AFTER
    monkeypatch.setattr(LockFile, "_replace", full)
    make(room=500).append((LOCK,))

    assert tried == [to_line(LOCK)]
    assert make().open().entries[-1] == LOCK


def test_a_full_disk_leaves_no_half_line(
    make: Make, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that stops in the middle is taken back, and said."""
    file = make()
    file.append((LOCK,))
    before = path.read_bytes()

    def fail(descriptor: int, data: memoryview) -> int:
        written = os.pwrite(descriptor, data[:7], len(before))
        assert written == 7
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tailchat_gate.identity.lock_file.os.write", fail)
    with pytest.raises(OSError, match="No space left"):
        file.append((OTHER,))
    monkeypatch.undo()

    assert path.read_bytes() == before
    file.append((OTHER,))
    assert make().open() == History([LOCK, OTHER], whole=True, damaged=0)


def test_lines_that_were_taken_back_confuse_no_reader(make: Make, path: Path) -> None:
    """A reader that saw a line which was then taken back finds what came in its place."""
    reader = make()
    reader.open()
    make().append((LOCK,))
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(to_line(OTHER) + b"half of a li")
    assert reader.read_new() is not None
    os.truncate(path, size)
    later = [Lock(f"sub:later-{number}", NOW) for number in range(3)]
    make().append(later)

    found = reader.read_new()

    assert found == History([LOCK, *later], whole=True, damaged=0)


@pytest.mark.parametrize("change", ["emptied", "altered", "replaced"])
def test_a_file_that_was_changed_by_hand_is_read_anew(make: Make, path: Path, change: str) -> None:
    """Shortened, altered in its place or replaced, the file is read from its beginning."""
    reader = make()
    make().append((LOCK, OTHER))
    reader.open()
    if change == "emptied":
        os.truncate(path, 0)
        expected: list[Entry] = []
    elif change == "altered":
        path.write_bytes(to_line(OTHER) + to_line(LOCK))
        expected = [OTHER, LOCK]
    else:
        beside = path.with_name("new")
        beside.write_bytes(to_line(LOCK) + to_line(OTHER) + to_line(Unlock("sub:66b", NOW)))
        beside.rename(path)
        expected = [LOCK, OTHER, Unlock("sub:66b", NOW)]

    assert reader.read_new() == History(expected, whole=True, damaged=0)


def test_a_lost_file_is_made_with_what_was_known(make: Make, path: Path) -> None:
    """A writer that knows what the lost file said says it again, before its own entry."""
    file = make()
    file.open()
    path.unlink()
    file.append((OTHER,), anew=(LOCK,))
    file.append((_ended(1),), anew=(LOCK,))

    assert make().open().entries == [LOCK, OTHER, _ended(1)]


def test_a_damaged_line_between_good_ones_is_counted(make: Make, path: Path) -> None:
    """One bad line costs itself alone."""
    path.write_bytes(to_line(LOCK) + b"deadbeef nonsense\n\n\xff\xfe\n" + to_line(OTHER))

    assert make().open() == History([LOCK, OTHER], whole=True, damaged=2)


def test_a_directory_that_is_missing_is_said(tmp_path: Path, clock: Clock) -> None:
    """The text names the file and the reason."""
    file = LockFile(tmp_path / "none" / "locks", clock)

    with pytest.raises(LockFileError, match=r"none/locks: No such file or directory"):
        file.open()


@pytest.mark.parametrize("what", ["file", "directory"])
def test_a_file_that_everybody_can_write_is_refused(make: Make, path: Path, what: str) -> None:
    """Who can write to the file or to its directory could lift a lock."""
    make().append((LOCK,))
    (path if what == "file" else path.parent).chmod(0o707)

    with pytest.raises(LockFileError, match="every user of this machine can write"):
        make().open()


def test_a_file_that_everybody_can_read_is_noticed(make: Make, path: Path) -> None:
    """It works, and is known, so that the admin can be told."""
    make().append((LOCK,))
    path.chmod(0o644)
    file = make()

    assert file.open().entries == [LOCK]
    assert file.exposed


def test_a_directory_in_its_place_is_refused(make: Make, path: Path) -> None:
    """What is no file is said to be none."""
    path.mkdir()

    with pytest.raises(LockFileError, match="Is a directory"):
        make().open()


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_in_its_place_leads_nowhere(make: Make, path: Path, *, exists: bool) -> None:
    """What a link leads to is neither written, nor made, nor read: root may run the commands."""
    reader = make()
    reader.open()
    path.unlink()
    elsewhere = path.with_name("elsewhere")
    if exists:
        elsewhere.write_bytes(to_line(LOCK))
    path.symlink_to(elsewhere)

    with pytest.raises(LockFileError, match="symbolic link"):
        make().open()
    with pytest.raises(OSError, match="symbolic link"):
        reader.append((OTHER,))
    assert elsewhere.exists() is exists
    if exists:
        assert elsewhere.read_bytes() == to_line(LOCK)
        with pytest.raises(OSError, match="symbolic link"):
            reader.read_new()


def test_a_pipe_in_its_place_is_not_waited_for(make: Make, path: Path) -> None:
    """A pipe that nobody writes to, which would hold the reader for ever, is said to be no file."""
    os.mkfifo(path)

    with pytest.raises(LockFileError, match="not a file"):
        make().open()
    with pytest.raises(LockFileError, match="not a file"):
        make().read()


def test_a_file_without_bound_is_refused(
    make: Make, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file far longer than any gate makes is not read into memory."""
    monkeypatch.setattr(lock_file, "MAX_BYTES", 1 << 20)
    path.write_bytes(b"x" * (1 << 20))
    assert make().open().entries == []
    path.write_bytes(b"x" * (3 << 20))

    with pytest.raises(LockFileError, match="more than"):
        make().open()


def test_a_writer_that_hangs_is_not_waited_for_without_end(
    make: Make, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who keeps the file locked makes a write fail, and not for ever."""
    monkeypatch.setattr(lock_file, "PATIENCE", 0.05)
    file = make()
    with make()._locked(), pytest.raises(TimeoutError, match="kept it locked"):
        file.append((LOCK,))
    file.append((LOCK,))

    assert make().open().entries == [LOCK]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_that_root_makes_is_the_directorys_owners(make: Make, path: Path) -> None:
    """An admin who locks somebody before the first start does not shut the gate out."""
    os.chown(path.parent, 12345, 23456)
    file = make(room=500)
    file.append((LOCK,))
    first = path.stat()
    file.append(_ended(number, until=NOW - KEPT_AFTER) for number in range(20))
    second = path.stat()

    assert second.st_ino != first.st_ino
    for found in (first, second):
        assert (found.st_uid, found.st_gid) == (12345, 23456)
