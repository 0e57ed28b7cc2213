"""A person's browser at a gate with TLS of its own: no proxy stands in front of it."""

from pathlib import Path

from gatekit import Clock
from parts import in_browser
from playwright.async_api import Browser, expect
from process import free_port
from storykit import HOSHINO, log_in, served, story
from tlsgatekit import Certificates

from tailchat_gate.demo.tool import SampleTool

pytestmark = in_browser


async def test_a_person_comes_by_plain_http_and_signs_in_by_tls(
    browser: Browser, tmp_path: Path, clock: Clock
) -> None:
    """The redirect, the sign-in, secure cookies and a WebSocket, on the gate's own certificate."""
    port, plain = free_port(), free_port()
    certificates = Certificates.create(tmp_path)
    server = certificates.server(
        public_url=f"https://gate.test:{port}",
        https_listen=[f"127.0.0.1:{port}"],
        redirect_listen=[f"127.0.0.1:{plain}"],
    )
    async with (
        served(SampleTool(ticks=0.05).app()) as tool,
        story(
            tmp_path / "access.log",
            clock,
            callback=f"https://gate.test:{port}/oauth2/callback",
            server=server,
            route=[{"name": "tool", "upstream": f"http://127.0.0.1:{tool}"}],
        ),
    ):
        context = await browser.new_context(ignore_https_errors=True)
        tab = await context.new_page()
        await tab.goto(f"http://gate.test:{plain}/?a=b")
        await log_in(tab)
        await expect(tab.locator("body")).to_contain_text(HOSHINO.sub)
        assert tab.url == f"https://gate.test:{port}/?a=b"
        own = [one for one in await context.cookies() if "gate.test" in str(one.get("domain"))]
        assert own
        assert all(one.get("secure") for one in own)
        echoed = await tab.evaluate(
            """() => new Promise((resolve, reject) => {
                const socket = new WebSocket(location.origin.replace("http", "ws") + "/ws");
                socket.onopen = () => socket.send("by tls");
                socket.onmessage = (event) => { socket.close(); resolve(event.data); };
                socket.onerror = () => reject(new Error("no socket"));
            })"""
        )
        assert "by tls" in str(echoed)
