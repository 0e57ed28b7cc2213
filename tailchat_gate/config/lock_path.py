"""Where locks are kept, as far as a file tells that may be wrong elsewhere."""

import tomllib
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from tailchat_gate.config.keys import env_name
from tailchat_gate.config.model import Locks
from tailchat_gate.config.state_directory import lock_file

_KEY = ("locks", "file")


def lock_path(path: Path, environ: Mapping[str, str]) -> str | None:
    """Return locks.file of a configuration; None where the file does not tell.

    Unlike the address of a listener it is never guessed: who locks somebody out in a file that no
    gate reads would believe them to be out.
    """
    try:
        document = tomllib.loads(path.read_text("utf-8-sig"))
        locks = {_KEY[1]: lock_file(environ), **document.get(_KEY[0], {})}
        if (set_there := environ.get(env_name(_KEY))) is not None:
            locks = {_KEY[1]: set_there}
        return Locks.model_validate(locks).file
    except (OSError, ValueError, TypeError, RecursionError, ValidationError):
        return None
