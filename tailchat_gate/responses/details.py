"""Details for people and machines that are refused, on pages and in JSON."""

from datetime import UTC, datetime

from tailchat_gate.identity.revocation.state import Lock, Rejection
from tailchat_gate.identity.sessions.session import SessionRecord
from tailchat_gate.reasons import KEPT_OUT, Reason


def person_detail(record: SessionRecord) -> dict[str, str]:
    """Return what a page shows about a person, for them to pass on to an admin."""
    return {
        "nickname": record.nickname,
        "discriminator": record.discriminator,
        "sub": record.sub,
    }


def rejection_detail(record: SessionRecord, rejection: Rejection, now: float) -> dict[str, str]:
    """Return the details of a rejection, none if signing in again helps.

    `retry_after` is for a field of the response.
    """
    lock = rejection.lock
    if lock is not None and lock.reason is Reason.MAINTENANCE:
        return {**lock_detail(lock), "retry_after": str(lock.retry_after(now))}
    if lock is not None:
        return {**person_detail(record), **lock_detail(lock)}
    return person_detail(record) if rejection.reason in KEPT_OUT else {}


def lock_detail(lock: Lock) -> dict[str, str]:
    """Return the details of a lock; `until` is a time of RFC 3339, or absent."""
    detail: dict[str, str] = {}
    if lock.message:
        detail["notice"] = lock.message
    if lock.until is not None:
        detail["until"] = datetime.fromtimestamp(lock.until, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return detail
