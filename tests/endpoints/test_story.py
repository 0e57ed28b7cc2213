"""The story over real sockets: a visitor, the gate, the stand-in Tailchat, a tool."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest
from accounts import user_named
from gatekit import Clock
from storykit import Story, story, until_callback
from usual_faults import BROKEN, CLOSE, HTML
from visitor import FETCH, NAVIGATION, Page, Visitor
from yarl import URL

from tailchat_gate.demo.faults import Fault, Hang, Response, Rewrite
from tailchat_gate.demo.users import USERS, User

HOSHINO = user_named("hoshino")
SESSION = "tailchat_gate"


@pytest.fixture
async def scene(tmp_path: Path, clock: Clock) -> AsyncIterator[Story]:
    """Return the usual setting."""
    async with story(tmp_path / "access.log", clock) as found:
        yield found


async def _sign_in(visitor: Visitor, scene: Story, path: str = "/", user: User = HOSHINO) -> Page:
    return await visitor.sign_in(scene.url + path, user.email, user.password)


async def test_a_visitor_signs_in_and_reaches_the_tool(scene: Story) -> None:
    """From a deep link over Tailchat's pages back to the deep link, with the identity told."""
    async with scene.visitor() as visitor:
        page = await _sign_in(visitor, scene, "/deep/link?a=1&b=%2Fx&c=%E6%98%9F")

    assert (page.status, page.text) == (200, "ok")
    assert page.url == f"{scene.url}/deep/link?a=1&b=%2Fx&c=%E6%98%9F"
    received = scene.tool.requests[-1]
    assert received.line == b"GET /deep/link?a=1&b=%2Fx&c=%E6%98%9F HTTP/1.1"
    assert received.value("X-Tailchat-Sub") == HOSHINO.sub.encode()
    nickname = (received.value("X-Tailchat-Nickname") or b"").decode("ascii")
    assert unquote(nickname) == "星野 Hoshino ☆"
    assert received.value("X-Tailchat-Discriminator") == b"0042"
    avatar = (received.value("X-Tailchat-Avatar") or b"").decode()
    assert avatar.startswith(scene.gate.generation.settings.tailchat.api_url + "/static/")
    assert len(scene.tool.requests) == 1


@pytest.mark.parametrize("user", USERS, ids=lambda user: user.name)
async def test_hostile_nicknames_make_requests_that_a_tool_accepts(
    scene: Story, user: User
) -> None:
    """Every nickname and avatar of the stand-in ends in clean header lines or in none."""
    async with scene.visitor() as visitor:
        page = await _sign_in(visitor, scene, user=user)

    assert page.text == "ok"
    received = scene.tool.requests[-1]
    assert received.value("X-Tailchat-Sub") == user.sub.encode()
    assert received.values("X-Evil") == []
    for name, value in received.fields:
        assert all(0x20 <= octet < 0x7F for octet in value), (name, value)
    assert len(received.value("X-Tailchat-Nickname") or b"") <= 2048
    avatar = received.value("X-Tailchat-Avatar") or b"https://"
    assert avatar.startswith((b"https://", b"http://"))


async def test_the_second_login_of_a_browser_is_silent(scene: Story) -> None:
    """After the session is gone, Tailchat signs in again without a page."""
    async with scene.visitor() as visitor:
        await _sign_in(visitor, scene)
        scene.clock.now += 43_201

        page = await visitor.open(scene.url + "/again")

    assert (page.status, page.url) == (200, scene.url + "/again")
    assert scene.tailchat.seen["token"].count == 2


async def test_what_is_asked_of_tailchat(scene: Story) -> None:
    """The authorization request has each parameter once, with PKCE S256, fresh every time."""
    seen = []
    async with scene.visitor() as visitor:
        for _ in range(2):
            page = await visitor.open(scene.url + "/x", follow=False)
            page = await visitor.open(page.headers["Location"], follow=False)
            url = page.headers["Location"]
            query = parse_qs(urlsplit(url).query, strict_parsing=True)
            assert all(len(values) == 1 for values in query.values())
            seen.append({name: values[0] for name, values in query.items()})

    first, second = seen
    assert first["response_type"] == "code"
    assert first["scope"] == "openid profile"
    assert first["redirect_uri"] == f"{scene.url}/oauth2/callback"
    assert first["code_challenge_method"] == "S256"
    for name in ("state", "nonce", "code_challenge"):
        assert first[name] != second[name]
        assert len(first[name]) >= 22


