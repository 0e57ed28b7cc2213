"""The ways in which a machine presents its token: Basic, a field of the gate's own, and git's."""

import asyncio
import itertools
import os
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from edgekit import program, serving
from gatekit import RawClient, RawUpstream, Response, RunningGate, ask, request_bytes
from parts import missing
from process import free_port
from visitor import NAVIGATION
from websocketkit import UPGRADE

from tailchat_gate.identity.machine_tokens import hash_of, make_token

Start = Callable[..., Any]
TOKEN: Final = make_token(bytes([7]) * 32)
LOST: Final = make_token(bytes([8]) * 32)
#: A program that says what it is, and nothing that a browser would say.
GIT: Final = {"User_Agent": "git/2.45.1", "Accept": "*/*"}
CHALLENGE: Final = 'Basic realm="tailchat", charset="UTF-8"'


def basic(user: str, password: str) -> str:
    """Return an Authorization value of RFC 7617."""
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


#: The same token in each way in.
WAYS: Final = {
    "bearer": {"Authorization": f"Bearer {TOKEN}"},
    "basic": {"Authorization": basic("ci", TOKEN)},
    "user": {"Authorization": basic(TOKEN, "")},
    "field": {"X_Tailchat_Token": TOKEN},
}


@pytest.fixture
async def gate(start_gate: Start, upstream: RawUpstream) -> RunningGate:
    """Return a gate whose tool takes a token, on one route of three."""
    found = await start_gate(
        upstream.url,
        server={"trusted_proxies": ["127.0.0.1"]},
        token=[{"name": "ci", "hash": hash_of(TOKEN)}],
        route=[
            {"name": "tool", "allow": ["signed-in", "token:ci"]},
            {"name": "people", "path": "/people"},
            {
                "name": "keeps",
                "path": "/keeps",
                "allow": ["token:ci"],
                "forward_authorization": True,
            },
            {"name": "open", "path": "/open", "allow": ["public"]},
        ],
    )
    assert isinstance(found, RunningGate)
    return found


async def get(gate: RunningGate, target: str = "/", **fields: str) -> Response:
    """Ask the gate on a connection of its own."""
    return await ask(gate.port, request_bytes(target, **fields))


async def lets_in(gate: RunningGate, upstream: RawUpstream, value: str) -> None:
    """Check that `value` lets in where the token may, and that only one tool gets it."""
    assert (await get(gate, Authorization=value)).status == 200
    assert (await get(gate, "/people", Authorization=value)).status == 403
    assert (await get(gate, "/keeps", Authorization=value)).status == 200

    stripped, kept = upstream.requests
    assert stripped.value("X-Tailchat-Token") == kept.value("X-Tailchat-Token") == b"ci"
    assert stripped.value("Authorization") is None
    assert kept.value("Authorization") == value.encode()


@pytest.mark.parametrize(
    "value",
    [
        basic("ci", TOKEN),
        basic("", TOKEN),
        basic(TOKEN, TOKEN),
        basic("anybody", TOKEN),
        basic("ab", TOKEN).replace("Basic ", "bASIC   "),
    ],
)
async def test_a_token_is_the_password_of_basic(
    gate: RunningGate, upstream: RawUpstream, value: str
) -> None:
    """Whatever the user is called, the password counts, and the tool sees neither."""
    await lets_in(gate, upstream, value)


async def test_a_field_of_its_own_leaves_authorization_to_the_tool(
    gate: RunningGate, upstream: RawUpstream
) -> None:
    """X-Tailchat-Token lets in and is stripped; what stands in Authorization arrives."""
    for own in (basic("admin", "secret"), "Bearer eyJhbGciOi", "Digest a=b"):
        assert (await get(gate, X_Tailchat_Token=TOKEN, Authorization=own)).status == 200
        received = upstream.requests.pop()
        assert received.value("Authorization") == own.encode()
        assert received.value("X-Tailchat-Token") == b"ci"
        assert TOKEN.encode() not in received.head


