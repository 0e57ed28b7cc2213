"""Whether a form comes from the gate's own page: by Fetch Metadata, else by its token."""

import hmac
from typing import Final

from aiohttp import web

from tailchat_gate.endpoints.form_outcome import SealedOutcomes
from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.identity.sites import Sites
from tailchat_gate.request.target import query_pairs

_FIELD: Final = "csrf"
#: Sec-Fetch-Site of a form from a page of this origin, and of one that no page sent.
_OWN_PAGE: Final = "same-origin"
_NO_PAGE: Final[tuple[list[str], ...]] = ([], ["none"])


class FormTokens:
    """Makes and checks the tokens of forms; `notes` seals their outcomes for the next page."""

    def __init__(self, keys: KeyRing, sites: Sites) -> None:
        self._keys = keys
        self._sites = sites
        self.notes: Final = SealedOutcomes(keys)

    def token(self, record: SessionRecord, host: str) -> str:
        """Return the token for the forms of one session on one host.

        It is bound to the host, because a tool can read the pages of its own host, and a session
        has the same id on each.
        """
        return self._keys.seal(self._text(record, host))

    async def is_own(self, request: web.BaseRequest, record: SessionRecord, host: str) -> bool:
        """Whether a POST comes from this origin: by Fetch Metadata, else by the form's token.

        If the browser says that another site's page sent it, it is refused even with a token.
        """
        sites = request.headers.getall("Sec-Fetch-Site", [])
        if sites == [_OWN_PAGE]:
            return True
        if sites not in _NO_PAGE:
            return False
        return self.holds((await form_fields(request)).get(_FIELD, ""), record, host)

    def holds(self, token: str, record: SessionRecord, host: str) -> bool:
        """Whether a form's token is that of a session on a host."""
        sealed = self._keys.open(token)
        return sealed is not None and hmac.compare_digest(sealed, self._text(record, host))

    def _text(self, record: SessionRecord, host: str) -> bytes:
        return f"{self._sites.origin(host)} {record.sid}".encode()


async def form_fields(request: web.BaseRequest) -> dict[str, str]:
    """Return the fields of a form; anything that is not ASCII is replaced."""
    body = await request.read()
    return dict(query_pairs("?" + body.decode("ascii", "replace")))
