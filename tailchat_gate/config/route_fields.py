"""The kinds of value that the keys of a route have, as in `fields.py`."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated

from pydantic import AfterValidator, PlainSerializer, WithJsonSchema

from tailchat_gate.config import address, header, path, upgrade, url, word


def _one_header_each(headers: Mapping[str, str]) -> Mapping[str, str]:
    folds = [header.folded(name) for name in headers]
    twice = sorted({name for name in headers if folds.count(header.folded(name)) > 1})
    if twice:
        raise ValueError(f"each header once; {' and '.join(twice)} are one header to many tools")
    return MappingProxyType(dict(headers))


RouteName = Annotated[
    str,
    AfterValidator(word.route_name),
    WithJsonSchema({"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"}),
]
Host = Annotated[
    str,
    AfterValidator(url.route_host),
    WithJsonSchema({"type": "string", "pattern": "^([*][.])?[^/*]+$"}),
]
RoutePath = Annotated[
    str,
    AfterValidator(path.route_path),
    WithJsonSchema({"type": "string", "pattern": "^/[^%?#;\\\\*]*$"}),
]
Methods = Annotated[
    tuple[Annotated[str, AfterValidator(word.method)], ...],
    AfterValidator(word.distinct),
    WithJsonSchema(
        {
            "type": "array",
            "uniqueItems": True,
            "items": {"type": "string", "pattern": "^(?!CONNECT$)[A-Z][A-Z0-9_-]{0,31}$"},
        }
    ),
]
Upstream = Annotated[
    str,
    AfterValidator(address.upstream),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": (
                "^([Hh][Tt][Tt][Pp][Ss]?://[^/?#@]+|unix:/.+|static:[2-5][0-9][0-9]|file:/[^/].*)$"
            ),
        }
    ),
]
UpstreamPath = Annotated[
    str,
    AfterValidator(path.upstream_path),
    WithJsonSchema({"type": "string", "pattern": "^/[^%?#;\\\\*]*$"}),
]
UpstreamHost = Annotated[
    str,
    AfterValidator(url.authority),
    WithJsonSchema({"type": "string", "pattern": "^[^/?#@]+$"}),
]
PemFile = Annotated[
    str,
    AfterValidator(path.absolute_file),
    WithJsonSchema({"type": "string", "pattern": "^/."}),
]
TlsPins = Annotated[
    tuple[Annotated[str, AfterValidator(word.tls_pin)], ...],
    AfterValidator(word.distinct),
    WithJsonSchema(
        {
            "type": "array",
            "uniqueItems": True,
            "items": {"type": "string", "pattern": "^sha256:[0-9A-Fa-f:]+$"},
        }
    ),
]
ServerName = Annotated[
    str,
    AfterValidator(url.server_name),
    WithJsonSchema({"type": "string", "pattern": "^[^/*]+$"}),
]
Allow = Annotated[
    tuple[Annotated[str, AfterValidator(word.allow_entry)], ...],
    AfterValidator(word.allow),
    WithJsonSchema(
        {
            "type": "array",
            "minItems": 1,
            "uniqueItems": True,
            "items": {"type": "string", "pattern": "^(public|signed-in|(group|sub|token):.+)$"},
        }
    ),
]
Audience = Annotated[
    str,
    AfterValidator(word.audience),
    WithJsonSchema({"type": "string", "pattern": "^[!-~]{0,255}$"}),
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
    AfterValidator(word.distinct),
    WithJsonSchema(
        {
            "type": "array",
            "uniqueItems": True,
            "items": {"type": "string", "pattern": "^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$"},
        }
    ),
]
PassResponseFields = Annotated[
    tuple[Annotated[str, AfterValidator(header.passed_response_name)], ...],
    AfterValidator(word.distinct),
    WithJsonSchema(
        {
            "type": "array",
            "uniqueItems": True,
            "items": {"type": "string", "pattern": "^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$"},
        }
    ),
]
Origins = Annotated[
    tuple[Annotated[str, AfterValidator(upgrade.origin)], ...],
    AfterValidator(upgrade.origins),
    WithJsonSchema(
        {
            "type": "array",
            "uniqueItems": True,
            "items": {
                "type": "string",
                "pattern": "^([*]|null|[A-Za-z][A-Za-z0-9+.-]*://[^/?#@]*/?)$",
            },
        }
    ),
]
Upgrades = Annotated[
    tuple[Annotated[str, AfterValidator(upgrade.protocol)], ...],
    AfterValidator(word.distinct),
    WithJsonSchema(
        {
            "type": "array",
            "uniqueItems": True,
            "items": {
                "type": "string",
                "pattern": "^(?!(h2c?|h3|https?|tls|ssl)$)[a-z0-9!#$%&'*+.^_`|~-]{1,64}$",
            },
        }
    ),
]
