"""The keys of a route about its name, its tile, the requests it takes and the tool behind it."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PlainValidator, StrictBool, WithJsonSchema

from tailchat_gate import syntax
from tailchat_gate.config.tables.fields import Seconds, Section, Whole, matching
from tailchat_gate.config.tables.route_fields import (
    Host,
    Methods,
    PemFile,
    RouteName,
    RoutePath,
    ServerName,
    TlsPins,
    Upstream,
    UpstreamHost,
    UpstreamPath,
)
from tailchat_gate.config.values import tile

Title = Annotated[str, AfterValidator(tile.title)]
Description = Annotated[str, AfterValidator(tile.description)]
Icon = Annotated[str, AfterValidator(tile.icon)]
Launch = Annotated[
    str | bool,
    PlainValidator(tile.launch),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, matching(syntax.LAUNCH)]}),
]


class HealthCheck(Section):
    """What a backend is asked, how often, and how many answers count."""

    path: UpstreamPath = Field(
        default="/", description="Path that a backend is asked for; 2xx and 3xx say that it is up."
    )
    interval: Annotated[float, Seconds(low=0.1, high=3600.0)] = Field(
        default=2.0, description="How long after one check the next begins."
    )
    timeout: Annotated[float, Seconds(low=0.1, high=3600.0)] = Field(
        default=2.0, description="How long a backend may take to the status of its response."
    )
    rise: Annotated[int, Whole(1, 100)] = Field(
        default=2, description="After how many good checks in a row a backend is up again."
    )
    fall: Annotated[int, Whole(1, 100)] = Field(
        default=3, description="After how many bad checks in a row a backend is out."
    )


class TileSettings(Section):
    """The name of a route, and how the launcher shows it."""

    name: RouteName = Field(
        description="Name of the route in logs, metrics and commands, unique in any case.",
        examples=["grafana"],
    )
    title: Title = Field(
        default="",
        description="Name of the tool on pages; empty is the name of the route.",
        examples=["Grafana"],
    )
    description: Description = Field(
        default="",
        description="What the tool is for, in one line.",
        examples=["Dashboards and alerts"],
    )
    icon: Icon = Field(
        default="",
        description="An emoji, or the path of a picture of at most 32 KiB.",
        examples=["/etc/tailchat-gate/grafana.svg"],
    )
    launch: Launch = Field(
        default=True,
        description=(
            "What the launcher opens: true is the route's path, a text another path in it; false "
            "leaves the route out."
        ),
        examples=["/wiki/Main_Page"],
    )

    @property
    def shown_name(self) -> str:
        """The name that people read: the title, or else the name of the route."""
        return self.title or self.name


class TargetSettings(TileSettings):
    """Which requests a route takes, and which tool gets them."""

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

    @property
    def backends(self) -> tuple[str, ...]:
        """The addresses of the tool, or what answers in place of one."""
        return (self.upstream,) if isinstance(self.upstream, str) else self.upstream

    @property
    def upstream_text(self) -> str:
        """The addresses as one text."""
        return ", ".join(self.backends)
