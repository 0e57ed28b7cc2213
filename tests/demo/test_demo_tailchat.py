import asyncio
import json
import struct
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from accounts import accounts_as_json, revoke_user, user_named
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from gatekit import Clock
from tailchat_browser import APP, OTHER_APP, Browser, authorization_path
from usual_faults import BROKEN, CLOSE, HTML

from tailchat_gate.demo.faults import Hang, Response, Rewrite
from tailchat_gate.demo.oauth import BAD_REQUEST, OAuthError, Parameters, listed
from tailchat_gate.demo.store import LIMIT, Shelf
from tailchat_gate.demo.tailchat import StandInTailchat
from tailchat_gate.demo.users import USERS, User, picture
from tailchat_gate.demo.wire import MAX_SHOWN, is_local, prefers_html, shown

DAY = 24 * 3600
OFFLINE = {"scope": "openid profile offline_access", "prompt": "consent"}
INVALID_GRANT = {"error": "invalid_grant", "error_description": "grant request is invalid"}
SERVER_ERROR = {"error": "server_error", "error_description": "oops! something went wrong"}

Start = Callable[..., Any]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Return a function that serves a stand-in on a free port and returns a browser for it."""
    async with AsyncExitStack() as stack:

        async def serve(stand_in: StandInTailchat) -> Browser:
            runner = web.AppRunner(stand_in.app())
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            return await stack.enter_async_context(Browser(url))

        yield serve


@pytest.fixture
def stand_in(clock: Clock) -> StandInTailchat:
    """Return a stand-in that goes by the test's clock."""
    return StandInTailchat("https://chat.example.com", apps=(APP, OTHER_APP), clock=clock)


@pytest.fixture
async def browser(start: Start, stand_in: StandInTailchat) -> Browser:
    """Return a browser for `stand_in`."""
    found = await start(stand_in)
    assert isinstance(found, Browser)
    return found


async def tokens(browser: Browser, **changes: str | None) -> dict[str, Any]:
    """Log in and return the answer of the token endpoint."""
    answer = await browser.token(code=(await browser.authorize(**changes)).code)
    assert answer.status == 200
    members: dict[str, Any] = answer.json
    return members


@pytest.mark.parametrize(("age", "status"), [(599, 200), (600, 400)])
async def test_a_code_lives_ten_minutes(
    browser: Browser, clock: Clock, age: int, status: int
) -> None:
    """A code is good until it is 600 seconds old."""
    code = (await browser.authorize()).code
    clock.now += age

    assert (await browser.token(code=code)).status == status


@pytest.mark.parametrize(("age", "status"), [(3599, 200), (3600, 401)])
async def test_an_access_token_lives_an_hour(
    browser: Browser, clock: Clock, age: int, status: int
) -> None:
    """An access token is good for the hour that expires_in names."""
    found = await tokens(browser)
    clock.now += age

    assert (await browser.me(found["access_token"])).status == status


async def test_a_page_waits_an_hour(browser: Browser, clock: Clock) -> None:
    """A login page that was left open for an hour has expired, as its cookie has."""
    answer = await browser.start()
    clock.now += 3600
    jar = {cookie.key: cookie.value for cookie in browser.session.cookie_jar}
    pair = {name: value for name, value in jar.items() if name.startswith("_interaction")}
    page = await browser.send("GET", answer.location, cookies=pair)

    assert page.status == 500
    assert "SessionNotFound: invalid_request" in page.text


async def test_an_old_session_must_log_in_again_for_max_age(browser: Browser, clock: Clock) -> None:
    """A sign-in older than max_age shows the login page once more, and then it is young again."""
    await browser.authorize()
    clock.now += 61

    assert (await browser.authorize(max_age="60")).pages == ("login",)
    assert (await browser.authorize(max_age="60")).pages == ()


async def test_the_refresh_token_is_rotated_late_and_then_guarded(
    browser: Browser, clock: Clock
) -> None:
    """Past 70 % of its 14 days a refresh token is replaced; using the old one ends the grant."""
    first = await tokens(browser, **OFFLINE)
    clock.now += 9.7 * DAY
    same = (await browser.refresh(first["refresh_token"])).json
    clock.now += 0.2 * DAY
    rotated = (await browser.refresh(first["refresh_token"])).json
    old = await browser.refresh(first["refresh_token"])

    assert same["refresh_token"] == first["refresh_token"]
    assert rotated["refresh_token"] != first["refresh_token"]
    assert (old.status, old.json) == (400, INVALID_GRANT)
    assert (await browser.refresh(rotated["refresh_token"])).json == INVALID_GRANT
    assert (await browser.me(rotated["access_token"])).status == 401


