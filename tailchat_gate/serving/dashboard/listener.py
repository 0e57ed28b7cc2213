"""The admin page's paths on the admin listener, behind that listener's check of the Host."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Final

from aiohttp import hdrs, web

from tailchat_gate.endpoints.router import MAX_FORM_BYTES
from tailchat_gate.pages.admin_page import PAGES
from tailchat_gate.request.target import cookie_fields
from tailchat_gate.responses.chosen_language import chosen_language, switched
from tailchat_gate.serving.dashboard.page import GateAdminPage

#: Answers one path of the listener.
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
#: By path and method.
Handlers = Mapping[str, Mapping[str, Handler]]

_SWITCH: Final = "/language"
_PATHS: Final = ("", *PAGES[1:], "events")


def listener_handlers(page: GateAdminPage) -> Handlers:
    """Return the handlers of the page's paths."""
    answer = partial(_answer, page)
    gets: dict[str, Mapping[str, Handler]] = {f"/{name}": {"GET": answer} for name in _PATHS}
    return {**gets, "/orders": {"GET": answer, "POST": answer}, _SWITCH: {"GET": _switch}}


async def _answer(page: GateAdminPage, request: web.BaseRequest) -> web.StreamResponse:
    chunked = hdrs.TRANSFER_ENCODING in request.headers
    if chunked or (request.content_length or 0) > MAX_FORM_BYTES:
        return web.Response(status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE, text="too long a form\n")
    chosen = chosen_language(cookie_fields(request.raw_headers), secure=False)
    language = chosen or request.headers.get(hdrs.ACCEPT_LANGUAGE, "")
    asked = page.listener_request(request, language, _SWITCH)
    return await page.answer(request, asked)


async def _switch(request: web.BaseRequest) -> web.StreamResponse:
    """Keep the language that a visitor chose; the listener has no TLS."""
    _, mark, query = request.raw_path.partition("?")
    return switched(request.headers, mark + query, secure=False)
