"""The keys of a route that name it, and say how the launcher shows it."""

from typing import Annotated

from pydantic import AfterValidator, Field, PlainValidator, WithJsonSchema

from tailchat_gate import syntax
from tailchat_gate.config.tables.fields import Section, matching
from tailchat_gate.config.tables.route_fields import RouteName
from tailchat_gate.config.values import tile

Title = Annotated[str, AfterValidator(tile.title)]
Description = Annotated[str, AfterValidator(tile.description)]
Icon = Annotated[str, AfterValidator(tile.icon)]
Launch = Annotated[
    str | bool,
    PlainValidator(tile.launch),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, matching(syntax.LAUNCH)]}),
]


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
