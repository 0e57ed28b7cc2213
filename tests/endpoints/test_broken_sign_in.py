"""A sign-in that would end on a page of Tailchat's: the gate finds out by itself and says so."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from accounts import user_named
from gatekit import Clock, until
from process import free_port
from storykit import CLIENT_ID, Story, story
from visitor import FETCH

from tailchat_gate.identity.oauth.sign_in_watch import PAUSE

HOSHINO = user_named("hoshino")


@pytest.fixture
def admin_port() -> int:
    """Return where the admin listener is."""
    return free_port()


@pytest.fixture
async def scene(tmp_path: Path, clock: Clock, admin_port: int) -> AsyncIterator[Story]:
    """Return a gate whose callback nobody registered in Tailchat, and that has found out."""
    async with story(
        tmp_path / "access.log",
        clock,
        callback="https://elsewhere.example.com/oauth2/callback",
        checks_sign_in=True,
        server={"admin_listen": f"127.0.0.1:{admin_port}"},
    ) as found:
        state = found.gate.generation.process_state.tailchat.sign_in
        await until(lambda: state.checked_at > 0)
        yield found


async def _admin(port: int, path: str) -> str:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}{path}") as response,
    ):
        assert response.status == 200
        return await response.text()


@pytest.mark.parametrize("path", ["/", "/oauth2/sign_in", "/oauth2/start"])
async def test_a_person_is_told_instead_of_being_sent_to_a_bare_error(
    scene: Story, path: str
) -> None:
    """The page is the gate's own, names no account, and offers to try again."""
    async with scene.visitor() as visitor:
        page = await visitor.open(scene.url + path)

    assert (page.status, page.url.partition("?")[0].startswith(scene.url)) == (502, True)
    assert "gate-not-accepted" in page.text
    assert "redirect-uri" in page.text
    assert any("/oauth2/start" in link for link in page.links)
    assert scene.tool.requests == []


async def test_a_program_still_gets_401(scene: Story) -> None:
    """A fetch was never sent to Tailchat."""
    async with scene.visitor() as visitor:
        page = await visitor.open(scene.url + "/", headers=FETCH)

    assert page.status == 401


async def test_signed_in_people_notice_nothing(scene: Story) -> None:
    """Their cookies need no Tailchat."""
    async with scene.visitor() as visitor:
        page = await visitor.open(scene.url + "/", headers={**FETCH, "Cookie": scene.gate.cookie()})

    assert (page.status, page.text) == (200, "ok")


async def test_the_operator_reads_the_cause_in_three_places(scene: Story, admin_port: int) -> None:
    """`/readyz` stays 200; each names the very line to add in Tailchat."""
    line = f"{scene.url}/oauth2/callback"
    assert line in await _admin(admin_port, "/readyz")
    told = json.loads(await _admin(admin_port, "/status"))["sign_in"]
    assert [(found["name"], found["broken"]) for found in told["findings"]] == [
        ("redirect-uri", True)
    ]
    assert line in told["findings"][0]["text"]
    assert "\ngate_sign_in_broken 1.0\n" in await _admin(admin_port, "/metrics")


async def test_the_next_person_gets_in_once_it_is_mended(scene: Story, admin_port: int) -> None:
    """Without a restart, and without waiting for the next check of the gate's own."""
    apps = scene.tailchat.store.apps
    apps[CLIENT_ID] = replace(apps[CLIENT_ID], redirect_uris=("", f"{scene.url}/oauth2/callback"))
    scene.clock.now += PAUSE
    async with scene.visitor() as visitor:
        page = await visitor.open(scene.url + "/tool")
        assert "app-settings" in page.text

        apps[CLIENT_ID] = replace(apps[CLIENT_ID], redirect_uris=(f"{scene.url}/oauth2/callback",))
        scene.clock.now += PAUSE
        page = await visitor.sign_in(scene.url + "/tool", HOSHINO.email, HOSHINO.password)

    assert (page.status, page.text) == (200, "ok")
    assert await _admin(admin_port, "/readyz") == "ready\n"
    assert "\ngate_sign_in_broken 0.0\n" in await _admin(admin_port, "/metrics")