async def test_a_user_can_be_revoked(browser: Browser, stand_in: StandInTailchat) -> None:
    """The tokens of a user whose grants were ended are worth nothing; another's are good."""
    found = await tokens(browser, **OFFLINE)
    async with Browser(browser.url) as other:
        bob = user_named("bob")
        ended = await other.authorize(bob)
        theirs = (await other.token(code=ended.code)).json
    revoke_user(stand_in.store, user_named("hoshino").sub)

    assert (await browser.me(found["access_token"])).status == 401
    assert (await browser.refresh(found["refresh_token"])).json == INVALID_GRANT
    assert (await browser.me(theirs["access_token"])).json["sub"] == bob.sub


async def test_a_user_can_be_renamed(browser: Browser, stand_in: StandInTailchat) -> None:
    """A rename shows at the next /open/me, and nothing else of the user changes."""
    found = await tokens(browser)
    before = (await browser.me(found["access_token"])).json
    stand_in.store.rename(before["sub"], "Renamed")

    assert (await browser.me(found["access_token"])).json == {**before, "nickname": "Renamed"}


async def test_a_grant_ends_14_days_after_the_first_consent(browser: Browser, clock: Clock) -> None:
    """Nothing makes a grant live longer: tokens die with it and the consent page comes back."""
    await browser.authorize()
    clock.now += 13 * DAY
    found = await tokens(browser, **OFFLINE)
    clock.now += 1 * DAY - 60
    fresh = (await browser.refresh(found["refresh_token"])).json["access_token"]
    assert (await browser.me(fresh)).status == 200
    clock.now += 60

    assert (await browser.me(fresh)).status == 401
    assert (await browser.refresh(found["refresh_token"])).json == INVALID_GRANT
    assert (await browser.authorize()).pages == ("consent",)


async def test_a_session_rolls_and_takes_its_tokens_along(
    browser: Browser, clock: Clock, stand_in: StandInTailchat
) -> None:
    """Each visit renews the 14 days; without a session its tokens and codes are worth nothing."""
    await browser.authorize()
    clock.now += 13 * DAY
    await browser.authorize()
    clock.now += 13 * DAY
    assert (await browser.authorize()).pages == ("consent",)

    online = await tokens(browser)
    offline = await tokens(browser, **OFFLINE)
    code = (await browser.authorize()).code
    stand_in.store.sessions.drop(lambda _: True)
    assert (await browser.me(online["access_token"])).status == 401
    assert (await browser.me(offline["access_token"])).status == 200
    assert (await browser.token(code=code)).json == INVALID_GRANT
    assert (await browser.authorize(prompt="none")).callback["error"] == "login_required"


async def test_a_renamed_user_is_renamed_at_once(
    browser: Browser, stand_in: StandInTailchat
) -> None:
    """The next /open/me shows a new name."""
    found = await tokens(browser)
    user = user_named("hoshino")
    stand_in.store.users[user.sub] = replace(user, claims={"nickname": "New"})

    answer = await browser.me(found["access_token"])
    assert answer.json == {"sub": user.sub, "nickname": "New"}


async def test_a_deleted_user_is_a_server_error(
    browser: Browser, stand_in: StandInTailchat
) -> None:
    """A deleted user gives 500 at /token, where the code is used up, and at /me."""
    found = await tokens(browser)
    code = (await browser.authorize()).code
    user = stand_in.store.users.pop(user_named("hoshino").sub)
    redeemed = await browser.token(code=code)
    me = await browser.me(found["access_token"])

    for answer in (redeemed, me):
        assert (answer.status, answer.json) == (500, SERVER_ERROR)
        assert "WWW-Authenticate" not in answer.headers
    stand_in.store.users[user.sub] = user
    assert (await browser.token(code=code)).json == INVALID_GRANT


async def test_an_app_that_is_gone_takes_its_tokens_along(
    browser: Browser, stand_in: StandInTailchat
) -> None:
    """Without the app, /me answers as for an unknown token."""
    found = await tokens(browser)
    del stand_in.store.apps[APP.client_id]

    assert (await browser.me(found["access_token"])).status == 401


