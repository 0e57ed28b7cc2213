"""Describes problems of a configuration, and reads the valid keys of a table with problems."""

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError, create_model

from tailchat_gate.syntax import BARE_KEY, SCHEME

Location = tuple[str | int, ...]

#: What the names of the gate's variables begin with.
ENV_PREFIX = "TAILCHAT_GATE_"
_LONGEST = 60
_USERINFO = re.compile(f"^({SCHEME}:(?://)?)?.*@", re.DOTALL)
_HUGE = 10**18
_TIME = "a date or time"
_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (str, "text"),
    (bool, "a boolean"),
    ((int, float), "a number"),
    (dict, "a table"),
    ((list, tuple), "a list"),
    (type(None), "nothing"),
)
#: What `kind` returns.
KINDS = frozenset((*(name for _, name in _KINDS), _TIME))


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A place in a file: `line` and `column` count from 1, and are 0 if unknown.

    `end_column` is the column after the place. `source` is the line without secrets and comments,
    possibly shortened; `caret` is the line to show below it, which marks the place.
    """

    file: str
    line: int = 0
    column: int = 0
    end_column: int = 0
    source: str = ""
    caret: str = ""

    @property
    def position(self) -> str:
        """`file:line:column`, which editors and terminals open; the file alone without a line."""
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Problem:
    """One setting that cannot be used.

    `key_path` is `route[2].upstream` in the file (counted from 0), the name of an environment
    variable, or the path of a file.
    `found` is the value there, shortened, and for a secret only its kind or length.
    `expected` is what the key accepts. For a warning it is "", and `found` is a whole sentence.
    `excerpt` is the place in the file, None for a value from elsewhere. `table` names the route or
    token that `key_path` numbers. `hint` is a command to run, or what to write.
    """

    key_path: str
    found: str
    expected: str
    excerpt: Excerpt | None = None
    table: str = ""
    hint: str = ""

    @property
    def key(self) -> str:
        """The place, with the name of its route or token."""
        return f"{self.key_path} ({self.table})" if self.table else self.key_path

    @property
    def place(self) -> str:
        """File, line and column where they are known, and `key`."""
        if self.excerpt is None:
            return self.key
        position = self.excerpt.position
        return position if self.is_of_file else f"{position}: {self.key}"

    @property
    def is_of_file(self) -> bool:
        """Whether it is about the whole file, which is not TOML, and not about a key."""
        return self.excerpt is not None and self.key_path == self.excerpt.file

    @property
    def message(self) -> str:
        """What is wrong: what was found, or the sentence of a warning."""
        return f"found {self.found}" if self.expected else self.found

    def __str__(self) -> str:
        """The problem on one line, for logs."""
        expected = f"; expected {self.expected}" if self.expected else ""
        return f"{self.place}: {self.message}{expected}"

    def to_json(self) -> dict[str, object]:
        """Return all fields as values that JSON can have."""
        return asdict(self)

    @classmethod
    def from_json(cls, members: Mapping[str, Any]) -> "Problem":
        """Read the output of to_json."""
        place = members.get("excerpt")
        return cls(**{**members, "excerpt": Excerpt(**place) if place else None})


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

    Text is quoted and shortened; everything before an `@` is masked, because a URL may have a
    password there. Tables and lists are named, not shown.
    """
    if isinstance(value, str):
        text = without_userinfo(value)
        cut = text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
        return json.dumps(cut)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value}" if abs(value) < _HUGE else "a very large number"
    return kind(value)


def without_userinfo(text: str) -> str:
    """Mask what comes before the last `@` of a text, except for the scheme of a URL."""
    return _USERINFO.sub(r"\1***@", text)


