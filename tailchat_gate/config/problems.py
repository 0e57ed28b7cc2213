"""Describes the problems of a configuration, and reads the other keys of a refused table."""

import difflib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError, create_model

from tailchat_gate.syntax import BARE_KEY, SCHEME

Location = tuple[str | int, ...]

_LONGEST = 60
_USERINFO = re.compile(f"^({SCHEME}:(?://)?)?.*@", re.DOTALL)
_HUGE = 10**18


@dataclass(frozen=True, slots=True)
class Problem:
    """One setting that cannot be used.

    `key_path` is the place: `route[2].upstream` in the file (counted from 0), the name of an
    environment variable, or the path of a file.
    `found` is the value there, shortened, and for a secret only its kind or length.
    `expected` is what the key accepts.
    """

    key_path: str
    found: str
    expected: str


@dataclass(frozen=True, slots=True)
class Conflict:
    """A setting that is valid alone but conflicts with another; `at` is its place in the file."""

    at: Location
    found: str
    expected: str


class ConfigError(Exception):
    """The configuration is invalid; `problems` holds every reason, in reading order.

    `files` are those that it was read from or names, if they could be determined.
    """

    def __init__(self, problems: tuple[Problem, ...], files: tuple[Path, ...] = ()) -> None:
        super().__init__("; ".join(f"{p.key_path}: expected {p.expected}" for p in problems))
        self.problems = problems
        self.files = files


def shown(value: object) -> str:
    """Return a value from the file or the environment on one line of visible ASCII.

    Text is quoted, shortened, and loses everything before an `@`, because a URL may have a
    password there. Tables and lists are named, not shown.
    """
    if isinstance(value, str):
        text = _USERINFO.sub(r"\1***@", value)
        cut = text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
        return json.dumps(cut)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value}" if abs(value) < _HUGE else "a very large number"
    return kind(value)


def kind(value: object) -> str:
    """Return the kind of a value, and nothing of its content."""
    kinds: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (str, "text"),
        (bool, "a boolean"),
        ((int, float), "a number"),
        (dict, "a table"),
        ((list, tuple), "a list"),
        (type(None), "nothing"),
    )
    return next((name for type_, name in kinds if isinstance(value, type_)), "a date or time")


def key_path(location: Iterable[str | int], start: str = "") -> str:
    """Return a place in the file as TOML writes it, after `start`: `route[0].headers."X A"`."""
    parts: list[str] = [start] if start else []
    for part in location:
        if isinstance(part, int):
            parts.append(f"[{part}]")
        else:
            name = part if BARE_KEY.fullmatch(part) else json.dumps(part[:_LONGEST])
            parts.append(f".{name}" if parts else name)
    return "".join(parts)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the nearest known word as `; did you mean "..."?`, or "" if none is near."""
    by_fold = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(word.casefold(), by_fold, n=1, cutoff=0.7)
    return f'; did you mean "{by_fold[near[0]]}"?' if near else ""


@dataclass(frozen=True, slots=True)
class Draft:
    """The settings read so far, and their problems.

    `sources` names the variable or secret file that a place was filled from, `lines` the line of
    that file, and `settled` holds places whose problem is already listed. `partial` has the
    readable keys of tables with problems. `exposed` are the warnings about readable secrets.
    """

    document: dict[str, object] = field(default_factory=dict, repr=False)
    sources: dict[Location, str] = field(default_factory=dict)
    lines: dict[Location, str] = field(default_factory=dict)
    settled: set[Location] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    exposed: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    partial: dict[Location, BaseModel] = field(default_factory=dict, repr=False)

    def note_exposed(self, *warnings: str) -> None:
        """Warn of secrets that other users of the machine can read."""
        self.warnings.extend(warnings)
        self.exposed.extend(warnings)

    def refuse(self, at: Location, found: str, expected: str) -> None:
        """Add a problem, under the name of the source that its place was filled from."""
        starts = [at[:size] for size in range(len(at), -1, -1)]
        if not self.settled.isdisjoint(starts):
            return
        source = next((start for start in starts if start in self.sources), ())
        path = key_path((part for part in at[len(source) :] if part != "[key]"), self.name(source))
        line = f"{self.lines[at]}: " if at in self.lines else ""
        self.problems.append(Problem(path, line + found, expected))

    def name(self, source: Location) -> str:
        """Return the source of a place, "" for the file itself."""
        return self.sources.get(source, "")


_Model = TypeVar("_Model", bound=BaseModel)
_Item = TypeVar("_Item")


class UnreadKeyError(Exception):
    """A check reads a key that has a problem of its own, so the check cannot decide."""


class _Partial(BaseModel):
    """A table without its invalid keys: reading one of them raises UnreadKeyError."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - of a key of the model
        if name in type(self).model_fields:
            raise UnreadKeyError(name)
        raise AttributeError(name)


def partial(model: type[_Model], value: object, refused: ValidationError) -> _Model | None:
    """Return a refused table without its invalid keys; None if the value is not a table.

    Only for checks, never for serving.
    """
    if not isinstance(value, dict):
        return None
    fields = model.model_fields
    wrong: set[str] = set()
    #: Keys that need no value, not even their default, which may conflict with other keys.
    free: set[str] = set()
    while True:
        found = _keys_of(refused)
        free |= (found & wrong) | {
            key for key in found & fields.keys() if fields[key].is_required()
        }
        wrong |= found
        try:
            made = _freed(model, free).model_validate(
                {key: kept for key, kept in value.items() if key not in wrong}
            )
        except ValidationError as again:
            if _keys_of(again) <= free:
                return None
            # It conflicts only with the default of an invalid key, so it is not listed.
            refused = again
            continue
        for key in wrong & made.__dict__.keys():
            del made.__dict__[key]
        return cast("_Model", made)


def _keys_of(refused: ValidationError) -> set[str]:
    return {str(error["loc"][0]) for error in refused.errors() if error["loc"]}


def _freed(model: type[BaseModel], keys: Iterable[str]) -> type[BaseModel]:
    """Return a model that does not require some keys."""
    free: dict[str, Any] = dict.fromkeys(keys, (Any, None))
    return create_model(f"Partial{model.__name__}", __base__=(_Partial, model), **free)


def judged(found: Iterable[_Item]) -> Iterator[_Item]:
    """Yield what a check finds, until it reads a key that has a problem."""
    try:
        yield from found
    except UnreadKeyError:
        return


def readable(table: BaseModel | None, key: str, default: object = None) -> Any:  # noqa: ANN401 - of a key of the model
    """Return the value of a key, or `default` if it cannot be read."""
    try:
        return default if table is None else getattr(table, key)
    except UnreadKeyError:
        return default