async def test_a_new_secret_spares_the_tokens(browser: Browser, stand_in: StandInTailchat) -> None:
    """A rotated secret leaves access tokens alone; a refresh needs the new one."""
    found = await tokens(browser, **OFFLINE)
    stand_in.store.apps[APP.client_id] = replace(APP, client_secret="new")

    assert (await browser.me(found["access_token"])).status == 200
    assert (await browser.refresh(found["refresh_token"])).status == 401
    assert (await browser.refresh(found["refresh_token"], client_secret="new")).status == 200


async def test_without_an_issuer_it_says_where_it_is_reached(start: Start) -> None:
    """An issuer of "" is the origin of each request, in discovery, callback, id_token and realm."""
    browser = await start(StandInTailchat(apps=(APP,)))
    discovery = await browser.send("GET", "/open/.well-known/openid-configuration")
    ended = await browser.authorize()
    bad = await browser.me("x")

    assert discovery.json["issuer"] == browser.url
    assert ended.callback["iss"] == browser.url
    assert bad.headers["WWW-Authenticate"].startswith(f'Bearer realm="{browser.url}"')


async def test_without_a_proxy_forwarded_fields_are_ignored(start: Start) -> None:
    """under_proxy=False builds URLs of Host alone."""
    browser = await start(StandInTailchat(apps=(APP,), under_proxy=False))
    answer = await browser.send(
        "GET",
        "/open/.well-known/openid-configuration",
        headers={"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"},
    )

    assert answer.json["jwks_uri"] == f"{browser.url}/open/jwks"


@pytest.mark.parametrize("user", USERS, ids=lambda user: user.name)
async def test_each_account_is_one_click_away(browser: Browser, user: User) -> None:
    """The login page has a form for every account that works without JavaScript."""
    first = await browser.start()
    page = await browser.send("GET", first.location)

    assert f'value="{user.email}"' in page.text
    assert f'value="{user.password}"' in page.text
    assert (await browser.authorize(user)).code


async def test_a_bot_is_no_account_to_click(browser: Browser, stand_in: StandInTailchat) -> None:
    """It has no password that a person knows, and nothing lets it in."""
    bot = replace(USERS[0], sub="66" + "f" * 22, email="open_x@demo.example", kind="openapiBot")
    stand_in.store.users[bot.sub] = bot
    first = await browser.start()
    text = (await browser.send("GET", first.location)).text
    assert USERS[0].email in text
    assert bot.email not in text


async def test_pages_escape_what_accounts_and_apps_are_called(start: Start) -> None:
    """A name with markup is text on the pages, and the errors of a query are, too."""
    evil = replace(APP, name="<script>alert(1)</script>")
    browser = await start(StandInTailchat(apps=(evil,)))
    first = await browser.start()
    login = await browser.send("GET", first.location)
    refused = await browser.send("GET", authorization_path(client_id="x", state="<b>\r\nX: 1"))

    assert "<script" not in login.text
    assert "&lt;script&gt;alert(1)" in login.text
    assert "50%&lt;b&gt;" in login.text
    assert "<b>" not in refused.text


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        (HTML, 200, "text/html"),
        (BROKEN, 500, "application/json"),
        (Response(204, b"", "text/plain"), 204, "text/plain"),
    ],
)
@pytest.mark.parametrize("name", ["discovery", "jwks", "token", "me"])
async def test_a_fault_answers_instead(
    browser: Browser, stand_in: StandInTailchat, name: str, fault: Response, status: int, kind: str
) -> None:
    """A Reply set as fault answers every call of its endpoint, and of that one only."""
    paths = {"discovery": "/.well-known/openid-configuration"}
    method = "POST" if name == "token" else "GET"
    setattr(stand_in.faults, name, fault)
    answer = await browser.send(method, f"/open{paths.get(name, f'/{name}')}")
    setattr(stand_in.faults, name, None)
    after = await browser.send(method, f"/open{paths.get(name, f'/{name}')}")

    assert answer.status == status
    assert answer.headers["Content-Type"].startswith(kind)
    assert answer.text == fault.body.decode()
    assert after.text != answer.text
    assert stand_in.seen[name].count == 2


