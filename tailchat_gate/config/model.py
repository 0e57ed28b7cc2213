"""The settings, checked, complete and immutable, and the differences between two of them."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final, Self, get_args

from pydantic import BaseModel, Field, SecretStr, model_validator

from tailchat_gate.config.conflicts import Compared, conflicts
from tailchat_gate.config.problems import Problem, key_path, shown
from tailchat_gate.config.tables.fields import Groups, Section, empty
from tailchat_gate.config.tables.identity import (
    LONGEST_SESSION,
    Access,
    Assertion,
    Outage,
    Session,
    Tailchat,
    Token,
)
from tailchat_gate.config.tables.pages import Pages
from tailchat_gate.config.tables.process import ENDPOINT, Limits, Log, State, Tracing
from tailchat_gate.config.tables.route import RouteSettings
from tailchat_gate.config.tables.server import Server

__all__ = [
    "LISTED",
    "LONGEST_SESSION",
    "TABLES",
    "Access",
    "Assertion",
    "Limits",
    "Log",
    "Outage",
    "Pages",
    "RouteSettings",
    "Server",
    "Session",
    "Settings",
    "State",
    "Tailchat",
    "Token",
    "Tracing",
]


class Settings(Section):
    """The whole configuration.

    Validating it checks everything except the files it names. `config/validation.py` constructs it
    without validation from tables that it has checked itself.
    """

    server: Server = Field(description="Where the gate listens and what it is called from outside.")
    limits: Limits = Field(
        default=Limits(),
        description="How large a request may be, and how many one client may send.",
    )
    tailchat: Tailchat = Field(description="The Tailchat server, and the app registered there.")
    session: Session = Field(description="How long a sign-in lasts and what seals its cookie.")
    access: Access = Field(default=Access(), description="Who may enter, on all routes alike.")
    state: State = Field(default=State(), description="Where state is kept.")
    assertion: Assertion = Field(
        default=Assertion(), description="The signed identity that tools can check."
    )
    groups: Groups = Field(
        default_factory=empty,
        description="Groups of Tailchat users by sub, for allow and deny lists.",
        examples=[{"ops": ["660000000000000000000001"]}],
    )
    token: tuple[Token, ...] = Field(
        default=(),
        description="Tokens with which machines come in place of a sign-in, one [[token]] each.",
    )
    route: tuple[RouteSettings, ...] = Field(
        description="The tools behind the gate, one [[route]] each.", min_length=1
    )
    pages: Pages = Field(default_factory=Pages, description="What visitors see of the gate itself.")
    log: Log = Field(default=Log(), description="What is written to the log.")
    tracing: Tracing = Field(default=Tracing(), description="Which traces requests belong to.")

    @property
    def redirect_uri(self) -> str:
        """The exact redirect_uri to register in Tailchat."""
        return f"{self.server.public_url}{self.server.prefix}/callback"

    @property
    def titles(self) -> Mapping[str, str]:
        """The titles of routes for people, by name."""
        return {route.name: route.shown_name for route in self.route}

    @model_validator(mode="after")
    def _without_conflicts(self) -> Self:
        compared = Compared(
            routes=dict(enumerate(self.route)),
            tokens=dict(enumerate(self.token)),
            route_names=[route.name for route in self.route],
            token_names=[token.name for token in self.token],
            groups=self.groups,
            prefix=self.server.prefix,
            public_url=self.server.public_url,
            denied=self.access.deny,
            approvers=self.access.approvers,
            listen=self.server.public_addresses,
            stores_sessions=self.session.store,
            keeps_state=bool(self.state.path or self.state.url),
            workers=self.server.workers,
        )
        if conflicting := conflicts(compared):
            raise ValueError("; ".join(f"{key_path(c.at)}: {c.expected}" for c in conflicting))
        return self


#: The names of the tables that may occur any number of times, each set as a whole.
LISTED: Final = frozenset(
    name
    for name, field in Settings.model_fields.items()
    if get_args(field.annotation)[1:] == (...,)
)


def _tables() -> dict[str, type[Section]]:
    tables: dict[str, type[Section]] = {}
    for name, field in Settings.model_fields.items():
        made = get_args(field.annotation)[0] if name in LISTED else field.annotation
        if isinstance(made, type) and issubclass(made, Section):
            tables[name] = made
    return tables


#: The model of each table by its name, in the order of the file; [groups] has none.
TABLES: Final[Mapping[str, type[Section]]] = MappingProxyType(_tables())


#: Settings that a process reads only at its start.
READ_AT_START: Final = (
    ("server", "workers"),
    ("server", "proxy_protocol"),
    ("state", "path"),
    ("state", "url"),
    ("state", "password"),
    ("state", "sentinel_password"),
    ("log", "access_file"),
    ("log", "format"),
    ("log", "audit_file"),
    ENDPOINT,
)


def changes(old: Settings, new: Settings) -> tuple[str, ...]:
    """Name each difference, in the order of the file.

    For example "server.trusted_proxies", "groups.ops", "route wiki: allow, headers" or "route old:
    removed".
    """
    return tuple(_changes(old, new))


def restart_problems(old: Settings, new: Settings) -> tuple[Problem, ...]:
    """Return a problem for each difference that needs a restart."""
    problems: list[Problem] = []
    for section, key in READ_AT_START:
        before = getattr(getattr(old, section), key)
        if getattr(getattr(new, section), key) != before:
            wanted = f"{_shown(before)}, the value in force; another one needs a restart"
            now = _shown(getattr(getattr(new, section), key))
            problems.append(Problem(key_path((section, key)), now, wanted))
    return tuple(problems)


def _shown(value: object) -> str:
    """Return a value for a problem; a secret is not shown."""
    if isinstance(value, SecretStr):
        return "a secret"
    if isinstance(value, tuple):
        return f"[{', '.join(shown(str(item)) for item in value)}]"
    return shown(value)


def _changes(old: Settings, new: Settings) -> Iterator[str]:
    for section in Settings.model_fields:
        before, after = getattr(old, section), getattr(new, section)
        if isinstance(after, BaseModel):
            for key in _differing(_values(before), _values(after)):
                yield key_path((section, key))
        elif isinstance(after, Mapping):
            for name in _differing(before, after):
                yield key_path((section, name))
        else:
            yield from _entries(section, _by_name(before), _by_name(after))


def _entries(
    section: str, before: Mapping[str, BaseModel], after: Mapping[str, BaseModel]
) -> Iterator[str]:
    """Name each difference between tables with names, such as routes."""
    for name in _differing(before, after):
        if name not in after:
            yield f"{section} {name}: removed"
        elif name not in before:
            yield f"{section} {name}: added"
        else:
            keys = _differing(_values(before[name]), _values(after[name]))
            yield f"{section} {name}: {', '.join(keys)}"


def _differing(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    names = dict.fromkeys((*after, *before))
    missing = object()
    return [name for name in names if before.get(name, missing) != after.get(name, missing)]


def _values(section: BaseModel) -> dict[str, object]:
    return {key: getattr(section, key) for key in type(section).model_fields}


def _by_name(entries: tuple[BaseModel, ...]) -> dict[str, BaseModel]:
    return {str(getattr(entry, "name", "")): entry for entry in entries}
