"""The kinds of value of the keys of routes and tokens, as in `fields.py`, and parts of a route."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated

from pydantic import AfterValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema

from tailchat_gate import syntax
from tailchat_gate.config.tables.fields import Seconds, Section, Whole, distinct_items, matching
from tailchat_gate.config.values import address, header, identifier, path, tile, url

Title = Annotated[str, AfterValidator(tile.title)]
Description = Annotated[str, AfterValidator(tile.description)]
Icon = Annotated[str, AfterValidator(tile.icon)]
Launch = Annotated[
    str | bool,
    PlainValidator(tile.launch),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, matching(syntax.LAUNCH)]}),
]


def _one_header_each(headers: Mapping[str, str]) -> Mapping[str, str]:
    folds = [header.folded(name) for name in headers]
    twice = sorted({name for name in headers if folds.count(header.folded(name)) > 1})
    if twice:
        raise ValueError(f"each header once; {' and '.join(twice)} are one header to many tools")
    return MappingProxyType(dict(headers))


RouteName = Annotated[
    str,
    AfterValidator(identifier.route_name),
    WithJsonSchema(matching(syntax.ROUTE_NAME)),
]
Host = Annotated[
    str,
    AfterValidator(url.route_host),
    WithJsonSchema(matching("([*][.])?[^/*]+")),
]
RoutePath = Annotated[
    str,
    AfterValidator(path.route_path),
    WithJsonSchema(matching(syntax.ROUTE_PATH)),
]
Methods = Annotated[
    tuple[Annotated[str, AfterValidator(identifier.method)], ...],
    AfterValidator(identifier.distinct),
    WithJsonSchema(
        distinct_items(matching(f"(?!{identifier.CONNECT}$){syntax.REGISTERED_METHOD}"))
    ),
]
Upstream = Annotated[
    str | tuple[str, ...],
    PlainValidator(address.upstreams),
    WithJsonSchema(
        {
            "anyOf": [
                matching(
                    f"({syntax.SCHEMA_HTTP_HOST}|unix:/.+|static:{syntax.OWN_STATUS}|file:/[^/].*|admin:)"
                ),
                distinct_items(matching(f"({syntax.SCHEMA_HTTP_HOST}|unix:/.+)"), at_least=1),
            ]
        }
    ),
]
UpstreamPath = Annotated[
    str,
    AfterValidator(path.upstream_path),
    WithJsonSchema(matching(syntax.ROUTE_PATH)),
]
UpstreamHost = Annotated[
    str,
    AfterValidator(url.authority),
    WithJsonSchema(matching(f"[^{syntax.AUTHORITY_ENDS}@]+")),
]
PemFile = Annotated[
    str,
    AfterValidator(path.absolute_file),
    WithJsonSchema(matching(syntax.FILE)),
]
TlsPins = Annotated[
    tuple[Annotated[str, AfterValidator(identifier.tls_pin)], ...],
    AfterValidator(identifier.distinct),
    WithJsonSchema(distinct_items(matching("sha256:[0-9A-Fa-f:]+"))),
]
ServerName = Annotated[
    str,
    AfterValidator(url.server_name),
    WithJsonSchema(matching("[^/*]+")),
]
Allow = Annotated[
    tuple[Annotated[str, AfterValidator(identifier.allow_entry)], ...],
    AfterValidator(identifier.allow),
    WithJsonSchema(distinct_items(matching(identifier.ALLOW_ENTRY), at_least=1)),
]
Audience = Annotated[
    str,
    AfterValidator(identifier.audience),
    WithJsonSchema(matching(syntax.AUDIENCE)),
]
Headers = Annotated[
    Mapping[
        Annotated[str, AfterValidator(header.header_name)],
        Annotated[str, AfterValidator(header.template)],
    ],
    AfterValidator(_one_header_each),
    PlainSerializer(dict, when_used="json"),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "string", "minLength": 1}}),
]
PassFields = Annotated[
    tuple[Annotated[str, AfterValidator(header.passed_name)], ...],
    AfterValidator(identifier.distinct),
    WithJsonSchema(distinct_items(matching(syntax.SHORT_TOKEN))),
]
PassResponseFields = Annotated[
    tuple[Annotated[str, AfterValidator(header.passed_response_name)], ...],
    AfterValidator(identifier.distinct),
    WithJsonSchema(distinct_items(matching(syntax.SHORT_TOKEN))),
]
Origins = Annotated[
    tuple[Annotated[str, AfterValidator(header.origin)], ...],
    AfterValidator(header.origins),
    WithJsonSchema(
        distinct_items(matching(f"([*]|null|{syntax.SCHEME}://[^{syntax.AUTHORITY_ENDS}@]*/?)"))
    ),
]
Embedders = Annotated[
    tuple[Annotated[str, AfterValidator(url.secure_origin)], ...],
    AfterValidator(identifier.distinct),
    WithJsonSchema(
        distinct_items(matching(f"{syntax.HTTP_SCHEME}://[^{syntax.AUTHORITY_ENDS}@]*/?"))
    ),
]
Upgrades = Annotated[
    tuple[Annotated[str, AfterValidator(header.protocol)], ...],
    AfterValidator(identifier.distinct),
    WithJsonSchema(
        distinct_items(matching(f"(?!({'|'.join(header.REFUSED)})$){syntax.PROTOCOL_NAME}"))
    ),
]
TokenName = Annotated[
    str,
    AfterValidator(identifier.token_name),
    WithJsonSchema(matching(syntax.PLAIN_NAME)),
]
TokenHash = Annotated[
    str,
    AfterValidator(identifier.token_hash),
    WithJsonSchema(matching(syntax.TOKEN_HASH)),
]
RouteNames = Annotated[
    tuple[Annotated[str, AfterValidator(identifier.route_name)], ...],
    AfterValidator(identifier.at_least_one),
    AfterValidator(identifier.distinct),
    WithJsonSchema(distinct_items(matching(syntax.ROUTE_NAME), at_least=1)),
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
        """What people read of the route."""
        return self.title or self.name
