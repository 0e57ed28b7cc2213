"""Reads the configuration: the file, the environment over it, and secrets from their files."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from tailchat_gate.config.conflicts import conflicts
from tailchat_gate.config.document import Document, DocumentError, parse
from tailchat_gate.config.environ import DEFAULT_CONFIG, Assigned, assigned
from tailchat_gate.config.fields import Groups
from tailchat_gate.config.files import (
    exposed,
    exposed_key_files,
    exposed_keys,
    given,
    key_problems,
    named_files,
    unusable,
)
from tailchat_gate.config.keys import SECRET_FORMS, names_in
from tailchat_gate.config.lint import lint
from tailchat_gate.config.model import (
    Access,
    Assertion,
    Limits,
    Log,
    Pages,
    Route,
    Server,
    Session,
    Settings,
    State,
    Tailchat,
    Token,
)
from tailchat_gate.config.partial import partial, readable
from tailchat_gate.config.problems import ConfigError, Problem, did_you_mean, key_path, kind
from tailchat_gate.config.state_directory import state_directory
from tailchat_gate.config.tailchat import unusable_authorities
from tailchat_gate.config.token import token_conflicts
from tailchat_gate.config.validation_errors import Location, describe_error

__all__ = ["ConfigError", "Loaded", "Problem", "load", "report"]

_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings that can be used, and sentences on what in them may not be meant.

    `files` are those that they were read from or name: another state of one of them may make
    other settings.
    """

    settings: Settings
    warnings: tuple[str, ...]
    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class _Draft:
    """What has been read so far, and what is wrong with it.

    `sources` names the variable or secret file that a place was filled from, `lines` the line of
    that file, and `settled` holds places whose problem is already listed. `partial` has what can
    be read of tables with problems.
    """

    document: Document = field(default_factory=dict, repr=False)
    sources: dict[Location, str] = field(default_factory=dict)
    lines: dict[Location, str] = field(default_factory=dict)
    settled: set[Location] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    partial: dict[Location, BaseModel] = field(default_factory=dict, repr=False)

    def refuse(self, at: Location, found: str, expected: str) -> None:
        """List a problem under the name of the source that its place was filled from."""
        starts = [at[:size] for size in range(len(at), -1, -1)]
        if not self.settled.isdisjoint(starts):
            return
        source = next((start for start in starts if start in self.sources), ())
        path = key_path((part for part in at[len(source) :] if part != "[key]"), self.name(source))
        line = f"{self.lines[at]}: " if at in self.lines else ""
        self.problems.append(Problem(path, line + found, expected))

    def name(self, source: Location) -> str:
        """Name the source of a place, "" for the file itself."""
        return self.sources.get(source, "")


def load(path: Path, environ: Mapping[str, str]) -> Loaded:
    """Read and check the whole configuration.

    `environ` is read for names that begin with TAILCHAT_GATE_.
    Raises ConfigError with every problem there is; it is raised here, away from what was read, so
    that neither it nor its traceback leads to a secret of a file.
    """
    settings, problems, warnings, files = _read(path, environ)
    if settings is None or problems:
        raise ConfigError(problems, files)
    return Loaded(settings, warnings, files)


def report(problems: Iterable[Problem]) -> str:
    """Write problems for a person to read, one paragraph each."""
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
    """Read everything; settings are None where no complete ones came of it."""
    set_there = assigned(environ)
    document = _parsed(path, by_environ=bool(set_there.names))
    if isinstance(document, Problem):
        return None, (document, *set_there.problems), (), (path,)
    draft = _Draft(document, problems=set_there.problems, files=[path])
    _note_exposed(path, draft)
    _overlay(set_there, draft)
    for owner in SECRET_FORMS:
        _settle_secret(owner, set_there, path.parent, draft)
    _settle_state(environ, draft)
    settings = _settings(draft)
    if settings is not None:
        draft.warnings.extend(lint(settings))
    files = tuple(dict.fromkeys(draft.files))
    return settings, tuple(draft.problems), tuple(draft.warnings), files


