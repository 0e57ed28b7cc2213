"""Makes the documents' pictures of the demo in Chromium, and docs/gallery.md.

`pytest --screenshots tests/house/test_gallery.py` runs it, as a program of its own.
"""

import base64
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final, Literal

from playwright.sync_api import Browser, Page, sync_playwright

from tailchat_gate.demo.users import USERS, User
from tailchat_gate.pages.render import Pages

DOCS: Final = Path(__file__).parents[2] / "docs"
FOLDER: Final = DOCS / "pictures"
OWNER, MEMBER, *_ = USERS
_PROGRAM: Final = (sys.executable, "-m", "tailchat_gate")
_MARGIN: Final = 24
_NOTHING: Final = {"x": 0.0, "y": 0.0, "width": 1.0, "height": 1.0}
_TALLEST: Final = 1200
_BROWSERS: Final = ("chromium", "chromium-browser", "chromium-headless-shell")
Scheme = Literal["light", "dark"]
_HEAD: Final = """\
# All pages in pictures

Each page of the gate that a person sees, with the demo's tools and people.
`pytest --screenshots tests/house/test_gallery.py` makes the pictures and this page.
[The pages a person sees](pages.md) says when each of them appears.
[The admin page](operate/admin-page.md) explains the last ones."""

#: What each picture shows, in the order of the gallery.
CAPTIONS: Final[Mapping[str, str]] = {
    "sign_in": "Before a sign-in",
    "launcher": "After a sign-in: the tools that the person may open",
    "userinfo": "Who am I",
    "problem-denied": "A refusal, with the form to ask for access",
    "request": "A request for access that waits",
    "sign_in_again": "An approver whose password is too long ago",
    "approvals": "Requests, for approvers",
    "sign_out": "Before a sign-out",
    "signed_out": "After a sign-out",
    "problem-locked": "A person who is locked out",
    "problem-maintenance": "Everybody is locked out, for maintenance",
    "problem-no-route": "An address where nothing is",
    "problem-upstream-down": "A tool that does not answer",
    "clear_cookies": "Too many cookies",
    "frame": "A page in a frame that cannot be signed in there",
    "embedded": "A tool in a frame of a site in `embed`",
    "handed_over": "The window of that sign-in, where it cannot close itself",
    "onward": "A return address that is too long to travel with a sign-in",
    "admin-overview": "The admin page: overview",
    "admin-people": "The admin page: people",
    "admin-configuration": "The admin page: configuration",
    "admin-checks": "The admin page: checks",
    "admin-message": "The admin page: what became of an order",
}
#: Pages that take more than the demo, as the gate writes them.
_DRAWN: Final[Mapping[str, tuple[str, Mapping[str, object]]]] = {
    "problem-upstream-down": (
        "problem",
        {
            "reason": "upstream-down",
            "request_id": "7c9e6679f0b4c2d100000001",
            "time": 1767225600,
            "status": 502,
            "retry_url": "/",
            "retries": True,
        },
    ),
    "frame": ("frame", {"reason": "not-signed-in", "open_url": "/", "elsewhere": "frame"}),
    "embedded": ("embedded", {"start_url": "/", "arrive_url": "/", "tab_url": "/"}),
    "handed_over": ("handed_over", {"tab_url": "/"}),
    "onward": ("onward", {"next_url": "/"}),
}


#: A lock for each page about one: its target and its options.
_LOCKS: Final = (
    (
        "problem-locked",
        f"sub:{MEMBER.sub}",
        ("--for", "2d", "--message", "Your laptop was reported as lost."),
    ),
    ("problem-maintenance", "all", ("--for", "30m", "--message", "The disks are replaced.")),
)
#: Pictures of the README, by the browser's colour scheme.
FRONT: Final[Mapping[str, Scheme]] = {"front-light": "light", "front-dark": "dark"}
_FRONT_WIDTH: Final = 1346
#: The README's picture, of three pictures in base64.
_FRONT: Final = """
<meta name="color-scheme" content="light dark">
<style>
  body {{ margin: 0; padding: 20px; display: flex; gap: 20px; background: Canvas; }}
  img {{ border-radius: 12px; border: 1px solid #8886; }}
</style>
<img src="data:image/webp;base64,{}"><img src="data:image/webp;base64,{}">
<img src="data:image/webp;base64,{}">
"""


