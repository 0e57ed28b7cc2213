"""Checks with its own requests to Tailchat whether people can sign in.

A wrong redirect URI, App ID or address ends every sign-in on a page of Tailchat. Browsers do not
come back from there, so the gate would not notice otherwise.
"""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from types import MappingProxyType
from typing import Final, NamedTuple
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from pydantic import SecretStr

from tailchat_gate.identity.oauth.back_channel import Answer, BackChannel
from tailchat_gate.identity.oauth.id_token import JsonObject, json_object
from tailchat_gate.identity.oauth.login import ClientRegistration, LoginRefused, short_text
from tailchat_gate.identity.oauth.responses import busy
from tailchat_gate.reasons import Reason
from tailchat_gate.syntax import CLOCK_SKEW, base64url

#: Tailchat's errors for a valid request with prompt=none without a session (OIDC Core 3.1.2.6).
_GOOD: Final = frozenset(("login_required", "consent_required", "interaction_required"))
_PAGES: Final = "/open/interaction/"
_UNREGISTERED: Final = "did not match"
_OUTAGES: Final = MappingProxyType(
    {
        Reason.TAILCHAT_DOWN: "check that it runs and that this machine can reach it",
        Reason.TAILCHAT_SLOW: "check that its Redis answers: Tailchat waits for it without end",
        Reason.TAILCHAT_BROKEN: "read its log, and that of the proxy in front of it",
        Reason.TAILCHAT_UNTRUSTED: "renew its certificate, or name its authority in "
        "tailchat.ca_file",
    }
)
#: The questions, in their order.
REACHED: Final = "tailchat"
ISSUER: Final = "issuer"
UNDER_PROXY: Final = "under-proxy"
CLOCK: Final = "clock"
CLIENT: Final = "client-id"
CALLBACK: Final = "redirect-uri"
SECRET: Final = "client-secret"  # noqa: S105 - the name of a question
_TOKEN_SECONDS: Final = 3600
#: The end of a problem because of which the gate refuses Tailchat's responses.
REFUSED: Final = "so every sign-in is refused"
#: A question beside the address, the client and its callback.
_AUTHORIZATION: Final = "authorization"
#: Findings that Tailchat only reports for a client that it knows.
_OF_KNOWN_CLIENTS: Final = frozenset((CALLBACK, _AUTHORIZATION))


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault of Tailchat or its app that the operator must fix.

    `name`: a word from a closed list, for the log and `/status`. `problem`: what is wrong;
    `remedy`: how to fix it, "" if that is unknown. `reason`: for the page of a person whose sign-in
    would fail; None if sign-ins still work.
    """

    name: str
    problem: str
    reason: Reason | None = None
    remedy: str = ""

    @property
    def text(self) -> str:
        """The fault and how to fix it, as one sentence."""
        return f"{self.problem}; {self.remedy}" if self.remedy else self.problem


class Step(NamedTuple):
    """The answer to one question: the fault, None if there is none."""

    question: str
    finding: Finding | None = None


class SignInCheck:
    """The requests that show whether people can sign in, for one registered app.

    `api_url`: Tailchat's URL for browsers. `channel`: the connection to Tailchat; `is_direct`:
    whether it goes to `api_url`, not to an internal URL. `issuer`: the expected `iss`, "" for
    Tailchat's own. `clock` returns Unix seconds; without it, Tailchat's clock is not compared.
    """

    def __init__(
        self,
        channel: BackChannel,
        registration: ClientRegistration,
        client_secret: SecretStr,
        *,
        api_url: str,
        is_direct: bool,
        issuer: str = "",
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._channel = channel
        self._registration = registration
        self._secret = client_secret
        self._api_url = api_url.rstrip("/")
        self._is_direct = is_direct
        self._issuer = issuer
        self._clock = clock

    async def run(self) -> tuple[Finding, ...]:
        """Return the faults, the cause first; () if people can sign in. Raises nothing."""
        return tuple([step.finding async for step in self.steps() if step.finding is not None])

    async def steps(self) -> AsyncIterator[Step]:
        """Ask one question after another, as long as the answers allow it. Raises nothing.

        There is no step for a question that is not asked.
        """
        question = REACHED
        try:
            discovery = await self._ask("GET", "/open/.well-known/openid-configuration")
            first = tuple(self._read_discovery(discovery))
            for step in first:
                yield step
            if first[0].finding is not None:
                return
            question = CLIENT
            refusal = self._read_authorization(await self._authorize())
            if refusal is not None and refusal.name not in _OF_KNOWN_CLIENTS:
                yield Step(CLIENT, refusal)
                return
            yield Step(CLIENT)
            # Tailchat sends any other error to the callback, so it has accepted the callback.
            yield Step(CALLBACK, refusal)
            question = SECRET
            yield Step(SECRET, self._read_tokens(await self._redeem()))
        except LoginRefused as refused:
            outage = _unreachable(refused.reason, refused.detail.get("problem", ""))
            yield Step(question, outage)

    def _read_discovery(self, discovery: Answer) -> Iterator[Step]:
        if discovery.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            problem = f"discovery: status {discovery.status}"
            yield Step(REACHED, _unreachable(Reason.TAILCHAT_BROKEN, problem))
            return
        document = _json(discovery)
        if discovery.status != HTTPStatus.OK or not isinstance(document.get("issuer"), str):
            yield Step(REACHED, self._wrong_address())
            return
        yield Step(REACHED)
        yield Step(ISSUER, self._other_issuer(str(document["issuer"])))
        if self._is_direct:
            yield Step(UNDER_PROXY, self._plain_http(document))
        if self._clock is not None:
            yield Step(CLOCK, _skew(discovery.date, self._clock()))

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
        """Ask for the tokens of an invented code.

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
        """Return the fault in an answer to `_authorize`, None if people can sign in."""
        if answer.status == HTTPStatus.NOT_FOUND:
            return self._wrong_address()
        if answer.status in {HTTPStatus.FOUND, HTTPStatus.SEE_OTHER}:
            return self._read_redirect(answer.location)
        page = answer.body.decode("utf-8", "replace")
        if "invalid_redirect_uri" in page and _UNREGISTERED in page:
            return Finding(
                CALLBACK,
                f"the app in Tailchat does not list the callback {self._registration.redirect_uri}",
                Reason.GATE_NOT_ACCEPTED,
                "add exactly this line to its callbacks",
            )
        if "invalid_redirect_uri" in page or "invalid_client_metadata" in page:
            return Finding(
                "app-settings",
                "one entry of the app in Tailchat is not valid, which breaks the whole app",
                Reason.GATE_NOT_ACCEPTED,
                "remove empty lines and lines that are no URL from its callbacks, and give it a "
                "name and an icon with a full URL",
            )
        if "invalid_client" in page:
            return Finding(
                CLIENT,
                f"Tailchat knows no app {short_text(self._registration.client_id, 64)}, or OAuth is"
                " not switched on for it",
                Reason.GATE_NOT_ACCEPTED,
                "copy the App ID into tailchat.client_id, and switch on OAuth for the app",
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
                _AUTHORIZATION,
                f"Tailchat refuses the authorization request: {short_text(error, 64)}",
                Reason.GATE_NOT_ACCEPTED,
                "check tailchat.scope and the app's settings",
            )
        return _unreachable(Reason.TAILCHAT_BROKEN, "/open/auth redirects elsewhere")

    def _other_issuer(self, issuer: str) -> Finding | None:
        if self._issuer:
            if issuer == self._issuer:
                return None
            return Finding(
                "issuer-setting",
                f"Tailchat calls itself {short_text(issuer)}, which is not tailchat.issuer, "
                f"{REFUSED}",
                None,
                "remove tailchat.issuer, or write it as Tailchat's API_URL is, byte for byte",
            )
        if urlsplit(issuer).netloc.lower() == urlsplit(self._api_url).netloc.lower():
            return None
        return Finding(
            ISSUER,
            f"Tailchat calls itself {short_text(issuer)}, on another host than tailchat.api_url",
            None,
            "set Tailchat's API_URL to the address that browsers use",
        )

    def _plain_http(self, document: JsonObject) -> Finding | None:
        endpoint = str(document.get("authorization_endpoint", ""))
        wrong = self._api_url.startswith("https:") and endpoint.startswith("http:")
        if not wrong:
            return None
        return Finding(
            UNDER_PROXY,
            "Tailchat sends browsers to http:// addresses although tailchat.api_url is https://",
            None,
            "set OPENAPI_UNDER_PROXY=true for Tailchat, and have its proxy set X-Forwarded-Proto",
        )

    def _read_tokens(self, answer: Answer) -> Finding | None:
        """Return the fault in an answer to `_redeem`, None if the secret is right."""
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return _unreachable(Reason.TAILCHAT_BROKEN, f"/open/token: status {answer.status}")
        if answer.status != HTTPStatus.UNAUTHORIZED:
            return None
        return Finding(
            SECRET,
            "Tailchat does not accept tailchat.client_secret",
            Reason.GATE_NOT_ACCEPTED,
            "copy the App Secret from the app's page in Tailchat's open platform",
        )

    def _wrong_address(self) -> Finding:
        return Finding(
            "address",
            f"{self._api_url} is not Tailchat's base address: there is no OpenID provider below "
            "/open there",
            Reason.TAILCHAT_BROKEN,
            "check tailchat.api_url and tailchat.internal_url",
        )


def _skew(date: str, now: float) -> Finding | None:
    """Compare Tailchat's Date field (RFC 9110 section 6.6.1) with the gate's clock."""
    try:
        ahead = parsedate_to_datetime(date).timestamp() - now
    except ValueError:
        return None
    if abs(ahead) <= CLOCK_SKEW:
        return None
    direction = "ahead of" if ahead > 0 else "behind"
    # An ID token lasts an hour at Tailchat; with more difference the gate rejects it.
    refused = f", {REFUSED}" if not -_TOKEN_SECONDS < ahead < 0 else ""
    return Finding(
        CLOCK,
        f"Tailchat's clock is {abs(ahead):.0f} seconds {direction} the gate's{refused}",
        None,
        "let both machines set their clocks by NTP",
    )


def _unreachable(reason: Reason, problem: str) -> Finding:
    """Return the finding for an outage, without a `reason`: browsers may still reach Tailchat."""
    text = f"Tailchat does not answer properly: {problem or reason}"
    return Finding(reason, text, None, _OUTAGES.get(reason, ""))


def _json(answer: Answer) -> JsonObject:
    try:
        return json_object(answer.body)
    except ValueError:
        return {}
