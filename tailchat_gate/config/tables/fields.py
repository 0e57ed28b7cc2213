"""The kinds of value a key can have: how each is checked, and how JSON Schema describes it.

Those of routes and tokens are in `route_fields.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Final, Literal, Never, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    GetPydanticSchema,
    PlainSerializer,
    SecretStr,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from tailchat_gate import syntax
from tailchat_gate.config.values import address, group, identifier, path, quantities, secret, url

#: The largest `max` of a group.
MOST_MEMBERS: Final = 1_000_000
#: The text in place of a number that the gate is to choose.
AUTO: Final = "auto"


class Section(BaseModel):
    """A table of the file: immutable, without unknown keys; its errors do not show the input."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    #: For a key that holds a secret: the keys of the file that it can be written in, each with
    #: its description. The model itself has only the resulting key.
    secret_forms: ClassVar[Mapping[str, Mapping[str, str]]] = MappingProxyType({})


class _Mark(ABC):
    """Annotates the type of a key: `read` makes its value, `shown` writes that as in the file."""

    __slots__ = ()

    #: Takes the result of `read` and returns the text for a file; None if they are equal.
    shown: ClassVar[Any] = None

    @abstractmethod
    def read(self, value: object) -> object:
        """Read a value of the file; raises ValueError, whose text says what is accepted."""

    def __get_pydantic_core_schema__(
        self, _source: object, _handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        if self.shown is None:
            return core_schema.no_info_plain_validator_function(self.read)
        written = core_schema.plain_serializer_function_ser_schema(self.shown, when_used="json")
        return core_schema.no_info_plain_validator_function(self.read, serialization=written)


@dataclass(frozen=True, slots=True)
class Seconds(_Mark):
    """Marks a float as a duration, written as text and stored in seconds.

    `low` and `high` are the bounds, both inclusive; `above_zero` excludes 0.
    """

    shown = staticmethod(quantities.format_duration)

    low: float = 0.0
    high: float = float("inf")
    above_zero: bool = False

    def read(self, value: object) -> float:
        """Read a duration and check the bounds; raises ValueError."""
        length = quantities.read_duration(value)
        if self.above_zero and not length:
            raise ValueError(f"{quantities.DURATION}, longer than 0")
        if length < self.low or length > self.high:
            high = quantities.format_duration(self.high)
            bounds = (
                f"from {quantities.format_duration(self.low)} to {high}"
                if self.low
                else f"of at most {high}"
            )
            raise ValueError(f"{quantities.DURATION}, {bounds}")
        return length

    def __get_pydantic_json_schema__(
        self, _schema: CoreSchema, _handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        pattern = "^(0|([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?)$"
        text = {"type": "string", "minLength": 1, "pattern": pattern}
        return text if self.above_zero else {"anyOf": [text, {"const": 0}]}


@dataclass(frozen=True, slots=True)
class Whole(_Mark):
    """Marks an int as a whole number from `low` to `high`, both inclusive; `auto` allows AUTO."""

    low: int
    high: int
    auto: bool = False

    def read(self, value: object) -> int | str:
        """Check the bounds of a number; raises ValueError."""
        if self.auto and value == AUTO:
            return AUTO
        if type(value) is not int or not self.low <= value <= self.high:
            other = f', or "{AUTO}"' if self.auto else ""
            raise ValueError(f"a whole number from {self.low} to {self.high}{other}")
        return value

    def __get_pydantic_json_schema__(
        self, _schema: CoreSchema, _handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        number = {"type": "integer", "minimum": self.low, "maximum": self.high}
        return {"anyOf": [number, {"const": AUTO}]} if self.auto else number


@dataclass(frozen=True, slots=True)
class Size(_Mark):
    """Marks an int as a size in bytes, written as text; `high` is the largest allowed."""

    shown = staticmethod(quantities.format_size)

    high: int

    def read(self, value: object) -> int:
        """Read a size and check the bound; raises ValueError."""
        count = quantities.read_size(value)
        if count > self.high:
            raise ValueError(f"{quantities.SIZE}, of at most {quantities.format_size(self.high)}")
        return count

    def __get_pydantic_json_schema__(
        self, _schema: CoreSchema, _handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        text = {"type": "string", "pattern": "^(0|[0-9]+(KiB|MiB))$"}
        return {"anyOf": [text, {"const": 0}]}


@dataclass(frozen=True, slots=True)
class Moment(_Mark):
    """Marks a float as a moment, written as a date or a date and time, stored in Unix seconds."""

    shown = staticmethod(quantities.format_timestamp)

    def read(self, value: object) -> float:
        """Read a moment; raises ValueError."""
        return quantities.read_timestamp(value)

    def __get_pydantic_json_schema__(
        self, _schema: CoreSchema, _handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        # Editors validate TOML's dates against a schema as text.
        return {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}"}


def matching(pattern: str) -> dict[str, str]:
    """Return the JSON Schema of texts that match a pattern completely."""
    return {"type": "string", "pattern": f"^{pattern}$"}


def distinct_items(items: Mapping[str, Any], *, at_least: int = 0) -> dict[str, Any]:
    """Return the JSON Schema of lists without repetitions; `items` is that of each item."""
    least = {"minItems": at_least} if at_least else {}
    return {"type": "array", **least, "uniqueItems": True, "items": items}


def empty() -> Mapping[str, Never]:
    """Return an empty immutable mapping: the default of a table whose keys the admin chooses."""
    return MappingProxyType({})


def _listed(value: object) -> object:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list | tuple):
        raise ValueError(f"{address.LISTEN}, in quotes, or a list of these")  # noqa: TRY004 - as pydantic reports
    return value


def _checked(check: Callable[[str], None]) -> Callable[[SecretStr], SecretStr]:
    def inspect(value: SecretStr) -> SecretStr:
        check(value.get_secret_value())
        return value

    return inspect


def _frozen(groups: Mapping[str, group.Group]) -> Mapping[str, group.Group]:
    return MappingProxyType(dict(groups))


UnixMode = Annotated[str, AfterValidator(identifier.unix_mode)]
UnixGroup = Annotated[str, AfterValidator(identifier.unix_group)]
Listener = Annotated[str, AfterValidator(address.listen)]
Listeners = Annotated[
    tuple[Listener, ...],
    BeforeValidator(_listed),
    AfterValidator(identifier.distinct),
    WithJsonSchema({"anyOf": [{"type": "string"}, distinct_items({"type": "string"})]}),
]
Origin = Annotated[
    str,
    AfterValidator(url.origin),
    WithJsonSchema(matching(f"{syntax.SCHEMA_HTTP_HOST}/?")),
]
BaseUrl = Annotated[
    str,
    AfterValidator(url.base_url),
    WithJsonSchema(matching(f"{syntax.SCHEMA_HTTP_HOST}(/[^?#]*)?")),
]
Issuer = Annotated[str, AfterValidator(url.issuer)]
Network = Annotated[
    address.Network,
    BeforeValidator(address.network),
    PlainSerializer(str, when_used="json"),
    WithJsonSchema({"type": "string"}),
]
Prefix = Annotated[
    str,
    AfterValidator(path.prefix),
    WithJsonSchema(matching(syntax.PREFIX)),
]
ClientId = Annotated[
    str, AfterValidator(identifier.client_id), WithJsonSchema({"type": "string", "minLength": 1})
]
Scope = Annotated[str, AfterValidator(identifier.scope)]
CookieName = Annotated[
    str,
    AfterValidator(identifier.cookie_name),
    WithJsonSchema(matching(syntax.COOKIE_NAME)),
]
Via = Annotated[
    str,
    AfterValidator(identifier.via),
    WithJsonSchema(matching(syntax.PSEUDONYM)),
]
StatePath = Annotated[
    str,
    AfterValidator(path.state_directory),
    WithJsonSchema(matching(f"({syntax.FILE})?")),
]
AuditFile = Annotated[str, AfterValidator(path.file_or_none)]
Contact = Annotated[str, AfterValidator(identifier.contact)]
RateText = Annotated[
    str,
    AfterValidator(quantities.rate),
    WithJsonSchema(matching(f"({quantities.RATE_PATTERN})?")),
]
Deny = Annotated[
    tuple[Annotated[str, AfterValidator(identifier.deny_entry)], ...],
    AfterValidator(identifier.distinct),
    WithJsonSchema(distinct_items(matching(identifier.DENY_ENTRY))),
]
Approvers = Annotated[
    tuple[Annotated[str, AfterValidator(identifier.person_entry)], ...],
    AfterValidator(identifier.distinct),
    WithJsonSchema(distinct_items(matching(identifier.PERSON_ENTRY))),
]
NoticeKind = Literal["locks", "reloads", "sign-ins", "tools"]
Notices = Annotated[tuple[NoticeKind, ...], AfterValidator(identifier.distinct)]
Panel = Annotated[str, AfterValidator(group.panel), WithJsonSchema(matching(group.PANEL_IDS))]
_Members = Annotated[
    tuple[Annotated[str, AfterValidator(group.member)], ...], AfterValidator(group.Group)
]


class _LimitedGroup(Section):
    """A group as a table."""

    members: _Members = group.Group()
    max: Annotated[int, Whole(1, MOST_MEMBERS)] | None = None

    @model_validator(mode="after")
    def _has_room(self) -> Self:
        listed = len(group.Group(self.members).subs)
        if self.max is not None and listed > self.max:
            raise ValueError(f"max of at least {listed}, the number of subs")
        return self


def _read_group(value: object, read: ValidatorFunctionWrapHandler) -> group.Group:
    if isinstance(value, group.Group):
        return value
    if isinstance(value, Mapping):
        made = _LimitedGroup.model_validate(value)
        return group.Group(made.members, made.max)
    result: group.Group = read(value)
    return result


_MEMBERS: dict[str, Any] = {"type": "array", "items": matching(group.MEMBER_ENTRY)}
Groups = Annotated[
    Mapping[
        Annotated[str, AfterValidator(identifier.group_name)],
        Annotated[
            group.Group,
            GetPydanticSchema(lambda _, handler: handler.generate_schema(_Members)),
            WrapValidator(_read_group),
        ],
    ],
    AfterValidator(_frozen),
    PlainSerializer(dict, when_used="json"),
    WithJsonSchema(
        {
            "type": "object",
            "additionalProperties": {
                "anyOf": [
                    _MEMBERS,
                    {
                        "type": "object",
                        "additionalProperties": False,
                        "properties": {
                            "members": _MEMBERS,
                            "max": {"type": "integer", "minimum": 1, "maximum": MOST_MEMBERS},
                        },
                    },
                ]
            },
        }
    ),
]
ClientSecret = Annotated[SecretStr, AfterValidator(_checked(secret.client_secret))]
SessionSecrets = Annotated[
    tuple[Annotated[SecretStr, AfterValidator(_checked(secret.session_secret))], ...],
    AfterValidator(identifier.at_least_one),
]