async def test_a_hanging_endpoint_goes_on_when_released(
    browser: Browser, stand_in: StandInTailchat
) -> None:
    """Hang tells that a call waits, and the call is answered as usual once it is released."""
    found = await tokens(browser)
    hang = Hang()
    stand_in.faults.me = hang
    call = asyncio.create_task(browser.me(found["access_token"]))
    await hang.started.wait()
    assert not call.done()
    hang.release()

    assert (await call).json["sub"] == user_named("hoshino").sub


async def test_a_closed_connection_answers_nothing(
    browser: Browser, stand_in: StandInTailchat
) -> None:
    """CLOSE ends the connection before any byte of an answer, and uses no code up."""
    code = (await browser.authorize()).code
    stand_in.faults.token = CLOSE
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await browser.token(code=code)
    stand_in.faults.token = None

    assert (await browser.token(code=code)).status == 200
    assert stand_in.seen["token"].count == 2


async def test_a_good_answer_can_be_rewritten(browser: Browser, stand_in: StandInTailchat) -> None:
    """Rewrite changes the members of a good answer and leaves an error as it is."""
    found = await tokens(browser)
    stand_in.faults.me = Rewrite(lambda members: {**members, "sub": 7})

    assert (await browser.me(found["access_token"])).json["sub"] == 7
    assert (await browser.me("unknown")).json["error"] == "invalid_token"


async def test_calls_are_counted_and_the_last_one_kept(
    browser: Browser, stand_in: StandInTailchat
) -> None:
    """`seen` has the number of calls, the last one's fields and its body, and shows no secret."""
    await browser.token(code="a")
    await browser.token(code="b", headers=None)
    seen = stand_in.seen["token"]

    assert stand_in.seen["token"].count == seen.count == 2
    assert seen.header("content-type") == "application/x-www-form-urlencoded"
    assert seen.header("Origin") is None
    assert b"code=b" in seen.body
    assert APP.client_secret not in repr(seen)
    assert APP.client_secret not in repr(APP)
    assert stand_in.seen["me"].count == 0


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        (("127.0.0.1", 5), True),
        (("127.8.9.1", 5), True),
        (("::1", 5, 0, 0), True),
        (("::ffff:127.0.0.1", 5, 0, 0), True),
        ("", True),
        (("192.168.1.5", 5), False),
        (("::ffff:192.168.1.5", 5, 0, 0), False),
        (("2001:db8::1", 5, 0, 0), False),
        (("fe80::1%eth0", 5, 0, 2), False),
        (("localhost", 5), False),
        ((), False),
        (None, False),
    ],
)
def test_only_this_machine_is_local(peer: object, local: bool) -> None:
    """Loopback in every spelling and a Unix socket are local; everything else is not."""
    assert is_local(peer) is local


async def test_a_peer_from_elsewhere_is_refused(stand_in: StandInTailchat) -> None:
    """A request that comes from another machine gets 403 and no page."""

    class Elsewhere(asyncio.Transport):
        def get_extra_info(self, name: str, default: object = None) -> object:
            return ("192.0.2.7", 40000) if name == "peername" else default

    app = stand_in.app()
    app.freeze()
    request = make_mocked_request("GET", "/health", app=app, transport=Elsewhere())
    response = await app._handle(request)

    assert response.status == 403


async def test_pictures_are_png_and_missing_files_say_so(browser: Browser) -> None:
    """An account's picture is a PNG; any other file is a 200 without a Content-Type."""
    sub = user_named("hoshino").sub
    async with browser.session.get(f"{browser.url}/static/files/{sub}/avatar.png") as response:
        body = await response.read()
    missing = await browser.send("GET", "/static/files/none.png")

    assert response.content_type == "image/png"
    assert body == picture(sub)
    assert body.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", body[16:24]) == (64, 64)
    assert (missing.status, missing.text) == (200, "static file not found")
    assert "Content-Type" not in missing.headers


def test_a_picture_is_whole() -> None:
    """Every chunk of a picture has its right length and checksum, and the pixels unpack."""
    data = picture("660000000000000000000001")
    chunks, at = {}, 8
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        (check,) = struct.unpack(">I", data[at + 8 + size : at + 12 + size])
        assert check == zlib.crc32(kind + body)
        chunks[kind] = body
        at += 12 + size

    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    assert len(zlib.decompress(chunks[b"IDAT"])) == 64 * (1 + 3 * 64)
    assert picture("660000000000000000000002") != data


