"""The table of a route: on top of its target, who may enter, what passes, and its limits."""

from typing import Annotated, Literal

from pydantic import Field, StrictBool

from tailchat_gate.config.tables.fields import Deny, RateText, Seconds, Size, Whole, empty
from tailchat_gate.config.tables.route_fields import (
    Allow,
    Audience,
    Embedders,
    Headers,
    Origins,
    PassFields,
    PassResponseFields,
    Upgrades,
)
from tailchat_gate.config.tables.target import TargetSettings
from tailchat_gate.config.values import header, identifier

_LARGEST_BODY = 2**40
_LARGEST_BUFFER = 64 << 20
#: The limit of a buffered body, in bytes, if max_body_bytes sets none.
_LARGEST_KEPT_BODY = 1 << 30


class RouteSettings(TargetSettings):
    """A [[route]] of the file."""

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
    def uses_email(self) -> bool:
        """Whether the tool gets e-mail addresses."""
        return self.email or any(
            header.EMAIL in header.fields(text) for text in self.headers.values()
        )

    @property
    def body_limit(self) -> int:
        """How many bytes the body of a request may have, 0 for any number."""
        return self.max_body_bytes or (_LARGEST_KEPT_BODY if self.request_buffer else 0)
