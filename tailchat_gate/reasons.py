"""The closed list of reasons: one word for the access log, the metrics and the page alike."""

from enum import StrEnum
from http import HTTPStatus
from types import MappingProxyType
from typing import Final


class Reason(StrEnum):
    """Why a request ended as it did; the list is complete.

    Modules on the hot path bind the members they use to globals, because reading an attribute of
    an enum costs four times as much as reading a global in Python 3.11, and twice in 3.13.
    """

    # Enum's own methods are Python functions; str's are in C. Every request calls these.
    __hash__ = str.__hash__
    __format__ = str.__format__  # type: ignore[assignment] # str names its argument otherwise
    __str__ = str.__str__

    # The request was let through.
    PUBLIC = "public"
    SIGNED_IN = "signed-in"
    TOKEN = "token"  # noqa: S105 - a reason's word, not a credential
    OWN_PATH = "own-path"
    PREFLIGHT = "preflight"

    # The request itself.
    BAD_REQUEST = "bad-request"
    TARGET_TOO_LONG = "target-too-long"
    HEAD_TOO_LARGE = "head-too-large"
    BODY_TOO_LARGE = "body-too-large"
    BODY_NOT_STORED = "body-not-stored"
    VERSION_REFUSED = "version-refused"
    CODING_REFUSED = "coding-refused"
    REQUEST_SLOW = "request-slow"
    METHOD_REFUSED = "method-refused"
    CLAIM_REFUSED = "claim-refused"
    ORIGIN_REFUSED = "origin-refused"
    WORKER_REFUSED = "worker-refused"
    CROSS_ORIGIN = "cross-origin"
    LOOP_DETECTED = "loop-detected"
    PROXY_NOT_TRUSTED = "proxy-not-trusted"
    ORIGINAL_MISSING = "original-missing"
    NO_ROUTE = "no-route"
    NOT_SIGNED_IN = "not-signed-in"
    SESSION_ENDED = "session-ended"
    LOCKED = "locked"
    MAINTENANCE = "maintenance"
    SESSION_REVOKED = "session-revoked"
    RECHECK_FAILED = "recheck-failed"
    SESSION_STORE_AWAY = "session-store-away"
    BANNED = "banned"
    ACCOUNT_DELETED = "account-deleted"
    ACCOUNT_UNREADABLE = "account-unreadable"
    GUEST_REFUSED = "guest-refused"
    BOT_REFUSED = "bot-refused"
    DENIED = "denied"
    DENY_LISTED = "deny-listed"
    GROUPS_UNKNOWN = "groups-unknown"
    TOKEN_UNKNOWN = "token-unknown"  # noqa: S105 - as above
    TOKEN_EXPIRED = "token-expired"  # noqa: S105 - as above
    TOKEN_ELSEWHERE = "token-elsewhere"  # noqa: S105 - as above
    CLIENT_GONE = "client-gone"
    CLIENT_BUSY = "client-busy"
    GATE_BUSY = "gate-busy"
    RATE_LIMITED = "rate-limited"
    INTERNAL_ERROR = "internal-error"

    # The upstream.
    UPSTREAM_DOWN = "upstream-down"
    UPSTREAM_BROKEN = "upstream-broken"
    UPSTREAM_SLOW = "upstream-slow"
    UPSTREAM_BUSY = "upstream-busy"

    # The login.
    LOGIN_NOT_A_PAGE = "login-not-a-page"
    LOGIN_MALFORMED = "login-malformed"
    LOGIN_STATE_MISSING = "login-state-missing"
    LOGIN_STATE_FORGED = "login-state-forged"
    LOGIN_STATE_EXPIRED = "login-state-expired"
    LOGIN_OTHER_BROWSER = "login-other-browser"
    LOGIN_ALREADY_USED = "login-already-used"
    LOGIN_ISSUER_MISSING = "login-issuer-missing"
    LOGIN_ISSUER_WRONG = "login-issuer-wrong"
    LOGIN_REFUSED = "login-refused"
    LOGIN_CODE_REFUSED = "login-code-refused"
    LOGIN_BUSY = "login-busy"
    LOGIN_RATE_LIMITED = "login-rate-limited"
    LOGIN_ID_TOKEN = "login-id-token"  # noqa: S105 - a reason's word, not a credential
    GATE_NOT_ACCEPTED = "gate-not-accepted"
    TAILCHAT_DOWN = "tailchat-down"
    TAILCHAT_UNTRUSTED = "tailchat-untrusted"
    TAILCHAT_SLOW = "tailchat-slow"
    TAILCHAT_BUSY = "tailchat-busy"
    TAILCHAT_BROKEN = "tailchat-broken"
    LOGIN_TARGET_LOST = "login-target-lost"
    SESSION_TOO_LARGE = "session-too-large"
    COOKIES_BLOCKED = "cookies-blocked"