@dataclass(frozen=True)
class Demo:
    """A running demo."""

    said: str

    def url(self, name: str = "gate") -> str:
        """Return the address of the gate or of a tool."""
        port = re.findall(r"Open http://gate\.localhost:(\d+)/", self.said)[0]
        return f"http://{name}.localhost:{port}/"

    def run(self, *words: str) -> None:
        """Run a command with the demo's configuration."""
        config = re.findall(r"--config (\S+)", self.said)[0]
        subprocess.run([*_PROGRAM, *words, "--config", config], check=True, capture_output=True)


@contextmanager
def demo() -> Iterator[Demo]:
    """Run the demo until the block ends."""
    command = [*_PROGRAM, "demo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        said = b""
        while process.stdout is not None and b"Ctrl-C ends it." not in said:
            said += process.stdout.readline() or b"Ctrl-C ends it."
        try:
            yield Demo(said.decode())
        finally:
            process.terminate()
            process.communicate()


@dataclass(frozen=True)
class Camera:
    """Takes pictures."""

    browser: Browser
    demo: Demo

    def context(
        self, scheme: Scheme = "light", *, width: int = 560, height: int = 760, script: bool = True
    ) -> Page:
        """Return a page of a browser of its own."""
        context = self.browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            locale="en",
            java_script_enabled=script,
        )
        return context.new_page()

    def sign_in(self, page: Page, user: User, url: str) -> None:
        """Sign a person in at an address."""
        page.goto(url)
        page.fill("input[name=email]", user.email)
        page.fill("input[name=password]", user.password)
        page.keyboard.press("Enter")
        page.wait_for_load_state()
        if "tailchat.localhost" in page.url:
            page.locator("form button").first.click()
        page.wait_for_url(lambda now: "tailchat.localhost" not in now)

    def take(self, page: Page, name: str, *, around: str = ".card", tall: int = _TALLEST) -> bytes:
        """Take a picture of an element with a margin, and keep it."""
        page.wait_for_load_state()
        box = page.locator(around).first.bounding_box() or _NOTHING
        top, left = max(box["y"] - _MARGIN, 0), max(box["x"] - _MARGIN, 0)
        clip = {
            "x": left,
            "y": top,
            "width": box["width"] + 2 * (box["x"] - left),
            "height": min(box["height"] + 2 * _MARGIN, tall),
            "scale": 1,
        }
        return self.keep(page, name, clip)

    def keep(self, page: Page, name: str, clip: Mapping[str, float]) -> bytes:
        """Take a picture as WebP, which Playwright itself cannot."""
        session = page.context.new_cdp_session(page)
        options = {"format": "webp", "quality": 80, "captureBeyondViewport": True, "clip": clip}
        taken = base64.b64decode(session.send("Page.captureScreenshot", options)["data"])
        if name:
            (FOLDER / f"{name}.webp").write_bytes(taken)
        return taken


def people(camera: Camera) -> None:
    """The pages of a person who signs in, is refused, asks, and signs out."""
    gate, guarded = camera.demo.url(), camera.demo.url("oncall")
    owner, member = camera.context(), camera.context()
    owner.goto(f"{gate}oauth2/sign_in?rd={camera.demo.url('wiki')}")
    camera.take(owner, "sign_in")
    camera.sign_in(owner, OWNER, gate)
    owner.wait_for_selector(f"a[href='{camera.demo.url('admin')}']")
    camera.take(owner, "launcher")
    owner.goto(f"{gate}oauth2/userinfo")
    camera.take(owner, "userinfo")
    camera.sign_in(member, MEMBER, guarded)
    camera.take(member, "problem-denied")
    member.fill("textarea", "I look after the database this week.")
    member.locator("form:has(textarea) button").click()
    camera.take(member, "request")
    owner.goto(f"{gate}oauth2/approvals")
    camera.take(owner, "sign_in_again")
    owner.locator("a[href*='prompt']").click()
    owner.fill("input[name=email]", OWNER.email)
    owner.fill("input[name=password]", OWNER.password)
    owner.keyboard.press("Enter")
    owner.wait_for_url(f"{gate}oauth2/approvals")
    camera.take(owner, "approvals")
    owner.goto(f"{gate}oauth2/clear_cookies")
    camera.take(owner, "clear_cookies")
    owner.goto(camera.demo.url("nowhere") + "wiki")
    camera.take(owner, "problem-no-route")
    owner.goto(f"{gate}oauth2/sign_out")
    camera.take(owner, "sign_out")
    owner.locator("form button").first.click()
    camera.take(owner, "signed_out")


