"""HTTP calls to a Tailchat server: one connection each, limited responses, named faults."""

import os
import re
import socket
import ssl
from collections.abc import Mapping
from http import HTTPStatus
from time import monotonic
from typing import Final, NamedTuple

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from tailchat_gate.config.tables.identity import LONGEST_CALL
from tailchat_gate.identity.oauth.login import LoginRefused
from tailchat_gate.identity.oauth.reachability import Reachability, cause_of
from tailchat_gate.identity.oauth.responses import broken
from tailchat_gate.reasons import Reason
from tailchat_gate.request.recorded import CURRENT_TRACE, Call
from tailchat_gate.syntax import OWN_AGENT

#: The most bytes of a response; Tailchat does not limit nicknames.
MAX_ANSWER: Final = 1_048_576
UNKNOWN_NAME: Final = "its name cannot be looked up"
#: The problem of a response with more bytes.
TOO_LONG: Final = "too long"


class Answer(NamedTuple):
    """One response: `content_type` is the media type, the other fields are raw."""

    status: int
    content_type: str
    retry_after: str
    body: bytes
    location: str = ""
    date: str = ""

    @property
    def is_json(self) -> bool:
        """Whether the media type is JSON's, or ends in +json (RFC 6839 section 3.1)."""
        return re.fullmatch(r"application/([a-z.-]+\+)?json", self.content_type) is not None


class BackChannel:
    """Calls to one base URL.

    `timeout`: seconds for one call, at most LONGEST_CALL. `resolver` looks up the host's name.
    `tls`: verifies the certificate; None: the system's authorities. `proxy`: the URL of an HTTP
    proxy in between, "" for none. `reachability` records how every call ended.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = LONGEST_CALL,
        resolver: AbstractResolver | None = None,
        tls: ssl.SSLContext | None = None,
        proxy: str = "",
        reachability: Reachability | None = None,
    ) -> None:
        self._url = url.rstrip("/")
        self._host = URL(self._url).host or ""
        self._timeout = aiohttp.ClientTimeout(total=min(timeout, LONGEST_CALL))
        self._resolver = resolver
        self._tls = tls
        self._proxy = URL(proxy) if proxy else None
        self._reachability = reachability
        if reachability is not None and tls is not None:
            reachability.watch(tls)
        self._session: aiohttp.ClientSession | None = None
        self._calls = 0
        self._closed = False

    async def close(self) -> None:
        """Close the session once the calls in progress have ended.

        A reload must not lose a code that was sent. A later call still works; it closes its
        connection itself.
        """
        self._closed = True
        await self._close_unused()

    async def exchange(
        self,
        call: str,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        limit: int = MAX_ANSWER,
    ) -> Answer:
        """Return the response to a request, which is sent once.

        Raises LoginRefused for a transport fault and for a response of more than `limit` bytes.
        """
        self._calls += 1
        began, status = monotonic(), 0
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
                answer = await _read(call, response, limit)
        except (TimeoutError, aiohttp.ClientError, ValueError, LoginRefused) as error:
            fault: Exception = error
        else:
            status = answer.status
            self._note(call, answer)
            return answer
        finally:
            self._calls -= 1
            if (trace := CURRENT_TRACE.get()) is not None:
                host = self._host
                trace.note(Call(call, method, host, began, monotonic(), status))
            await self._close_unused()
        # Outside the handlers: aiohttp's exceptions hold the request with its headers.
        raise self._refused(call, fault) from None

    def _note(self, call: str, answer: Answer) -> None:
        if self._reachability is None:
            return
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self._reachability.failed("server-error", call, f"status {answer.status}")
        else:
            self._reachability.answered()

    def _refused(self, call: str, error: Exception) -> LoginRefused:
        """Return the refusal for a transport fault, without anything from the request."""
        reason, problem = Reason.TAILCHAT_BROKEN, type(error).__name__
        if isinstance(error, LoginRefused):
            problem = error.detail.get("problem", "")
        elif isinstance(error, TimeoutError):
            reason, problem = Reason.TAILCHAT_SLOW, "no answer in time"
        elif isinstance(error, aiohttp.ClientConnectorCertificateError):
            reason, problem = Reason.TAILCHAT_UNTRUSTED, _why(error)
        elif isinstance(error, aiohttp.ClientConnectorError):
            reason, problem = Reason.TAILCHAT_DOWN, describe(error.os_error)
        if self._reachability is not None:
            self._reachability.failed(cause_of(error), call, problem)
        if isinstance(error, LoginRefused):
            return error
        return LoginRefused(reason, {"call": call, "problem": problem})

    async def _close_unused(self) -> None:
        if self._closed and not self._calls:
            session, self._session = self._session, None
            if session is not None:
                await session.close()

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # No connection is used twice: Tailchat drops idle ones after 5 s, and a POST that
                # fails because of that may have spent its code. No limit here, because waiting
                # would count as an outage; the callers limit logins and rechecks.
                connector=aiohttp.TCPConnector(
                    force_close=True, limit=0, resolver=self._resolver, use_dns_cache=False
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=self._timeout,
                # The configuration has already read the environment; .netrc must not be read.
                trust_env=False,
                # No compression, so that a small response cannot unpack into a large one.
                headers={
                    "Accept": "application/json",
                    "Accept-Encoding": "identity",
                    "User-Agent": OWN_AGENT,
                },
                auto_decompress=False,
            )
        return self._session


async def _read(call: str, response: aiohttp.ClientResponse, limit: int) -> Answer:
    data = bytearray()
    async for chunk in response.content.iter_any():
        data += chunk
        if len(data) > limit:
            response.close()
            raise broken(call, response.status, TOO_LONG)
    waits = response.headers.get("Retry-After", "")
    location = response.headers.get("Location", "")
    date = response.headers.get("Date", "")
    return Answer(response.status, response.content_type, waits, bytes(data), location, date)


def describe(error: OSError) -> str:
    """Return the system's text for why there is no connection."""
    if isinstance(error, socket.gaierror):
        return UNKNOWN_NAME
    # asyncio's own text has an address, but only that of one try.
    return os.strerror(error.errno) if error.errno else type(error).__name__


def _why(error: aiohttp.ClientConnectorCertificateError) -> str:
    """Return OpenSSL's reason for rejecting a certificate."""
    cause = error.certificate_error
    problem = cause.verify_message if isinstance(cause, ssl.SSLCertVerificationError) else ""
    return f"certificate not trusted: {problem}" if problem else "certificate not trusted"
