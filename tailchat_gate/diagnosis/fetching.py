"""The HTTP request of a check; a module of its own, so that `check` need not load aiohttp."""

import ssl
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from tailchat_gate.diagnosis.statement import CALL_SECONDS
from tailchat_gate.identity.oauth.back_channel import describe
from tailchat_gate.observe.tls import after_handshakes
from tailchat_gate.syntax import OWN_AGENT

_PLAIN: Final = MappingProxyType({"User-Agent": OWN_AGENT, "Accept-Encoding": "identity"})


class UnreachableError(Exception):
    """There was no response; the text says why."""


class FetchedResponse(NamedTuple):
    """A response: its Location field, its Set-Cookie fields, and the peer's certificate.

    `certificate` is in DER, b"" without TLS.
    """

    status: int
    location: str
    cookies: Sequence[str]
    certificate: bytes


async def get(
    url: str,
    resolver: AbstractResolver,
    tls: ssl.SSLContext | None,
    headers: Mapping[str, str] = _PLAIN,
    *,
    proxy: str = "",
) -> FetchedResponse:
    """Return the response to one GET, without its body; redirects are not followed.

    `tls` is changed, so it must not be used for another call.
    Raises UnreachableError, and ssl.SSLError for a certificate that is not accepted.
    """
    seen: list[bytes] = []
    if tls is not None:
        # Read during the handshake: when the response is there, aiohttp may have given the
        # connection back.
        after_handshakes(tls, lambda peer: seen.append(peer.getpeercert(binary_form=True) or b""))
    # With keep-alive, because only then does aiohttp wait for the end of TLS.
    connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False)
    try:
        async with (
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=CALL_SECONDS),
                trust_env=False,
                auto_decompress=False,
            ) as session,
            session.get(
                url,
                headers=headers,
                allow_redirects=False,
                ssl=tls or True,
                proxy=URL(proxy) if proxy else None,
            ) as response,
        ):
            return FetchedResponse(
                response.status,
                response.headers.get("Location", ""),
                response.headers.getall("Set-Cookie", []),
                seen[-1] if seen else b"",
            )
    except TimeoutError:
        problem = "no answer in time"
    except aiohttp.ClientConnectorCertificateError as error:
        if isinstance(error.certificate_error, ssl.SSLError):
            raise error.certificate_error from None
        problem = "certificate not trusted"
    except aiohttp.ClientConnectorError as error:
        if isinstance(error.os_error, ssl.SSLError):
            raise error.os_error from None
        problem = describe(error.os_error)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        problem = type(error).__name__
    raise UnreachableError(problem)