@pytest.mark.parametrize("password", ["", "x-oauth-basic", "tool's own", "tg"])
async def test_a_token_is_the_user_name_of_basic(
    gate: RunningGate, upstream: RawUpstream, password: str
) -> None:
    """As with other servers of git, a whole token is good as the name, whatever stands behind."""
    await lets_in(gate, upstream, basic(TOKEN, password))


MALFORMED: Final = {
    "not base64": {"Authorization": basic("ci", TOKEN) + "!"},
    "without its padding": {"Authorization": basic("ci", TOKEN).rstrip("=")},
    "with too much of it": {"Authorization": basic("c", TOKEN) + "="},
    "URL-safe base64": {"Authorization": basic("ci~~~?", TOKEN).replace("/", "_") + "-"},
    "more behind it": {"Authorization": basic("ci", f"{TOKEN} ")},
    "cut": {"Authorization": basic("ci", TOKEN[:-1])},
    "nothing but the prefix": {"Authorization": basic("ci", "tg_")},
    "another": {"Authorization": basic("ci", LOST)},
    "another as the user": {"Authorization": basic(LOST, "x-oauth-basic")},
    "the user with more behind it": {"Authorization": basic(f"{TOKEN} ", "")},
    "the user with more before it": {"Authorization": basic(f' "{TOKEN}', "")},
    "the user without a colon": {"Authorization": f"Basic {b64encode(TOKEN.encode()).decode()}"},
    "another in the field": {"X_Tailchat_Token": LOST},
    "a scheme in the field": {"X_Tailchat_Token": f"Bearer {TOKEN}"},
    "two in one field": {"X_Tailchat_Token": f"{TOKEN}, {TOKEN}"},
}


@pytest.mark.parametrize("case", MALFORMED)
@pytest.mark.parametrize("target", ["/", "/open", "/keeps"])
async def test_what_was_meant_as_a_token_is_one_or_a_401(
    gate: RunningGate, upstream: RawUpstream, case: str, target: str
) -> None:
    """A credential that is malformed or unknown is refused clearly and reaches no tool."""
    response = await get(gate, target, **MALFORMED[case], Cookie=gate.cookie())

    assert (response.status, response.json["error"]) == (401, "token-unknown")
    assert upstream.requests == []


async def test_two_tokens_are_refused(gate: RunningGate, upstream: RawUpstream) -> None:
    """Nobody can tell which of two tokens was meant."""
    both = {**WAYS["basic"], **WAYS["field"]}
    assert (await get(gate, **both)).status == 400
    twice = request_bytes("/", X_Tailchat_Token=TOKEN, x_tailchat_token="admin")
    assert (await ask(gate.port, twice)).status == 400
    second = request_bytes("/", Authorization=basic("ci", TOKEN), authorization=basic("a", "b"))
    assert (await ask(gate.port, second)).status == 400
    for password in (LOST, "tg_", f" {TOKEN}"):
        assert (await get(gate, Authorization=basic(TOKEN, password))).status == 400
    assert upstream.requests == []


@pytest.mark.parametrize(
    "value",
    [
        TOKEN,
        f"token {TOKEN}",
        f"ApiKey {TOKEN}",
        f'Digest username="ci", response="{TOKEN}"',
        f"AWS4-HMAC-SHA256 Credential={TOKEN}/x",
        f"Basic ci:{TOKEN}",
        f'Bearer token="{TOKEN}"',
    ],
)
async def test_a_whole_token_of_another_scheme_stays_here(
    gate: RunningGate, upstream: RawUpstream, value: str
) -> None:
    """Cargo sends it so; not even the tool of a public route, or of a person, gets to see it."""
    for target in ("/", "/open"):
        refused = await get(gate, target, Authorization=value, Cookie=gate.cookie())
        assert (refused.status, b"token-unknown" in refused.body) == (401, True)
    assert upstream.requests == []
    for other in (value.replace(TOKEN, TOKEN[:-1]), value.replace(TOKEN, f"x{TOKEN}")):
        assert (await get(gate, Authorization=other, Cookie=gate.cookie())).status == 200


