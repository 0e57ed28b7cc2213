"""The tables of limits, stored state, logs and traces."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    StrictBool,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from tailchat_gate import syntax
from tailchat_gate.config.tables.fields import (
    AuditFile,
    RateText,
    Section,
    StatePath,
    Whole,
)
from tailchat_gate.config.values import identifier, quantities, secret, url
from tailchat_gate.config.values.redis_url import redis_url
from tailchat_gate.request.recorded import DEFAULT_LOG_FIELDS, LogField, Trusted

#: The key with the address of the collector of spans.
ENDPOINT = ("tracing", "endpoint")
_MOST = 1_000_000


def _password(value: SecretStr) -> SecretStr:
    secret.password(value.get_secret_value())
    return value


Share = Annotated[
    float,
    BeforeValidator(quantities.read_share),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1}),
]
Collector = Annotated[
    str,
    AfterValidator(url.base_url_or_none),
    WithJsonSchema({"type": "string", "pattern": f"^({syntax.SCHEMA_HTTP_HOST}(/[^?#]*)?)?$"}),
]
StateUrl = Annotated[str, AfterValidator(redis_url)]
StatePassword = Annotated[SecretStr, AfterValidator(_password)]


class Limits(Section):
    """How large a request may be, and how many a client, a person or a machine may send."""

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
    handshakes: Annotated[int, Whole(1, _MOST)] = Field(
        default=256,
        description=(
            "How many connections may be in a TLS handshake, or in front of it in a PROXY header, "
            "at once; one client may have a quarter of these."
        ),
    )
    tls_connections: Annotated[int, Whole(0, _MOST)] = Field(
        default=0,
        description=(
            "How many connections by TLS there may be, with those in a handshake; 0 is as many as "
            "half of the process's memory has room for. One client may have half of these."
        ),
    )
    client_requests: Annotated[int, Whole(0, _MOST)] = Field(
        default=0,
        description=(
            "How many requests and WebSockets of one client may be with one tool at once; 0 is "
            "half of route.max_connections."
        ),
    )
    logins: RateText = Field(
        default="1200/minute",
        description=(
            "How often one client may begin a sign-in, and how often it may finish one; empty is "
            "no limit."
        ),
    )
    requests_per_person: RateText = Field(
        default="",
        description="How many requests one person may send to all tools; empty is no limit.",
        examples=["1200/minute"],
    )
    requests_per_token: RateText = Field(
        default="",
        description=(
            "How many requests a machine may send to all tools with one token; empty is no limit."
        ),
        examples=["1200/minute"],
    )

    @field_validator("cookie_bytes")
    @classmethod
    def _within_header(cls, value: int, info: ValidationInfo) -> int:
        most = info.data.get("header_bytes", value)
        if value > most:
            raise ValueError(f"at most {most}, which limits.header_bytes allows for all headers")
        return value


class State(Section):
    """The place of the stored state: locks, ended sessions, used logins."""

    secret_forms: ClassVar[Mapping[str, Mapping[str, str]]] = MappingProxyType(
        {
            "password": MappingProxyType(
                {
                    "password": "Password of the server in state.url.",
                    "password_file": "File with that password, instead of the key above.",
                }
            ),
            "sentinel_password": MappingProxyType(
                {
                    "sentinel_password": "Password of the Sentinels in state.url.",
                    "sentinel_password_file": (
                        "File with that password, instead of the key above."
                    ),
                }
            ),
        }
    )

    path: StatePath = Field(
        default="/var/lib/tailchat-gate",
        description=(
            "Directory that keeps state, shared by all processes of the machine; empty keeps it in "
            "memory only. Left out, it is $STATE_DIRECTORY, /var/lib/tailchat-gate, or the user's "
            "own directory for state."
        ),
    )
    url: StateUrl = Field(
        default="",
        description=(
            "Redis or Valkey server that keeps state in place of state.path, shared by gates on "
            "several machines, the Sentinels that name it, or a Cluster; the password is not part "
            "of it."
        ),
    )
    password: StatePassword | None = Field(
        default=None, description="Password of the server in state.url."
    )
    sentinel_password: StatePassword | None = Field(
        default=None, description="Password of the Sentinels in state.url."
    )


class Log(Section):
    """What is written to the log."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severity of the messages that are logged."
    )
    access: StrictBool = Field(
        default=True, description="Whether each request is logged, as one line of JSON."
    )
    access_file: AuditFile = Field(
        default="",
        description="File for those lines; empty writes them to standard output.",
    )
    access_fields: Annotated[tuple[LogField, ...], AfterValidator(identifier.distinct)] = Field(
        default=DEFAULT_LOG_FIELDS,
        description="The fields of those lines, in this order.",
        examples=[["time", "status", "method", "host", "path", "query", "ms"]],
    )
    format: Literal["auto", "json", "text"] = Field(
        default="auto",
        description=(
            "How lines look: as JSON, or as text for people; auto is text on a terminal and JSON "
            "elsewhere."
        ),
    )
    audit_file: AuditFile = Field(
        default="",
        description=(
            "File for sign-ins, sign-outs and refusals; empty writes them into the gate's own log."
        ),
    )


class Tracing(Section):
    """Which traces (W3C Trace Context) requests belong to."""

    trust: Trusted = Field(
        default="proxies",
        description=(
            "Whose traceparent, tracestate and X-Request-Id are taken over: those of "
            "server.trusted_proxies, anyone's, or nobody's."
        ),
    )
    sample: Share = Field(
        default=0.0,
        description=(
            "Share of the traces begun here that are sampled; with 0 none is begun, and only "
            "requests that come with a trace have one."
        ),
        examples=[0.05],
    )
    endpoint: Collector = Field(
        default="",
        description=(
            "Collector that gets spans of sampled traces over OTLP/HTTP, without /v1/traces; empty "
            "records none. It needs the extra `tracing`."
        ),
        examples=["http://127.0.0.1:4318"],
    )
    identity: StrictBool = Field(
        default=False,
        description="Whether spans tell who sent a request: the sub and the visitor's address.",
    )
