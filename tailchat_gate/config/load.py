"""Reads the configuration: the file, the environment over it, and secrets from their files."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tailchat_gate.config.document import Document, DocumentError, parse
from tailchat_gate.config.environ import DEFAULT_CONFIG, assigned, overlay
from tailchat_gate.config.files import exposed
from tailchat_gate.config.keys import SECRET_FORMS
from tailchat_gate.config.lint.settings import lint
from tailchat_gate.config.model import Settings
from tailchat_gate.config.problems import ConfigError, Draft, Problem, key_path
from tailchat_gate.config.secrets import settle_secret
from tailchat_gate.config.state_directory import state_directory
from tailchat_gate.config.validation import validated

__all__ = ["ConfigError", "Loaded", "Problem", "load", "report"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """Valid settings, and warnings about probable mistakes in them.

    `files` are those that the settings were read from or name: a change of one of them may change
    the settings.
    """

    settings: Settings
    warnings: tuple[str, ...]
    files: tuple[Path, ...]


def load(path: Path, environ: Mapping[str, str]) -> Loaded:
    """Read and check the whole configuration.

    `environ` is read for names that begin with TAILCHAT_GATE_.
    Raises ConfigError with every problem; it is raised here, away from the content of files, so
    that neither the error nor its traceback refers to a secret.
    """
    settings, problems, warnings, files = _read(path, environ)
    if settings is None or problems:
        raise ConfigError(problems, files)
    return Loaded(settings, warnings, files)


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


def report(problems: Iterable[Problem]) -> str:
    """Format problems for people, one paragraph each."""
    listed = tuple(problems)
    count = "1 problem" if len(listed) == 1 else f"{len(listed)} problems"
    paragraphs = [
        f"{problem.key_path}\n  found:    {problem.found}\n  expected: {problem.expected}"
        for problem in listed
    ]
    return "\n\n".join([f"{count} in the configuration", *paragraphs])


def _read(
    path: Path, environ: Mapping[str, str]
) -> tuple[Settings | None, tuple[Problem, ...], tuple[str, ...], tuple[Path, ...]]:
    """Read everything; settings are None if they are not complete."""
    set_there = assigned(environ)
    document = _parsed(path, by_environ=bool(set_there.names))
    if isinstance(document, Problem):
        return None, (document, *set_there.problems), (), (path,)
    draft = Draft(document, problems=set_there.problems, files=[path])
    _note_exposed(path, draft)
    overlay(set_there, draft)
    for owner in SECRET_FORMS:
        settle_secret(owner, set_there, path.parent, draft)
    _settle_state(environ, draft)
    settings = validated(draft)
    if settings is not None:
        draft.warnings.extend(lint(settings))
    files = tuple(dict.fromkeys(draft.files))
    return settings, tuple(draft.problems), tuple(draft.warnings), files


def _parsed(path: Path, *, by_environ: bool) -> Document | Problem:
    """Read the file as TOML.

    If the default file is missing, all settings come from the environment, if any are set there.
    """
    try:
        content = path.read_bytes()
    except OSError as refused:
        if by_environ and path == DEFAULT_CONFIG and isinstance(refused, FileNotFoundError):
            return {}
        reason = refused.strerror or "unreadable"
        return Problem(str(path), reason, "a configuration file that can be read")
    try:
        return parse(content)
    except DocumentError as wrong:
        return Problem(str(path), wrong.found, wrong.expected)


def _note_exposed(path: Path, draft: Draft) -> None:
    """Warn of a file with a secret that every user of the machine can read."""
    inside = [
        key_path((section, form))
        for (section, _), forms in SECRET_FORMS.items()
        for form in forms
        if form in _table_of(draft.document, section) and not form.endswith("_file")
    ]
    if inside and exposed(path):
        draft.warnings.append(
            f"{' and '.join(inside)}: every user of this machine can read {path}; mode 0600 or "
            "0640 keeps it, or a file of its own for the secret"
        )


def _table_of(document: Document, section: str) -> Document:
    table = document.get(section)
    return table if isinstance(table, dict) else {}


def _settle_state(environ: Mapping[str, str], draft: Draft) -> None:
    """Set state.path to a directory this user can write to, if it is not configured."""
    table = draft.document.setdefault("state", {})
    if isinstance(table, dict):
        table.setdefault("path", str(state_directory(environ)))
