"""The admin listener: it checks the Host of each request, and sets common response fields."""

import asyncio
import ipaddress
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from aiohttp import StreamReader, hdrs, web

from tailchat_gate.config.model import Server
from tailchat_gate.config.values.address import TcpAddress, listen_address
from tailchat_gate.endpoints.router import MAX_FORM_BYTES
from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.pages.admin_page import PAGES
from tailchat_gate.reasons import RefusedError
from tailchat_gate.request.target import Host, HostPatterns, cookie_fields, read_host
from tailchat_gate.responses.chosen_language import chosen_language, switched
from tailchat_gate.serving.admin.pages import AdminPages, Orders, Reports
from tailchat_gate.serving.dashboard.page import GateAdminPage
from tailchat_gate.serving.reload import Reloader
from tailchat_gate.serving.upgrade import Upgrader

#: Answers one path of the listener.
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
#: By path and method.
Handlers = Mapping[str, Mapping[str, Handler]]

_SWITCH: Final = "/language"
_PATHS: Final = ("", *PAGES[1:], "events")
_LOCALHOST: Final = "localhost"
_EVERY_ANSWER: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_HTTP_1_0: Final = (1, 0)
_LOG: Final = logging.getLogger(f"{LOGGER_NAME}.http")


class AdminServer:
    """Serves the admin listener.

    `hosts` returns the names in the current `server.admin_hosts` and `server.admin_listen`.
    """

    def __init__(self, handlers: Handlers, hosts: Callable[[], Iterable[str]]) -> None:
        self._handlers = handlers
        self._hosts = hosts

    def runner(self) -> web.ServerRunner:
        """Return the aiohttp runner; needs a running event loop."""
        return web.ServerRunner(_Server(self._answer))

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        refusal = self._host_refusal(request)
        if refusal is not None:
            return refusal
        methods = self._handlers.get(request.path)
        if methods is None:
            return web.Response(status=HTTPStatus.NOT_FOUND, text="no such page\n")
        handler = methods.get("GET" if request.method == "HEAD" else request.method)
        if handler is None:
            allow = ", ".join(sorted((*methods, *(["HEAD"] if "GET" in methods else []))))
            return web.Response(status=HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": allow})
        return await handler(request)

    def _host_refusal(self, request: web.BaseRequest) -> web.Response | None:
        """Return the response to a request for another host, None for a request for this one.

        A web page can point its own name at this address (DNS rebinding) and then read responses
        from here as its own. It cannot change the name that the browser sends as Host.
        """
        try:
            host = read_host(request.headers.getall(hdrs.HOST, []))
        except RefusedError as error:
            return web.Response(status=HTTPStatus.BAD_REQUEST, text=f"{error}\n")
        if not host.raw:
            # Browsers no longer send HTTP/1.0; some load balancers' checks do.
            if request.version == _HTTP_1_0:
                return None
            return web.Response(
                status=HTTPStatus.BAD_REQUEST, text="the request has no Host field\n"
            )
        if request.raw_path.startswith("/") and is_own(host, self._hosts()):
            return None
        return web.Response(
            status=HTTPStatus.MISDIRECTED_REQUEST,
            text=(
                "the admin listener only answers to IP addresses, localhost, names without a dot, "
                "and names in server.admin_hosts\n"
            ),
        )


def is_own(host: Host, named: Iterable[str]) -> bool:
    """Whether a host cannot be the name of a stranger's website.

    True for an IP address, a name of this machine (RFC 6761 section 6.3), a name without a dot,
    which nobody can register in the DNS, and the names in `named`, such as "*.example.com".
    """
    name = host.name
    if "." not in name or name.endswith(f".{_LOCALHOST}"):
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return HostPatterns(dict.fromkeys(named, True)).get(name) is not None
    return True


class _Request(web.BaseRequest):
    """A request whose response gets the common fields, even if aiohttp itself refuses it."""

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        """Set the common fields, and remove aiohttp's Server field, which names its version."""
        response.headers.update(_EVERY_ANSWER)
        response.headers.popall(hdrs.SERVER, None)


class _Connection(web.RequestHandler):
    """A connection that answers a malformed request with a short text, without logging it.

    A client that half-closes after a complete request gets its response (RFC 9112 section 9.6).
    aiohttp's own handler closes the connection before or during the response.
    """

    #: The body of the current request.
    body: StreamReader | None = None
    _answered = 0
    _half_closed = False

    def eof_received(self) -> bool:  # type: ignore[override] # aiohttp's own returns nothing
        """Keep the connection open while a complete request has no response yet."""
        last = self._messages[-1][1] if self._messages else self.body
        whole = last is None or last.is_eof()
        self._half_closed = whole and self._request_count > self._answered
        return self._half_closed

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the response; close after the last one if the client has half-closed."""
        sent = await super().finish_response(request, resp, start_time)
        self._answered += 1
        if self._half_closed and self._answered >= self._request_count:
            self.close()
        return sent

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the response to a malformed request, and aiohttp's own to a fault of the gate."""
        if status == HTTPStatus.INTERNAL_SERVER_ERROR:
            return super().handle_error(request, status, exc, message)
        answer = web.Response(status=status, text="the request is malformed\n")
        answer.force_close()
        return answer


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        """Return the protocol of a new connection."""
        options: dict[str, Any] = {"access_log": None, "logger": _LOG}
        return _Connection(self, loop=asyncio.get_running_loop(), **options)

    def _make_request(self, *parts: Any) -> web.BaseRequest:  # noqa: ANN401 - aiohttp's own
        _, body, connection, *_ = parts
        connection.body = body
        given: tuple[Any, ...] = (*parts, asyncio.get_running_loop())
        return _Request(*given)


def admin_server(
    reports: Reports,
    settings: Callable[[], Server],
    *,
    reloader: Reloader | None = None,
    upgrader: Upgrader | None = None,
    page: GateAdminPage,
) -> AdminServer:
    """Return the server of the admin listener.

    It serves `reports` and their orders (pages.py) for programs, and the admin page for
    people. `settings` returns those in force.
    """
    admin = AdminPages(reports)
    pages: Mapping[str, Handler] = {
        "/healthz": admin.healthz,
        "/readyz": admin.readyz,
        "/metrics": admin.metrics,
        "/status": admin.status,
        "/refusals": admin.refusals,
    }
    handlers = {path: {"GET": handler} for path, handler in pages.items()}

    def hosts() -> Iterator[str]:
        server = settings()
        yield from server.admin_hosts
        where = listen_address(server.admin_listen) if server.admin_listen else None
        if isinstance(where, TcpAddress):
            yield where.host

    orders = Orders(reloader, upgrader)
    posts = {"/reload": {"POST": orders.reload}, "/upgrade": {"POST": orders.upgrade}}
    return AdminServer({**handlers, **posts, **_page_handlers(page)}, hosts)


def _page_handlers(page: GateAdminPage) -> Handlers:
    """Return the handlers of the admin page's paths."""
    answer = partial(_page_answer, page)
    gets: dict[str, Mapping[str, Handler]] = {f"/{name}": {"GET": answer} for name in _PATHS}
    return {**gets, "/orders": {"GET": answer, "POST": answer}, _SWITCH: {"GET": _switch_language}}


async def _page_answer(page: GateAdminPage, request: web.BaseRequest) -> web.StreamResponse:
    chunked = hdrs.TRANSFER_ENCODING in request.headers
    if chunked or (request.content_length or 0) > MAX_FORM_BYTES:
        return web.Response(
            status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE, text="the form is too long\n"
        )
    chosen = chosen_language(cookie_fields(request.raw_headers), secure=False)
    language = chosen or request.headers.get(hdrs.ACCEPT_LANGUAGE, "")
    admin_request = page.listener_request(request, language, _SWITCH)
    return await page.answer(request, admin_request)


async def _switch_language(request: web.BaseRequest) -> web.StreamResponse:
    """Store the chosen language in a cookie; it cannot be Secure, as the listener has no TLS."""
    _, mark, query = request.raw_path.partition("?")
    return switched(request.headers, mark + query, secure=False)
