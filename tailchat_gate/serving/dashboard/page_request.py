"""A request for the admin page without its connection, so that another process can answer it."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import NamedTuple, Protocol

from aiohttp import web

from tailchat_gate.endpoints.admin import Operator
from tailchat_gate.endpoints.form_outcome import Value

Form = Mapping[str, str]


class PageRequest(NamedTuple):
    """A request for a page, or an order with its form.

    `is_own`: whether the gate's own page sent the form. `outcome` is the message to show about an
    earlier order, as returned by FormOutcome.shown.
    """

    method: str
    path: str
    query: str
    accept_language: str
    switch: str
    operator: Operator
    form: Form | None = None
    is_own: bool = False
    outcome: Mapping[str, Value] = {}


class PageAnswer(NamedTuple):
    """A whole response; `outcome` is the message for the page to which it redirects."""

    status: int
    text: str
    headers: Mapping[str, str]
    outcome: Mapping[str, Value] = {}

    def response(self) -> web.Response:
        """Return it as a response of aiohttp."""
        return web.Response(status=self.status, text=self.text, headers=self.headers)


class PageRenderer(Protocol):
    """Renders the admin page, in this process or another."""

    async def answer(self, wanted: PageRequest) -> PageAnswer:
        """Return a page, or the response to an order."""

    async def state(self) -> object:
        """Return a value that changes when the page may show something else."""

    def close(self) -> None:
        """Stop the work under way."""


def refusal(status: HTTPStatus, text: str = "", **headers: str) -> PageAnswer:
    """Return a response in plain text."""
    return PageAnswer(status, text, headers)