async def test_other_passwords_are_the_tools(gate: RunningGate, upstream: RawUpstream) -> None:
    """Basic credentials without a token pass with their bytes, and open nothing here."""
    for value in (
        basic("tg_bot", "a"),
        basic(TOKEN[:-1], "a"),
        basic("a", "xtg_b"),
        basic("a", "b:tg_c"),
        "Basic",
        "Basic !",
    ):
        assert (await get(gate, Authorization=value, **GIT)).status == 401
        assert (await get(gate, Authorization=value, Cookie=gate.cookie())).status == 200
        assert upstream.requests.pop().value("Authorization") == value.encode()
    assert (await get(gate, X_Tailchat_Token="admin")).status == 401
    odd = request_bytes("/", X_Odd=TOKEN).replace(b"X-Odd", b"X_Tailchat_Token")
    assert (await ask(gate.port, odd)).status == 401


async def test_a_program_is_asked_for_a_password_where_a_token_gets_in(gate: RunningGate) -> None:
    """git, docker and WebDAV clients send credentials once they are asked for Basic."""
    for agent in ("git/2.45.1", "docker/27.1", "curl/8.5", "davfs2/1.7", "Microsoft-WebDAV/10"):
        response = await get(gate, User_Agent=agent)
        assert (response.status, response.values("WWW-Authenticate")) == (401, [CHALLENGE])
        for target in ("/people", "/people/x"):
            assert "Basic" not in (await get(gate, target, User_Agent=agent)).value(
                "WWW-Authenticate"
            )
    wrong = await get(gate, Authorization=basic("ci", LOST), **GIT)
    assert (wrong.status, wrong.values("WWW-Authenticate")) == (401, [CHALLENGE])
    bearer = await get(gate, Authorization=f"Bearer {LOST}", **GIT)
    assert bearer.value("WWW-Authenticate").startswith("Bearer ")


@pytest.mark.parametrize(
    ("agent", "accept"),
    [
        ("Java/17.0.15", "text/html, image/gif, image/jpeg, */*; q=0.2"),
        ("uv/0.13.9", "application/vnd.pypi.simple.v1+json, text/html;q=0.01"),
        ("FreshRSS/1.24", "text/html"),
    ],
)
async def test_a_program_that_takes_pages_is_asked_too(
    gate: RunningGate, agent: str, accept: str
) -> None:
    """A redirect to the sign-in would lead it nowhere; a browser for text is redirected."""
    response = await get(gate, User_Agent=agent, Accept=accept)
    assert (response.status, response.values("WWW-Authenticate")) == (401, [CHALLENGE])
    assert response.value("Content-Type").startswith("application/json")
    for browser in ("w3m/0.5.3", "Lynx/2.9.0 libwww-FM/2.14", "Mozilla/5.0 (X11)", "ELinks/0.13"):
        assert (await get(gate, User_Agent=browser, Accept="text/html")).status == 302


MOZILLA: Final = (
    "Mozilla/5.0 (Linux) mirall/3.15.3 (Nextcloud)",
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Thunderbird/140.1.0",
)


@pytest.mark.parametrize("agent", MOZILLA)
async def test_a_webdav_client_that_calls_itself_a_browser_is_asked(
    gate: RunningGate, agent: str
) -> None:
    """Its first PROPFIND or REPORT brings no Origin, which that of a page always does."""
    for method, more in itertools.product(("PROPFIND", "REPORT"), ({}, {"Origin": "null"})):
        data = request_bytes("/", method=method, User_Agent=agent, **more)
        response = await ask(gate.port, data)
        assert response.status == 401
        assert (response.value("WWW-Authenticate") == CHALLENGE) is not bool(more)


BROWSERS: Final = (
    NAVIGATION,
    {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64)"},
    {"User-Agent": "Opera/9.80"},
    {"User-Agent": "git/2.45.1", "Sec-Fetch-Mode": "cors"},
    {"User-Agent": "git/2.45.1", "Origin": "https://elsewhere.example"},
    {"User-Agent": "git/2.45.1", "Referer": "https://elsewhere.example/"},
    {"User-Agent": "git/2.45.1", "Cookie": "a=b"},
    {"User-Agent": "git/2.45.1", "X-Requested-With": "XMLHttpRequest"},
    {"Accept": "image/avif,image/webp,*/*;q=0.8"},
)


