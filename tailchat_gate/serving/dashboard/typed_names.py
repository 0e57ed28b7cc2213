"""Resolves what an operator types: an ID, a name, an e-mail address, a machine or everybody."""

from collections.abc import Generator, Iterable, Iterator
from typing import Final, NamedTuple

from tailchat_gate.config.values.identifier import (
    SUB,
    TOKEN,
    is_person_name,
    is_sub,
    is_tailchat_id,
)
from tailchat_gate.endpoints.form_outcome import FormOutcome
from tailchat_gate.identity.revocation.records import is_target
from tailchat_gate.identity.revocation.state import ALL
from tailchat_gate.people.api import CannotTell, Done
from tailchat_gate.people.facts import Facts
from tailchat_gate.people.search import FoundAccount, read_account, search
from tailchat_gate.people.slices import in_slices
from tailchat_gate.proxy.client.connection import ClientConnection
from tailchat_gate.serving.dashboard.people_shown import under_way
from tailchat_gate.serving.generations import Generation

#: The most suggestions on the page, and the most people that a message lists.
MOST_SUGGESTED: Final = 200
_MOST_LISTED: Final = 5
#: The message about a name: the operator has to confirm the person.
CONFIRM: Final = "confirm"


class KnownName(NamedTuple):
    """A person whom the gate has seen, with their name in Tailchat."""

    sub: str
    nickname: str
    discriminator: str
    email: str = ""

    @property
    def full(self) -> str:
        """The nickname with its discriminator."""
        return f"{self.nickname}#{self.discriminator}" if self.discriminator else self.nickname

    def has(self, text: str) -> bool:
        """Whether a text is this person's name or address, ignoring case."""
        wanted = text.casefold()
        own = (self.full, self.nickname, self.email)
        return any(name and name.casefold() == wanted for name in own)


class ResolvedName(NamedTuple):
    """What a text means: `target` as in locks, or ""; `said` is a message, unless it was an ID."""

    target: str = ""
    outcome: FormOutcome | None = None


def known_names(
    generation: Generation, connections: Iterable[ClientConnection]
) -> Generator[None, None, dict[str, KnownName]]:
    """Return the people whom the gate knows, by their subs; those who are connected first."""
    process_state = generation.process_state
    names: dict[str, KnownName] = {}
    for _, _, request in under_way(generation, tuple(connections)):
        record = getattr(request.session, "record", None)
        if record is not None:
            name = KnownName(record.sub, record.nickname, record.discriminator)
            names.setdefault(record.sub, name)
        yield
    for seen in _named_in_requests(generation):
        names.setdefault(seen.sub, seen)
    for sub, person in tuple(process_state.tailchat.people):
        if isinstance(person.facts, Facts):
            # Anybody can enter an address that Tailchat has not verified.
            profile, verified = person.facts.profile, person.facts.email_verified
            address = person.facts.email if verified else ""
            name = KnownName(sub, profile.nickname, profile.discriminator, address)
            if name.email or sub not in names:
                names[sub] = name
            yield
    return names


def _named_in_requests(generation: Generation) -> Iterator[KnownName]:
    process_state = generation.process_state
    for request in process_state.access_requests.open:
        yield KnownName(request.sub, request.nickname, request.discriminator)
    for refusal in process_state.audit.refusals:
        person = refusal.person
        if not person.sub.startswith(TOKEN):
            yield KnownName(person.sub, person.nickname, person.discriminator)


def suggestions_for(
    generation: Generation, connections: Iterable[ClientConnection]
) -> Generator[None, None, dict[str, object]]:
    """Return the page's suggestions: people with their names, machines, and URLs of routes."""
    known = yield from known_names(generation, connections)
    settings = generation.settings
    named = [person for person in known.values() if person.nickname][:MOST_SUGGESTED]
    hosts = [route for route in settings.route if route.host and not route.host.startswith("*")]
    scheme = settings.server.public_url.partition(":")[0]
    return {
        "called": {SUB + sub: known[sub].full for sub in _listed(generation) if sub in known},
        "people": [{"value": SUB + person.sub, "name": person.full} for person in named],
        "machines": [TOKEN + token.name for token in settings.token[:MOST_SUGGESTED]],
        "addresses": [
            f"{scheme}://{address.host}{address.path}" for address in hosts[:MOST_SUGGESTED]
        ],
    }


def _listed(generation: Generation) -> Iterator[str]:
    """Yield the IDs in the tables of locks and grants, which store no names."""
    process_state = generation.process_state
    yield from (lock.target.removeprefix(SUB) for lock in process_state.revocation.locks)
    for grant in process_state.grants.state.in_force:
        yield from (grant.sub, grant.by)


async def resolve_person(
    text: str, generation: Generation, connections: Iterable[ClientConnection]
) -> ResolvedName:
    """Return the person whom a text means.

    A name or an address may belong to somebody else by now, so `outcome` asks the operator to
    confirm the person with that ID.
    """
    text = text.strip()
    sub = text.removeprefix(SUB)
    if is_tailchat_id(sub):
        return ResolvedName(SUB + sub)
    if text.startswith(SUB) or not text:
        return ResolvedName("", FormOutcome("invalid-person", {"text": text}))
    known = await in_slices(known_names(generation, connections))
    fitting = [person for person in known.values() if person.has(text)]
    if len(fitting) == 1:
        return _named(text, fitting[0].sub, fitting[0].full)
    if fitting:
        listed = ", ".join(
            f"{person.full} ({SUB}{person.sub})" for person in fitting[:_MOST_LISTED]
        )
        return ResolvedName("", FormOutcome("several", {"text": text, "who": listed}))
    if is_person_name(text):
        return await _ask_tailchat(text, generation)
    return ResolvedName("", FormOutcome("nobody", {"text": text}))


async def resolve_target(
    text: str, generation: Generation, connections: Iterable[ClientConnection]
) -> ResolvedName:
    """Return the target of a lock that a text means: a person, a machine or everybody."""
    text = text.strip()
    if text == ALL:
        return ResolvedName(ALL)
    if text.startswith(TOKEN):
        unfit = FormOutcome("invalid-target", {"text": text})
        return ResolvedName(text) if is_target(text) else ResolvedName("", unfit)
    return await resolve_person(text, generation, connections)


def display_name(target: str, known: dict[str, KnownName]) -> str:
    """Return a target as text, with the person's name if it is known."""
    person = known.get(target.removeprefix(SUB)) if is_sub(target.removeprefix(SUB)) else None
    return f"{person.full} ({target})" if person is not None and person.nickname else target


async def _ask_tailchat(text: str, generation: Generation) -> ResolvedName:
    """Ask Tailchat who has a name."""
    settings, bot = generation.settings, generation.groups.bot
    result = await search(bot, text)
    if isinstance(result, Done):
        account = read_account(settings, text, result)
        if isinstance(account, FoundAccount):
            return _named(text, account.sub, text + account.since)
        if result.data is None:
            return ResolvedName("", FormOutcome("nobody-there", {"text": text}))
        return ResolvedName(
            "", FormOutcome("not-asked", {"text": text, "why": "an answer of another form"})
        )
    why = result.why if isinstance(result, CannotTell) else bot.problem or str(result)
    return ResolvedName("", FormOutcome("not-asked", {"text": text, "why": why}))


def _named(text: str, sub: str, full: str) -> ResolvedName:
    return ResolvedName(
        SUB + sub, FormOutcome(CONFIRM, {"text": text, "who": f"{full}, {SUB}{sub}"})
    )