async def test_what_is_sent_to_the_token_endpoint(scene: Story) -> None:
    """One form POST with the secret in the body, and neither Origin, cookie nor Basic."""
    async with scene.visitor() as visitor:
        await _sign_in(visitor, scene)

    seen = scene.tailchat.seen["token"]
    assert seen.count == 1
    body = parse_qs(seen.body.decode())
    assert body["grant_type"] == ["authorization_code"]
    assert body["redirect_uri"] == [f"{scene.url}/oauth2/callback"]
    assert len(body["code_verifier"][0]) >= 43
    assert (seen.header("Content-Type") or "").startswith("application/x-www-form-urlencoded")
    for name in ("Origin", "Cookie", "Authorization"):
        assert seen.header(name) is None


async def test_reloading_the_callback_goes_where_the_login_went(scene: Story) -> None:
    """The callback opened again does not redeem again, right away or after hours."""
    async with scene.visitor() as visitor:
        callback = await until_callback(visitor, scene, "/tool")
        for wait in (0, 30, 3600):
            scene.clock.now += wait
            page = await visitor.open(callback)
            assert (page.status, page.url) == (200, scene.url + "/tool")

    assert scene.tailchat.seen["token"].count == 1


async def test_a_callback_whose_answer_was_lost_can_be_reloaded(scene: Story) -> None:
    """A browser that never got the first answer gets its session from a reload in a minute."""
    hang = Hang()
    async with scene.visitor() as visitor:
        callback = await until_callback(visitor, scene, "/tool")
        scene.tailchat.faults.me = hang
        first = asyncio.create_task(visitor.open(callback))
        await hang.started.wait()
        first.cancel()
        hang.release()
        scene.tailchat.faults.me = None

        page = await visitor.open(callback)

    assert (page.status, page.url) == (200, scene.url + "/tool")
    assert scene.tailchat.seen["token"].count == 1


async def test_a_used_callback_without_a_session_says_so(scene: Story) -> None:
    """After a sign-out, going back to the callback starts nothing and explains."""
    async with scene.visitor() as visitor:
        callback = await until_callback(visitor, scene)
        await visitor.open(callback)
        page = await visitor.open(scene.url + "/oauth2/sign_out")
        await visitor.submit(page, "/sign_out")
        scene.clock.now += 61

        page = await visitor.open(callback)

    assert page.status == 400
    assert "login-already-used" in page.text
    assert scene.tailchat.seen["token"].count == 1


async def test_two_tabs_can_sign_in_at_once(scene: Story) -> None:
    """A login begun in a second tab does not break the first, whichever finishes first."""
    async with scene.visitor() as visitor:
        first = await visitor.open(scene.url + "/one")
        second = await visitor.open(scene.url + "/two")
        credentials = {"email": HOSHINO.email, "password": HOSHINO.password}

        page = await visitor.submit(second, "/login", **credentials)
        page = await visitor.submit(page, "/confirm")
        assert (page.status, page.url) == (200, scene.url + "/two")
        page = await visitor.submit(first, "/login", **credentials)
        if page.url != scene.url + "/one":
            page = await visitor.submit(page, "/confirm")

    assert (page.status, page.url) == (200, scene.url + "/one")


async def test_a_login_can_finish_in_another_tab(scene: Story) -> None:
    """The callback opened in another tab of the browser (the same cookies) finishes the login."""
    async with scene.visitor() as visitor:
        callback = await until_callback(visitor, scene, "/from-one")
        await visitor.open(scene.url + "/another", follow=False)

        page = await visitor.open(callback)

    assert page.url == scene.url + "/from-one"


async def test_a_callback_in_another_browser_is_refused(scene: Story) -> None:
    """Somebody else's callback signs nobody in.

    A fresh browser is refused; one with a login begun starts one of its own once more, and is
    refused when that comes back as somebody else's again.
    """
    async with scene.visitor() as attacker:
        callback = await until_callback(attacker, scene, "/asked")
    async with scene.visitor() as victim:
        fresh = await victim.open(callback)
        await victim.open(scene.url + "/mine")
        begun = await victim.open(callback)

        assert SESSION not in victim.cookies(scene.url)
    assert fresh.status == 400
    assert "login-other-browser" in fresh.text
    assert "/oauth2/start?rd=/asked" in fresh.text
    assert begun.trail[1] == f"{scene.url}/oauth2/start?rd=/asked&again=1"
    assert (begun.status, begun.forms[0].action.endswith("/login")) == (200, True)
    assert scene.tailchat.seen["token"].count == 0


