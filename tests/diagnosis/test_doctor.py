"""`doctor` against the provider that Tailchat runs, broken in the ways in which real ones are."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, replace
from datetime import timedelta
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from doctorkit import Diagnosis, Front, diagnose, tailchat_front, write_config
from openid_provider_process import OpenIdProvider, openid_provider
from tailchat_browser import APP
from tlskit import Authority

from tailchat_gate.demo.store import App
from tailchat_gate.demo.tailchat import StandInTailchat

# The first start fetches the provider's packages.
pytestmark = pytest.mark.timeout(300)

#: Nothing answers there.
PUBLIC_URL = "http://gate.invalid"
CALLBACK = f"{PUBLIC_URL}/oauth2/callback"
GOOD = replace(APP, redirect_uris=(CALLBACK,))
#: Each with one thing that breaks the whole app, as Tailchat stores it.
BLANK = App("tc_000000000000000000000001", "blank-secret", (CALLBACK, ""), "Blank")
FRAGMENT = App("tc_000000000000000000000002", "s", (CALLBACK, "https://x/#/cb"), "Fragment")
RELATIVE = App("tc_000000000000000000000003", "s", (CALLBACK, "gate.example.com/cb"), "Relative")
NONE = App("tc_000000000000000000000004", "s", (), "None")
NAMELESS = App("tc_000000000000000000000005", "s", (CALLBACK,), "")
APPS = (GOOD, BLANK, FRAGMENT, RELATIVE, NONE, NAMELESS)
SIGN_IN = ("tailchat", "issuer", "clock", "client-id", "redirect-uri", "client-secret")


@pytest.fixture(scope="module")
def provider() -> Iterator[OpenIdProvider]:
    """Run the provider once for all tests; its issuer is its own origin."""
    apps = [{**asdict(app), "redirect_uris": list(app.redirect_uris)} for app in APPS]
    with openid_provider(apps=apps) as found:
        yield found


@pytest.fixture
def stand_in() -> StandInTailchat:
    """Return what answers for Tailchat beside OAuth."""
    return StandInTailchat(apps=(GOOD,))


@pytest.fixture
async def front(provider: OpenIdProvider, stand_in: StandInTailchat) -> AsyncIterator[Front]:
    """Return a Tailchat over plain HTTP."""
    async with tailchat_front(provider, stand_in) as found:
        yield found


def tailchat(url: str, app: App = GOOD, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - as in the file
    """Return the table of the file; the issuer is the provider's own."""
    return {
        "api_url": url,
        "client_id": app.client_id,
        "client_secret": app.client_secret,
        "people_refresh": "30s",
        **more,
    }


async def examine(folder: Path, about: dict[str, Any], **given: Any) -> Diagnosis:  # noqa: ANN401 - keyword arguments of Diagnosis
    """Run `doctor` with a table for Tailchat."""
    server = {"public_url": PUBLIC_URL, **given.pop("server", {})}
    path = await asyncio.to_thread(write_config, folder, tailchat=about, server=server, **given)
    return await diagnose(path, apart=about["api_url"].startswith("https:"))


async def test_a_good_tailchat_has_nothing_wrong(
    front: Front, provider: OpenIdProvider, tmp_path: Path
) -> None:
    """Each question is answered, and the odd issuer is one that the file names."""
    found = await examine(tmp_path, tailchat(front.url, issuer=provider.issuer))

    assert (found.code, found.wrong) == (0, set())
    assert {name: found.marks(name) for name in SIGN_IN} == {name: {"ok"} for name in SIGN_IN}
    assert found.said("redirect-uri") == [("ok", f"{CALLBACK} is registered")]
    assert found.marks("people") == found.marks("key") == {"ok"}


@pytest.mark.parametrize(
    ("public_url", "prefix"),
    [
        ("http://www.gate.invalid", "/oauth2"),
        ("https://gate.invalid", "/oauth2"),
        ("http://gate.invalid:8080", "/oauth2"),
        ("http://gate.invalid", "/OAuth2"),
    ],
)
async def test_a_callback_that_is_not_registered(
    front: Front, tmp_path: Path, public_url: str, prefix: str
) -> None:
    """Tailchat compares the text; the app itself and its secret are found to be right."""
    server = {"public_url": public_url, "prefix": prefix}
    found = await examine(tmp_path, tailchat(front.url), server=server)

    assert (found.code, found.wrong) == (1, {"redirect-uri"})
    assert f"{public_url}{prefix}/callback" in found.said("redirect-uri")[0][1]
    assert "add exactly this line" in found.next_of("redirect-uri")
    assert found.marks("client-id") == found.marks("client-secret") == {"ok"}


