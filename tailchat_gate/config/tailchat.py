"""The Tailchat server that people sign in with, and the way there."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import AfterValidator, Field

from tailchat_gate.config.conflicts import Conflict
from tailchat_gate.config.fields import (
    BaseUrl,
    ClientId,
    ClientSecret,
    Issuer,
    Scope,
    Seconds,
    Section,
)
from tailchat_gate.config.tls import PemError, authorities_context
from tailchat_gate.config.values.path import file_or_none
from tailchat_gate.config.values.url import base_url_or_none, proxy_address

_LONGEST_CALL = 10.0


class Tailchat(Section):
    """The Tailchat server that visitors sign in with, and the app registered there."""

    api_url: BaseUrl = Field(
        description="Address of the Tailchat server as browsers reach it, without /open.",
        examples=["https://tailchat.example.com"],
    )
    client_id: ClientId = Field(
        description="Id of the app registered at Tailchat.",
        examples=["tc_649aa2179e97b8b3b2d10041"],
    )
    client_secret: ClientSecret = Field(description="Secret of the app registered at Tailchat.")
    scope: Scope = Field(
        default="openid profile",
        description="What is asked of Tailchat; openid is required, profile brings the nickname.",
    )
    issuer: Issuer = Field(
        default="",
        description=(
            "Issuer that a login has to come from, Tailchat's API_URL byte for byte; empty learns "
            "it from Tailchat."
        ),
    )
    timeout: Annotated[float, Seconds(above_zero=True, high=_LONGEST_CALL)] = Field(
        default=10.0, description="How long one call to Tailchat may take in all, 10s at most."
    )
    internal_url: Annotated[str, AfterValidator(base_url_or_none)] = Field(
        default="",
        description=(
            "Address at which the gate itself reaches Tailchat, where that is another than api_url."
        ),
        examples=["http://tailchat:11000"],
    )
    ca_file: Annotated[str, AfterValidator(file_or_none)] = Field(
        default="",
        description=(
            "PEM file with the authorities that Tailchat's certificate is trusted by, in place of "
            "the system's."
        ),
        examples=["/etc/ssl/our-authority.pem"],
    )
    proxy: Annotated[str, AfterValidator(proxy_address)] = Field(
        default="",
        description=(
            'HTTP proxy between the gate and Tailchat; "environment" for what HTTP_PROXY, '
            "HTTPS_PROXY and NO_PROXY say."
        ),
        examples=["http://proxy.example.com:3128"],
    )


def unusable_authorities(file: str) -> Iterator[Conflict]:
    """Find what is wrong with ca_file, "" for none."""
    if file:
        try:
            authorities_context("ca_file", file)
        except PemError as wrong:
            yield Conflict(("tailchat", wrong.key), wrong.found, wrong.expected)