async def test_a_stolen_code_in_ones_own_login_is_refused(scene: Story) -> None:
    """PKCE stops a code from being redeemed in another login (RFC 9700 section 4.5)."""
    async with scene.visitor() as victim:
        stolen = parse_qs(urlsplit(await until_callback(victim, scene)).query)["code"][0]
    async with scene.visitor() as attacker:
        callback = await until_callback(attacker, scene)
        own = parse_qs(urlsplit(callback).query)["code"][0]

        page = await attacker.open(callback.replace(own, stolen))

    assert page.status == 400
    assert "login-code-refused" in page.text


def _without(url: str, name: str) -> str:
    parts = urlsplit(url)
    kept = [pair for pair in parts.query.split("&") if not pair.startswith(f"{name}=")]
    return parts._replace(query="&".join(kept)).geturl()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda url: _without(url, "state"), "login-state-missing"),
        (lambda url: url.replace("state=", "state=x"), "login-state-forged"),
        (lambda url: _without(url, "iss"), "login-issuer-missing"),
        (
            lambda url: _without(url, "iss") + "&iss=https%3A%2F%2Fevil.example",
            "login-issuer-wrong",
        ),
        (lambda url: url + "x", "login-issuer-wrong"),
        (lambda url: url + "&code=another", "login-malformed"),
        (lambda url: url + "&state=another", "login-malformed"),
        (lambda url: _without(url, "code"), "login-malformed"),
        (
            lambda url: (
                _without(url, "code")
                + "&error=access_denied&error_description=%3Cscript%3Ealert(1)%3C/script%3E"
            ),
            "login-refused",
        ),
        (lambda url: url + "&error=server_error", "login-refused"),
    ],
)
async def test_a_callback_that_is_not_right_has_a_page(
    scene: Story, change: Callable[[str], str], reason: str
) -> None:
    """Each fault of a callback is told in plain words with a next step, and redeems nothing."""
    async with scene.visitor() as visitor:
        callback = await until_callback(visitor, scene)

        page = await visitor.open(change(callback))

        assert SESSION not in visitor.cookies(scene.url)
    assert page.status == (403 if reason == "login-refused" else 400)
    assert reason in page.text
    assert "/oauth2/start?rd=" in page.text
    assert "<script>alert" not in page.text
    assert page.headers["Cache-Control"] == "no-store"
    assert scene.tailchat.seen["token"].count == 0
    assert (await scene.gate.log())[-1]["reason"] == reason


async def test_a_refused_callback_leaves_no_code_in_the_address(scene: Story) -> None:
    """The address of a refused login holds neither its code nor its state."""
    async with scene.visitor() as attacker:
        callback = await until_callback(attacker, scene)
    async with scene.visitor() as victim:
        page = await victim.open(callback)
        again = await victim.open(page.url)
        program = await victim.open(callback, headers={"Accept": "*/*"}, follow=False)

    assert list(page.query) == ["refused"]
    assert (page.status, "login-other-browser" in page.text) == (400, True)
    assert (again.status, "login-other-browser" in again.text) == (400, True)
    assert (program.status, "login-other-browser" in program.text) == (400, True)


async def test_a_refusal_tells_its_words_to_its_own_browser(scene: Story) -> None:
    """Nobody can have the gate show words of theirs to somebody else, by the address of a page."""
    words = "Your account is blocked, call 0900"
    said = f"&error=access_denied&error_description={quote(words)}"
    async with scene.visitor() as attacker, scene.visitor() as victim:
        callback = await until_callback(attacker, scene, "/phish")
        page = await attacker.open(_without(callback, "code") + said)
        fresh = await victim.open(page.url)
        await victim.open(scene.url + "/mine")
        begun = await victim.open(page.url)

    assert words in page.text
    for shown in (fresh, begun):
        assert (shown.status, "login-refused" in shown.text) == (403, True)
        assert words not in shown.text
        assert "phish" not in shown.text


