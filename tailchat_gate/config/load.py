"""Reads the configuration and the states of its files; reads single keys of an invalid file."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, NamedTuple

from pydantic import ValidationError

from tailchat_gate.config.document import Document, DocumentError, decoded, parse
from tailchat_gate.config.excerpts import Excerpts
from tailchat_gate.config.files import readable_by_all
from tailchat_gate.config.keys import SECRET_FORMS, env_name
from tailchat_gate.config.lint.settings import lint
from tailchat_gate.config.model import Server, Settings, State
from tailchat_gate.config.overlay import DEFAULT_CONFIG, assigned, overlay, settle_secret
from tailchat_gate.config.problems import ConfigError, Draft, Location, Problem, key_path
from tailchat_gate.config.report import hint_for
from tailchat_gate.config.state_directory import state_directory
from tailchat_gate.config.validation import validated
from tailchat_gate.config.values.address import TcpAddress, UnixAddress, listen_address

__all__ = ["ConfigError", "Loaded", "Problem", "load"]

#: For values that are not from the file: their place in it, and where they are from.
Sources = Mapping[Location, str]
#: The source of a default value.
BY_DEFAULT: Final = "default"

_ADMIN_KEY: Final = ("server", "admin_listen")
_STATE: Final = "state"


@dataclass(frozen=True, slots=True)
class Loaded:
    """Valid settings, and warnings about probable mistakes in them.

    `files` are the files that the settings were read from or name: a change of one of them may
    change the settings. `exposed` are the warnings about secrets that others can read. `sources`
    has the variable or secret file that a value is from, BY_DEFAULT for a state.path that is not
    set. `located` are the warnings with their places.
    """

    settings: Settings
    warnings: tuple[str, ...]
    files: tuple[Path, ...]
    exposed: tuple[str, ...] = ()
    sources: Sources = field(default_factory=dict)
    located: tuple[Problem, ...] = ()


def load(path: Path, environ: Mapping[str, str]) -> Loaded:
    """Read and check the whole configuration: the file, and TAILCHAT_GATE_* of `environ`.

    Raises ConfigError with every problem. It is raised outside the functions that hold the
    content of files, so that neither the error nor its traceback refers to a secret.
    """
    loaded = _read(path, environ)
    if isinstance(loaded, Loaded):
        return loaded
    raise ConfigError(*loaded)


def named(path: Path, environ: Mapping[str, str]) -> str:
    """Return the source of the settings: the file, or "environment" if no file is used."""
    try:
        path.stat()
    except FileNotFoundError:
        if path == DEFAULT_CONFIG and assigned(environ).names:
            return "environment"
    except (OSError, ValueError):
        pass
    return str(path)


def _read(
    path: Path, environ: Mapping[str, str]
) -> Loaded | tuple[tuple[Problem, ...], tuple[Path, ...]]:
    """Read everything; return the problems and the files if there are problems."""
    set_there = assigned(environ)
    text, document = _parsed(path, by_environ=bool(set_there.names))
    if isinstance(document, Problem):
        return (document, *set_there.problems), (path,)
    draft = Draft(document, problems=set_there.problems, files=[path])
    _note_exposed(path, draft)
    overlay(set_there, draft)
    for owner in SECRET_FORMS:
        settle_secret(owner, set_there, path.parent, draft)
    is_default = _settle_state(environ, draft)
    by_default: Sources = {(_STATE, "path"): BY_DEFAULT} if is_default else {}
    settings = validated(draft)
    excerpts = Excerpts(path, text, draft.document, draft.sources)
    files = tuple(dict.fromkeys(draft.files))
    if settings is None:
        return excerpts.all_of(draft.problems, draft.at_keys), files
    draft.warnings.extend(lint(settings))
    return Loaded(
        settings,
        tuple(draft.warnings),
        files,
        tuple(draft.exposed),
        {**draft.sources, **by_default},
        tuple(map(excerpts.warning, draft.warnings)),
    )


def locate(path: Path, loaded: Loaded, warnings: Iterable[str]) -> tuple[Problem, ...]:
    """Return further warnings about loaded settings with their places in the file. Blocks."""
    return tuple(map(excerpts_of(path, loaded).warning, warnings))


def excerpts_of(path: Path, loaded: Loaded) -> Excerpts:
    """Read the file again to find places of loaded settings; the result holds secrets. Blocks."""
    try:
        text = decoded(path.read_bytes())
    except (OSError, ValueError):
        text = ""
    document = {
        "route": [
            {"name": route.name, "host": route.host, "path": route.path}
            for route in loaded.settings.route
        ],
        "token": [{"name": token.name} for token in loaded.settings.token],
    }
    return Excerpts(path, text, document, loaded.sources)


def _parsed(path: Path, *, by_environ: bool) -> tuple[str, Document | Problem]:
    """Return the text of the file and its TOML, or the problem with it.

    The default file may be missing if `by_environ`: all settings then come from the environment.
    """
    try:
        content = path.read_bytes()
    except OSError as refused:
        if by_environ and path == DEFAULT_CONFIG and isinstance(refused, FileNotFoundError):
            return "", {}
        reason = refused.strerror or "unreadable"
        unread = Problem(str(path), reason, "a configuration file that can be read")
        return "", replace(unread, hint=hint_for(unread))
    text = ""
    try:
        document = parse(content)
        return decoded(content), document
    except DocumentError as wrong:
        with suppress(UnicodeDecodeError):
            text = decoded(content)
        excerpt = Excerpts(path, text, {}, {}).of_mistake(wrong)
        return text, Problem(str(path), wrong.plain, wrong.expected, excerpt)


def _note_exposed(path: Path, draft: Draft) -> None:
    """Warn of a file with a secret that every user of the machine can read."""
    inside = [
        key_path((section, form))
        for (section, _), forms in SECRET_FORMS.items()
        for form in forms
        if form in _table_of(draft.document, section) and not form.endswith("_file")
    ]
    if inside and readable_by_all(path):
        draft.note_exposed(
            f"{' and '.join(inside)}: every user of this machine can read {path}; set its mode to "
            "0600 or 0640, or write the secret into a file of its own"
        )


def _table_of(document: Document, section: str) -> Document:
    table = document.get(section)
    return table if isinstance(table, dict) else {}


def _settle_state(environ: Mapping[str, str], draft: Draft) -> bool:
    """Set state.path to this user's default directory; return False if it is configured."""
    table = draft.document.setdefault("state", {})
    if not isinstance(table, dict) or "path" in table:
        return False
    table["path"] = str(state_directory(environ))
    return True


