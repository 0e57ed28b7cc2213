"""Whether people can sign in, asked of the provider that Tailchat runs and of the stand-in."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass

import pytest
from aiohttp import web
from openid_provider_process import OpenIdProvider, openid_provider
from process import free_port
from pydantic import SecretStr
from storykit import served
from tailchat_browser import APP, REDIRECT

from tailchat_gate.demo.store import App
from tailchat_gate.demo.tailchat import StandInTailchat
from tailchat_gate.identity.oauth.back_channel import BackChannel
from tailchat_gate.identity.oauth.login import ClientRegistration
from tailchat_gate.identity.oauth.sign_in_check import Finding, SignInCheck
from tailchat_gate.reasons import Reason

# The first start fetches the provider's packages.
pytestmark = pytest.mark.timeout(300)

#: One blank line among its callbacks, as Tailchat's own form stores it.
BLANK = App("tc_649aa2179e97b8b3b2d10043", "a-third-secret", (REDIRECT, ""), "Blank")
APPS = (APP, BLANK)


@dataclass(frozen=True)
class Tailchat:
    """What is asked: its origin, and whether it is the real provider."""

    url: str


@pytest.fixture(scope="module")
def real_provider() -> Iterator[OpenIdProvider]:
    """Run the provider once for all tests; its issuer is its own origin."""
    apps = [{**asdict(app), "redirect_uris": list(app.redirect_uris)} for app in APPS]
    with openid_provider(apps=apps) as provider:
        yield provider


@pytest.fixture(params=["stand-in", "oidc-provider"])
async def tailchat(request: pytest.FixtureRequest) -> AsyncIterator[Tailchat]:
    """Return each of the two, one after the other."""
    if request.param == "oidc-provider":
        provider: OpenIdProvider = request.getfixturevalue("real_provider")
        yield Tailchat(provider.url)
        return
    async with served(StandInTailchat(apps=APPS).app()) as port:
        yield Tailchat(f"http://127.0.0.1:{port}")


async def _check(
    url: str,
    app: App = APP,
    *,
    redirect_uri: str = REDIRECT,
    scope: str = "openid profile",
    secret: str = "",
    api_url: str = "",
) -> tuple[Finding, ...]:
    channel = BackChannel(url)
    check = SignInCheck(
        channel,
        ClientRegistration(app.client_id, redirect_uri, scope),
        SecretStr(secret or app.client_secret),
        api_url=api_url or url,
        is_direct=True,
    )
    try:
        return await check.run()
    finally:
        await channel.close()


async def test_nothing_is_found_where_people_can_sign_in(tailchat: Tailchat) -> None:
    """The app, its callback and its secret are right, and no session is needed to know that."""
    assert await _check(tailchat.url) == ()
    assert await _check(tailchat.url, scope="openid profile offline_access") == ()


async def test_a_callback_that_is_not_registered_is_found(tailchat: Tailchat) -> None:
    """Tailchat compares the text: one character more, and the finding names the line to add."""
    (found,) = await _check(tailchat.url, redirect_uri=REDIRECT + "/")

    assert (found.name, found.reason) == ("redirect-uri", Reason.GATE_NOT_ACCEPTED)
    assert f"{REDIRECT}/;" in found.text


async def test_an_app_that_tailchat_does_not_know_is_found(tailchat: Tailchat) -> None:
    """The same as one without the OAuth capability, which Tailchat hides as well."""
    unknown = App("tc_000000000000000000000000", "x", (REDIRECT,), "Unknown")
    (found,) = await _check(tailchat.url, unknown)

    assert (found.name, found.reason) == ("client-id", Reason.GATE_NOT_ACCEPTED)
    assert unknown.client_id in found.text


async def test_a_wrong_secret_is_found_without_a_login(tailchat: Tailchat) -> None:
    """An invented code is enough, and neither the code nor the secret is in the finding."""
    (found,) = await _check(tailchat.url, secret="not-the-secret")

    assert (found.name, found.reason) == ("client-secret", Reason.GATE_NOT_ACCEPTED)
    assert "not-the-secret" not in repr(found)


async def test_a_blank_line_among_the_callbacks_is_found(tailchat: Tailchat) -> None:
    """It breaks the whole app, although the callback itself is listed."""
    (found,) = await _check(tailchat.url, BLANK)

    assert (found.name, found.reason) == ("app-settings", Reason.GATE_NOT_ACCEPTED)


@pytest.mark.parametrize("suffix", ["/open", "/somewhere"])
async def test_an_address_that_is_not_tailchats_is_found(tailchat: Tailchat, suffix: str) -> None:
    """An api_url that ends in /open is the usual mistake."""
    (found,) = await _check(tailchat.url + suffix)

    assert (found.name, found.reason) == ("address", Reason.TAILCHAT_BROKEN)
    assert tailchat.url + suffix in found.text


async def test_an_issuer_on_another_host_is_said(tailchat: Tailchat) -> None:
    """Sign-ins still work, so nobody is stopped."""
    api_url = tailchat.url.replace("127.0.0.1", "chat.example.com")
    (found,) = await _check(tailchat.url, api_url=api_url)

    assert (found.name, found.reason) == ("issuer", None)
    assert tailchat.url in found.text


async def test_a_tailchat_that_does_not_know_it_is_behind_tls_is_said(tailchat: Tailchat) -> None:
    """Its discovery names http:// addresses, and browsers would be sent there."""
    api_url = tailchat.url.replace("http:", "https:")
    (found,) = await _check(tailchat.url, api_url=api_url)

    assert (found.name, found.reason) == ("under-proxy", None)
    assert "OPENAPI_UNDER_PROXY" in found.text


async def _serve_status(status: int) -> web.Application:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Retry-After": "7"}, text="no")

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", answer)
    return app


@pytest.mark.parametrize(
    ("status", "name"), [(500, "tailchat-broken"), (502, "tailchat-broken"), (429, "tailchat-busy")]
)
async def test_an_outage_stops_nobody(status: int, name: str) -> None:
    """The gate may be cut off where browsers are not, and an outage passes by itself."""
    async with served(await _serve_status(status)) as port:
        (found,) = await _check(f"http://127.0.0.1:{port}")

    assert (found.name, found.reason) == (name, None)


async def test_a_tailchat_that_is_down_is_said() -> None:
    """Nothing listens there."""
    (found,) = await _check(f"http://127.0.0.1:{free_port()}")

    assert (found.name, found.reason) == ("tailchat-down", None)
