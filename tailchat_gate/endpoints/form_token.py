"""Tells a form of the gate's own pages from one that another site sends."""

import hmac
from typing import Final

from aiohttp import web

from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.identity.session import SessionRecord
from tailchat_gate.request.query import query_pairs

_FIELD: Final = "csrf"


class FormTokens:
    """Makes the token that a page puts into its form, and knows it again."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys

    def token(self, record: SessionRecord) -> str:
        """Return the token for the forms of a session, which no other session can use."""
        return self._keys.seal(record.sid.encode())

    async def is_own(self, request: web.BaseRequest, record: SessionRecord) -> bool:
        """Tell whether a POST comes from this origin: by Fetch Metadata, or by the form's token."""
        if request.headers.get("Sec-Fetch-Site") == "same-origin":
            return True
        sealed = self._keys.open((await form_fields(request)).get(_FIELD, ""))
        return sealed is not None and hmac.compare_digest(sealed, record.sid.encode())


async def form_fields(request: web.BaseRequest) -> dict[str, str]:
    """Return the fields of a form that was sent; what is not ASCII is replaced."""
    body = await request.read()
    return dict(query_pairs("?" + body.decode("ascii", "replace")))
