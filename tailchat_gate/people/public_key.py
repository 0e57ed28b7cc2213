"""Whether a Tailchat signs its tokens with the key that everybody knows."""

import hashlib
import hmac
import json
from typing import Final

from tailchat_gate.people.api import CannotTell, Done, TailchatApi
from tailchat_gate.reasons import Reason
from tailchat_gate.syntax import COMPACT, base64url

#: Tailchat: the key where SECRET is not set, as in the compose file that it ships.
PUBLIC_KEY: Final = b"tailchat"
_ACTION: Final = "user/checkTokenValid"
_SECONDS: Final = 60


async def has_public_key(api: TailchatApi, now: float) -> bool | CannotTell:
    """Return whether anybody can make tokens of anybody there; `now` in Unix seconds.

    Asked with a token that names nobody, and is good for a minute.
    """
    payload = {"_id": "0" * 24, "iat": int(now), "exp": int(now) + _SECONDS}
    parts = [
        base64url(json.dumps(part, separators=COMPACT).encode())
        for part in ({"alg": "HS256", "typ": "JWT"}, payload)
    ]
    signed = ".".join(parts)
    signature = hmac.new(PUBLIC_KEY, signed.encode("ascii"), hashlib.sha256).digest()
    found = await api.call(_ACTION, {"token": f"{signed}.{base64url(signature)}"})
    if isinstance(found, Done) and isinstance(found.data, bool):
        return found.data
    if isinstance(found, CannotTell):
        return found
    status = "" if isinstance(found, Done) else f"status {found.status}, "
    return CannotTell(Reason.TAILCHAT_BROKEN, f"{status}no answer about its key")