async def test_looking_ahead_spends_no_code(scene: Story) -> None:
    """A HEAD on a step of a login is refused and changes nothing; the GET then works."""
    async with scene.visitor() as visitor:
        callback = await until_callback(visitor, scene, "/tool")
        for url in (callback, scene.url + "/oauth2/start?rd=/", scene.url + "/oauth2/arrive"):
            page = await visitor.open(url, method="HEAD", follow=False)
            assert (page.status, page.headers["Allow"]) == (405, "GET")
            assert "Set-Cookie" not in page.headers
        assert scene.tailchat.seen["token"].count == 0

        page = await visitor.open(callback)

    assert page.url == scene.url + "/tool"


async def test_an_expired_login_can_be_started_again(scene: Story) -> None:
    """A callback after two hours is refused politely, with the way back kept."""
    async with scene.visitor() as visitor:
        callback = await until_callback(visitor, scene, "/tool")
        scene.clock.now += 7201

        page = await visitor.open(callback)

    assert page.status == 400
    assert "login-state-expired" in page.text
    assert "/oauth2/start?rd=/tool" in page.text
    assert scene.tailchat.seen["token"].count == 0


def _json(body: bytes, status: int = 400) -> Response:
    return Response(status, body)


@pytest.mark.parametrize(
    ("endpoint", "fault", "status", "reason"),
    [
        ("token", HTML, 502, "tailchat-broken"),
        ("token", BROKEN, 502, "tailchat-broken"),
        ("token", CLOSE, 502, "tailchat-broken"),
        ("token", _json(b'{"error":"invalid_grant"}'), 400, "login-code-refused"),
        ("token", _json(b'{"error":"invalid_client"}', 401), 502, "gate-not-accepted"),
        ("token", Rewrite(lambda good: {**good, "token_type": "mac"}), 502, "tailchat-broken"),
        ("me", HTML, 502, "tailchat-broken"),
        ("me", BROKEN, 502, "tailchat-broken"),
        ("me", _json(b'{"error":"invalid_redirect_uri"}'), 502, "gate-not-accepted"),
        ("me", Rewrite(lambda good: {**good, "sub": ["x"]}), 502, "tailchat-broken"),
        ("me", Rewrite(lambda good: {**good, "sub": "somebody-else"}), 502, "login-id-token"),
        ("jwks", BROKEN, 502, "tailchat-broken"),
        ("discovery", HTML, 502, "tailchat-broken"),
        ("discovery", CLOSE, 502, "tailchat-broken"),
        ("token", Rewrite(lambda good: {**good, "id_token": "a.b.c"}), 502, "login-id-token"),
    ],
)
async def test_a_tailchat_that_fails_has_a_page(
    scene: Story, endpoint: str, fault: Fault, status: int, reason: str
) -> None:
    """Whatever Tailchat answers, there is a page, no session, and one redemption at most."""
    async with scene.visitor() as visitor:
        callback = await until_callback(visitor, scene)
        setattr(scene.tailchat.faults, endpoint, fault)

        page = await visitor.open(callback)

        assert SESSION not in visitor.cookies(scene.url)
    assert (page.status, reason in page.text) == (status, True)
    assert "/oauth2/start?rd=" in page.text
    assert scene.tailchat.seen["token"].count <= 1


async def test_a_tailchat_that_hangs_is_given_up_on(tmp_path: Path, clock: Clock) -> None:
    """After tailchat.timeout the visitor gets a page instead of waiting."""
    hang = Hang()
    async with (
        story(tmp_path / "log", clock, tailchat={"timeout": "3s"}) as scene,
        scene.visitor() as visitor,
    ):
        callback = await until_callback(visitor, scene)
        scene.tailchat.faults.token = hang
        page = await visitor.open(callback)
        hang.release()

    assert (page.status, "tailchat-slow" in page.text) == (504, True)


async def test_the_issuer_need_not_be_the_api_url(tmp_path: Path, clock: Clock) -> None:
    """Tailchat's own API_URL, whatever it is, is learnt and compared exactly."""
    async with (
        story(tmp_path / "log", clock, issuer="http://127.0.0.1:3000/") as scene,
        scene.visitor() as visitor,
    ):
        page = await _sign_in(visitor, scene, "/tool")

    assert page.url == scene.url + "/tool"