#: The state of the account at Tailchat keeps the person out of every tool.
BLOCKED: Final = frozenset(
    (
        *(Reason.BANNED, Reason.ACCOUNT_DELETED, Reason.ACCOUNT_UNREADABLE),
        *(Reason.GUEST_REFUSED, Reason.BOT_REFUSED),
    )
)
#: A limit on concurrent requests is reached; the client may try again in a moment.
BUSY: Final = frozenset((Reason.CLIENT_BUSY, Reason.GATE_BUSY, Reason.UPSTREAM_BUSY))
#: The log's status for a client that left before its response; never sent (nginx's number).
CLIENT_CLOSED_REQUEST: Final = 499

STATUS: Final = MappingProxyType(
    {
        Reason.BAD_REQUEST: HTTPStatus.BAD_REQUEST,
        Reason.TARGET_TOO_LONG: HTTPStatus.REQUEST_URI_TOO_LONG,
        Reason.HEAD_TOO_LARGE: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
        Reason.BODY_TOO_LARGE: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        Reason.BODY_NOT_STORED: HTTPStatus.INSUFFICIENT_STORAGE,
        Reason.VERSION_REFUSED: HTTPStatus.HTTP_VERSION_NOT_SUPPORTED,
        Reason.CODING_REFUSED: HTTPStatus.NOT_IMPLEMENTED,
        Reason.REQUEST_SLOW: HTTPStatus.REQUEST_TIMEOUT,
        Reason.METHOD_REFUSED: HTTPStatus.METHOD_NOT_ALLOWED,
        Reason.CLAIM_REFUSED: HTTPStatus.FORBIDDEN,
        Reason.ORIGIN_REFUSED: HTTPStatus.FORBIDDEN,
        # For forward-auth; as a proxy the gate sends 200 and a script that ends the worker.
        Reason.WORKER_REFUSED: HTTPStatus.FORBIDDEN,
        Reason.CROSS_ORIGIN: HTTPStatus.FORBIDDEN,
        Reason.LOOP_DETECTED: HTTPStatus.LOOP_DETECTED,
        Reason.PROXY_NOT_TRUSTED: HTTPStatus.FORBIDDEN,
        Reason.ORIGINAL_MISSING: HTTPStatus.FORBIDDEN,
        Reason.NO_ROUTE: HTTPStatus.NOT_FOUND,
        Reason.NOT_SIGNED_IN: HTTPStatus.UNAUTHORIZED,
        Reason.SESSION_ENDED: HTTPStatus.UNAUTHORIZED,
        Reason.LOCKED: HTTPStatus.FORBIDDEN,
        # Not 403: it is about no account, and it ends by itself.
        Reason.MAINTENANCE: HTTPStatus.SERVICE_UNAVAILABLE,
        Reason.SESSION_REVOKED: HTTPStatus.UNAUTHORIZED,
        # 401 instead where the person must sign in again.
        Reason.RECHECK_FAILED: HTTPStatus.SERVICE_UNAVAILABLE,
        Reason.SESSION_STORE_AWAY: HTTPStatus.SERVICE_UNAVAILABLE,
        Reason.BANNED: HTTPStatus.FORBIDDEN,
        Reason.ACCOUNT_DELETED: HTTPStatus.FORBIDDEN,
        Reason.ACCOUNT_UNREADABLE: HTTPStatus.FORBIDDEN,
        Reason.GUEST_REFUSED: HTTPStatus.FORBIDDEN,
        Reason.BOT_REFUSED: HTTPStatus.FORBIDDEN,
        Reason.DENIED: HTTPStatus.FORBIDDEN,
        Reason.DENY_LISTED: HTTPStatus.FORBIDDEN,
        # Not 403: whether the person may enter is unknown while Tailchat cannot be asked.
        Reason.GROUPS_UNKNOWN: HTTPStatus.SERVICE_UNAVAILABLE,
        Reason.TOKEN_UNKNOWN: HTTPStatus.UNAUTHORIZED,
        Reason.TOKEN_EXPIRED: HTTPStatus.UNAUTHORIZED,
        Reason.TOKEN_ELSEWHERE: HTTPStatus.FORBIDDEN,
        Reason.INTERNAL_ERROR: HTTPStatus.INTERNAL_SERVER_ERROR,
        # Not 429, which is about a rate: the client may have sent one request an hour.
        Reason.CLIENT_BUSY: HTTPStatus.SERVICE_UNAVAILABLE,
        Reason.GATE_BUSY: HTTPStatus.SERVICE_UNAVAILABLE,
        Reason.UPSTREAM_BUSY: HTTPStatus.SERVICE_UNAVAILABLE,
        Reason.RATE_LIMITED: HTTPStatus.TOO_MANY_REQUESTS,
        Reason.UPSTREAM_DOWN: HTTPStatus.BAD_GATEWAY,
        Reason.UPSTREAM_BROKEN: HTTPStatus.BAD_GATEWAY,
        Reason.UPSTREAM_SLOW: HTTPStatus.GATEWAY_TIMEOUT,
        Reason.LOGIN_NOT_A_PAGE: HTTPStatus.FORBIDDEN,
        Reason.LOGIN_MALFORMED: HTTPStatus.BAD_REQUEST,
        Reason.LOGIN_STATE_MISSING: HTTPStatus.BAD_REQUEST,
        Reason.LOGIN_STATE_FORGED: HTTPStatus.BAD_REQUEST,
        Reason.LOGIN_STATE_EXPIRED: HTTPStatus.BAD_REQUEST,
        Reason.LOGIN_OTHER_BROWSER: HTTPStatus.BAD_REQUEST,
        Reason.LOGIN_ALREADY_USED: HTTPStatus.BAD_REQUEST,
        Reason.LOGIN_ISSUER_MISSING: HTTPStatus.BAD_REQUEST,
        Reason.LOGIN_ISSUER_WRONG: HTTPStatus.BAD_REQUEST,
        Reason.LOGIN_REFUSED: HTTPStatus.FORBIDDEN,
        Reason.LOGIN_CODE_REFUSED: HTTPStatus.BAD_REQUEST,
        Reason.LOGIN_BUSY: HTTPStatus.SERVICE_UNAVAILABLE,
        Reason.LOGIN_RATE_LIMITED: HTTPStatus.TOO_MANY_REQUESTS,
        Reason.LOGIN_ID_TOKEN: HTTPStatus.BAD_GATEWAY,
        Reason.GATE_NOT_ACCEPTED: HTTPStatus.BAD_GATEWAY,
        Reason.TAILCHAT_DOWN: HTTPStatus.BAD_GATEWAY,
        Reason.TAILCHAT_UNTRUSTED: HTTPStatus.BAD_GATEWAY,
        Reason.TAILCHAT_SLOW: HTTPStatus.GATEWAY_TIMEOUT,
        Reason.TAILCHAT_BUSY: HTTPStatus.SERVICE_UNAVAILABLE,
        Reason.TAILCHAT_BROKEN: HTTPStatus.BAD_GATEWAY,
        Reason.LOGIN_TARGET_LOST: HTTPStatus.GONE,
        Reason.SESSION_TOO_LARGE: HTTPStatus.INTERNAL_SERVER_ERROR,
        Reason.COOKIES_BLOCKED: HTTPStatus.BAD_REQUEST,
    }
)
"""The HTTP status of each reason that refuses (RFC 9110 section 15, RFC 6585 sections 4 and 5)."""


class RefusedError(ValueError):
    """A request is malformed or exceeds a limit.

    The text says what is wrong with it; `reason` decides the status (see STATUS).
    """

    def __init__(self, text: str, reason: Reason = Reason.BAD_REQUEST) -> None:
        super().__init__(text)
        self.reason: Final = reason
