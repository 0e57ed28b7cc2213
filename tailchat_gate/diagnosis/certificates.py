"""Checks how long certificates are still valid, and whether they are trusted."""

import ssl
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Final

from aiohttp.abc import AbstractResolver
from cryptography import x509

from tailchat_gate.config.certificates import WARN_DAYS, date_problem, facts_of
from tailchat_gate.config.files import authorities_context
from tailchat_gate.config.model import Settings
from tailchat_gate.config.values.url import proxy_for
from tailchat_gate.diagnosis.fetching import UnreachableError, get
from tailchat_gate.diagnosis.statement import (
    Statement,
    ok,
    warning,
    wrong,
)
from tailchat_gate.observe.threads import in_thread

CERTIFICATE: Final = "certificate"
_RENEW: Final = "renew it, and find out why that did not happen automatically"
_RENEW_OR_TRUST: Final = (
    "renew it, add the requested name to it, or name its authority in the configuration"
)
#: OpenSSL's reasons when the peer's first bytes are not TLS.
_NO_TLS: Final = frozenset(
    ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "PACKET_LENGTH_TOO_LONG")
)


def dates_of(whose: str, certificate: bytes, now: float) -> Iterator[Statement]:
    """Say how long a DER certificate is valid; nothing if it cannot be read.

    `whose` names its owner, `now` is in Unix seconds.
    """
    try:
        end = x509.load_der_x509_certificate(certificate).not_valid_after_utc
    except ValueError:
        return
    days = (end - datetime.fromtimestamp(now, UTC)).days
    text = f"{whose}: the certificate is valid until {end:%Y-%m-%d}"
    if days < 0:
        # Only a warning: the connection was accepted, by a pinned key.
        text = f"{whose}: the certificate expired on {end:%Y-%m-%d}"
        yield warning(CERTIFICATE, text, _RENEW)
    elif days < WARN_DAYS:
        yield warning(CERTIFICATE, f"{text}, which is in {days} days", _RENEW)
    else:
        yield ok(CERTIFICATE, text)


async def of_gate(settings: Settings, now: float) -> AsyncIterator[Statement]:
    """Say how long the gate's own certificates are valid."""
    for index, certificate in enumerate(settings.server.tls):
        facts = await in_thread(partial(facts_of, certificate))
        text = f"server.tls[{index}]: {facts.file}"
        problem = date_problem(facts, now)
        if not problem:
            yield ok(CERTIFICATE, f"{text} is valid until {_day(facts.expires)}")
        elif facts.begins <= now < facts.expires:
            yield warning(CERTIFICATE, f"{text} {problem}", _RENEW)
        else:
            yield wrong(CERTIFICATE, f"{text} {problem}", _RENEW)


def _day(second: float) -> str:
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%d}"


def refused(whose: str, error: ssl.SSLError) -> Statement:
    """Say why a TLS connection failed: a certificate that is not trusted, or no TLS at all."""
    if isinstance(error, ssl.SSLCertVerificationError):
        text = f"{whose}: the certificate is not trusted: {error.verify_message}"
        return wrong(CERTIFICATE, text, _RENEW_OR_TRUST)
    if error.reason in _NO_TLS:
        text = f"{whose}: the server there does not speak TLS"
        return wrong(CERTIFICATE, text, "write http://, or switch on TLS there")
    problem = (error.reason or str(error)).replace("_", " ").lower()
    return wrong(CERTIFICATE, f"{whose}: no TLS connection: {problem}", "look at the server's log")


async def tailchat(
    settings: Settings, resolver: AbstractResolver, now: float
) -> AsyncIterator[Statement]:
    """Say how long Tailchat's certificates are valid, as the gate and as browsers reach it."""
    tailchat = settings.tailchat
    back_url = tailchat.internal_url or tailchat.api_url
    for url in dict.fromkeys((back_url, tailchat.api_url)):
        if not url.startswith("https:"):
            continue
        is_ours = url == back_url
        authorities = (tailchat.ca_file or None) if is_ours else None
        context = await in_thread(partial(authorities_context, "ca_file", authorities))
        proxy = proxy_for(tailchat.proxy, url) if is_ours else ""
        try:
            answer = await get(f"{url}/open/jwks", resolver, context, proxy=proxy)
        except (UnreachableError, ssl.SSLError) as error:
            # The check of the sign-in reports a failure of the gate's own connection.
            if isinstance(error, ssl.SSLError) and not is_ours:
                yield refused(url, error)
            continue
        for statement in dates_of(url, answer.certificate, now):
            yield statement
