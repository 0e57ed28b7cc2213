"""The admin listener's server: which hosts it answers to, and what each of its answers carries."""

import asyncio
import ipaddress
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

from aiohttp import StreamReader, hdrs, web

from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.request.hosts import HostPatterns
from tailchat_gate.request.refusal import RefusedError
from tailchat_gate.request.target import Host, read_host

#: Answers one path of the listener.
Handler = Callable[[web.BaseRequest], Awaitable[web.Response]]
#: By path and method.
Handlers = Mapping[str, Mapping[str, Handler]]

_LOCALHOST: Final = "localhost"
_EVERY_ANSWER: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_HTTP_1_0: Final = (1, 0)
_LOG: Final = logging.getLogger(f"{LOGGER_NAME}.http")


class AdminServer:
    """Answers on the admin listener.

    `hosts` returns the names that `server.admin_hosts` and `server.admin_listen` have by now.
    """

    def __init__(self, handlers: Handlers, hosts: Callable[[], Iterable[str]]) -> None:
        self._handlers = handlers
        self._hosts = hosts

    def runner(self) -> web.ServerRunner:
        """Return what listens; needs a running event loop."""
        return web.ServerRunner(_Server(self._answer))

    async def _answer(self, request: web.BaseRequest) -> web.Response:
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
        """Return the answer to a request for another host than this one, None for this one.

        A page whose own name is made to lead to this address (DNS rebinding) reads what is here
        as what is its own. It cannot have the name be another than its own.
        """
        try:
            host = read_host(request.headers.getall(hdrs.HOST, []))
        except RefusedError as error:
            return web.Response(status=HTTPStatus.BAD_REQUEST, text=f"{error}\n")
        if not host.raw:
            # No browser is as old as that; some load balancers' checks are.
            if request.version == _HTTP_1_0:
                return None
            return web.Response(status=HTTPStatus.BAD_REQUEST, text="a request without a Host\n")
        if request.raw_path.startswith("/") and is_own(host, self._hosts()):
            return None
        return web.Response(
            status=HTTPStatus.MISDIRECTED_REQUEST,
            text=(
                "the admin listener answers to addresses, localhost, names without a dot and "
                "those in server.admin_hosts\n"
            ),
        )


def is_own(host: Host, named: Iterable[str]) -> bool:
    """Tell whether a host cannot be the name of a stranger's page.

    It is an address, a name of this machine (RFC 6761 section 6.3), one without a dot, which is
    nobody's in the DNS, or one of those `named`, "*.example.com" among them.
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
    """A request whose answer has what every answer has, aiohttp's own to bad bytes too."""

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        """Set what every answer has; aiohttp names itself and its version by default."""
        response.headers.update(_EVERY_ANSWER)
        response.headers.popall(hdrs.SERVER, None)


class _Connection(web.RequestHandler):
    """A connection on which bytes that are no request are answered in a word, and not logged.

    A client that sends no more behind a whole request gets its response (RFC 9112 section 9.6):
    aiohttp's own closes the connection, before or in the middle of it.
    """

    #: That of the request under way.
    body: StreamReader | None = None
    _answered = 0
    _half_closed = False

    def eof_received(self) -> bool:  # type: ignore[override] # aiohttp's own returns nothing
        """Keep the connection open for what was asked whole and is not answered yet."""
        last = self._messages[-1][1] if self._messages else self.body
        whole = last is None or last.is_eof()
        self._half_closed = whole and self._request_count > self._answered
        return self._half_closed

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the response; behind the last one to a client that sends no more, close."""
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
        """Return the answer to what failed; aiohttp's own for a fault of the gate."""
        if status == HTTPStatus.INTERNAL_SERVER_ERROR:
            return super().handle_error(request, status, exc, message)
        answer = web.Response(status=status, text="not a request that is answered here\n")
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
