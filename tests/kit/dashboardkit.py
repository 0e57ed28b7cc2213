"""Uses the admin page as its forms do: on the admin listener, and on a route of its own."""

import html
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from gatekit import SUB, Response, RunningGate, ask, request_bytes

from tailchat_gate.identity.oauth.responses import Profile
from tailchat_gate.identity.sessions.record import SessionRecord

BOB = Profile("660000000000000000000002", "Bob", "0007", "")
DASH, WIKI = "dash.test", "wiki.test"
#: A value in a route's headers, as some tools want one.
HEADER_SECRET = "Basic d2lraTpzZWNyZXQ="
ROUTES: list[dict[str, Any]] = [
    {
        "name": "wiki",
        "host": WIKI,
        "allow": ["group:ops"],
        "headers": {"X-Tool-Auth": HEADER_SECRET},
    },
    {"name": "dash", "host": DASH, "upstream": "admin:", "allow": ["group:ops"]},
]
SECTIONS: dict[str, Any] = {
    "groups": {"ops": [BOB.sub]},
    "access": {"requests": True, "approvers": ["group:ops"]},
    "route": ROUTES,
}


@dataclass
class Desk:
    """Somebody at the admin page; `cookie` is "" on the admin listener."""

    port: int
    host: str
    cookie: str = ""

    async def open(self, path: str = "/", **fields: str) -> Response:
        """Return a page."""
        return await ask(self.port, request_bytes(path, host=self.host, **self._fields(**fields)))

    async def text(self, path: str = "/", **fields: str) -> str:
        """Return the text of a page that must be there."""
        response = await self.open(path, **fields)
        assert response.status == 200, response.head
        return html.unescape(response.body.decode())

    async def token(self) -> str:
        """Return the token of the page's forms."""
        for path in ("/people", "/configuration"):
            found = re.search(r'name="csrf" value="([^"]+)"', await self.text(path))
            if found is not None:
                return found[1]
        return ""

    async def send(self, fields: dict[str, str], **headers: str) -> Response:
        """Send a form of the page as it stands, token and all."""
        body = urlencode(fields)
        own = {"Origin": f"http://{self.host}", "Sec_Fetch_Site": "same-origin", **headers}
        given = {name: value for name, value in own.items() if value}
        return await ask(
            self.port,
            request_bytes(
                "/orders",
                method="POST",
                host=self.host,
                **self._fields(**given),
                Content_Type="application/x-www-form-urlencoded",
                Content_Length=str(len(body)),
            )
            + body.encode(),
        )

    async def order(self, name: str, **fields: str) -> str:
        """Give an order as a form of the page does; return the name of what is said of it."""
        return (await self.ordered(name, **fields))[0]

    async def ordered(self, name: str, **fields: str) -> tuple[str, str]:
        """Return the name of what is said of an order, and the whole page that says it."""
        page = {"order": name, "page": "people", "csrf": await self.token(), **fields}
        response = await self.send(page)
        if response.status == 303:
            place = response.value("Location")
            text = await self.text(place)
        else:
            assert response.status == 422, response.head
            text = html.unescape(response.body.decode())
        (said,) = re.findall(' data-code="([a-z-]+)"', text)
        return said, text

    def _fields(self, **fields: str) -> dict[str, str]:
        return {**({"Cookie": self.cookie} if self.cookie else {}), **fields}


def at_listener(gate: RunningGate) -> Desk:
    """Return somebody at the admin listener."""
    port = gate.admin_address[1]
    return Desk(port, f"127.0.0.1:{port}")


def at_route(gate: RunningGate, person: Profile = BOB, *, password_ago: float = 0.0) -> Desk:
    """Return a person at the page's own route who gave Tailchat their password a while ago."""
    now = gate.clock()
    record = SessionRecord.begin(person, now=now, login="x", password_at=int(now - password_ago))
    return Desk(gate.port, DASH, gate.seal(record, f"session {DASH}"))


async def status_at_wiki(gate: RunningGate, person: Profile) -> int:
    """Return the status that a person gets at the tool."""
    cookie = gate.cookie_for(WIKI, person)
    return (await ask(gate.port, request_bytes("/x", host=WIKI, Cookie=cookie))).status


def explain_url(url: str, who: str = f"sub:{SUB}") -> str:
    """Return the address of an explanation."""
    return f"/checks?url={quote(url, safe='')}&as={quote(who, safe='')}"