def locks(camera: Camera) -> None:
    """What a person sees who is locked out, and everybody during maintenance."""
    member = camera.context()
    camera.sign_in(member, MEMBER, camera.demo.url("wiki"))
    for name, target, options in _LOCKS:
        camera.demo.run("lock", target, *options)
        _refused(member, camera.demo.url("wiki"))
        camera.take(member, name)
        camera.demo.run("unlock", target)


def _refused(page: Page, url: str) -> None:
    """Open an address until it is refused: a lock counts within a second."""
    for _ in range(100):
        response = page.goto(url)
        if response is not None and response.status >= HTTPStatus.BAD_REQUEST:
            return
        page.wait_for_timeout(50)
    raise RuntimeError(f"{url} is not refused")


def drawn(camera: Camera) -> None:
    """Pages that the demo does not come to."""
    page, pages = camera.context(script=False), Pages(contact="")
    for name, (title, values) in _DRAWN.items():
        html = pages.render(title, accept_language="en", **values)
        page.set_content(html.replace('http-equiv="refresh"', ""))
        camera.take(page, name)


def admin(camera: Camera) -> None:
    """The admin page, once there is something to see."""
    page, url = camera.context(width=1000), camera.demo.url("admin")
    camera.sign_in(page, OWNER, camera.demo.url("wiki"))
    _visits(page, camera.demo)
    for name, path in {
        "overview": "",
        "people": "people",
        "configuration": "configuration",
    }.items():
        page.goto(url + path)
        camera.take(page, f"admin-{name}", around="body")
    page.goto(f"{url}checks")
    page.fill("input[name=url]", camera.demo.url("oncall"))
    page.locator("form:has(input[name=url]) button").click()
    camera.take(page, "admin-checks", around="body")
    page.goto(f"{url}configuration")
    page.locator("form:has-text('eload') button").first.click()
    camera.take(page, "admin-message", around="body")


def _visits(page: Page, demo: Demo) -> None:
    """Ask the tools for half a minute, so that the plots have some steps."""
    for turn in range(60):
        page.goto(demo.url(("wiki", "oncall", "status", "wiki")[turn % 4]) + "api/whoami")
        page.wait_for_timeout(500)


def front(camera: Camera) -> None:
    """The README's picture: a sign-in, the launcher and a tool, side by side, by day and night."""
    for name, scheme in FRONT.items():
        page = camera.context(scheme, width=420, height=600)
        page.goto(camera.demo.url("wiki"))
        shots = [_screen(camera, page)]
        camera.sign_in(page, OWNER, camera.demo.url())
        page.wait_for_selector(f"a[href='{camera.demo.url('admin')}']")
        shots.append(_screen(camera, page))
        page.goto(camera.demo.url("wiki"))
        page.wait_for_selector("#ws-state:has-text('Connected')")
        shots.append(_screen(camera, page))
        page.set_viewport_size({"width": _FRONT_WIDTH, "height": 642})
        page.goto("about:blank")
        page.set_content(_FRONT.format(*(base64.b64encode(shot).decode() for shot in shots)))
        page.wait_for_function("[...document.images].every(image => image.complete)")
        clip = {"x": 0, "y": 0, "width": _FRONT_WIDTH, "height": 642, "scale": 1}
        camera.keep(page, name, clip)


def _screen(camera: Camera, page: Page) -> bytes:
    """Take what a small window shows."""
    page.wait_for_load_state()
    return camera.keep(page, "", {"x": 0, "y": 0, "width": 420, "height": 600, "scale": 1})


def document() -> str:
    """Return docs/gallery.md."""
    parts = [_HEAD]
    for name, caption in CAPTIONS.items():
        parts.append(f"\n## {caption}\n\n![{caption}](pictures/{name}.webp)")
    return "\n".join(parts) + "\n"


def main() -> None:
    """Make all of them."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    path = next(filter(None, map(shutil.which, _BROWSERS)))
    with demo() as running, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        camera = Camera(browser, running)
        for part in (people, drawn, front, admin, locks):
            part(camera)
        browser.close()
    (DOCS / "gallery.md").write_text(document(), encoding="utf-8")


if __name__ == "__main__":
    main()
