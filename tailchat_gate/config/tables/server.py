"""The tables of the gate itself: where it listens, what it takes, keeps, shows and logs."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StrictBool, StrictInt, ValidationInfo, field_validator

from tailchat_gate.config.tables.fields import (
    AuditFile,
    Contact,
    Listeners,
    Network,
    Origin,
    Prefix,
    Seconds,
    Section,
    StatePath,
    UnixGroup,
    UnixMode,
    Via,
    Whole,
)
from tailchat_gate.config.tables.route_fields import Host
from tailchat_gate.config.values import address
from tailchat_gate.config.values.identifier import distinct

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
    drain_delay: Annotated[float, Seconds()] = Field(
        default=0.0,
        description=(
            "How long the gate goes on to take connections after a signal to stop, while /readyz "
            "already says no and each response closes its connection."
        ),
        examples=["5s"],
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
        description="How long a visitor that has stopped sending waits for a silent tool; 0 takes "
        "it for gone at once.",
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

    @property
    def longest_stop(self) -> float:
        """How many seconds a shutdown may wait for clients."""
        return self.drain_delay + self.shutdown_timeout

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
