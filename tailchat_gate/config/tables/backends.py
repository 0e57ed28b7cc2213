"""The table of the checks of a route's backends."""

from typing import Annotated

from pydantic import Field

from tailchat_gate.config.tables.fields import Seconds, Section, Whole
from tailchat_gate.config.tables.route_fields import UpstreamPath


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
