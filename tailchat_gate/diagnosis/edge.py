"""Checks that server.public_url leads to this gate, and that its cookies arrive unchanged."""

import hmac
import os
import ssl
from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from typing import Final
from urllib.parse import parse_qs, urlsplit

from tailchat_gate.config.files import verifying_context
from tailchat_gate.config.lint.addresses import travels_in_clear
from tailchat_gate.config.model import Settings
from tailchat_gate.diagnosis import certificates
from tailchat_gate.diagnosis.fetching import FetchedResponse, UnreachableError, get
from tailchat_gate.diagnosis.sign_in import ends_sign_ins
from tailchat_gate.diagnosis.statement import (
    RUNNING_GATE,
    Mark,
    Statement,
    name_of,
    ok,
    unknown,
    warning,
    wrong,
)
from tailchat_gate.identity.oauth.back_channel import UNKNOWN_NAME
from tailchat_gate.identity.oauth.login import short_text
from tailchat_gate.identity.oauth.login_state import KEY_PURPOSE, open_state
from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.identity.sessions.cookie_fields import CookieNames
from tailchat_gate.observe.threads import in_thread
from tailchat_gate.proxy.upstream.resolver import Names, NamesResolver
from tailchat_gate.syntax import OWN_AGENT, base64url

PUBLIC_URL: Final = "public-url"
COOKIES: Final = "cookies"
#: The fields of a browser's navigation; the gate begins no login for other requests.
_NAVIGATION: Final = {
    "Accept": "text/html",
    "Accept-Encoding": "identity",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "none",
    "User-Agent": OWN_AGENT,
}
_LEAD: Final = "let the name, or the proxy in front, lead to the gate's server.listen"


async def edge(settings: Settings, names: Names, now: float) -> AsyncIterator[Statement]:
    """Begin a login as a browser does, without following it to Tailchat; say what answered."""
    public_url = settings.server.public_url
    if travels_in_clear(public_url):
        yield warning(
            COOKIES,
            f"{public_url} is http, so cookies are sent without Secure and can be read on the way",
            "serve it over https, and write https in server.public_url",
        )
    # A random path, which the gate seals into the state of the login; nobody ever goes there.
    challenge = f"/{base64url(os.urandom(16))}"
    url = f"{public_url}{settings.server.prefix}/start?rd={challenge}"
    # In a thread, because it reads files.
    context = await in_thread(verifying_context) if public_url.startswith("https:") else None
    try:
        answer = await get(url, NamesResolver(names), context, _NAVIGATION)
    except ssl.SSLError as error:
        yield certificates.refused(public_url, error)
        return
    except UnreachableError as error:
        text = f"{public_url} cannot be reached from this machine: {error}"
        host = urlsplit(public_url).hostname or ""
        is_nameless = str(error) == UNKNOWN_NAME or names.waits(host)
        needs = name_of(host) if is_nameless else RUNNING_GATE
        remedy = f"check that browsers reach it; else {_LEAD}"
        yield unknown(PUBLIC_URL, text, remedy)._replace(needs=needs)
        return
    for statement in certificates.dates_of(public_url, answer.certificate, now):
        yield statement
    outcome = _of_answer(settings, answer, challenge)
    yield outcome._replace(lacks="" if outcome.mark is Mark.OK else PUBLIC_URL)
    if outcome.mark is Mark.OK:
        yield _of_cookies(settings, answer.cookies)
    elif _is_login(settings, answer):
        text = f"not checked: the cookies at {public_url} are not this gate's"
        yield unknown(COOKIES, text)._replace(needs=PUBLIC_URL)


def after_sign_in(statements: Sequence[Statement]) -> list[Statement]:
    """Name a fault of the sign-in as the cause why a running gate begins no login."""
    lacking = {statement.lacks for statement in statements}
    faults = [statement.lacks for statement in statements if ends_sign_ins(statement)]
    if RUNNING_GATE in lacking or not any(faults):
        return list(statements)
    cause = next(filter(None, faults))
    return [
        statement._replace(needs=cause)
        if statement[:2] == (PUBLIC_URL, Mark.WRONG) and statement.needs == RUNNING_GATE
        else statement
        for statement in statements
    ]


def _is_login(settings: Settings, answer: FetchedResponse) -> bool:
    return answer.location.startswith(f"{settings.tailchat.api_url}/open/auth?")


def _of_answer(settings: Settings, answer: FetchedResponse, challenge: str) -> Statement:
    public_url = settings.server.public_url
    if not _is_login(settings, answer):
        where = f" to {short_text(answer.location)}" if answer.location else ""
        text = f"{public_url} does not begin a login of this gate: status {answer.status}{where}"
        if answer.status in {HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE}:
            statement = wrong(PUBLIC_URL, text, f"check whether the gate runs; else {_LEAD}")
            return statement._replace(needs=RUNNING_GATE)
        return wrong(PUBLIC_URL, text, _LEAD)
    query = parse_qs(urlsplit(answer.location).query)
    for name, expected in (
        ("client_id", settings.tailchat.client_id),
        ("redirect_uri", settings.redirect_uri),
    ):
        sent = query.get(name, [""])[0]
        if sent != expected:
            text = f"another gate answers at {public_url}: its {name} is {short_text(sent)}"
            return wrong(PUBLIC_URL, text, "reload the running gate, or correct the configuration")
    if not _is_sealed_here(settings, query.get("state", [""])[0], challenge):
        text = f"another gate answers at {public_url}: it has none of session.secrets"
        remedy = (
            "check where the name leads and what listens there, such as an older machine; gates "
            "behind one name need the same session.secrets"
        )
        return wrong(PUBLIC_URL, text, remedy)
    return ok(PUBLIC_URL, f"{public_url} is this gate, and a login begins there")


def _is_sealed_here(settings: Settings, state: str, challenge: str) -> bool:
    """Whether a gate with one of these session secrets has sealed this login.

    The state of the login proves that, so the gate needs no address that proves its identity to
    strangers. The state is sealed for another purpose than sessions, so it cannot be used as one.
    """
    own = [secret.get_secret_value().encode() for secret in settings.session.secrets]
    opened = open_state(state, KeyRing(own, KEY_PURPOSE))
    return opened is not None and hmac.compare_digest(opened.return_to.encode(), challenge.encode())


def _of_cookies(settings: Settings, fields: Sequence[str]) -> Statement:
    names = CookieNames.for_origin(settings.server.public_url, settings.session.cookie_name)
    remedy = "have the proxy in front pass Set-Cookie as it is"
    cookie: SimpleCookie = SimpleCookie()
    for field in fields:
        try:
            cookie.load(field)
        except CookieError:
            continue
    own = next((cookie[name] for name in cookie if name.startswith(names.login)), None)
    if own is None:
        return wrong(COOKIES, f"the login cookie {names.login} is lost on the way", remedy)
    changed = [
        attribute
        for attribute, wanted in (
            ("secure", names.secure),
            ("httponly", True),
            ("path", "/"),
            ("domain", ""),
            ("samesite", "Lax"),
        )
        if (own[attribute] or False) != (wanted or False)
    ]
    if changed:
        text = f"the gate's cookies are changed on the way: {', '.join(changed)}"
        return wrong(COOKIES, text, remedy)
    return ok(COOKIES, f"cookies of {settings.server.public_url} arrive as the gate sets them")
