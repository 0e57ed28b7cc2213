"""The connections to a Tailchat server: one call each, small answers, faults by their names."""

import ssl
from collections.abc import Mapping
from typing import Final, NamedTuple

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from tailchat_gate.identity.oauth.login import LoginRefused
from tailchat_gate.identity.oauth.responses import broken
from tailchat_gate.reasons import Reason

MAX_TIMEOUT: Final = 10.0
"""Seconds for a whole call (Tailchat: with a frozen Redis it never answers)."""
MAX_ANSWER: Final = 1_048_576
"""Bytes of an answer that are read (Tailchat: a nickname has any length)."""


class Answer(NamedTuple):
    """One answer: `content_type` is its media type, `retry_after` the field as it came."""

    status: int
    content_type: str
    retry_after: str
    body: bytes


class BackChannel:
    """Calls to one base URL.

    `timeout`: seconds for one call, at most MAX_TIMEOUT. `resolver` looks up the host's name.
    `tls`: by what its certificate is judged, None for the system's authorities. `proxy`: the URL of
    an HTTP proxy in between, "" for none.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = MAX_TIMEOUT,
        resolver: AbstractResolver | None = None,
        tls: ssl.SSLContext | None = None,
        proxy: str = "",
    ) -> None:
        self._url = url.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=min(timeout, MAX_TIMEOUT))
        self._resolver = resolver
        self._tls = tls
        self._proxy = URL(proxy) if proxy else None
        self._session: aiohttp.ClientSession | None = None
        self._calls = 0
        self._closed = False

    async def close(self) -> None:
        """Close what is open, once the calls under way have ended.

        A code that was sent must not be lost to a new configuration. A call that begins later is
        made, too, and leaves nothing open behind it.
        """
        self._closed = True
        await self._close_behind()

    async def exchange(
        self, call: str, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> Answer:
        """Return one answer; faults of transport raise LoginRefused. It is sent once."""
        reason = Reason.TAILCHAT_BROKEN
        self._calls += 1
        try:
            async with self._open_session().request(
                method,
                URL(self._url + path, encoded=True),
                headers=headers,
                data=body,
                allow_redirects=False,
                ssl=self._tls or True,
                proxy=self._proxy,
            ) as response:
                data = bytearray()
                async for chunk in response.content.iter_any():
                    data += chunk
                    if len(data) > MAX_ANSWER:
                        response.close()
                        raise broken(call, response.status, "too long")
                waits = response.headers.get("Retry-After", "")
                return Answer(response.status, response.content_type, waits, bytes(data))
        except TimeoutError:
            reason, problem = Reason.TAILCHAT_SLOW, "no answer in time"
        except aiohttp.ClientConnectorCertificateError as error:
            reason, problem = Reason.TAILCHAT_UNTRUSTED, _why(error)
        except aiohttp.ClientConnectorError as error:
            reason, problem = Reason.TAILCHAT_DOWN, type(error).__name__
        except (aiohttp.ClientError, ValueError) as error:
            problem = type(error).__name__
        finally:
            self._calls -= 1
            await self._close_behind()
        # Outside of the handlers: aiohttp's exceptions hold the request with its headers.
        raise LoginRefused(reason, {"call": call, "problem": problem})

    async def _close_behind(self) -> None:
        if self._closed and not self._calls:
            session, self._session = self._session, None
            if session is not None:
                await session.close()

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # Tailchat drops idle connections after 5 s: a POST on one that is just going
                # may have spent its code when it fails. So none is used twice.
                # Nor does a call wait for another's: that few are made at once is seen to by those
                # who make them, logins apart from rechecks, and to wait is no outage.
                connector=aiohttp.TCPConnector(
                    force_close=True, limit=0, resolver=self._resolver, use_dns_cache=False
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=self._timeout,
                # What the environment says was read when the configuration was; .netrc is nobody's.
                trust_env=False,
                # Without Accept-Encoding no small answer unpacks into a large one.
                headers={
                    "Accept": "application/json",
                    "Accept-Encoding": "identity",
                    "User-Agent": "tailchat-gate",
                },
                auto_decompress=False,
            )
        return self._session


def _why(error: aiohttp.ClientConnectorCertificateError) -> str:
    """Return what OpenSSL has against a certificate."""
    found = error.certificate_error
    said = found.verify_message if isinstance(found, ssl.SSLCertVerificationError) else ""
    return f"certificate not trusted: {said}" if said else "certificate not trusted"
