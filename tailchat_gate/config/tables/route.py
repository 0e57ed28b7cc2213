"""The table of a route."""

from typing import Annotated, Literal

from pydantic import Field, StrictBool

from tailchat_gate.config.tables.fields import Deny, RateText, Seconds, Size, Whole, empty
from tailchat_gate.config.tables.route_fields import (
    Allow,
    Audience,
    Embedders,
    Headers,
    HealthCheck,
    Host,
    Methods,
    Origins,
    PassFields,
    PassResponseFields,
    PemFile,
    RoutePath,
    ServerName,
    TileSettings,
    TlsPins,
    Upgrades,
    Upstream,
    UpstreamHost,
    UpstreamPath,
)
from tailchat_gate.config.values import header, identifier

_LARGEST_BODY = 2**40
_LARGEST_BUFFER = 64 << 20
#: The limit of a buffered body, in bytes, if max_body_bytes sets none.
_LARGEST_KEPT_BODY = 1 << 30


class RouteSettings(TileSettings):
    """A [[route]] of the file."""

    host: Host | None = Field(
        default=None,
        description=(
            "Host name the route answers to, or *.example.com for every name below that one; left "
            "out, it answers to every host."
        ),
        examples=["grafana.example.com"],
    )
    path: RoutePath = Field(
        default="/",
        description="Path the route begins at, by whole segments; the longest matching path wins.",
    )
    methods: Methods = Field(
        default=(),
        description="Methods the route takes, GET with HEAD; empty takes all.",
        examples=[["GET", "POST"]],
    )
    upstream: Upstream = Field(
        description=(
            "Where the tool listens: http://host:port, https://host:port or unix:/path, or a list "
            "of these; or what the gate answers itself: static:STATUS, the files of "
            "file:/directory, or its admin page, admin:."
        ),
        examples=["http://grafana:3000", ["http://wiki-1:80", "http://wiki-2:80"]],
    )
    balance: Literal["least-connections", "round-robin"] = Field(
        default="least-connections",
        description=(
            "Which of several backends gets a request: the one with the fewest under way, or one "
            "after the other."
        ),
    )
    sticky: StrictBool = Field(
        default=False,
        description=(
            "Whether requests of one person, by sub, go to one of several backends for as long as "
            "that is up."
        ),
    )
    health: HealthCheck | None = Field(
        default=None,
        description="What each of several backends is asked regularly, to see whether it is up.",
        examples=[{"path": "/healthz"}],
    )
    max_fails: Annotated[int, Whole(0, 1000)] = Field(
        default=3,
        description=(
            "After how many failures in a row one of several backends is out; 0 counts none."
        ),
    )
    fail_timeout: Annotated[float, Seconds(above_zero=True)] = Field(
        default=10.0, description="How long a backend is out after failures, at least."
    )
    panic_threshold: Annotated[int, Whole(0, 100)] = Field(
        default=25,
        description=(
            "Percentage of backends that must be up; while fewer are, requests go to all, up or "
            "out."
        ),
    )
    slow_start: Annotated[float, Seconds()] = Field(
        default=0.0,
        description=(
            "Over how long the share of a backend that comes back grows to that of the others; 0 "
            "is at once."
        ),
    )
    upstream_path: UpstreamPath | None = Field(
        default=None,
        description="Path that the tool sees in place of the route's; left out, it sees the same.",
        examples=["/"],
    )
    name_variants: StrictBool = Field(
        default=True,
        description=(
            "Whether names that many tools add or drop, such as .json, .html and index.php, count "
            "as further readings of a path."
        ),
    )
    upstream_host: UpstreamHost | None = Field(
        default=None,
        description="Host in requests to the tool; left out, it is the visitor's.",
        examples=["grafana.lan:3000"],
    )
    rewrite_location: StrictBool = Field(
        default=False,
        description=(
            "Whether addresses of the tool in Location, Content-Location and Refresh become those "
            "of the gate."
        ),
    )
    rewrite_cookies: StrictBool = Field(
        default=False,
        description="Whether the tool's cookies lose their Domain and get the route's path.",
    )
    tls_ca: PemFile | None = Field(
        default=None,
        description=(
            "PEM file of the authorities that an https tool is verified by, in place of the "
            "system's."
        ),
        examples=["/etc/tailchat-gate/tool-ca.pem"],
    )
    tls_certificate: PemFile | None = Field(
        default=None,
        description="PEM file of the certificate that the gate shows an https tool.",
        examples=["/etc/tailchat-gate/client.pem"],
    )
    tls_key: PemFile | None = Field(
        default=None,
        description="PEM file of that certificate's private key, without a password.",
        examples=["/etc/tailchat-gate/client.key"],
    )
    tls_pin: TlsPins = Field(
        default=(),
        description=(
            "Keys by which an https tool is known, sha256: and the hash of its certificate's "
            "public key; without tls_ca, in place of a valid certificate."
        ),
        examples=[["sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"]],
    )
    tls_server_name: ServerName | None = Field(
        default=None,
        description="Name that an https tool is asked for and verified by, in place of its host.",
        examples=["grafana.lan"],
    )
    allow: Allow = Field(
        default=(identifier.SIGNED_IN,),
        description=(
            "Who may enter, any entry is enough: group:NAME, sub:ID, token:NAME, signed-in for "
            "every Tailchat user, or public alone for everybody."
        ),
    )
    deny: Deny = Field(
        default=(),
        description=(
            "Who may not enter whatever allow says: group:NAME, sub:ID or token:NAME; where "
            "everybody may, these do as nobody."
        ),
        examples=[["sub:660000000000000000000009"]],
    )
    grants: StrictBool = Field(
        default=True,
        description=(
            "Whether people may be let in for a while by `tailchat-gate grant` although allow "
            "does not list them."
        ),
    )
    headers: Headers = Field(
        default_factory=empty,
        description=(
            "Further request headers for the tool, from templates with {sub}, {nickname}, "
            "{discriminator}, {avatar}, {groups} and {email}, or with {client}, the visitor's "
            "address."
        ),
        repr=False,
    )
    email: StrictBool = Field(
        default=False,
        description=(
            "Whether the tool gets X-Tailchat-Email, the e-mail address that Tailchat verified."
        ),
    )
    header_encoding: Literal["percent", "utf8", "rfc2047"] = Field(
        default="percent",
        description="How header values outside visible ASCII are written for the tool.",
    )
    pass_fields: PassFields = Field(
        default=(),
        description=(
            "Request headers that go on to the tool as the visitor sent them although the gate "
            "drops them by default: see docs/headers.md."
        ),
        examples=[["X-Original-URL", "legacy_name"]],
    )
    pass_response_fields: PassResponseFields = Field(
        default=(),
        description=(
            "Headers of the tool's responses that pass although they reach beyond the tool: see "
            "docs/headers.md."
        ),
        examples=[["Clear-Site-Data"]],
    )
    connect_timeout: Annotated[float, Seconds(above_zero=True)] = Field(
        default=5.0, description="How long connecting to the tool may take."
    )
    connect_retry: Annotated[float, Seconds(high=60.0)] = Field(
        default=3.0,
        description=(
            "How long a request waits for a tool that refuses connections, as one that is being "
            "restarted does; 0 fails at once."
        ),
    )
    upstream_keepalive: StrictBool = Field(
        default=True, description="Whether a connection to the tool serves more than one request."
    )
    response_timeout: Annotated[float, Seconds()] = Field(
        default=60.0,
        description="How long the tool may take to the first byte of its response; 0 is no limit.",
    )
    idle_timeout: Annotated[float, Seconds()] = Field(
        default=600.0,
        description=(
            "How long a response under way, or both ends of a WebSocket, may be silent; 0 is no "
            "limit."
        ),
    )
    max_body_bytes: Annotated[int, Whole(0, _LARGEST_BODY)] = Field(
        default=0, description="How many bytes the body of a request may have; 0 is no limit."
    )
    request_buffer: Annotated[int, Size(_LARGEST_BUFFER)] = Field(
        default=0,
        description=(
            "How much of a request's body is kept in memory, and the rest in a temporary file, "
            "until it is whole and sent to the tool with a Content-Length; 0 sends it as it comes."
        ),
        examples=["1MiB"],
    )
    max_connections: Annotated[int, Whole(0, 1_000_000)] = Field(
        default=0,
        description=(
            "How many requests and WebSockets the tool may have at once; 0 is a quarter of what "
            "the gate can have, 10000 at most."
        ),
    )
    rate: RateText = Field(
        default="", description="How many requests the tool may get in all; empty is no limit."
    )
    rate_per_client: RateText = Field(
        default="", description="How many requests one client may send; empty is no limit."
    )
    websocket_max_age: Annotated[float, Seconds()] = Field(
        default=0.0, description="How long a WebSocket may stay open; 0 is no limit."
    )
    outlive: StrictBool = Field(
        default=False,
        description=(
            "Whether WebSockets and responses under way continue after their session has ended."
        ),
    )
    origins: Origins = Field(
        default=(),
        description=(
            "Further origins whose pages may send requests that change something and open "
            "WebSockets here, besides the route's own; * alone is any."
        ),
        examples=[["https://app.example.com"]],
    )
    embed: Embedders = Field(
        default=(),
        description=(
            "Origins whose pages may show the tool in a frame, with a sign-in of its own there; "
            "for Tailchat's web panels, Tailchat's."
        ),
        examples=[["https://tailchat.example.com"]],
    )
    upgrades: Upgrades = Field(
        default=(header.WEBSOCKET,),
        description="Protocols that a visitor and the tool may switch a connection to.",
    )
    preflight: StrictBool = Field(
        default=False,
        description=(
            "Whether browsers may ask the tool, without a session, what a page of another origin "
            "may send it (OPTIONS with Origin and Access-Control-Request-Method)."
        ),
    )
    trace: StrictBool = Field(
        default=False, description="Whether the method TRACE is passed on to the tool."
    )
    assertion: StrictBool = Field(
        default=True,
        description=(
            "Whether the tool gets X-Tailchat-Assertion, where [assertion] has a key to sign it."
        ),
    )
    audience: Audience = Field(
        default="",
        description="Whom the assertion is for, its aud; empty is the name of the route.",
        examples=["https://wiki.example.com"],
    )
    forward_authorization: StrictBool = Field(
        default=False,
        description="Whether the Authorization header of a machine goes on to the tool.",
    )

    @property
    def backends(self) -> tuple[str, ...]:
        """The addresses of the tool, or what answers in place of one."""
        return (self.upstream,) if isinstance(self.upstream, str) else self.upstream

    @property
    def upstream_text(self) -> str:
        """The addresses as one text."""
        return ", ".join(self.backends)

    @property
    def uses_email(self) -> bool:
        """Whether the tool gets e-mail addresses."""
        return self.email or any(
            header.EMAIL in header.fields(text) for text in self.headers.values()
        )

    @property
    def body_limit(self) -> int:
        """How many bytes the body of a request may have, 0 for any number."""
        return self.max_body_bytes or (_LARGEST_KEPT_BODY if self.request_buffer else 0)
