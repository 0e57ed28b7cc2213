"""Settings: all that the admin wrote, checked, complete and immutable."""

from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    StrictBool,
    StrictInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from tailchat_gate.config.conflicts import conflicts
from tailchat_gate.config.fields import (
    AuditFile,
    Contact,
    CookieName,
    Deny,
    Groups,
    Listeners,
    Network,
    Origin,
    Prefix,
    Seconds,
    Section,
    SessionSecrets,
    StatePath,
    UnixGroup,
    UnixMode,
    Via,
    Whole,
    empty,
)
from tailchat_gate.config.problems import key_path
from tailchat_gate.config.route import Assertion, Route
from tailchat_gate.config.route_fields import Host
from tailchat_gate.config.tailchat import Tailchat
from tailchat_gate.config.token import Token, token_conflicts
from tailchat_gate.config.values import address
from tailchat_gate.config.values.identifier import distinct
from tailchat_gate.config.values.quantities import format_duration
from tailchat_gate.syntax import SESSION_COOKIE

__all__ = [
    "Access",
    "Assertion",
    "Limits",
    "Log",
    "Pages",
    "Route",
    "Server",
    "Session",
    "Settings",
    "State",
    "Tailchat",
    "Token",
]

#: What happens to a session while Tailchat cannot be asked about it.
Outage = Literal["keep", "sign-in", "fail"]
_MINUTE = 60.0
LONGEST_SESSION = 30 * 86400.0
_MOST = 1_000_000


class Server(Section):
    """Where the gate listens and what it is called from outside."""

    listen: Listeners = Field(
        default=("127.0.0.1:4180",),
        description="Where visitors connect: host:port, unix:/path, or a list of these.",
        examples=["0.0.0.0:4180", "unix:/run/gate.sock"],
    )
    unix_mode: UnixMode = Field(
        default="0660",
        description="Mode of the Unix sockets that server.listen names: who may connect.",
    )
    unix_group: UnixGroup = Field(
        default="",
        description=(
            "Group of these sockets, by its name or number, such as that of the proxy in front; "
            "empty leaves the group of the gate's own user."
        ),
        examples=["www-data"],
    )
    public_url: Origin = Field(
        description=(
            "Origin under which browsers reach the gate's own pages; Tailchat sends them back to "
            "public_url + prefix + /callback."
        ),
        examples=["https://gate.example.com"],
    )
    prefix: Prefix = Field(
        default="/oauth2", description="Path under which the gate's own pages lie."
    )
    admin_listen: str = Field(
        default="127.0.0.1:4181",
        validate_default=True,
        description=(
            "Where health, metrics and status are served, host:port or unix:/path; empty turns "
            "them off."
        ),
    )
    admin_hosts: Annotated[tuple[Host, ...], AfterValidator(distinct)] = Field(
        default=(),
        description=(
            "Further names by which admin_listen is asked; addresses, localhost, names without a "
            "dot and its own name need none."
        ),
        examples=[["gate.monitoring.svc.cluster.local"]],
    )
    trusted_proxies: tuple[Network, ...] = Field(
        default=(),
        description=(
            "Addresses and networks of the proxies in front whose X-Forwarded-* headers are "
            "believed; empty believes nobody's."
        ),
        examples=[["10.0.0.0/8"]],
    )
    workers: StrictInt = Field(
        default=1,
        description="Number of processes that serve; this version has 1.",
        json_schema_extra={"const": 1},
    )
    shutdown_timeout: Annotated[float, Seconds()] = Field(
        default=30.0, description="How long open requests may go on after a signal to stop."
    )
    keepalive_timeout: Annotated[float, Seconds(above_zero=True)] = Field(
        default=75.0, description="How long an idle connection of a visitor stays open."
    )
    header_timeout: Annotated[float, Seconds(above_zero=True)] = Field(
        default=20.0, description="How long the head of a request may take to arrive."
    )
    body_timeout: Annotated[float, Seconds()] = Field(
        default=60.0,
        description="How long a visitor may be silent within a body; 0 is no limit.",
    )
    half_closed_timeout: Annotated[float, Seconds()] = Field(
        default=5.0,
        description="How long a visitor that sends no more waits while nothing comes for it; "
        "0 takes it for gone at once.",
    )
    via: Via = Field(
        default="tailchat-gate",
        description="Name of the gate in the Via header of requests to tools; empty sends none.",
    )
    forwarded: StrictBool = Field(
        default=False,
        description="Whether tools get the Forwarded header besides X-Forwarded-*.",
    )
    real_ip: StrictBool = Field(
        default=False,
        description="Whether tools get the visitor's address in X-Real-IP too.",
    )
    watch: StrictBool = Field(
        default=True,
        description="Whether a change of this file, or of one that it names, is loaded by itself.",
    )

    @field_validator("admin_listen")
    @classmethod
    def _admin_listener(cls, value: str, info: ValidationInfo) -> str:
        if not value:
            return value
        try:
            admin = address.listen(value)
        except ValueError as wrong:
            raise ValueError(f'{wrong}, or "" to turn it off') from None
        if admin in info.data.get("listen", ()) and not admin.endswith(":0"):
            raise ValueError("an address that server.listen does not have")
        return admin

    @field_validator("workers")
    @classmethod
    def _one_worker(cls, value: int) -> int:
        if value != 1:
            raise ValueError("1: this version serves with one process")
        return value


