"""What the token endpoint grants (RFC 6749 section 5.1)."""

import re
from dataclasses import dataclass, field
from typing import Final

from tailchat_gate.identity.id_token import JsonObject
from tailchat_gate.identity.tailchat_error import broken
from tailchat_gate.syntax import VCHAR

# It goes into a header: b64token (RFC 6750 2.1) is narrower still.
_TOKEN: Final = re.compile(f"[{VCHAR}]{{1,4096}}")
_LONGEST: Final = 365 * 86_400


@dataclass(frozen=True, slots=True)
class TokenSet:
    """What a code or a refresh token was worth; "" where none came.

    `expires_at`: Unix seconds from which the access token is worth nothing, 0 where that was not
    said.
    """

    access_token: str = field(repr=False)
    id_token: str = field(repr=False, default="")
    refresh_token: str = field(repr=False, default="")
    expires_at: int = 0


def read_tokens(call: str, answer: JsonObject, *, now: float) -> TokenSet:
    """Return the tokens in a good answer, without the id_token; `now` is Unix seconds.

    Raises LoginRefused where there is no access token to be used as a bearer's. What may be
    missing counts as missing where it is of no use.
    """
    kind, access, refresh, seconds = (
        answer.get(name) for name in ("token_type", "access_token", "refresh_token", "expires_in")
    )
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise broken(call, problem="token_type is not Bearer")
    if not isinstance(access, str) or _TOKEN.fullmatch(access) is None:
        raise broken(call, problem="no usable access_token")
    return TokenSet(
        access,
        refresh_token=refresh if isinstance(refresh, str) and _TOKEN.fullmatch(refresh) else "",
        expires_at=(int(now) + seconds if type(seconds) is int and 0 < seconds <= _LONGEST else 0),
    )
