"""Where the gate keeps what outlives it, where the configuration does not say."""

import os
import shlex
import stat
from collections.abc import Mapping
from pathlib import Path

#: The directory of a service, of the image and of deploy/systemd.
SYSTEM = Path("/var/lib/tailchat-gate")
_NAME = "tailchat-gate"


def state_directory(environ: Mapping[str, str]) -> Path:
    """Return the directory for state, made or not.

    It is systemd's $STATE_DIRECTORY (systemd.exec(5), the first of several); else
    /var/lib/tailchat-gate where it is there and writable; else the user's own, in $XDG_STATE_HOME
    or ~/.local/state (XDG Base Directory Specification). Without any of these it is
    /var/lib/tailchat-gate, so that the message of a failed start names that.
    """
    given = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if given.startswith("/"):
        return Path(given)
    if os.access(SYSTEM, os.W_OK | os.X_OK) and SYSTEM.is_dir():
        return SYSTEM
    return _of_user(environ) or SYSTEM


def body_directory(state_path: str, environ: Mapping[str, str]) -> Path:
    """Return the directory for the bodies of requests that are kept in files. Raises OSError.

    It is $TMPDIR where that is set, else `state_path`; where that is "" it is the one that
    `state_directory` tells, which is made where it is the user's own. Not /tmp, which is memory
    on many systems.
    """
    given = environ.get("TMPDIR", "")
    if given.startswith("/"):
        return Path(given)
    folder = state_path or str(state_directory(environ))
    make_for(folder, environ)
    return Path(folder)


def make_for(path: str, environ: Mapping[str, str]) -> None:
    """Make the directory `path` where it is the user's own for state. Raises OSError.

    Any other directory is the admin's to make: a path that is misspelt must not become one.
    """
    folder = _of_user(environ)
    if folder is not None and path and Path(path) == folder:
        for missing in reversed((folder, *folder.parents)):
            missing.mkdir(mode=0o700, exist_ok=True)


def is_made(path: str, environ: Mapping[str, str]) -> bool:
    """Tell whether a directory is one that the gate makes for itself."""
    return Path(path) == _of_user(environ)


def writable_by_all(path: Path, mode: int) -> str:
    """Return what to say of a file or directory that every user can write to, "" of any other.

    Any of them could lift a lock there.
    """
    if not mode & stat.S_IWOTH:
        return ""
    name = shlex.quote(str(path))
    # To close a directory such as /tmp would break what others do there.
    mended = (
        "choose a directory that is the gate's alone"
        if mode & stat.S_ISVTX
        else f"`chmod o-w {name}` mends that"
    )
    return f"every user of this machine can write to {path}; {mended}"


def in_foreign_home(path: str, environ: Mapping[str, str]) -> str:
    """Return what to say of a path in the home of another user, as sudo may keep HOME, or ""."""
    if not is_made(path, environ):
        return ""
    home = Path(environ.get("HOME", "") or "/")
    try:
        foreign = home.stat().st_uid != os.geteuid()
    except OSError:
        return ""
    if not foreign or not Path(path).is_relative_to(home):
        return ""
    return (
        f"{path} is in {home}, the home of another user than the one who runs this, because HOME "
        "is theirs; `sudo -H` sets it, or the key names a place"
    )


def _of_user(environ: Mapping[str, str]) -> Path | None:
    base = environ.get("XDG_STATE_HOME", "")
    if base.startswith("/"):  # the specification has relative paths ignored
        return Path(base) / _NAME
    home = environ.get("HOME", "")
    return Path(home) / ".local" / "state" / _NAME if home.startswith("/") else None