def kind(value: object) -> str:
    """Name the kind of a value without showing its content."""
    return next((name for type_, name in _KINDS if isinstance(value, type_)), _TIME)


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
    that file. `settled` has the places whose problem is already listed. `partial` has the valid
    keys of tables with problems. `exposed` are the warnings about secrets that others can read.
    `at_keys` has the paths of problems with a key itself, not with its value.
    """

    document: dict[str, object] = field(default_factory=dict, repr=False)
    sources: dict[Location, str] = field(default_factory=dict)
    lines: dict[Location, str] = field(default_factory=dict)
    settled: set[Location] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    exposed: list[str] = field(default_factory=list)
    at_keys: set[str] = field(default_factory=set)
    files: list[Path] = field(default_factory=list)
    partial: dict[Location, BaseModel] = field(default_factory=dict, repr=False)

    def note_exposed(self, *warnings: str) -> None:
        """Warn of secrets that other users of the machine can read."""
        self.warnings.extend(warnings)
        self.exposed.extend(warnings)

    def refuse(self, at: Location, found: str, expected: str) -> None:
        """Add a problem at a place; it is named by its source if the value is not from the file."""
        starts = [at[:size] for size in range(len(at), -1, -1)]
        if not self.settled.isdisjoint(starts):
            return
        source = next((start for start in starts if start in self.sources), ())
        if source == at and self.sources[at].startswith(ENV_PREFIX):
            # Quotes in a variable are part of its value.
            expected = expected.replace(", in quotes,", ",").replace(" in quotes", "")
        below = (part for part in at[len(source) :] if part != "[key]")
        path = key_path(below, self.sources.get(source, ""))
        if at[-1] == "[key]" or found.startswith("an unknown "):
            self.at_keys.add(path)
        line = f"{self.lines[at]}: " if at in self.lines else ""
        self.problems.append(Problem(path, line + found, expected))


_Model = TypeVar("_Model", bound=BaseModel)
_Item = TypeVar("_Item")


class UnreadKeyError(Exception):
    """A check needs a key that has a problem of its own, so the check cannot decide."""


class _Partial(BaseModel):
    """A table without its invalid keys: reading one of them raises UnreadKeyError."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - of a key of the model
        if name in type(self).model_fields:
            raise UnreadKeyError(name)
        raise AttributeError(name)


def partial(model: type[_Model], value: object, refused: ValidationError) -> _Model | None:
    """Return a refused table without its invalid keys; None if nothing of it can be read.

    It is for checks only, never for serving: reading an invalid key raises UnreadKeyError.
    """
    if not isinstance(value, dict):
        return None
    fields = model.model_fields
    wrong: set[str] = set()
    #: Keys that need no value, not even their default, which may conflict with other keys.
    free: set[str] = set()
    while True:
        refused_keys = _keys_of(refused)
        free |= (refused_keys & wrong) | {
            key for key in refused_keys & fields.keys() if fields[key].is_required()
        }
        wrong |= refused_keys
        try:
            made = _freed(model, frozenset(free)).model_validate(
                {key: item for key, item in value.items() if key not in wrong}
            )
        except ValidationError as again:
            if _keys_of(again) <= free:
                return None
            # A valid key conflicts with the default of an invalid one: that is no further problem.
            refused = again
            continue
        for key in wrong & made.__dict__.keys():
            del made.__dict__[key]
        return cast("_Model", made)


def _keys_of(refused: ValidationError) -> set[str]:
    return {str(error["loc"][0]) for error in refused.errors() if error["loc"]}


@lru_cache(64)
def _freed(model: type[BaseModel], keys: frozenset[str]) -> type[BaseModel]:
    """Return the model with some keys optional and unchecked; tables with the same share it."""
    free: dict[str, Any] = dict.fromkeys(keys, (Any, None))
    return create_model(f"Partial{model.__name__}", __base__=(_Partial, model), **free)


def judged(items: Iterable[_Item]) -> Iterator[_Item]:
    """Yield the findings of a check, until it reads a key that has a problem of its own."""
    try:
        yield from items
    except UnreadKeyError:
        return


def readable(table: BaseModel | None, key: str, default: object = None) -> Any:  # noqa: ANN401 - of a key of the model
    """Return the value of a key, or `default` if it cannot be read."""
    try:
        return default if table is None else getattr(table, key)
    except UnreadKeyError:
        return default
