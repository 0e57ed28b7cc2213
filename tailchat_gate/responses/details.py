"""Details about refused people and machines, for pages and JSON."""

from datetime import UTC, datetime

from tailchat_gate.identity.revocation.state import Lock, Rejection
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.reasons import BLOCKED, Reason


def person_detail(record: SessionRecord) -> dict[str, str]:
    """Return the person's data that a page shows, so that they can report it to the operator."""
    return {
        "nickname": record.nickname,
        "discriminator": record.discriminator,
        "sub": record.sub,
    }


def rejection_detail(record: SessionRecord, rejection: Rejection, now: float) -> dict[str, str]:
    """Return the details of a rejection, {} if signing in again helps.

    `retry_after` in it is for a field of the response, not for the page.
    """
    lock = rejection.lock
    if lock is not None and lock.reason is Reason.MAINTENANCE:
        return {**lock_detail(lock), "retry_after": str(lock.retry_after(now))}
    if lock is not None:
        return {**person_detail(record), **lock_detail(lock)}
    return person_detail(record) if rejection.reason in BLOCKED else {}


def lock_detail(lock: Lock) -> dict[str, str]:
    """Return the details of a lock; `until` is a time as in RFC 3339, absent without an end."""
    detail: dict[str, str] = {}
    if lock.message:
        detail["notice"] = lock.message
    if lock.until is not None:
        detail["until"] = datetime.fromtimestamp(lock.until, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return detail
