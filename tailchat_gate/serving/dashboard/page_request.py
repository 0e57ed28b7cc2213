"""A request for the admin page without its connection, so that another process can answer it."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import NamedTuple, Protocol

from aiohttp import web

from tailchat_gate.endpoints.admin import Operator
from tailchat_gate.endpoints.said import Value

Form = Mapping[str, str]


class PageRequest(NamedTuple):
    """A request for a page, or with the form of an order: None for none.

    `is_own`: whether a page of the gate's sent the form, and nobody else. `said` is what the page
    is to say of an order, as Said.shown has it.
    """

    method: str
    path: str
    query: str
    accept_language: str
    switch: str
    operator: Operator
    form: Form | None = None
    is_own: bool = False
    said: Mapping[str, Value] = {}


class PageAnswer(NamedTuple):
    """A whole response; `said` is what the page that it leads to is to say."""

    status: int
    text: str
    headers: Mapping[str, str]
    said: Mapping[str, Value] = {}

    def response(self) -> web.Response:
        """Return it as aiohttp sends it."""
        return web.Response(status=self.status, text=self.text, headers=self.headers)


class Behind(Protocol):
    """Renders the page."""

    async def answer(self, wanted: PageRequest) -> PageAnswer:
        """Return a page, or what came of an order."""

    async def state(self) -> object:
        """Return a value that changes when the page may show something else."""

    def close(self) -> None:
        """End what is under way."""


def refusal(status: HTTPStatus, text: str = "", **headers: str) -> PageAnswer:
    """Return an answer without a page."""
    return PageAnswer(status, text, headers)
