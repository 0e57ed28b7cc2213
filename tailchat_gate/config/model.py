"""Settings: all that the admin wrote, checked, complete and immutable."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Self, get_args

from pydantic import Field, model_validator

from tailchat_gate.config.checks.tables import Compared, conflicts
from tailchat_gate.config.problems import key_path
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
from tailchat_gate.config.tables.route import Route
from tailchat_gate.config.tables.server import Limits, Log, Pages, Server, State

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
    "Route",
    "Server",
    "Session",
    "Settings",
    "State",
    "Tailchat",
    "Token",
]


class Settings(Section):
    """The whole configuration; every value is final.

    Validating it checks everything except the files it names. `config/validation.py` constructs it
    from tables that it has checked, each alone and against the others.
    """

    server: Server = Field(description="Where the gate listens and what it is called from outside.")
    limits: Limits = Field(default=Limits(), description="How large a request may be.")
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
    route: tuple[Route, ...] = Field(
        description="The tools behind the gate, one [[route]] each.", min_length=1
    )
    pages: Pages = Field(default=Pages(), description="What visitors see of the gate itself.")
    log: Log = Field(default=Log(), description="What is written to the log.")

    @model_validator(mode="after")
    def _without_conflicts(self) -> Self:
        compared = Compared(
            routes=dict(enumerate(self.route)),
            tokens=dict(enumerate(self.token)),
            route_names=[route.name for route in self.route],
            token_names=[token.name for token in self.token],
            groups=self.groups,
            prefix=self.server.prefix,
            denied=self.access.deny,
            listen=self.server.listen,
        )
        if found := conflicts(compared):
            raise ValueError("; ".join(f"{key_path(c.at)}: {c.expected}" for c in found))
        return self


#: The names of the tables that may occur any number of times, each set as a whole.
LISTED: Final = frozenset(
    name
    for name, field in Settings.model_fields.items()
    if get_args(field.annotation)[1:] == (...,)
)


def _tables() -> dict[str, type[Section]]:
    found: dict[str, type[Section]] = {}
    for name, field in Settings.model_fields.items():
        made = get_args(field.annotation)[0] if name in LISTED else field.annotation
        if isinstance(made, type) and issubclass(made, Section):
            found[name] = made
    return found


#: The model of each table by its name, in the order of the file; [groups] has none.
TABLES: Final[Mapping[str, type[Section]]] = MappingProxyType(_tables())
