"""What Tailchat says of one account, read from its records; pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tailchat_gate.identity.oauth.responses import Profile, ProfileError, profile_from_userinfo
from tailchat_gate.reasons import Reason
from tailchat_gate.syntax import EMAIL, MAX_EMAIL, TAILCHAT_ID

#: Characters that are read of a text: no name costs more time than another.
_MOST_READ: Final = 2048
_BOTS: Final = frozenset(("openapiBot", "pluginBot"))


@dataclass(frozen=True, slots=True)
class Facts:
    """An account of Tailchat.

    `email` is "" if Tailchat has none that can be used. Anybody can register with anybody's
    address: without `email_verified` it is a claim of the account's owner.
    """

    profile: Profile
    email: str = field(default="", repr=False)
    email_verified: bool = False
    is_banned: bool = False
    is_guest: bool = False
    is_bot: bool = False


class Deleted:
    """An account that Tailchat no longer has."""


class Unreadable:
    """An account whose record is longer than the gate reads, so that a ban in it is not seen."""


Account = Facts | Deleted | Unreadable

DELETED: Final = Deleted()
UNREADABLE: Final = Unreadable()


def is_asked(sub: str) -> bool:
    """Whether a sub is one of Tailchat's ids; one that is none fails a call for all in it."""
    return TAILCHAT_ID.fullmatch(sub) is not None


def read_people(subs: Sequence[str], data: object, *, api_url: str) -> dict[str, Account] | None:
    """Return what a list of records says of `subs`, in the order asked; None if it says nothing.

    A record of another account, or one with a member of another type, says nothing of that person.
    """
    if not isinstance(data, list) or len(data) != len(subs):
        return None
    found: dict[str, Account] = {}
    for sub, record in zip(subs, data, strict=True):
        facts = DELETED if record is None else _read(sub, record, api_url)
        if facts is not None:
            found[sub] = facts
    return found


def _read(sub: str, record: object, api_url: str) -> Facts | None:
    if not isinstance(record, dict) or record.get("_id") != sub:
        return None
    flags = [record.get(name, False) for name in ("banned", "temporary", "emailVerified")]
    if not all(isinstance(flag, bool) for flag in flags):
        return None
    texts = {
        name: text[:_MOST_READ]
        for name in ("nickname", "discriminator", "avatar")
        if isinstance(text := record.get(name), str)
    }
    try:
        profile = profile_from_userinfo({**texts, "sub": sub}, api_url=api_url)
    except ProfileError:
        return None
    banned, guest, verified = map(bool, flags)
    return Facts(
        profile,
        _address(record.get("email")),
        email_verified=verified,
        is_banned=banned,
        is_guest=guest,
        is_bot=record.get("type") in _BOTS,
    )


def _address(value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_EMAIL:
        return ""
    return value if EMAIL.fullmatch(value) else ""


def kept_out_because(facts: Account, *, guests: bool) -> Reason | None:
    """Return why an account may enter no tool, None if it may; `guests`: guests and bots may."""
    if isinstance(facts, Deleted):
        return Reason.ACCOUNT_DELETED
    if isinstance(facts, Unreadable):
        return Reason.ACCOUNT_UNREADABLE
    if facts.is_banned:
        return Reason.BANNED
    if guests:
        return None
    if facts.is_bot:
        return Reason.BOT_REFUSED
    return Reason.GUEST_REFUSED if facts.is_guest else None
