"""One machine token: its name, the hash it is known by, where it is good and until when."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import (
    AfterValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from tailchat_gate import syntax
from tailchat_gate.config.conflicts import Conflict
from tailchat_gate.config.fields import Section, matching
from tailchat_gate.config.partial import judged, readable
from tailchat_gate.config.problems import did_you_mean, shown
from tailchat_gate.config.route import Route
from tailchat_gate.config.values import identifier, quantities


@dataclass(frozen=True, slots=True)
class Moment:
    """Marks a float as a moment, written as a date or a date and time, kept in Unix seconds."""

    def __get_pydantic_core_schema__(
        self, _source: object, _handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            quantities.read_timestamp,
            serialization=core_schema.plain_serializer_function_ser_schema(
                quantities.format_timestamp, when_used="json"
            ),
        )

    def __get_pydantic_json_schema__(
        self, _schema: CoreSchema, _handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        # Editors show a schema TOML's dates as text.
        return {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}"}


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
    WithJsonSchema(
        {
            "type": "array",
            "minItems": 1,
            "uniqueItems": True,
            "items": matching(syntax.ROUTE_NAME),
        }
    ),
]


class Token(Section):
    """A [[token]] of the file."""

    name: TokenName = Field(
        description="Name of the token in allow lists, logs and headers, unique in any case.",
        examples=["backup"],
    )
    hash: TokenHash = Field(
        description="Hash of the token, as `tailchat-gate token NAME` prints it.",
        examples=["sha256:..."],
    )
    routes: RouteNames | None = Field(
        default=None,
        description=(
            "Names of the routes that the token is good for; left out, every route whose allow "
            "names it."
        ),
        examples=[["wiki"]],
    )
    expires: Annotated[float, Moment()] | None = Field(
        default=None,
        description=(
            "When the token ends: a date, or a date and time with its zone; left out, it does not."
        ),
        examples=["2027-01-01"],
    )


def token_conflicts(
    tokens: Mapping[int, Token],
    routes: Mapping[int, Route],
    token_names: Collection[str] | None,
    route_names: Collection[str] | None,
) -> tuple[Conflict, ...]:
    """Compare tokens with one another and with the routes.

    `tokens` and `routes` go by position in the file and may have gaps; the names are those of
    all there are, also of those with problems, None where they are not known.
    """
    names: dict[str, int] = {}
    hashes: dict[str, int] = {}
    found: list[Conflict] = []
    for index, token in tokens.items():
        found.extend(judged(_repeated_name(index, token, names)))
        found.extend(judged(_repeated_hash(index, token, hashes)))
    if token_names is not None:
        for index, route in routes.items():
            found.extend(judged(_unknown_tokens(index, route, token_names)))
    if route_names is not None:
        by_name = {readable(route, "name"): route for route in routes.values()}
        for index, token in tokens.items():
            found.extend(judged(_unknown_routes(index, token, by_name, route_names)))
    return tuple(found)


def _repeated_name(index: int, token: Token, names: dict[str, int]) -> Iterator[Conflict]:
    first = names.setdefault(token.name.lower(), index)
    if first != index:
        taken = f"a name that token[{first}] does not have"
        yield Conflict(("token", index, "name"), shown(token.name), taken)


def _repeated_hash(index: int, token: Token, hashes: dict[str, int]) -> Iterator[Conflict]:
    first = hashes.setdefault(token.hash, index)
    if first != index:
        taken = f"the hash of a token of its own; token[{first}] has this one"
        yield Conflict(("token", index, "hash"), "a hash", taken)


def _unknown_tokens(index: int, route: Route, names: Collection[str]) -> Iterator[Conflict]:
    for position, entry in enumerate(route.allow):
        name = entry.removeprefix(identifier.TOKEN)
        if entry.startswith(identifier.TOKEN) and name not in names:
            wanted = "a token that a [[token]] names" + did_you_mean(name, names)
            yield Conflict(("route", index, "allow", position), shown(entry), wanted)


def _unknown_routes(
    index: int, token: Token, routes: Mapping[str, Route], names: Collection[str]
) -> Iterator[Conflict]:
    """Find the routes of a token that do not exist, or do not let it in."""
    entry = identifier.TOKEN + token.name
    for position, name in enumerate(token.routes or ()):
        at = ("token", index, "routes", position)
        if name not in names:
            yield Conflict(at, shown(name), "the name of a route" + did_you_mean(name, names))
        elif name in routes:
            yield from judged(_closed_to(entry, at, routes[name]))


def _closed_to(entry: str, at: tuple[str | int, ...], route: Route) -> Iterator[Conflict]:
    if entry not in route.allow:
        yield Conflict(at, shown(route.name), f"a route whose allow names {shown(entry)}")
