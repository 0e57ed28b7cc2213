"""Reads requests, writes responses and signed cookies, and renders pages, for the demo."""

import hashlib
import hmac
import ipaddress
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from importlib.resources import files
from typing import Final

from aiohttp import web
from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from tailchat_gate.demo.back_channel import Call
from tailchat_gate.demo.faults import JSON
from tailchat_gate.demo.oauth import MAX_BODY
from tailchat_gate.syntax import COMPACT, base64url

#: How many characters of a stranger's text a page shows.
MAX_SHOWN: Final = 200

# Characters that could reorder the text around a nickname, or that HTML cannot contain.
_CONTROLS: Final = dict.fromkeys(
    (
        *(*range(0x20), *range(0x7F, 0xA0), 0x200E, 0x200F, 0x2028, 0x2029),
        *(*range(0x202A, 0x202F), *range(0x2066, 0x206A), *range(0xD800, 0xE000)),
    ),
    "\N{REPLACEMENT CHARACTER}",
)


def shown(text: object) -> str:
    """Return untrusted text for a page: without control characters, cut to MAX_SHOWN."""
    clean = str(text).translate(_CONTROLS)
    return clean if len(clean) <= MAX_SHOWN else f"{clean[:MAX_SHOWN]}…"


def _environment() -> Environment:
    sources = {
        entry.name: entry.read_text(encoding="utf-8")
        for entry in files(__package__).joinpath("templates").iterdir()
        if entry.is_file()
    }
    environment = Environment(
        loader=DictLoader(sources),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = shown
    environment.globals.update(
        style=Markup(sources["style.css"]),  # noqa: S704 - the package's own file
        script=Markup(sources["tool.js"]),  # noqa: S704 - the package's own file
    )
    return environment


# Read at import, because reading files would block the event loop.
_TEMPLATES: Final = _environment()


def render(template: str, **values: object) -> str:
    """Render a page; every value is escaped."""
    return _TEMPLATES.get_template(template).render(values)


class UntypedPage(web.Response):
    """HTML without a Content-Type, as in Tailchat's error pages."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """A cookie's attributes: `expires` in Unix seconds, `same_site` "" for none."""

    path: str
    expires: float
    same_site: str
    secure: bool

    def __str__(self) -> str:
        """Return the text of the attributes, which follows the cookie's value."""
        parts = [f"path={self.path}", f"expires={formatdate(self.expires, usegmt=True)}"]
        if self.same_site:
            parts.append(f"samesite={self.same_site}")
        if self.secure:
            parts.append("secure")
        return "; ".join((*parts, "httponly"))


class Cookies:
    """Cookies in pairs, NAME and NAME.sig; the second is the signature of the first."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def read(self, request: web.BaseRequest, name: str) -> str:
        """Return the value of a cookie with a valid signature, else ""."""
        value = request.cookies.get(name, "")
        signature = request.cookies.get(f"{name}.sig", "")
        genuine = hmac.compare_digest(self._sign(name, value).encode(), signature.encode())
        return value if genuine else ""

    def write(
        self, response: web.StreamResponse, name: str, value: str, attributes: Attributes
    ) -> None:
        """Set both cookies of the pair."""
        response.headers.add("Set-Cookie", f"{name}={value}; {attributes}")
        signature = self._sign(name, value)
        response.headers.add("Set-Cookie", f"{name}.sig={signature}; {attributes}")

    def _sign(self, name: str, value: str) -> str:
        digest = hmac.new(self._key, f"{name}={value}".encode(), hashlib.sha256).digest()
        return base64url(digest)


Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
Members = Mapping[str, object]


@web.middleware
async def only_loopback(request: web.Request, handler: Answer) -> web.StreamResponse:
    """Refuse peers on other machines, because the accounts and their passwords are public."""
    if not is_local(request.transport.get_extra_info("peername") if request.transport else None):
        return web.Response(status=HTTPStatus.FORBIDDEN, text="only from this machine\n")
    return await handler(request)


def is_local(peer: object) -> bool:
    """Whether a socket's peer is on this machine: a loopback address, or a Unix socket's ""."""
    if isinstance(peer, str):
        return True
    try:
        address = ipaddress.ip_address(str(peer[0])) if isinstance(peer, tuple) and peer else None
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address is not None and address.is_loopback


async def drop_content_type(_: web.Request, response: web.StreamResponse) -> None:
    """Remove the Content-Type that aiohttp gives an UntypedPage."""
    if isinstance(response, UntypedPage):
        response.headers.popall("Content-Type", None)


def json_answer(
    members: Members,
    *,
    status: int = HTTPStatus.OK,
    headers: Mapping[str, str] | None = None,
    content_type: str = JSON,
) -> web.Response:
    """Return a response with the members as JSON: UTF-8 unescaped, no spaces."""
    body = json.dumps(members, ensure_ascii=False, separators=COMPACT).encode()
    return web.Response(
        body=body, status=status, headers={**(headers or {}), "Content-Type": content_type}
    )


async def read_body(request: web.Request) -> bytes | None:
    """Return the body; None if no field announces one; MAX_BODY + 1 spaces if it is too long."""
    if "Transfer-Encoding" not in request.headers and "Content-Length" not in request.headers:
        return None
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        return b" " * (MAX_BODY + 1)


async def read_call(request: web.Request) -> Call:
    """Read the parts of a request that the back channel uses."""
    fields = request.headers
    return Call(
        method=request.method,
        path=request.rel_url.raw_path.removeprefix("/open"),
        content_type=fields.get("Content-Type", ""),
        authorization=fields.get("Authorization", ""),
        origin=fields.get("Origin", ""),
        query=request.rel_url.raw_query_string,
        body=await read_body(request),
    )


def prefers_html(accept: str) -> bool:
    """Whether an Accept field ranks text/html above application/json (RFC 9110 12.5.1)."""
    ranks = {}
    for entry in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in entry.split(";"))
        weight = next((value[2:] for value in parameters if value.startswith("q=")), "1")
        try:
            ranks[kind] = float(weight)
        except ValueError:
            ranks[kind] = 0.0
    html = ranks.get("text/html", ranks.get("text/*", ranks.get("*/*", 0.0)))
    return html > ranks.get("application/json", ranks.get("application/*", ranks.get("*/*", 0.0)))


def quoted(value: str) -> str:
    """Return a text escaped for the quotes of a WWW-Authenticate parameter."""
    return value.replace('"', '\\"').replace("\r", " ").replace("\n", " ")