def _parsed(path: Path, *, by_environ: bool) -> Document | Problem:
    """Read the file as TOML.

    Without a file in the usual place all settings come from the environment, if any does.
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


def _note_exposed(path: Path, draft: _Draft) -> None:
    """Warn of a file that holds a secret and that every user can read."""
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


def _overlay(set_there: Assigned, draft: _Draft) -> None:
    """Put what the environment sets over the file; secrets are chosen apart."""
    secret = {(section, form) for (section, _), forms in SECRET_FORMS.items() for form in forms}
    for place, name in set_there.names.items():
        if place in secret:
            continue
        draft.sources[place] = name
        if place not in set_there.values:
            draft.settled.add(place)
            continue
        table = draft.document
        if len(place) > 1:
            inner = table.setdefault(place[0], {})
            if not isinstance(inner, dict):
                continue  # what stands in place of the table is refused as a whole
            table = inner
        table[place[-1]] = set_there.values[place]


def _settle_secret(
    owner: tuple[str, str], set_there: Assigned, folder: Path, draft: _Draft
) -> None:
    """Replace the forms of one secret by its value, under the key that the model knows."""
    section, key = owner
    table = draft.document.setdefault(section, {})
    if not isinstance(table, dict):
        return  # what stands in place of the table is refused as a whole
    places = {form: (section, form) for form in SECRET_FORMS[owner]}
    in_file = {form: table.pop(form) for form in places if form in table}
    in_environ = {
        form: set_there.values[place] for form, place in places.items() if place in set_there.values
    }
    if len(in_environ) < len(set_there.names.keys() & set(places.values())):
        draft.settled.add(owner)
        return
    secret = given(owner, in_file, in_environ, folder)
    draft.files.extend(secret.files)
    draft.warnings.extend(secret.warnings)
    if secret.problems:
        draft.problems.extend(secret.problems)
        draft.settled.add(owner)
        return
    table[key] = secret.value
    draft.sources[owner] = secret.label
    for index, _ in enumerate(secret.value if isinstance(secret.value, list) else ()):
        if not secret.listed:
            draft.sources[*owner, index] = secret.label
    for index, line in enumerate(secret.lines):
        draft.lines[(*owner, index) if isinstance(secret.value, list) else owner] = line


def _settle_state(environ: Mapping[str, str], draft: _Draft) -> None:
    """Say where state is kept if nobody else does: where this user can write."""
    table = draft.document.setdefault("state", {})
    if isinstance(table, dict):
        table.setdefault("path", str(state_directory(environ)))


def _settings(draft: _Draft) -> Settings | None:
    """Check all tables, each by itself and then together; None where one has problems."""
    document = draft.document
    for name in [name for name in document if name not in names_in("")]:
        near = did_you_mean(name, names_in(""))
        draft.refuse((name,), "an unknown table or key", f"a table that the gate has{near}")
    server = _model(Server, ("server",), document.get("server", {}), draft)
    limits = _model(Limits, ("limits",), document.get("limits", {}), draft)
    tailchat = _model(Tailchat, ("tailchat",), document.get("tailchat", {}), draft)
    session = _model(Session, ("session",), document.get("session", {}), draft)
    access = _model(Access, ("access",), document.get("access", {}), draft)
    state = _model(State, ("state",), document.get("state", {}), draft)
    assertion = _model(Assertion, ("assertion",), document.get("assertion", {}), draft)
    groups = _groups(document.get("groups", {}), draft)
    tokens = _each(Token, "token", document.get("token", []), draft)
    routes = _routes(document.get("route"), draft)
    pages = _model(Pages, ("pages",), document.get("pages", {}), draft)
    log = _model(Log, ("log",), document.get("log", {}), draft)
    names = groups if groups is not None else _group_names_alone(draft)
    _refuse_conflicts(
        draft,
        names,
        {"server": server, "access": access, "assertion": assertion, "tailchat": tailchat},
        tokens,
        routes,
    )
    key_files = assertion.key_files if assertion else ()
    draft.warnings.extend((*exposed_key_files(key_files), *exposed_keys(routes)))
    draft.files.extend((*map(Path, key_files), *named_files(routes)))
    if tailchat and tailchat.ca_file:
        draft.files.append(Path(tailchat.ca_file))
    parts = (server, limits, tailchat, session, access, state, assertion, groups, pages, log)
    if draft.problems or not all(part is not None for part in parts):
        return None
    return Settings.model_validate(
        {
            "server": server,
            "limits": limits,
            "tailchat": tailchat,
            "session": session,
            "access": access,
            "state": state,
            "assertion": assertion,
            "groups": groups,
            "token": tuple(tokens.values()),
            "route": tuple(routes.values()),
            "pages": pages,
            "log": log,
        }
    )


def _refuse_conflicts(
    draft: _Draft,
    groups: Collection[str] | None,
    tables: Mapping[str, BaseModel | None],
    tokens: Mapping[int, Token],
    routes: Mapping[int, Route],
) -> None:
    """Compare keys and tables with one another, as far as those with problems can be read."""

    def key(table: str, name: str, default: object) -> Any:  # noqa: ANN401 - as the model has it
        return readable(tables[table] or draft.partial.get((table,)), name, default)

    routes = _with_partial("route", routes, draft)
    tokens = _with_partial("token", tokens, draft)
    names = _names_alone("token", draft), _names_alone("route", draft)
    denied, listen = key("access", "deny", ()), key("server", "listen", ())
    for conflict in (
        *key_problems(key("assertion", "key_files", ())),
        *token_conflicts(tokens, routes, *names),
        *conflicts(routes, key("server", "prefix", None), groups, denied, listen),
        *unusable(routes),
        *unusable_authorities(key("tailchat", "ca_file", "")),
    ):
        draft.refuse(conflict.at, conflict.found, conflict.expected)


def _with_partial(section: str, made: Mapping[int, _Model], draft: _Draft) -> dict[int, _Model]:
    """Return the tables of a list in their order, with those that can be read in part alone."""
    found: dict[int, Any] = dict(made)
    for at, part in draft.partial.items():
        if at[0] == section and isinstance(at[-1], int):
            found[at[-1]] = part
    return dict(sorted(found.items()))


def _model(model: type[_Model], at: Location, value: object, draft: _Draft) -> _Model | None:
    try:
        return model.model_validate(value)
    except ValidationError as refused:
        _list(refused, at, model, draft)
        part = partial(model, value, refused)
        if part is not None:
            draft.partial[at] = part
    return None


def _groups(value: object, draft: _Draft) -> Mapping[str, tuple[str, ...]] | None:
    if ("groups",) in draft.settled:
        return None
    adapter: TypeAdapter[Mapping[str, tuple[str, ...]]] = TypeAdapter(Groups)
    try:
        return adapter.validate_python(value)
    except ValidationError as refused:
        _list(refused, ("groups",), None, draft)
    return None


def _group_names_alone(draft: _Draft) -> Collection[str] | None:
    """Read the names of groups that have problems; None where there is no telling."""
    table = draft.document.get("groups")
    return table.keys() if isinstance(table, dict) and ("groups",) not in draft.settled else None


def _routes(value: object, draft: _Draft) -> dict[int, Route]:
    """Check each route; the ones without problems by their position."""
    if value is None or value == []:
        wanted = 'at least one [[route]], such as name = "wiki", upstream = "http://wiki:3000"'
        draft.refuse(("route",), "nothing", wanted)
        return {}
    return _each(Route, "route", value, draft)


def _each(model: type[_Model], section: str, value: object, draft: _Draft) -> dict[int, _Model]:
    """Check each table of a list; the ones without problems by their position."""
    if not isinstance(value, list):
        draft.refuse((section,), kind(value), f"[[{section}]] with two pairs of brackets")
        return {}
    read = {index: _model(model, (section, index), row, draft) for index, row in enumerate(value)}
    return {index: made for index, made in read.items() if made is not None}


def _names_alone(section: str, draft: _Draft) -> Collection[str] | None:
    """Read the names in a list of tables that may have problems; None where there is no telling."""
    rows = draft.document.get(section, [])
    if not isinstance(rows, list) or (section,) in draft.settled:
        return None
    return [str(row.get("name")) for row in rows if isinstance(row, dict)]


def _list(
    refused: ValidationError, at: Location, model: type[BaseModel] | None, draft: _Draft
) -> None:
    for error in refused.errors(include_url=False):
        place = (*at, *error["loc"])
        draft.refuse(place, *describe_error(error, place, model))