async def test_a_configured_issuer_is_the_one_that_counts(tmp_path: Path, clock: Clock) -> None:
    """With tailchat.issuer set, another issuer is refused."""
    given = {"issuer": "https://chat.example"}
    async with (
        story(tmp_path / "log", clock, tailchat=given) as scene,
        scene.visitor() as visitor,
    ):
        page = await _sign_in(visitor, scene)

    assert "login-issuer-wrong" in page.text


async def test_a_tailchat_that_is_down_has_a_page(tmp_path: Path, clock: Clock) -> None:
    """Where nobody listens at Tailchat's address, the callback says so."""
    async with story(tmp_path / "log", clock) as scene, scene.visitor() as visitor:
        callback = await until_callback(visitor, scene)
        await scene.stop_tailchat()
        page = await visitor.open(callback)

    assert (page.status, "tailchat-down" in page.text) == (502, True)


async def test_signing_out(scene: Story) -> None:
    """A GET confirms, a POST ends the session, and the page after it does not log in again."""
    async with scene.visitor() as visitor:
        await _sign_in(visitor, scene)
        confirm = await visitor.open(scene.url + "/oauth2/sign_out")
        assert SESSION in visitor.cookies(scene.url)

        out = await visitor.submit(confirm, "/sign_out")

        assert SESSION not in visitor.cookies(scene.url)
        again = await visitor.open(out.url)
    assert out.status == again.status == 200
    assert out.url == f"{scene.url}/oauth2/sign_out"
    assert any(link.endswith("prompt=login") for link in out.links)
    assert "Tailchat" in out.text
    assert scene.tailchat.seen["token"].count == 1


async def test_a_foreign_page_cannot_sign_somebody_out(scene: Story) -> None:
    """A POST without the form's token, from another origin, only shows the confirming page."""
    async with scene.visitor() as visitor:
        await _sign_in(visitor, scene)
        headers = {**NAVIGATION, "Sec-Fetch-Site": "same-site", "Origin": "http://evil.test"}

        page = await visitor.open(
            scene.url + "/oauth2/sign_out", method="POST", data={"csrf": "x"}, headers=headers
        )

        assert (page.status, SESSION in visitor.cookies(scene.url)) == (200, True)
        assert page.forms


async def test_prompt_login_asks_for_the_password_again(scene: Story) -> None:
    """The sign-in of the signed-out page shows Tailchat's login page to the same browser."""
    async with scene.visitor() as visitor:
        await _sign_in(visitor, scene)

        page = await visitor.open(scene.url + "/oauth2/start?rd=/&prompt=login")

        assert any(form.action.endswith("/login") for form in page.forms)


async def test_who_am_i(scene: Story) -> None:
    """The page and the JSON tell who is signed in; without a session neither does."""
    async with scene.visitor() as visitor:
        nobody = await visitor.open(scene.url + "/oauth2/userinfo", headers=FETCH)
        await _sign_in(visitor, scene)
        page = await visitor.open(scene.url + "/oauth2/userinfo")
        data = await visitor.open(scene.url + "/oauth2/userinfo", headers=FETCH)

    assert nobody.status == 401
    assert "星野 Hoshino ☆" in page.text
    assert HOSHINO.sub in page.text
    assert f'"sub": "{HOSHINO.sub}"' in data.text


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", NAVIGATION, 302),
        ("HEAD", NAVIGATION, 302),
        ("GET", {"Accept": "text/html"}, 302),
        ("GET", FETCH, 401),
        ("POST", FETCH, 401),
        ("GET", {"Accept": "text/html", "X-Requested-With": "XMLHttpRequest"}, 401),
        ("GET", {"Accept": "image/*", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, 401),
        ("GET", {"Accept": "*/*", "User-Agent": "curl/8.0"}, 401),
        ("GET", {"Accept": "text/html", "Upgrade": "websocket", "Connection": "Upgrade"}, 401),
        ("OPTIONS", FETCH, 401),
    ],
)
async def test_only_a_page_navigation_is_redirected(
    scene: Story, method: str, headers: dict[str, str], status: int
) -> None:
    """Everything else gets 401 and no cookie; nothing reaches the tool."""
    async with scene.visitor() as visitor:
        page = await visitor.open(scene.url + "/x", method=method, headers=headers, follow=False)

    assert page.status == status
    assert "Set-Cookie" not in page.headers
    if status == 401:
        assert page.headers["Content-Type"] == "application/json"
        assert page.headers["WWW-Authenticate"]
    assert scene.tool.requests == []


