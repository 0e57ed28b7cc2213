"""Logins over a reload: begun before and finished after, and never redeemed twice."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from gatekit import Clock, RunningGate, until
from pydantic import SecretStr
from storykit import Story, story, until_callback

from tailchat_gate.demo.faults import Hang
from tailchat_gate.serving.wiring.build import build


@pytest.fixture
async def scene(tmp_path: Path, clock: Clock) -> AsyncIterator[Story]:
    """Return the usual setting."""
    async with story(tmp_path / "access.log", clock) as found:
        yield found


async def _reload(gate: RunningGate, **changed: dict[str, Any]) -> None:
    """Put the settings into force, with keys of their tables changed."""
    old = gate.generation
    tables = {
        name: getattr(old.settings, name).model_copy(update=values)
        for name, values in changed.items()
    }
    settings = old.settings.model_copy(update=tables)
    await gate.server.swap(await asyncio.to_thread(build, settings, old.process_state))


async def test_a_login_that_was_begun_before_a_reload_finishes_after_it(scene: Story) -> None:
    """The visitor is at Tailchat while the configuration changes, and comes back to the tool."""
    async with scene.visitor() as visitor:
        callback = await until_callback(visitor, scene, "/tool")
        await _reload(scene.gate, server={"via": "other"}, session={"lifetime": 600.0})
        page = await visitor.open(callback)
        assert (page.status, page.url) == (200, scene.url + "/tool")
        await _reload(scene.gate, server={"via": "third"})
        page = await visitor.open(scene.url + "/again")
        assert (page.status, page.url) == (200, scene.url + "/again")


async def test_a_used_login_is_used_after_a_reload(scene: Story) -> None:
    """A second redemption would make Tailchat revoke the whole grant: none is sent."""
    async with scene.visitor() as visitor:
        callback = await until_callback(visitor, scene)
        await visitor.open(callback)
        page = await visitor.open(scene.url + "/oauth2/sign_out")
        await visitor.submit(page, "/sign_out")
        await _reload(scene.gate, server={"via": "other"})
        scene.clock.now += 61
        page = await visitor.open(callback)

    assert page.status == 400
    assert "login-already-used" in page.text
    assert scene.tailchat.seen["token"].count == 1


async def test_a_form_of_a_page_is_good_after_a_reload(scene: Story) -> None:
    """A sign-out page that was shown before signs out after."""
    async with scene.visitor() as visitor:
        await visitor.open(await until_callback(visitor, scene))
        page = await visitor.open(scene.url + "/oauth2/sign_out")
        await _reload(scene.gate, pages={"contact": "ops"})
        done = await visitor.submit(page, "/sign_out")

        assert done.status == 200
        assert "tailchat_gate" not in visitor.cookies(scene.url)


@pytest.mark.parametrize("stays", [True, False], ids=["waits", "leaves"])
async def test_a_code_under_way_is_not_lost(
    scene: Story, monkeypatch: pytest.MonkeyPatch, stays: bool
) -> None:
    """The answer to a code comes, though its configuration was closed meanwhile."""
    monkeypatch.setattr("tailchat_gate.serving.generations.SWEEP_SECONDS", 0.001)
    hang = Hang()
    scene.tailchat.faults.token = hang
    async with scene.visitor() as visitor:
        callback = await until_callback(visitor, scene, "/tool")
        first = asyncio.create_task(visitor.open(callback))
        await hang.started.wait()
        old = scene.gate.generation
        if not stays:
            first.cancel()
        await _reload(scene.gate, server={"via": "other"})
        if not stays:
            await until(lambda: not scene.gate.server.generations.retired)
        hang.release()
        scene.tailchat.faults.token = None
        page = await (first if stays else visitor.open(callback))

        assert (page.status, page.url) == (200, scene.url + "/tool")
        assert scene.tailchat.seen["token"].count == 1
        await until(lambda: old.tailchat._channel._session is None)


async def test_another_secret_of_the_app_is_used_at_once(scene: Story) -> None:
    """A login after the reload is redeemed with the new client secret."""
    async with scene.visitor() as visitor:
        callback = await until_callback(visitor, scene)
        await _reload(scene.gate, tailchat={"client_secret": SecretStr("not-that-of-the-app")})
        page = await visitor.open(callback)

    assert "gate-not-accepted" in page.text
