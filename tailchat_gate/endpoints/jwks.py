"""The public keys by which tools check the signed identity."""

from aiohttp import web

from tailchat_gate.answers import Answers
from tailchat_gate.reasons import Reason
from tailchat_gate.request.visit import Visit


class KeySet:
    """The handler of /oauth2/jwks.json, for everybody."""

    def __init__(self, *, answers: Answers, key_set: bytes | None) -> None:
        """Take the key set as JSON (RFC 7517 section 5), None where nothing is signed."""
        self._answers = answers
        self._key_set = key_set

    async def answer(self, _request: web.BaseRequest, visit: Visit) -> web.StreamResponse:
        """Return the key set; 404 where there is none, so that nobody keeps an empty one."""
        if self._key_set is None:
            return self._answers.problem(visit, Reason.NO_ROUTE)
        return self._answers.key_set(self._key_set)