async def test_a_form_without_a_session_gets_a_page(scene: Story) -> None:
    """The sender reads, in their language, that it has not arrived, and can sign in."""
    headers = {**NAVIGATION, "Accept-Language": "zh-CN"}
    async with scene.visitor() as visitor:
        page = await visitor.open(scene.url + "/x", method="POST", headers=headers, follow=False)
        start = next(link for link in page.links if "/oauth2/start" in link)
        after = await visitor.open(start, follow=False)

    assert page.status == 401
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert page.headers["WWW-Authenticate"]
    assert "Set-Cookie" not in page.headers
    assert "刚才提交的内容没有送达" in page.text
    assert "401 not-signed-in" in page.text
    assert start == f"{scene.url}/oauth2/start?rd=/"
    assert after.status == 302
    assert scene.tool.requests == []


async def test_background_requests_leave_no_cookies(scene: Story) -> None:
    """A fetch that is led to the login's start gets 401 and no login cookie."""
    async with scene.visitor() as visitor:
        page = await visitor.open(scene.url + "/oauth2/start?rd=/", headers=FETCH)

        assert page.status == 401
        assert visitor.cookies(scene.url) == {}


async def test_the_sign_in_page_waits_for_a_click(tmp_path: Path, clock: Clock) -> None:
    """With pages.sign_in = "page" a visitor sees a page whose link begins the login."""
    async with (
        story(tmp_path / "log", clock, pages={"sign_in": "page", "contact": ""}) as scene,
        scene.visitor() as visitor,
    ):
        page = await visitor.open(scene.url + "/a?b=c")

    assert page.url == f"{scene.url}/oauth2/sign_in?rd=/a%3Fb%3Dc"
    assert f"{scene.url}/oauth2/start?rd=/a%3Fb%3Dc" in page.links
    assert scene.tailchat.seen["token"].count == 0


@pytest.mark.parametrize(
    ("wanted", "reached"),
    [
        ("/a?b=c#frag", "/a?b=c#frag"),
        ("http://evil.example/", "/"),
        ("//evil.example/", "/"),
        ("/\\evil.example", "/"),
        ("javascript:alert(1)", "/"),
    ],
)
async def test_the_login_returns_only_to_this_origin(
    scene: Story, wanted: str, reached: str
) -> None:
    """A return target elsewhere falls back to /; query and fragment survive."""
    async with scene.visitor() as visitor:
        await _sign_in(visitor, scene)

        page = await visitor.open(f"{scene.url}/oauth2/start?rd={quote(wanted)}")

    assert page.url == scene.url + reached


async def test_a_login_makes_a_new_session(scene: Story) -> None:
    """A session planted before the login is replaced by it, not taken over."""
    planted = scene.gate.cookie().partition("=")[2]
    async with scene.visitor() as visitor:
        visitor.session.cookie_jar.update_cookies({SESSION: planted}, URL(scene.url))
        callback = await until_callback(visitor, scene, "/oauth2/start")
        await visitor.open(callback)

        assert visitor.cookies(scene.url)[SESSION] != planted


async def test_a_group_decides_and_the_refusal_names_the_person(
    tmp_path: Path, clock: Clock
) -> None:
    """Who is not in the group gets 403 with what an admin needs; who is gets in with its name."""
    routes = [{"name": "ops", "allow": ["group:ops"]}]
    async with story(tmp_path / "log", clock, groups={"ops": [HOSHINO.sub]}, route=routes) as scene:
        bob = user_named("bob")
        async with scene.visitor() as visitor:
            refused = await _sign_in(visitor, scene, user=bob)
        async with scene.visitor() as visitor:
            page = await _sign_in(visitor, scene)

    assert refused.status == 403
    for text in ("Plain Bob", bob.sub, "ops", "denied"):
        assert text in refused.text
    assert page.text == "ok"
    assert [r.value("X-Tailchat-Groups") for r in scene.tool.requests] == [b"ops"]
