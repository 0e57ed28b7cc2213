"""The admin page in a worker: its parent draws it, who knows all of them."""

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

from tailchat_gate.endpoints.admin import Operator
from tailchat_gate.serving.dashboard.page_request import Behind, PageAnswer, PageRequest, refusal
from tailchat_gate.serving.workers.channel import Message
from tailchat_gate.serving.workers.wants import Wants

#: How long a page may take: an order to reload waits until all workers have built it.
_PAGE_SECONDS: Final = 60.0
_STATE_SECONDS: Final = 5.0


class ParentsPage:
    """Has the parent answer."""

    def __init__(self, wants: Wants) -> None:
        self._wants = wants

    async def answer(self, wanted: PageRequest) -> PageAnswer:
        """Return a page, or what came of an order."""
        sent = {**wanted._asdict(), "operator": wanted.operator._asdict()}
        found = await self._wants.get("page", _PAGE_SECONDS, wanted=sent)
        if not isinstance(found, dict):
            text = "The parent of the workers did not answer in time.\n"
            return refusal(HTTPStatus.SERVICE_UNAVAILABLE, text)
        return PageAnswer(**found)

    async def state(self) -> object:
        """Return a value that changes when the page may show something else."""
        return await self._wants.get("state", _STATE_SECONDS)

    def close(self) -> None:
        """Leave it to the parent."""


def answers_of(page: Behind) -> Mapping[str, Callable[[Message], Awaitable[object]]]:
    """Return the parent's answers about its page, by the kind of question."""

    async def answer(message: Message) -> object:
        sent: Mapping[str, Any] = message["wanted"]
        wanted = PageRequest(**{**sent, "operator": Operator(**sent["operator"])})
        return (await page.answer(wanted))._asdict()

    async def state(_: Message) -> object:
        return repr(await page.state())

    return {"page": answer, "state": state}