@pytest.mark.parametrize("browser", BROWSERS)
@pytest.mark.parametrize("authorization", ["", basic("ci", LOST), basic("a", "b")])
async def test_a_browser_is_never_asked_for_a_password(
    gate: RunningGate, browser: dict[str, str], authorization: str
) -> None:
    """Whatever a browser asks for and however it is refused, no dialog of its own appears."""
    fields = {name.replace("-", "_"): value for name, value in browser.items()}
    if authorization:
        fields["Authorization"] = authorization
    question = {"X_Forwarded_Method": "GET", "X_Forwarded_Uri": "/"}
    for method in ("GET", "POST", "PROPFIND"):
        page = {"Origin": "null"} if method == "PROPFIND" else {}
        for target, more in (("/", {}), ("/oauth2/auth", question), ("/oauth2/userinfo", {})):
            data = request_bytes(target, method=method, **(fields | page), **more)
            response = await ask(gate.port, data)
            assert response.status != 200
            assert "basic" not in response.value("WWW-Authenticate").lower()


@pytest.mark.parametrize("way", WAYS)
async def test_every_way_in_takes_every_way(
    gate: RunningGate, upstream: RawUpstream, way: str
) -> None:
    """Requests, upgrades and forward-auth know a machine by the same credentials."""
    fields = WAYS[way]
    assert (await get(gate, **fields)).status == 200
    question = {"X_Forwarded_Method": "GET", "X_Forwarded_Uri": "/"}
    answer = await get(gate, "/oauth2/auth", **question, **fields)
    assert (answer.status, answer.value("X-Tailchat-Token")) == (202, "ci")
    assert (await get(gate, "/oauth2/userinfo", **fields)).json["token"] == "ci"
    upstream.answer = (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    )
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes("/", **UPGRADE, **fields))
        assert (await client.head()).startswith(b"HTTP/1.1 101 ")
    assert TOKEN.encode() not in b"".join(one.head for one in upstream.requests)


async def test_a_proxy_hands_the_challenge_on(gate: RunningGate) -> None:
    """A program that comes by way of forward-auth is asked for a password as well."""
    question = {"X_Forwarded_Method": "GET", "X_Forwarded_Uri": "/repo.git/info/refs"}
    response = await get(gate, "/oauth2/auth", **question, **GIT)

    assert (response.status, response.value("WWW-Authenticate")) == (401, CHALLENGE)


@pytest.mark.parametrize(("way", "refused"), [("bearer", False), ("basic", True), ("field", False)])
async def test_what_a_browser_sends_by_itself_is_no_proof_of_will(
    gate: RunningGate, upstream: RawUpstream, way: str, refused: bool
) -> None:
    """A browser that keeps Basic credentials sends them for every page that asks it to."""
    elsewhere = {"Origin": "https://elsewhere.example", **WAYS[way]}
    post = await ask(gate.port, request_bytes("/", method="POST", Content_Length="0", **elsewhere))
    socket = await get(gate, **UPGRADE, **elsewhere)

    assert [post.status, socket.status] == ([403, 403] if refused else [200, 200])
    assert len(upstream.requests) == (0 if refused else 2)
    own = {**elsewhere, "Origin": "http://gate.test"}
    assert (await ask(gate.port, request_bytes("/", method="POST", **own))).status == 200


