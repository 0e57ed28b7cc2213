"""The files of the database: their names, their owner, and whether they were replaced."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from tailchat_gate.config.state_directory import writable_by_all
from tailchat_gate.state.store import StoreError

#: The database, in the directory of the store.
NAME: Final = "state.sqlite"
_PRIVATE: Final = 0o600
#: Errors after which state is held in memory until there is room on the disk.
_NO_ROOM: Final = frozenset((errno.ENOSPC, errno.EDQUOT))


class FileIdentity(NamedTuple):
    """Which files are open: device and inode of the database and of its write-ahead log."""

    database: tuple[int, int] | None
    log: tuple[int, int] | None


class Files:
    """The paths of one database, in a directory.

    This class never opens a file that SQLite may have open: closing it would drop SQLite's locks
    in the whole process (fcntl(2), "Advisory record locking").
    """

    def __init__(self, directory: Path) -> None:
        self.directory: Final = directory
        self.database: Final = directory / NAME
        self.log: Final = directory / f"{NAME}-wal"
        self.index: Final = directory / f"{NAME}-shm"
        #: The last copy that was found intact.
        self.copy: Final = directory / f"{NAME}.copy"
        #: A damaged database, kept for inspection.
        self.damaged: Final = directory / f"{NAME}.damaged"
        #: A new file until it is complete and renamed.
        self.new: Final = directory / f"{NAME}.new"

    def identity(self) -> FileIdentity:
        """Return device and inode of the files that exist."""
        return FileIdentity(_inode(self.database), _inode(self.log, or_empty=True))

    def exists(self) -> bool:
        """Whether there is a database that is not empty."""
        return _inode(self.database) is not None

    def prepare(self) -> str:
        """Create the database if it is missing; return why that must wait, "" if it exists now.

        Raises StoreError for an unusable place: a missing directory, a link, or a file that any
        user of the machine could change.
        """
        self.check()
        try:
            if _inode(self.database, or_empty=True) is None:
                self.create(self.database)
        except FileExistsError:
            # Another gate that starts created it after the look, or somebody put a link there.
            self.check()
        except OSError as error:
            if error.errno in _NO_ROOM:
                return str(error.strerror)
            name = error.filename or self.database
            raise StoreError(f"{name}: {error.strerror or error}") from None
        return ""

    def check(self) -> None:
        """Check the place as `prepare` does, but create nothing. Raises StoreError."""
        try:
            self._check()
        except OSError as error:
            name = error.filename or self.database
            raise StoreError(f"{name}: {error.strerror or error}") from None

    def create(self, path: Path) -> None:
        """Create an empty file that only the directory's owner can use. Raises OSError."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE)
        try:
            self.give(descriptor)
        finally:
            os.close(descriptor)

    def give(self, descriptor: int) -> None:
        """Give a new file to the owner of the directory, if root created it."""
        if os.geteuid() == 0:
            like = self.directory.stat()
            os.fchown(descriptor, like.st_uid, like.st_gid)

    def sync(self) -> None:
        """Make renames in the directory durable. Raises OSError."""
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def exposed(self) -> bool:
        """Whether every user of the machine can read the database."""
        try:
            return bool(self.database.stat().st_mode & stat.S_IROTH) and bool(
                self.directory.stat().st_mode & stat.S_IXOTH
            )
        except OSError:
            return False

    def _check(self) -> None:
        """Raise OSError if another user of this machine could lift a lock."""
        folder = self.directory.stat()
        if not stat.S_ISDIR(folder.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(self.directory))
        for path in (self.directory, self.database, self.log, self.index, self.copy, self.new):
            try:
                status = path.lstat() if path != self.directory else folder
            except FileNotFoundError:
                continue
            is_link = stat.S_ISLNK(status.st_mode)
            if not is_link and (warning := writable_by_all(path, status.st_mode)):
                raise StoreError(warning, says_remedy=True)
            if path == self.directory:
                continue
            if is_link:
                raise OSError(errno.ELOOP, "a symbolic link, which may lead anywhere", str(path))
            if stat.S_ISDIR(status.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "not a file", str(path))


@contextmanager
def as_owner(directory: Path) -> Iterator[None]:
    """Work as the owner of a directory, if this process runs as root.

    The gate must be able to write the files afterwards; and the directory's owner could plant links
    in it, through which root would write to any file. It changes the user of the whole process, so
    no other thread may run.
    """
    try:
        owner = directory.stat()
    except OSError:
        yield
        return
    if os.geteuid() != 0 or owner.st_uid == 0:
        yield
        return
    group, groups = os.getegid(), os.getgroups()
    os.setgroups([owner.st_gid])
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        if not os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
            # Only root can write there, so nobody else can plant a link.
            os.seteuid(0)
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def _inode(path: Path, *, or_empty: bool = False) -> tuple[int, int] | None:
    """Return device and inode of a file, None if it is missing or, unless `or_empty`, empty."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if status.st_size or or_empty else None