class Limits(Section):
    """How large a request may be before it is refused, and how many one client may have."""

    target_bytes: Annotated[int, Whole(256, 65_536)] = Field(
        default=16_384, description="How many bytes the target of a request may have."
    )
    header_bytes: Annotated[int, Whole(1024, 1_048_576)] = Field(
        default=65_536, description="How many bytes the headers of a request may have together."
    )
    header_count: Annotated[int, Whole(8, 1000)] = Field(
        default=128, description="How many headers a request may have."
    )
    cookie_bytes: Annotated[int, Whole(256, 65_536)] = Field(
        default=16_384,
        description="How many bytes the cookies of a request may have together.",
    )

    client_connections: Annotated[int, Whole(0, _MOST)] = Field(
        default=0,
        description=(
            "How many connections one client may have; 0 is half of what the gate can have, 4000 "
            "at most."
        ),
    )
    client_requests: Annotated[int, Whole(0, _MOST)] = Field(
        default=0,
        description=(
            "How many requests and WebSockets of one client may be with one tool at once; 0 is "
            "half of route.max_connections."
        ),
    )

    @field_validator("cookie_bytes")
    @classmethod
    def _within_header(cls, value: int, info: ValidationInfo) -> int:
        most = info.data.get("header_bytes", value)
        if value > most:
            raise ValueError(f"at most {most}, which limits.header_bytes allows for all headers")
        return value


class Session(Section):
    """How long a sign-in lasts and what its cookie is sealed with."""

    secrets: SessionSecrets = Field(
        description="Secrets that cookies are sealed with: the first seals, all of them open.",
        repr=False,
    )
    cookie_name: CookieName = Field(
        default=SESSION_COOKIE,
        description="Name of the session cookie, another for each gate on one host name.",
        examples=["tailchat_gate_two"],
    )
    lifetime: Annotated[float, Seconds(above_zero=True, high=LONGEST_SESSION)] = Field(
        default=43200.0, description="How long after the sign-in a session ends, 30d at most."
    )
    idle: Annotated[float, Seconds(high=LONGEST_SESSION)] = Field(
        default=0.0,
        description="How long after the last request a session ends, 1m or more; 0 turns it off.",
    )

    recheck: Annotated[float, Seconds(high=LONGEST_SESSION)] = Field(
        default=0.0,
        description=(
            "How long after Tailchat confirmed a person it is asked again, 1m or more; 0 turns it "
            "off. For longer than an hour it takes the scope offline_access."
        ),
    )
    recheck_outage: Outage = Field(
        default="keep",
        description=(
            "What happens to a session that Tailchat cannot be asked about: it goes on, the person "
            "signs in again, or requests fail until Tailchat answers."
        ),
    )

    @field_validator("idle", "recheck")
    @classmethod
    def _within_lifetime(cls, value: float, info: ValidationInfo) -> float:
        lifetime = info.data.get("lifetime", LONGEST_SESSION)
        if value and not _MINUTE <= value <= lifetime:
            raise ValueError(
                f'"0", or from "1m" to "{format_duration(lifetime)}", the session\'s lifetime'
            )
        return value


class Access(Section):
    """Who may enter, on all routes alike."""

    deny: Deny = Field(
        default=(),
        description=(
            "Who may enter no route, whatever its allow says: group:NAME, sub:ID or token:NAME; "
            "where everybody may, these do as nobody."
        ),
        examples=[["sub:660000000000000000000009"]],
    )


class State(Section):
    """Where the gate keeps what outlives it: locks, ended sessions, what was used once."""

    path: StatePath = Field(
        default="/var/lib/tailchat-gate",
        description=(
            "Directory that keeps state, shared by all processes of the machine; empty keeps it in "
            "memory only. Left out, it is $STATE_DIRECTORY, /var/lib/tailchat-gate, or the user's "
            "own directory for state."
        ),
    )


class Pages(Section):
    """What visitors see of the gate itself."""

    sign_in: Literal["redirect", "page"] = Field(
        default="redirect",
        description=(
            "Whether a visitor goes straight to Tailchat, or sees a sign-in page first, which also "
            "keeps the #fragment of the address."
        ),
    )
    contact: Contact = Field(
        default="",
        description="Whom visitors can ask for help, as one line of text on the gate's pages.",
    )


class Log(Section):
    """What is written to the log."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severity of the messages that are logged."
    )
    access: StrictBool = Field(
        default=True, description="Whether each request is logged, as one line of JSON."
    )
    audit_file: AuditFile = Field(
        default="",
        description=(
            "File for sign-ins, sign-outs and refusals; empty writes them into the gate's own log."
        ),
    )


class Settings(Section):
    """The whole configuration; every value is final."""

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
        routes = dict(enumerate(self.route))
        found = (
            *conflicts(
                routes, self.server.prefix, self.groups, self.access.deny, self.server.listen
            ),
            *token_conflicts(
                dict(enumerate(self.token)),
                routes,
                [token.name for token in self.token],
                [route.name for route in self.route],
            ),
        )
        if found:
            raise ValueError("; ".join(f"{key_path(c.at)}: {c.expected}" for c in found))
        return self