async def test_an_app_that_is_not_known(front: Front, tmp_path: Path) -> None:
    """The same as one without OAuth; what depends on the app is not asked."""
    unknown = replace(GOOD, client_id="tc_00000000000000000000000f")
    found = await examine(tmp_path, tailchat(front.url, unknown))

    assert found.wrong == {"client-id"}
    assert found.held_up("client-id") == {"redirect-uri", "client-secret"}


@pytest.mark.parametrize(
    "app", [BLANK, FRAGMENT, RELATIVE, NONE, NAMELESS], ids=lambda app: app.name
)
async def test_an_app_that_one_entry_breaks(front: Front, tmp_path: Path, app: App) -> None:
    """Tailchat's form stores it so, and nothing of the app works."""
    found = await examine(tmp_path, tailchat(front.url, app))

    assert found.wrong == {"client-id"}
    assert "breaks the whole app" in found.said("client-id")[0][1]


async def test_a_wrong_secret(front: Front, tmp_path: Path) -> None:
    """No code is burnt for it, and nothing that is printed has it."""
    wrong = replace(GOOD, client_secret="not-the-secret-of-the-app")
    found = await examine(tmp_path, tailchat(front.url, wrong))

    assert found.wrong == {"client-secret"}
    assert "not-the-secret-of-the-app" not in str(found)


async def test_an_address_that_is_not_tailchats(front: Front, tmp_path: Path) -> None:
    """A path that Tailchat does not have; /open, the usual mistake, is one of the configuration."""
    found = await examine(tmp_path, tailchat(front.url + "/somewhere"))

    assert "tailchat" in found.wrong
    assert "not Tailchat's base address" in found.said("tailchat")[0][1]
    assert "client-id" in found.held_up("tailchat")


async def test_an_issuer_on_another_host(front: Front, tmp_path: Path) -> None:
    """API_URL unset makes it http://127.0.0.1:3000; sign-ins work all the same."""
    found = await examine(tmp_path, tailchat(front.url))

    assert (found.code, found.marks("issuer")) == (0, {"warning"})
    assert "API_URL" in found.next_of("issuer")


async def test_an_issuer_that_is_written_another_way(
    front: Front, provider: OpenIdProvider, tmp_path: Path
) -> None:
    """One slash more in tailchat.issuer, and every sign-in is refused."""
    found = await examine(tmp_path, tailchat(front.url, issuer=f"{provider.issuer}/"))

    assert found.wrong == {"issuer"}
    assert "byte for byte" in found.next_of("issuer")


@pytest.mark.parametrize(("ahead", "said"), [(300, "ahead of"), (-300, "behind")])
async def test_a_clock_that_is_wrong(front: Front, tmp_path: Path, ahead: int, said: str) -> None:
    """Tailchat's Date is minutes off."""
    front.date = formatdate(time.time() + ahead, usegmt=True)
    found = await examine(tmp_path, tailchat(front.url))

    assert found.wrong == {"clock"}
    assert said in found.said("clock")[0][1]


async def test_a_frozen_redis_delays_nothing_else(front: Front, tmp_path: Path) -> None:
    """Discovery is answered and /open/auth never: the call is given up, and the rest is said."""
    front.hangs = ("/open/auth", "/open/token")
    found = await examine(tmp_path, tailchat(front.url, timeout="8s"))

    assert found.wrong == {"client-id"}
    assert found.marks("tailchat") == {"ok"}
    assert "Redis" in found.next_of("client-id")
    assert found.held_up("client-id") == {"redirect-uri", "client-secret"}


@pytest.mark.parametrize(
    ("answers", "wrong"),
    [
        ({"/open": 502}, {"tailchat"}),
        ({"/open/auth": 500}, {"client-id"}),
        ({"/open/token": 500}, {"client-secret"}),
        ({"/api/user/getUserInfoList": 403}, set()),
    ],
)
async def test_a_part_that_is_broken(
    front: Front, tmp_path: Path, answers: dict[str, int], wrong: set[str]
) -> None:
    """It is said of the part itself, and of nothing that does not depend on it."""
    front.answers = answers
    found = await examine(tmp_path, tailchat(front.url))

    assert found.wrong == wrong
    if not wrong:
        assert found.marks("people") == {"warning"}


async def test_a_tailchat_that_is_down_and_a_name_that_is_dead(tmp_path: Path) -> None:
    """Each has one line in its own words, which names what it holds up."""
    down = await examine(tmp_path, tailchat("http://127.0.0.1:9"))
    dead = await examine(tmp_path, tailchat("http://tailchat.invalid"))

    held_up = {"issuer", "under-proxy", "clock", "client-id", "redirect-uri", "client-secret"}
    held_up |= {"people", "registration", "key", "bot"}
    assert "Connection refused" in down.said("tailchat")[0][1]
    assert (down.wrong, down.held_up("tailchat")) == ({"tailchat"}, held_up)
    assert down.marks("dns") == {"warning"}
    assert (dead.wrong, dead.held_up("dns")) == ({"dns"}, {"tailchat", "public-url", *held_up})
    assert "tailchat.api_url: this machine cannot look up" in dead.said("dns")[0][1]
    assert not held_up & {one["check"] for one in (*down.checks, *dead.checks)}


