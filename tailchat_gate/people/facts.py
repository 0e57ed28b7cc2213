"""What Tailchat says about accounts, and the accounts to ask about; bounded, without I/O."""

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from tailchat_gate.identity.oauth.responses import Profile, ProfileError, profile_from_userinfo
from tailchat_gate.reasons import Reason
from tailchat_gate.syntax import EMAIL, MAX_EMAIL, TAILCHAT_ID

#: How many characters of a text are read, so that a long name costs no more time than others.
_MOST_READ: Final = 2048
_BOTS: Final = frozenset(("openapiBot", "pluginBot"))
#: How many people are remembered, less than 1 KiB each.
CAPACITY: Final = 20_000
NEVER: Final = -math.inf


class Facts(NamedTuple):
    """An account of Tailchat.

    `email` is "" if Tailchat has none, or none that is valid. Anybody can register with any
    address, so without `email_verified` it proves nothing.
    """

    profile: Profile
    email: str = ""
    email_verified: bool = False
    is_banned: bool = False
    is_guest: bool = False
    is_bot: bool = False

    def __repr__(self) -> str:
        """Return what a log may show: no name and no address."""
        return f"<Facts of {self.profile.sub}>"


class Deleted:
    """An account that Tailchat no longer has."""


class Unreadable:
    """An account whose record is longer than the gate reads; it might hide a ban."""


Account = Facts | Deleted | Unreadable

DELETED: Final = Deleted()
UNREADABLE: Final = Unreadable()


def is_askable(sub: str) -> bool:
    """Whether Tailchat can be asked about a sub; another form would fail the call for all in it."""
    return TAILCHAT_ID.fullmatch(sub) is not None


def read_people(
    subs: Sequence[str], data: object, *, api_url: str, keeps_emails: bool = True
) -> dict[str, Account] | None:
    """Read a list of records about `subs`, in their order; None if `data` is no such list.

    A record that is of another account, or has a member of a wrong type, is left out.
    """
    if not isinstance(data, list) or len(data) != len(subs):
        return None
    accounts: dict[str, Account] = {}
    for sub, record in zip(subs, data, strict=True):
        facts = (
            DELETED if record is None else _read(sub, record, api_url, keeps_emails=keeps_emails)
        )
        if facts is not None:
            accounts[sub] = facts
    return accounts


def _read(sub: str, record: object, api_url: str, *, keeps_emails: bool) -> Facts | None:
    if not isinstance(record, dict) or record.get("_id") != sub:
        return None
    banned, guest = record.get("banned", False), record.get("temporary", False)
    verified = record.get("emailVerified", False)
    if not (isinstance(banned, bool) and isinstance(guest, bool) and isinstance(verified, bool)):
        return None
    shown = {"sub": sub}
    for name in ("nickname", "discriminator", "avatar"):
        if isinstance(text := record.get(name), str):
            shown[name] = text[:_MOST_READ]
    try:
        profile = profile_from_userinfo(shown, api_url=api_url)
    except ProfileError:
        return None
    return Facts(
        profile,
        _address(record.get("email")) if keeps_emails else "",
        email_verified=verified,
        is_banned=banned,
        is_guest=guest,
        is_bot=record.get("type") in _BOTS,
    )


def _address(value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_EMAIL:
        return ""
    return value if EMAIL.fullmatch(value) else ""


def blocked_because(facts: Account, *, guests: bool) -> Reason | None:
    """Return why an account may enter no tool, None if it may.

    `guests`: guests and bots may enter.
    """
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


class KnownPerson:
    """The facts about one person.

    `about_at` is the time of their last request, and `asked_at` that of the last question about
    them that Tailchat answered, or NEVER; both are monotonic seconds. `facts` is its answer, None
    for none, and `facts_at` the Unix second of that.
    """

    __slots__ = ("about_at", "asked_at", "facts", "facts_at")

    def __init__(self, about_at: float) -> None:
        self.about_at = about_at
        self.asked_at = NEVER
        self.facts: Account | None = None
        self.facts_at = 0.0


class KnownPeople:
    """The people with recent requests, in one process.

    It holds no configuration, so it survives a reload. Beyond `capacity` it forgets those who were
    asked about longest ago; they count as unknown, and are asked about when they return.
    """

    def __init__(self, *, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._keeps_emails = False
        #: Those asked about longest ago come first.
        self._all: OrderedDict[str, KnownPerson] = OrderedDict()

    def __len__(self) -> int:
        """The number of people in memory."""
        return len(self._all)

    def __iter__(self) -> Iterator[tuple[str, KnownPerson]]:
        return iter(self._all.items())

    def seen(self, sub: str, now: float) -> KnownPerson:
        """Note a request of a person; return what is known of them."""
        known = self._all.get(sub)
        if known is None:
            known = self._all[sub] = KnownPerson(now)
            if len(self._all) > self._capacity:
                self._all.popitem(last=False)
        known.about_at = now
        return known

    def get(self, sub: str) -> KnownPerson | None:
        """Return the facts about a person."""
        return self._all.get(sub)

    def learn(self, sub: str, facts: Account | None, *, asked_at: float, facts_at: float) -> bool:
        """Store the answer to a question of `asked_at`; return whether it is the newest.

        A later question may have been answered already. With `facts` None, which is no answer about
        this person, the known facts stay.
        """
        known = self._all.get(sub)
        if known is None:
            return True
        if asked_at < known.asked_at:
            return False
        known.asked_at = asked_at
        if facts is not None:
            known.facts, known.facts_at = facts, facts_at
        self._all.move_to_end(sub)
        return True

    def about(self, since: float) -> list[str]:
        """Return the people seen since then, those asked about longest ago first; forget others."""
        self._forget(sub for sub, known in self._all.items() if known.about_at < since)
        return list(self._all)

    def keep_emails(self, keep: bool) -> None:  # noqa: FBT001 - a setting's value
        """Store addresses from now on, or forget the known ones.

        When storing begins, everybody counts as unknown until they were asked about again.
        """
        before, self._keeps_emails = self._keeps_emails, keep
        for known in self._all.values():
            if keep and not before:
                known.asked_at = NEVER
            elif not keep and isinstance(known.facts, Facts):
                known.facts = known.facts._replace(email="")

    def _forget(self, subs: Iterable[str]) -> None:
        for sub in tuple(subs):
            del self._all[sub]