async def test_no_way_gets_into_a_log(
    gate: RunningGate, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Neither the token nor its base64 is in the logs, whether it is good or not."""
    for fields in (*WAYS.values(), *MALFORMED.values()):
        await get(gate, "/people", **fields)
    await gate.log()
    text = await asyncio.to_thread((tmp_path / "access.log").read_text)

    for said in (text, caplog.text):
        for secret in (TOKEN, LOST, basic("ci", TOKEN)[6:], basic("ci", LOST)[6:]):
            assert secret not in said


# git itself, with git http-backend in Apache.

_MODULES: Final = Path("/usr/lib/apache2/modules")


@asynccontextmanager
async def git_server(directory: Path) -> AsyncIterator[str]:
    """Serve repositories below a directory by git http-backend; yield the origin."""
    backend = Path((await git(directory, "--exec-path")).strip()) / "git-http-backend"
    modules = ("mpm_prefork", "authz_core", "alias", "cgi", "env")
    for part in (backend, *(_MODULES / f"mod_{module}.so" for module in modules)):
        if not await asyncio.to_thread(part.exists):
            missing(str(part))
    port = free_port()
    lines = [
        *(f"ServerRoot {directory}", f"Listen 127.0.0.1:{port}", "ServerName localhost"),
        *("PidFile pid", "ErrorLog error.log", "KeepAlive Off"),
        *(f"LoadModule {name}_module {_MODULES}/mod_{name}.so" for name in modules),
        *(f"SetEnv GIT_PROJECT_ROOT {directory}/repositories", "SetEnv GIT_HTTP_EXPORT_ALL"),
        *(f"SetEnv HOME {directory}", "SetEnv GIT_CONFIG_COUNT 1"),
        *("SetEnv GIT_CONFIG_KEY_0 safe.directory", "SetEnv GIT_CONFIG_VALUE_0 *"),
        f"ScriptAlias / {backend}/",
        *("<Directory />", "Require all granted", "</Directory>"),
    ]
    (directory / "httpd.conf").write_text("\n".join(lines) + "\n")
    command = [program("apache2"), "-X", "-f", str(directory / "httpd.conf")]
    async with serving(command, directory, port):
        yield f"http://127.0.0.1:{port}"


async def git(directory: Path, *arguments: str, fails: bool = False) -> str:
    """Run git with no configuration but its defaults; return what it says."""
    settings = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        **{f"GIT_{who}_NAME": "ci" for who in ("AUTHOR", "COMMITTER")},
        **{f"GIT_{who}_EMAIL": "ci@example.com" for who in ("AUTHOR", "COMMITTER")},
    }
    process = await asyncio.create_subprocess_exec(
        *(program("git"), *arguments),
        cwd=directory,
        env=settings,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said = (await process.communicate())[0].decode(errors="replace")
    assert (process.returncode != 0) is fails, said
    return said


async def test_git_clones_and_pushes_with_a_token(start_gate: Start, tmp_path: Path) -> None:
    """`git clone http://ci:tg_...@host/repo.git`, then a push; nobody else gets either."""
    (tmp_path / "repositories").mkdir()
    await git(tmp_path, "init", "-q", "--bare", "-b", "main", "repositories/repo.git")
    await git(tmp_path, "-C", "repositories/repo.git", "config", "http.receivepack", "true")
    async with git_server(tmp_path) as origin:
        gate = await start_gate(
            origin,
            token=[{"name": "ci", "hash": hash_of(TOKEN)}],
            route=[{"name": "git", "allow": ["signed-in", "token:ci"]}],
        )
        where = f"127.0.0.1:{gate.port}/repo.git"
        await git(tmp_path, "clone", "-q", f"http://ci:{TOKEN}@{where}", "first")
        (tmp_path / "first/file").write_bytes(os.urandom(2**21))
        await git(tmp_path, "-C", "first", "add", "file")
        await git(tmp_path, "-C", "first", "commit", "-q", "-m", "a file")
        await git(tmp_path, "-C", "first", "push", "-q", "origin", "HEAD:main")
        await git(tmp_path, "clone", "-q", f"http://x:{TOKEN}@{where}", "second")
        # As the user name: with nothing for a password, with a word, and with an empty answer to
        # the question for one.
        for number, user in enumerate((f"{TOKEN}:", f"{TOKEN}:x-oauth-basic", TOKEN)):
            clone = ("clone", "-q", f"http://{user}@{where}", f"user{number}")
            await git(tmp_path, "-c", "core.askPass=true", *clone)

        for other in (f"http://ci:{LOST}@{where}", f"http://{where}"):
            said = await git(tmp_path, "clone", "-q", other, "none", fails=True)
            assert "Authentication failed" in said or "could not read Username" in said
    sent = (tmp_path / "first/file").read_bytes()
    for name in ("second", "user0", "user1", "user2"):
        assert (tmp_path / name / "file").read_bytes() == sent
    lines = await gate.log()
    assert {(line["status"], line["token"]) for line in lines} == {(401, ""), (200, "ci")}
