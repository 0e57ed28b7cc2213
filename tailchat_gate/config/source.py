"""The configuration file: read, watched for changes, or searched for a single key.

A command looks for one key in a file that may be invalid elsewhere.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from pydantic import ValidationError

from tailchat_gate.config.document import parse
from tailchat_gate.config.keys import env_name
from tailchat_gate.config.load import ConfigError, Loaded, load, named
from tailchat_gate.config.model import Server, State
from tailchat_gate.config.problems import Problem
from tailchat_gate.config.state_directory import state_directory
from tailchat_gate.config.values.address import TcpAddress, UnixAddress, listen_address

_ADMIN_KEY = ("server", "admin_listen")

_SECTION = "state"
_LOCKS_KEY = "path"


class FileState(NamedTuple):
    """The state of a file: differs after a write, a rename over it, or a change of mode.

    Times are in nanoseconds, because a file may be written twice a second.
    """

    device: int
    inode: int
    size: int
    modified: int
    changed: int


FileStates = Mapping[Path, FileState | None]


def file_states(paths: Iterable[Path]) -> FileStates:
    """Return the state of each file, with links followed; None for one that cannot be read.

    Links are followed to their end, because Kubernetes updates a mounted ConfigMap by replacing
    a directory that all of its links pass through.
    """
    return {path: _state_of(path) for path in paths}


def _state_of(path: Path) -> FileState | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return FileState(
        found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
    )


def admin_address(path: Path, environ: Mapping[str, str]) -> TcpAddress | UnixAddress | None:
    """Return the admin address of a gate that was started with this file, None if it is off.

    Nothing else in the file has to be valid, because commands ask the gate what is wrong with it.
    If the file cannot be read, this is the default. Raises ValueError for an invalid address.
    """
    text = environ.get(env_name(_ADMIN_KEY), _written(path))
    return listen_address(text) if text else None


def _written(path: Path) -> str:
    default = str(Server.model_fields[_ADMIN_KEY[1]].default)
    try:
        server = parse(path.read_bytes()).get(_ADMIN_KEY[0])
    except (OSError, ValueError):
        return default
    written = server.get(_ADMIN_KEY[1], default) if isinstance(server, dict) else default
    return written if isinstance(written, str) else default


def state_path(path: Path, environ: Mapping[str, str]) -> str | None:
    """Return state.path of a configuration; None if the file does not set it.

    Unlike the admin address it is never guessed: a lock in a store that no gate reads has no
    effect, and you would believe that it has.
    """
    try:
        document = parse(path.read_bytes())
        written = document.get(_SECTION, {})
        if not isinstance(written, dict):
            return None
        state = {_LOCKS_KEY: str(state_directory(environ)), **written}
        if (set_there := environ.get(env_name((_SECTION, _LOCKS_KEY)))) is not None:
            state = {_LOCKS_KEY: set_there}
        return State.model_validate(state).path
    except (OSError, ValueError, TypeError, ValidationError):
        return None


class Source:
    """A configuration file, and the environment as it was at the start, which overrides it.

    `name` is the absolute path of the file, or "environment" if no file is used. `states` are the
    states of the file, and of those it names, before the last read. So a write during the read
    shows as a change.
    """

    def __init__(self, path: Path, environ: Mapping[str, str]) -> None:
        self.path: Final = path
        self._environ = dict(environ)
        self.states: FileStates = {path: None}
        self.name = str(path.absolute())

    def heading(self) -> str:
        """Return the heading of a list of problems: `name`, with the path as given. Blocks."""
        return named(self.path, self._environ)

    def __repr__(self) -> str:
        """Only the path: the environment may hold secrets."""
        return f"<Source {self.path}>"

    def read(self) -> Loaded:
        """Read and check everything, as `load` does; raises ConfigError. Blocks."""
        self.name = named(self.path.absolute(), self._environ)
        while True:
            self.states = file_states(self.states)
            loaded, problems, files = self._load()
            if self.states.keys() >= set(files):
                break
            # A newly named file was read before its state was recorded.
            self.states = dict.fromkeys((*self.states, *files))
        self.states = {path: self.states[path] for path in files}
        if loaded is None:
            raise ConfigError(problems, files)
        return loaded

    def _load(self) -> tuple[Loaded | None, tuple[Problem, ...], tuple[Path, ...]]:
        try:
            loaded = load(self.path, self._environ)
        except ConfigError as refused:
            return None, refused.problems, refused.files
        return loaded, (), loaded.files
