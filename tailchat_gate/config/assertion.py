"""What the signed identity is signed with, and how long each one is good."""

from typing import Annotated

from pydantic import AfterValidator, Field

from tailchat_gate.config import word
from tailchat_gate.config.fields import Seconds, Section
from tailchat_gate.config.route_fields import PemFile

_SHORTEST = 30.0
_LONGEST = 300.0


class Assertion(Section):
    """The signed identity that tools can check; off without a key."""

    key_files: Annotated[tuple[PemFile, ...], AfterValidator(word.distinct)] = Field(
        default=(),
        description=(
            "PEM files with the private keys, EC P-256, of X-Tailchat-Assertion: the first signs, "
            "all are published; empty turns it off."
        ),
        examples=[["/etc/tailchat-gate/assertion.pem"]],
    )
    lifetime: Annotated[float, Seconds(low=_SHORTEST, high=_LONGEST, above_zero=True)] = Field(
        default=_LONGEST,
        description="How long an assertion is good, from 30s to 5m.",
    )
