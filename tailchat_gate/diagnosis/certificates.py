"""How long certificates are still valid."""

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
    in_thread,
    ok,
    warning,
    wrong,
)

CERTIFICATE: Final = "certificate"
_RENEW: Final = "renew it, or look at why it was not renewed by itself"
_RENEW_OR_TRUST: Final = (
    "renew it, have it contain the name that is asked for, or name its authority in the "
    "configuration"
)
#: OpenSSL's reasons where the first bytes are no TLS.
_NO_TLS: Final = frozenset(
    ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "PACKET_LENGTH_TOO_LONG")
)


def dates_of(whose: str, certificate: bytes, now: float) -> Iterator[Statement]:
    """Say how long a certificate in DER is valid, if it is one; `now` in Unix seconds."""
    try:
        end = x509.load_der_x509_certificate(certificate).not_valid_after_utc
    except ValueError:
        return
    days = (end - datetime.fromtimestamp(now, UTC)).days
    text = f"{whose}: the certificate is valid until {end:%Y-%m-%d}"
    if days < 0:
        # Where a key is pinned in its place.
        text = f"{whose}: the certificate has ended on {end:%Y-%m-%d}"
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
    """Say why a certificate, or what came in place of one, is not accepted."""
    if isinstance(error, ssl.SSLCertVerificationError):
        text = f"{whose}: the certificate is not trusted: {error.verify_message}"
        return wrong(CERTIFICATE, text, _RENEW_OR_TRUST)
    if error.reason in _NO_TLS:
        text = f"{whose}: what listens there speaks no TLS"
        return wrong(CERTIFICATE, text, "write http://, or have it speak TLS")
    said = (error.reason or str(error)).replace("_", " ").lower()
    return wrong(CERTIFICATE, f"{whose}: no TLS connection: {said}", "look at its log")


async def tailchat(
    settings: Settings, resolver: AbstractResolver, now: float
) -> AsyncIterator[Statement]:
    """Say how long Tailchat's certificates are valid: that for the gate, and that for browsers."""
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
            # Of its own connection the check of the sign-in has said it.
            if isinstance(error, ssl.SSLError) and not is_ours:
                yield refused(url, error)
            continue
        for statement in dates_of(url, answer.certificate, now):
            yield statement