@pytest.mark.parametrize("bot", ["needed", "not needed"])
async def test_a_bot_that_is_not_switched_on(
    front: Front, stand_in: StandInTailchat, tmp_path: Path, bot: str
) -> None:
    """It is wrong only where the configuration needs it."""
    stand_in.store.apps[GOOD.client_id] = replace(GOOD, bot=False)
    given = {"groups": {"ops": [f"tailchat-group:{'6' * 24}"]}} if bot == "needed" else {}
    found = await examine(tmp_path, tailchat(front.url), **given)

    assert found.wrong == ({"bot"} if given else set())
    assert "switch on the bot" in found.next_of("bot")


async def test_groups_and_a_panel_that_are_not_there(
    front: Front, stand_in: StandInTailchat, tmp_path: Path
) -> None:
    """Each line of the file has its own statement; the public key is said as well."""
    stand_in.store.secret = "tailchat"
    where = f"{'6' * 24}/{'7' * 24}"
    found = await examine(
        tmp_path,
        tailchat(front.url),
        groups={"ops": [f"tailchat-group:{'6' * 24}"]},
        access={"panel": where},
    )

    assert found.wrong == {"groups", "panel", "key"}
    assert "there is no such group" in found.said("groups")[0][1]
    assert "the bot is not in the group" in found.said("panel")[0][1]
    assert "SECRET" in found.next_of("key")


async def test_whom_signed_in_lets_in(
    front: Front, stand_in: StandInTailchat, tmp_path: Path
) -> None:
    """Everybody who registers, and a route that uses addresses which nobody verifies."""
    route = [{"name": "wiki", "email": True}]
    opened = await examine(tmp_path, tailchat(front.url), route=route)
    stand_in.store.client_config.update(disableUserRegister=True, emailVerification=True)
    closed = await examine(tmp_path, tailchat(front.url), route=route)

    assert opened.code == 0
    first, second = (text for mark, text in opened.said("registration") if mark == "warning")
    assert "wiki: everybody who reaches Tailchat may enter" in first
    assert "wiki: Tailchat does not verify e-mail addresses" in second
    assert closed.marks("registration") == {"ok"}


# Over TLS.


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return an authority that no system knows."""
    return Authority.create(tmp_path_factory.mktemp("authority"))


@pytest.mark.parametrize("forgotten", [False, True])
async def test_a_tailchat_behind_tls(
    provider: OpenIdProvider,
    stand_in: StandInTailchat,
    authority: Authority,
    tmp_path: Path,
    forgotten: bool,
) -> None:
    """Its certificate's date is said; one that does not know of its TLS is found."""
    issued = authority.issue("localhost", ends=timedelta(days=40))
    async with tailchat_front(provider, stand_in, tls=issued.server_context()) as front:
        front.tells_scheme = not forgotten
        found = await examine(tmp_path, tailchat(front.url, ca_file=str(authority.file)))

    assert found.marks("under-proxy") == {"wrong" if forgotten else "ok"}
    assert ("OPENAPI_UNDER_PROXY=true" in found.next_of("under-proxy")) == forgotten
    ((mark, text),) = found.said("certificate")
    assert mark == "ok"
    assert re.search(r"certificate is valid until [0-9]{4}-[0-9]{2}-[0-9]{2}$", text)


@pytest.mark.parametrize(
    ("name", "ends", "trusted", "said"),
    [
        ("localhost", timedelta(hours=-1), True, "certificate has expired"),
        ("localhost", timedelta(days=9), False, "unable to get local issuer certificate"),
        ("elsewhere.test", timedelta(days=9), True, "Hostname mismatch"),
        ("localhost", timedelta(days=9), True, ""),
    ],
)
async def test_a_certificate_that_is_not_good(
    provider: OpenIdProvider,
    stand_in: StandInTailchat,
    authority: Authority,
    tmp_path: Path,
    name: str,
    ends: timedelta,
    trusted: bool,
    said: str,
) -> None:
    """OpenSSL's reason is said; one that ends soon is a warning."""
    issued = authority.issue(name, ends=ends)
    more: dict[str, Any] = {"ca_file": str(authority.file)} if trusted else {}
    async with tailchat_front(provider, stand_in, tls=issued.server_context()) as front:
        found = await examine(tmp_path, tailchat(front.url, **more))

    if said:
        assert "tailchat" in found.wrong
        assert said in found.said("tailchat")[0][1]
        assert "tailchat.ca_file" in found.next_of("tailchat")
    else:
        assert found.wrong == set()
        assert "which is in 8 days" in found.said("certificate")[0][1]