class FileState(NamedTuple):
    """What os.stat says of a file: it differs after a write, a replacement or a change of mode.

    Times are in nanoseconds, because a file may be written twice within a second.
    """

    device: int
    inode: int
    size: int
    modified: int
    changed: int


FileStates = Mapping[Path, FileState | None]


def file_states(paths: Iterable[Path]) -> FileStates:
    """Return the state of each file, None for one that cannot be read.

    Links are followed to their end, because Kubernetes updates a mounted ConfigMap by replacing
    a link in the middle of the chain.
    """
    return {path: _state_of(path) for path in paths}


def _state_of(path: Path) -> FileState | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return FileState(
        status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    )


def admin_address(path: Path, environ: Mapping[str, str]) -> TcpAddress | UnixAddress | None:
    """Return the admin address of a gate that was started with this file, None if it is off.

    Nothing else in the file has to be valid, since commands use the address to ask the gate what
    is wrong. An unreadable file gives the default. Raises ValueError for an invalid address.
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
    """Return the state.path that a gate with this file uses; None if that cannot be read.

    Unlike the admin address it is never guessed: a lock in a store that no gate reads would have
    no effect, and you would not notice. Nothing outside [state] has to be valid.
    """
    try:
        document = parse(path.read_bytes())
        written = document.get(_STATE, {})
        if not isinstance(written, dict):
            return None
        state = {"path": str(state_directory(environ)), **written}
        if (set_there := environ.get(env_name((_STATE, "path")))) is not None:
            state = {"path": set_there}
        return State.model_validate(state).path
    except (OSError, ValueError, TypeError, ValidationError):
        return None


def state_section(path: Path, environ: Mapping[str, str]) -> State | None:
    """Return the table [state] of a configuration, None if it cannot be read or has problems.

    Nothing else in the file has to be valid.
    """
    _, document = _parsed(path, by_environ=True)
    if isinstance(document, Problem):
        return None
    draft = Draft(document)
    set_there = assigned(environ)
    overlay(set_there, draft)
    settle_secret((_STATE, "password"), set_there, path.parent, draft)
    _settle_state(environ, draft)
    try:
        return None if draft.problems else State.model_validate(draft.document[_STATE])
    except ValidationError:
        return None


def names_server(path: Path, environ: Mapping[str, str]) -> bool:
    """Whether a configuration, which may have problems, stores state on a Redis server."""
    if environ.get(env_name((_STATE, "url"))):
        return True
    try:
        written = parse(path.read_bytes()).get(_STATE, {})
    except (OSError, ValueError):
        return False
    return isinstance(written, dict) and "url" in written


class Source:
    """A configuration file, and the environment as it was at the start, which overrides it.

    `name` is the absolute path of the file, or "environment" if no file is used. `states` has the
    state of the file and of each file it names, taken before the last read, so that a write during
    the read is seen as a change.
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
            # A newly named file was read before its state was recorded: read all again.
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
