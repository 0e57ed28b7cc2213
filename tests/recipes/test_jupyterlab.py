"""The recipe of JupyterLab."""

import json
from collections.abc import AsyncIterator

import pytest_asyncio
from playwright.async_api import Browser
from recipeinstall import FromPyPI
from recipekit import FORGED, Applications, Scene, recipe, shows
from storykit import HOSHINO
from visitor import FETCH

pytestmark = [*recipe]

NOTEBOOK = {
    "cells": [
        {
            "cell_type": "code",
            "execution_count": None,
            "id": "first",
            "metadata": {},
            "outputs": [],
            "source": "print(6 * 7, 'from the kernel')",
        }
    ],
    "metadata": {"kernelspec": {"display_name": "Python 3", "name": "python3"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def scene(applications: Applications) -> AsyncIterator[Scene]:
    """Serve JupyterLab."""
    async with applications.serve("jupyterlab", FromPyPI(("jupyterlab",))) as found:
        (found.directory / "first.ipynb").write_text(json.dumps(NOTEBOOK))
        yield found


async def test_jupyter_knows_the_person(scene: Scene) -> None:
    """The user is the person, whatever headers they send."""
    await scene.refuse_strangers("/api/me")
    async with scene.signed_in("/lab") as visitor:
        page = await visitor.open(f"{scene.url}/api/me", headers={**FETCH, **FORGED})
        await scene.sign_out(visitor)

    identity = page.json["identity"]
    assert (identity["username"], identity["name"]) == (HOSHINO.sub, HOSHINO.claims["nickname"])


async def test_a_person_runs_a_cell_and_a_terminal(scene: Scene, browser: Browser) -> None:
    """A kernel and a terminal answer over WebSockets, which end at sign-out."""
    async with scene.tab(browser, "/lab/tree/first.ipynb") as tab:
        await shows(tab, "| Idle")  # the kernel
        await tab.locator(".jp-Notebook .cm-content").first.click()
        await tab.keyboard.press("Shift+Enter")
        await shows(tab, "42 from the kernel")
        terminal = await tab.evaluate(
            """async () => {
                const xsrf = document.cookie.match(/_xsrf=([^;]*)/)[1];
                const made = await fetch("/api/terminals", {
                    method: "POST", headers: {"X-XSRFToken": xsrf},
                });
                const { name } = await made.json();
                const at = location.origin.replace("http", "ws");
                const socket = new WebSocket(`${at}/terminals/websocket/${name}`);
                let said = "";
                return await new Promise((resolve) => {
                    socket.onopen = () =>
                        socket.send(JSON.stringify(["stdin", "echo $((40 + 3)) shell\\r"]));
                    socket.onmessage = (event) => {
                        said += event.data;
                        if (said.includes("43 shell")) resolve("43 shell");
                    };
                    socket.onclose = () => resolve("closed");
                });
            }"""
        )
        assert terminal == "43 shell"
        assert not scene.websockets[-1].is_closed()
        await scene.sign_out_in(tab)
