"""The kinds of value of the keys of routes and tokens, as in `fields.py`."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated

from pydantic import AfterValidator, PlainSerializer, PlainValidator, WithJsonSchema

from tailchat_gate import syntax
from tailchat_gate.config.tables.fields import distinct_items, matching
from tailchat_gate.config.values import address, header, identifier, path, url


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
