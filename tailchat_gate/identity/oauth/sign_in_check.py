"""Whether people can sign in, asked of Tailchat without a person, a code or a cookie.

A wrong redirect URI, client ID or address ends every sign-in on a page of Tailchat. Nobody comes
back from there, so the gate learns of it only by a request of its own.
"""

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from pydantic import SecretStr

from tailchat_gate.identity.oauth.back_channel import Answer, BackChannel
from tailchat_gate.identity.oauth.id_token import JsonObject, json_object
from tailchat_gate.identity.oauth.login import LoginRefused, Registration, short_text
from tailchat_gate.identity.oauth.responses import busy
from tailchat_gate.reasons import Reason
from tailchat_gate.syntax import base64url

#: What Tailchat answers to a request without a session that forbids its pages (OIDC Core 3.1.2.6).
_GOOD: Final = frozenset(("login_required", "consent_required", "interaction_required"))
_PAGES: Final = "/open/interaction/"
_UNREGISTERED: Final = "did not match"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about Tailchat or its app that an admin must mend.

    `name`: a word from a closed list, for the log and `/status`. `text`: what is wrong and how to
    mend it. `reason`: what a person is told whose sign-in would fail; None if sign-ins still work.
    """

    name: str
    text: str
    reason: Reason | None = None


class SignInCheck:
    """The requests that show whether people can sign in, for one registered app.

    `api_url`: Tailchat's address for browsers. `channel`: the connection to it, `is_direct`:
    whether that goes to `api_url` itself and not to an internal address.
    """

    def __init__(
        self,
        channel: BackChannel,
        registration: Registration,
        client_secret: SecretStr,
        *,
        api_url: str,
        is_direct: bool,
    ) -> None:
        self._channel = channel
        self._registration = registration
        self._secret = client_secret
        self._api_url = api_url.rstrip("/")
        self._is_direct = is_direct

    async def run(self) -> tuple[Finding, ...]:
        """Return what is wrong, the cause first; () if people can sign in. Raises nothing."""
        try:
            return tuple([found async for found in self._findings()])
        except LoginRefused as refused:
            problem = refused.detail.get("problem", "")
            return (_unreachable(refused.reason, problem),)

    async def _findings(self) -> AsyncIterator[Finding]:
        discovery = await self._ask("GET", "/open/.well-known/openid-configuration")
        if discovery.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            yield _unreachable(Reason.TAILCHAT_BROKEN, f"discovery: status {discovery.status}")
            return
        document = _json(discovery)
        if discovery.status != HTTPStatus.OK or not isinstance(document.get("issuer"), str):
            yield self._wrong_address()
            return
        for found in (self._other_issuer(document), self._plain_http(document)):
            if found is not None:
                yield found
        refusal = self._read_authorization(await self._authorize())
        if refusal is not None:
            yield refusal
        elif (await self._redeem()).status == HTTPStatus.UNAUTHORIZED:
            yield Finding(
                "client-secret",
                "Tailchat does not accept tailchat.client_secret: copy the app's secret from "
                "Tailchat's open platform",
                Reason.GATE_NOT_ACCEPTED,
            )

    async def _ask(self, method: str, path: str, form: dict[str, str] | None = None) -> Answer:
        headers, body = {}, None
        if form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            body = urlencode(form).encode()
        answer = await self._channel.exchange("sign-in-check", method, path, headers, body)
        if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
            raise busy("sign-in-check", answer.retry_after)
        return answer

    async def _authorize(self) -> Answer:
        """Send an authorization request that shows no page.

        With prompt=none Tailchat stores nothing; otherwise it stores an interaction for an hour.
        """
        registration = self._registration
        params = {
            "client_id": registration.client_id,
            "redirect_uri": registration.redirect_uri,
            "response_type": "code",
            "scope": registration.scope,
            "state": base64url(os.urandom(16)),
            "nonce": base64url(os.urandom(16)),
            "code_challenge": base64url(os.urandom(32)),
            "code_challenge_method": "S256",
            "prompt": "none",
        }
        return await self._ask("GET", f"/open/auth?{urlencode(params, quote_via=quote)}")

    async def _redeem(self) -> Answer:
        """Ask for the tokens of a code that nobody was given.

        Tailchat checks the client first: 401 means a wrong secret, `invalid_grant` a good one.
        """
        registration = self._registration
        return await self._ask(
            "POST",
            "/open/token",
            {
                "grant_type": "authorization_code",
                "code": base64url(os.urandom(32)),
                "redirect_uri": registration.redirect_uri,
                "code_verifier": base64url(os.urandom(32)),
                "client_id": registration.client_id,
                "client_secret": self._secret.get_secret_value(),
            },
        )

    def _read_authorization(self, answer: Answer) -> Finding | None:
        """Return what an answer to `_authorize` says is wrong, None if people can sign in."""
        if answer.status == HTTPStatus.NOT_FOUND:
            return self._wrong_address()
        if answer.status in {HTTPStatus.FOUND, HTTPStatus.SEE_OTHER}:
            return self._read_redirect(answer.location)
        page = answer.body.decode("utf-8", "replace")
        if "invalid_redirect_uri" in page and _UNREGISTERED in page:
            return Finding(
                "redirect-uri",
                f"the app in Tailchat does not list the callback {self._registration.redirect_uri};"
                " add exactly this line to its callbacks",
                Reason.GATE_NOT_ACCEPTED,
            )
        if "invalid_redirect_uri" in page or "invalid_client_metadata" in page:
            return Finding(
                "app-settings",
                "one entry of the app in Tailchat is not valid, which breaks the whole app: remove "
                "empty lines and lines that are no URL from its callbacks, and give it a name and "
                "an icon with a full URL",
                Reason.GATE_NOT_ACCEPTED,
            )
        if "invalid_client" in page:
            return Finding(
                "client-id",
                f"Tailchat knows no app {short_text(self._registration.client_id, 64)}, or OAuth is"
                " not switched on for it: look at tailchat.client_id and at the app's capabilities",
                Reason.GATE_NOT_ACCEPTED,
            )
        return _unreachable(Reason.TAILCHAT_BROKEN, f"/open/auth: status {answer.status}")

    def _read_redirect(self, location: str) -> Finding | None:
        target = urlsplit(location)
        if target.path.startswith(_PAGES):
            return None
        if location.startswith(self._registration.redirect_uri):
            error = parse_qs(target.query).get("error", [""])[0]
            if error in _GOOD:
                return None
            return Finding(
                "authorization",
                f"Tailchat refuses the authorization request: {short_text(error, 64)}; look at "
                "tailchat.scope and at the app's settings",
                Reason.GATE_NOT_ACCEPTED,
            )
        return _unreachable(Reason.TAILCHAT_BROKEN, "/open/auth redirects elsewhere")

    def _other_issuer(self, document: JsonObject) -> Finding | None:
        issuer = str(document["issuer"])
        if urlsplit(issuer).netloc.lower() == urlsplit(self._api_url).netloc.lower():
            return None
        return Finding(
            "issuer",
            f"Tailchat calls itself {short_text(issuer)}, on another host than tailchat.api_url: "
            "set Tailchat's API_URL to the address that browsers use",
        )

    def _plain_http(self, document: JsonObject) -> Finding | None:
        endpoint = str(document.get("authorization_endpoint", ""))
        wrong = self._api_url.startswith("https:") and endpoint.startswith("http:")
        if not (wrong and self._is_direct):
            return None
        return Finding(
            "under-proxy",
            "Tailchat sends browsers to http:// addresses although tailchat.api_url is https://: "
            "set OPENAPI_UNDER_PROXY=true for Tailchat, and have its proxy set X-Forwarded-Proto",
        )

    def _wrong_address(self) -> Finding:
        return Finding(
            "address",
            f"{self._api_url} is not Tailchat's base address: there is no OpenID provider below "
            "/open there; look at tailchat.api_url and tailchat.internal_url",
            Reason.TAILCHAT_BROKEN,
        )


def _unreachable(reason: Reason, problem: str) -> Finding:
    """Return the finding for an outage: browsers may still reach Tailchat, so nobody is stopped."""
    return Finding(reason, f"Tailchat does not answer properly: {problem or reason}")


def _json(answer: Answer) -> JsonObject:
    try:
        return json_object(answer.body)
    except ValueError:
        return {}
