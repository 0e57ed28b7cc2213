"""One route: which requests it takes, who may enter, and which tool answers."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from tailchat_gate.config import path, word
from tailchat_gate.config.fields import (
    Allow,
    Headers,
    Host,
    RouteName,
    RoutePath,
    Seconds,
    Section,
    Upstream,
    empty,
)
from tailchat_gate.config.problem import did_you_mean, shown


class Route(Section):
    """A [[route]] of the file."""

    name: RouteName = Field(
        description="Name of the route in logs, metrics and pages, unique in any case.",
        examples=["grafana"],
    )
    host: Host | None = Field(
        default=None,
        description="Host name the route answers to; left out, it answers to every host.",
        examples=["grafana.example.com"],
    )
    path: RoutePath = Field(
        default="/",
        description="Path the route begins at, by whole segments; the longest matching path wins.",
    )
    upstream: Upstream = Field(
        description="Where the tool listens: http://host:port, https://host:port or unix:/path.",
        examples=["http://grafana:3000"],
    )
    allow: Allow = Field(
        default=(word.SIGNED_IN,),
        description=(
            "Who may enter, any entry is enough: group:NAME, sub:ID, signed-in for every Tailchat "
            "user, or public alone for everybody."
        ),
    )
    headers: Headers = Field(
        default_factory=empty,
        description=(
            "Further request headers for the tool, from templates with {sub}, {nickname}, "
            "{discriminator}, {avatar} and {groups}."
        ),
    )
    header_encoding: Literal["percent", "utf8", "rfc2047"] = Field(
        default="percent",
        description="How header values outside visible ASCII are written for the tool.",
    )
    connect_timeout: Annotated[float, Seconds(above_zero=True)] = Field(
        default=5.0, description="How long connecting to the tool may take."
    )
    response_timeout: Annotated[float, Seconds()] = Field(
        default=60.0,
        description="How long the tool may take to the first byte of its reply; 0 is no limit.",
    )


@dataclass(frozen=True, slots=True)
class Conflict:
    """A setting that is right by itself and wrong beside another; `at` is its place in the file."""

    at: tuple[str | int, ...]
    found: str
    expected: str


def conflicts(
    routes: Mapping[int, Route], prefix: str | None, groups: Collection[str] | None
) -> tuple[Conflict, ...]:
    """Compare routes with one another, with the gate's prefix and with the groups.

    `routes` goes by position in the file and may have gaps; `prefix` and `groups` are None where
    they are not known because they have problems of their own.
    """
    found: list[Conflict] = []
    names: dict[str, int] = {}
    places: dict[tuple[str | None, str], int] = {}
    for index, route in routes.items():
        first = names.setdefault(route.name.lower(), index)
        if first != index:
            taken = f"a name that route[{first}] does not have"
            found.append(Conflict(("route", index, "name"), shown(route.name), taken))
        first = places.setdefault((route.host, route.path), index)
        if first != index:
            place = f"the path {shown(route.path)} on " + (
                f"the host {shown(route.host)}" if route.host else "every host"
            )
            taken = f"a host and path that route[{first}] does not have"
            found.append(Conflict(("route", index, "path"), place, taken))
        if prefix is not None and path.inside(route.path, prefix):
            outside = f"a path outside server.prefix {shown(prefix)}, where the gate itself answers"
            found.append(Conflict(("route", index, "path"), shown(route.path), outside))
        if groups is not None:
            found.extend(_unknown_groups(index, route, groups))
    return tuple(found)


def _unknown_groups(index: int, route: Route, groups: Collection[str]) -> Iterator[Conflict]:
    for position, entry in enumerate(route.allow):
        name = entry.removeprefix(word.GROUP)
        if entry.startswith(word.GROUP) and name not in groups:
            wanted = "a group that [groups] names" + did_you_mean(name, groups)
            yield Conflict(("route", index, "allow", position), shown(entry), wanted)
