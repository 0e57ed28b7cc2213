"""Where state is kept, as far as a file tells that may be wrong elsewhere."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from tailchat_gate.config.document import parse
from tailchat_gate.config.keys import env_name
from tailchat_gate.config.model import State
from tailchat_gate.config.state_directory import state_directory

_SECTION = "state"
_KEY = "path"


def state_path(path: Path, environ: Mapping[str, str]) -> str | None:
    """Return state.path of a configuration; None where the file does not tell.

    Unlike the address of a listener it is never guessed: an admin who locks somebody out in a
    store that no gate reads would believe them to be out.
    """
    try:
        document = parse(path.read_bytes())
        written = document.get(_SECTION, {})
        if not isinstance(written, dict):
            return None
        state = {_KEY: str(state_directory(environ)), **written}
        if (set_there := environ.get(env_name((_SECTION, _KEY)))) is not None:
            state = {_KEY: set_there}
        return State.model_validate(state).path
    except (OSError, ValueError, TypeError, ValidationError):
        return None
