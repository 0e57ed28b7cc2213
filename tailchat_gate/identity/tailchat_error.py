"""What an error of Tailchat's back channel means to the gate; pure."""

import re
from collections.abc import Sequence
from typing import Final

from tailchat_gate.identity.id_token import JsonObject
from tailchat_gate.identity.login import LoginRefused, short_text
from tailchat_gate.identity.quoted import quotes_any
from tailchat_gate.reasons import Reason

_OK: Final = 200
_SHORTEST_REST, _REST, _LONGEST_REST = 1, 30, 300
_SERVER_ERROR: Final = 500

# Errors of the back channel that the admin must mend (RFC 6749 5.2; RFC 6750 3.1). Tailchat: one
# faulty entry of the app gives the last two on every call, `/me` of live sessions too.
_GATE_FAULTS: Final = frozenset(
    {
        *("invalid_client", "unauthorized_client", "invalid_request", "invalid_scope"),
        *("unsupported_grant_type", "insufficient_scope"),
        *("invalid_redirect_uri", "invalid_client_metadata"),
    }
)
# What says of a token, which was good once, that it is worth nothing any more.
_WITHDRAWN: Final = frozenset(
    {("recheck", 401, "invalid_token"), ("refresh", 400, "invalid_grant")}
)


def broken(call: str, status: int = _OK, problem: str = "") -> LoginRefused:
    """Return the refusal for an answer that makes no sense."""
    detail = {"call": call, "status": str(status), "problem": problem}
    return LoginRefused(Reason.TAILCHAT_BROKEN, detail)


def busy(call: str, retry_after: str) -> LoginRefused:
    """Return the refusal for a 429 (RFC 6585 section 4), with the seconds to leave it alone.

    `retry_after` is the field as it came; without seconds in it, or with ever so many, a sane
    number counts.
    """
    asked = int(retry_after) if re.fullmatch("[0-9]{1,9}", retry_after) else _REST
    seconds = min(max(asked, _SHORTEST_REST), _LONGEST_REST)
    return LoginRefused(Reason.TAILCHAT_BUSY, {"call": call, "retry_after": str(seconds)})


def refused(call: str, status: int, answer: JsonObject, secrets: Sequence[str]) -> LoginRefused:
    """Return the refusal that an error answer amounts to, with its words if they are clean.

    `secrets` are those of the request, which a server may echo.
    """
    error, description = str(answer.get("error", "")), answer.get("error_description")
    detail = {"call": call, "status": str(status)}
    for name, text in (("error", error), ("description", description)):
        if isinstance(text, str) and not quotes_any(text, secrets):
            detail[name] = short_text(text, 64 if name == "error" else 200)
    return LoginRefused(_reason(call, status, error), detail)


def _reason(call: str, status: int, error: str) -> Reason:
    if status >= _SERVER_ERROR:
        return Reason.TAILCHAT_BROKEN
    if error in _GATE_FAULTS:
        return Reason.GATE_NOT_ACCEPTED
    if (call, status, error) in _WITHDRAWN:
        return Reason.SESSION_REVOKED
    if (call, error) == ("token", "invalid_grant"):
        return Reason.LOGIN_CODE_REFUSED
    return Reason.TAILCHAT_BROKEN
