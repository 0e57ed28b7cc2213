"""The kinds of value a key can have: how each is checked, and how JSON Schema describes it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Never

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    SecretStr,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from tailchat_gate.config import address, duration, header, path, secret, word


class Section(BaseModel):
    """A table of the file: immutable, without unknown keys, and silent about what it refuses."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


@dataclass(frozen=True, slots=True)
class Seconds:
    """Marks a float as a duration, written as text and kept in seconds.

    `low` and `high` are the bounds, both allowed unless `above_zero` takes 0 away.
    """

    low: float = 0.0
    high: float = float("inf")
    above_zero: bool = False

    def read(self, value: object) -> float:
        """Read a duration and hold it to the bounds; raises ValueError."""
        length = duration.seconds(value)
        if self.above_zero and not length:
            raise ValueError(f"{duration.SHAPE}, longer than 0")
        if length < self.low or length > self.high:
            least = f" from {duration.spelled(self.low)}" if self.low else ""
            raise ValueError(f"{duration.SHAPE},{least} of at most {duration.spelled(self.high)}")
        return length

    def __get_pydantic_core_schema__(
        self, _source: object, _handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.read,
            serialization=core_schema.plain_serializer_function_ser_schema(
                duration.spelled, when_used="json"
            ),
        )

    def __get_pydantic_json_schema__(
        self, _schema: CoreSchema, _handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        pattern = "^(0|([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?)$"
        text = {"type": "string", "minLength": 1, "pattern": pattern}
        return text if self.above_zero else {"anyOf": [text, {"const": 0}]}


def empty() -> Mapping[str, Never]:
    """Make an immutable mapping of nothing, the default of a table with free keys."""
    return MappingProxyType({})


def _listed(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    if not values:
        raise ValueError("at least one entry")
    if len(set(values)) < len(values):
        raise ValueError("each entry once")
    return values


def _checked(check: Callable[[str], None]) -> Callable[[SecretStr], SecretStr]:
    def inspect(value: SecretStr) -> SecretStr:
        check(value.get_secret_value())
        return value

    return inspect


def _one_header_each(headers: Mapping[str, str]) -> Mapping[str, str]:
    folds = [header.folded(name) for name in headers]
    twice = sorted({name for name in headers if folds.count(header.folded(name)) > 1})
    if twice:
        raise ValueError(f"each header once; {' and '.join(twice)} are one header to many tools")
    return MappingProxyType(dict(headers))


def _frozen(groups: Mapping[str, tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
    return MappingProxyType(dict(groups))


Listener = Annotated[str, AfterValidator(address.listen)]
Listeners = Annotated[
    tuple[Listener, ...],
    BeforeValidator(_listed),
    AfterValidator(_distinct),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}, "minItems": 1, "uniqueItems": True},
            ]
        }
    ),
]
Origin = Annotated[
    str,
    AfterValidator(address.origin),
    WithJsonSchema({"type": "string", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://[^/?#@]+/?$"}),
]
BaseUrl = Annotated[
    str,
    AfterValidator(address.base_url),
    WithJsonSchema({"type": "string", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://[^/?#@]+(/[^?#]*)?$"}),
]
Issuer = Annotated[str, AfterValidator(address.issuer)]
Network = Annotated[
    address.Network,
    BeforeValidator(address.network),
    PlainSerializer(str, when_used="json"),
    WithJsonSchema({"type": "string"}),
]
Host = Annotated[
    str,
    AfterValidator(address.route_host),
    WithJsonSchema({"type": "string", "pattern": "^[^/*]+$"}),
]
Upstream = Annotated[
    str,
    AfterValidator(address.upstream),
    WithJsonSchema({"type": "string", "pattern": "^([Hh][Tt][Tt][Pp][Ss]?://[^/?#@]+|unix:/.+)$"}),
]
Prefix = Annotated[
    str,
    AfterValidator(path.prefix),
    WithJsonSchema({"type": "string", "pattern": "^(/[A-Za-z0-9._~-]+)+$"}),
]
RoutePath = Annotated[
    str,
    AfterValidator(path.route_path),
    WithJsonSchema({"type": "string", "pattern": "^/[^%?#;\\\\*]*$"}),
]
RouteName = Annotated[
    str,
    AfterValidator(word.route_name),
    WithJsonSchema({"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"}),
]
ClientId = Annotated[
    str, AfterValidator(word.client_id), WithJsonSchema({"type": "string", "minLength": 1})
]
Scope = Annotated[str, AfterValidator(word.scope)]
Contact = Annotated[str, AfterValidator(word.contact)]
Allow = Annotated[
    tuple[Annotated[str, AfterValidator(word.allow_entry)], ...],
    AfterValidator(word.allow),
    WithJsonSchema(
        {
            "type": "array",
            "minItems": 1,
            "uniqueItems": True,
            "items": {"type": "string", "pattern": "^(public|signed-in|group:.+|sub:.+)$"},
        }
    ),
]
Groups = Annotated[
    Mapping[
        Annotated[str, AfterValidator(word.group_name)],
        tuple[Annotated[str, AfterValidator(word.sub)], ...],
    ],
    AfterValidator(_frozen),
    PlainSerializer(dict, when_used="json"),
    WithJsonSchema(
        {
            "type": "object",
            "additionalProperties": {
                "type": "array",
                "items": {"type": "string", "pattern": "^[!-~]+$"},
            },
        }
    ),
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
ClientSecret = Annotated[SecretStr, AfterValidator(_checked(secret.client_secret))]
SessionSecrets = Annotated[
    tuple[Annotated[SecretStr, AfterValidator(_checked(secret.session_secret))], ...],
    AfterValidator(word.at_least_one),
]
