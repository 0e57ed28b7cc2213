"""The directory where the gate stores its state, if the configuration names none."""

import os
import shlex
import stat
from collections.abc import Mapping
from pathlib import Path

#: The directory of a service, of the image and of deploy/systemd.
SYSTEM = Path("/var/lib/tailchat-gate")
_NAME = "tailchat-gate"


def state_directory(environ: Mapping[str, str]) -> Path:
    """Return the directory for state, which may not exist yet.

    It is systemd's $STATE_DIRECTORY (systemd.exec(5), the first of several); else
    /var/lib/tailchat-gate if it exists and is writable; else the user's own, in $XDG_STATE_HOME
    or ~/.local/state (XDG Base Directory Specification). Without any of these it is
    /var/lib/tailchat-gate, so that the message of a failed start names that path.
    """
    given = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if given.startswith("/"):
        return Path(given)
    if os.access(SYSTEM, os.W_OK | os.X_OK) and SYSTEM.is_dir():
        return SYSTEM
    return _of_user(environ) or SYSTEM


def body_directory(state_path: str, environ: Mapping[str, str]) -> Path:
    """Return the directory for request bodies that are buffered in files. Raises OSError.

    It is $TMPDIR if that is set, else `state_path`; if that is "", the one that `state_directory`
    returns, which is created if it is the user's own. Never /tmp, which is in memory on many
    systems.
    """
    given = environ.get("TMPDIR", "")
    if given.startswith("/"):
        return Path(given)
    folder = state_path or str(state_directory(environ))
    make_for(folder, environ)
    return Path(folder)


def make_for(path: str, environ: Mapping[str, str]) -> None:
    """Create the directory `path` if it is the user's own for state. Raises OSError.

    Any other directory is left to the admin: the gate would create one for a misspelt path too.
    """
    folder = _of_user(environ)
    if folder is not None and path and Path(path) == folder:
        for missing in reversed((folder, *folder.parents)):
            missing.mkdir(mode=0o700, exist_ok=True)


def is_made(path: str, environ: Mapping[str, str]) -> bool:
    """Whether a directory is one that the gate creates for itself."""
    return Path(path) == _of_user(environ)


def writable_by_all(path: Path, mode: int) -> str:
    """Return a warning about a file or directory that every user can write to, else "".

    Any of these users could lift a lock there.
    """
    if not mode & stat.S_IWOTH:
        return ""
    name = shlex.quote(str(path))
    # Changing the mode of a directory such as /tmp would break other programs.
    mended = (
        "choose a directory that is the gate's alone"
        if mode & stat.S_ISVTX
        else f"run `chmod o-w {name}`"
    )
    return f"every user of this machine can write to {path}; {mended}"


def in_foreign_home(path: str, environ: Mapping[str, str]) -> str:
    """Return a warning about a path in another user's home (sudo may keep HOME), else ""."""
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
        "names it; run with `sudo -H`, or set state.path"
    )


def _of_user(environ: Mapping[str, str]) -> Path | None:
    base = environ.get("XDG_STATE_HOME", "")
    if base.startswith("/"):  # the specification says to ignore relative paths
        return Path(base) / _NAME
    home = environ.get("HOME", "")
    return Path(home) / ".local" / "state" / _NAME if home.startswith("/") else None