async def test_elsewhere_the_web_client_answers(browser: Browser) -> None:
    """Where a client must not look for the discovery document, it finds a page of HTML."""
    answer = await browser.send("GET", "/.well-known/openid-configuration")

    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/html")


async def test_a_preflight_is_answered_and_the_call_refused(browser: Browser) -> None:
    """OPTIONS names the origin as allowed, though no call with one is."""
    answer = await browser.send("OPTIONS", "/open/token", headers={"Origin": "https://a.example"})

    assert answer.status == 204
    assert answer.headers["Access-Control-Allow-Origin"] == "https://a.example"


async def test_what_strangers_send_is_bounded(browser: Browser, stand_in: StandInTailchat) -> None:
    """A thousand and more unfinished logins leave a thousand behind."""
    for _ in range(LIMIT + 5):
        await browser.send("GET", authorization_path(), cookies={})

    assert len(stand_in.store.interactions) == LIMIT


def test_a_shelf_forgets_the_oldest_and_the_expired(clock: Clock) -> None:
    """Entries go when their time is over or too many came after them; a renewal counts as new."""
    shelf: Shelf[int] = Shelf(clock)
    shelf.put("a", 0, 10)
    shelf.put("b", 1, 20)
    shelf.put("a", 2, 10)
    clock.now += 9
    assert (shelf.get("a"), shelf.get("b")) == (2, 1)
    clock.now += 1
    assert (shelf.get("a"), shelf.pop("a"), shelf.pop("b")) == (None, None, 1)
    assert len(shelf) == 0
    for number in range(LIMIT + 1):
        shelf.put(str(number), number, 10)
    assert shelf.get("0") is None
    assert len(shelf) == LIMIT


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["a"], "'a'"),
        (["a", "b"], "'a' and 'b'"),
        (["a", "b", "c"], "'a', 'b', and 'c'"),
    ],
)
def test_names_are_listed_in_english(names: list[str], text: str) -> None:
    """One, two and three names read as an English sentence has them."""
    assert listed(names) == text


def test_parameters_know_what_is_missing_and_what_came_twice() -> None:
    """An empty value is a missing one; a repeated one has no value at all."""
    params = Parameters.parse("a=1&b=&c=1&c=2&c=3&d=%ff")

    assert [params.get(name) for name in "abcde"] == ["1", None, None, "\ufffd", None]
    assert list(params.twice) == ["c"]
    with pytest.raises(OAuthError) as caught:
        params.must_be_single("ac")
    assert caught.value.members()["error_description"] == (
        "'c' parameter must not be provided twice"
    )
    assert caught.value.status == BAD_REQUEST


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        ("*/*", False),
        ("", False),
        ("application/json", False),
        ("text/html", True),
        ("text/*", True),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        ("text/html;q=0.5, application/json", False),
        ("text/html;q=x", False),
        ("image/png", False),
    ],
)
def test_accept_decides_between_page_and_json(accept: str, html: bool) -> None:
    """HTML is for who ranks it above JSON."""
    assert prefers_html(accept) is html


def test_shown_text_is_short_and_turns_nothing_round() -> None:
    """Controls and bidi marks become a sign, the joiner of an emoji family stays."""
    assert shown("a\r\nb\x00\u202ec\u2066") == "a��b��c�"
    family = "👩\u200d👩\u200d👧"
    assert shown(family) == family
    assert len(shown("x" * 5000)) == MAX_SHOWN + 1


def test_accounts_are_what_the_real_provider_is_given() -> None:
    """The accounts as JSON keep missing keys missing and hostile text as it is."""
    found = json.loads(json.dumps(accounts_as_json()))

    assert [entry["sub"] for entry in found] == [user.sub for user in USERS]
    assert [entry["claims"] for entry in found] == [dict(user.claims) for user in USERS]
    assert all(len(user.sub) == 24 and int(user.sub, 16) for user in USERS)
    assert {user.name for user in USERS if "nickname" not in user.claims} == {"missing"}
    assert len(user_named("long").claims["nickname"] or "") == 5000
    with pytest.raises(KeyError):
        user_named("nobody")


@pytest.mark.parametrize("user", USERS, ids=lambda user: user.name)
def test_an_account_hides_its_password(user: User) -> None:
    """An account's repr has no password."""
    assert user.password not in repr(user)
