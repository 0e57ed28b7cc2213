"""The admin page in a worker, which the parent draws because it knows all workers."""

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

from tailchat_gate.endpoints.admin import Operator
from tailchat_gate.serving.dashboard.page_request import (
    PageAnswer,
    PageRenderer,
    PageRequest,
    refusal,
)
from tailchat_gate.serving.workers.channel import Message, Questions

#: How long a page may take: an order to reload waits until all workers have done so.
_PAGE_SECONDS: Final = 60.0
_STATE_SECONDS: Final = 5.0


class ParentsPage:
    """Passes requests for the admin page to the parent."""

    def __init__(self, questions: Questions) -> None:
        self._questions = questions

    async def answer(self, wanted: PageRequest) -> PageAnswer:
        """Return a page, or the response to an order."""
        sent = {**wanted._asdict(), "operator": wanted.operator._asdict()}
        members = await self._questions.get("page", _PAGE_SECONDS, wanted=sent)
        if not isinstance(members, dict):
            text = "The parent process did not answer in time. Try again.\n"
            return refusal(HTTPStatus.SERVICE_UNAVAILABLE, text)
        return PageAnswer(**members)

    async def state(self) -> object:
        """Return a value that changes when the page may show something else."""
        return await self._questions.get("state", _STATE_SECONDS)

    def close(self) -> None:
        """Do nothing: the parent closes the page."""


def answers_of(page: PageRenderer) -> Mapping[str, Callable[[Message], Awaitable[object]]]:
    """Return the parent's handlers of questions about its page, by kind."""

    async def answer(message: Message) -> object:
        sent: Mapping[str, Any] = message["wanted"]
        wanted = PageRequest(**{**sent, "operator": Operator(**sent["operator"])})
        return (await page.answer(wanted))._asdict()

    async def state(_: Message) -> object:
        return repr(await page.state())

    return {"page": answer, "state": state}
