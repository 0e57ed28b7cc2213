"""Where the gate keeps what outlives it, where the configuration does not say."""

import os
from collections.abc import Mapping
from pathlib import Path

#: The directory of a service, of the image and of deploy/systemd.
SYSTEM = Path("/var/lib/tailchat-gate")
_NAME = "tailchat-gate"
_LOCKS = "locks"


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


def lock_file(environ: Mapping[str, str]) -> str:
    """Return the path of locks.file where the configuration leaves it out."""
    return str(state_directory(environ) / _LOCKS)


def make_for(file: str, environ: Mapping[str, str]) -> None:
    """Make the user's own directory for state where `file` lies in it. Raises OSError.

    Any other directory is the admin's to make: a path that is misspelt must not become one.
    """
    folder = _of_user(environ)
    if folder is not None and file and Path(file).parent == folder:
        for missing in reversed((folder, *folder.parents)):
            missing.mkdir(mode=0o700, exist_ok=True)


def is_made(file: str, environ: Mapping[str, str]) -> bool:
    """Tell whether the directory of `file` is one that the gate makes for itself."""
    return Path(file).parent == _of_user(environ)


def _of_user(environ: Mapping[str, str]) -> Path | None:
    base = environ.get("XDG_STATE_HOME", "")
    if base.startswith("/"):  # the specification has relative paths ignored
        return Path(base) / _NAME
    home = environ.get("HOME", "")
    return Path(home) / ".local" / "state" / _NAME if home.startswith("/") else None
