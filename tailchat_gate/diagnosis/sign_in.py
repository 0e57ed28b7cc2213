"""Checks of Tailchat: whether people can sign in, who can get an account, and the bot's groups."""

from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from tailchat_gate.config.model import Settings
from tailchat_gate.config.values.quantities import counted
from tailchat_gate.diagnosis.names import called_host
from tailchat_gate.diagnosis.statement import (
    TAILCHAT,
    Mark,
    Statement,
    name_of,
    ok,
    unknown,
    warning,
    wrong,
)
from tailchat_gate.identity.oauth.back_channel import UNKNOWN_NAME
from tailchat_gate.identity.oauth.sign_in_check import (
    CALLBACK,
    CLIENT,
    CLOCK,
    ISSUER,
    REACHED,
    REFUSED,
    SECRET,
    UNDER_PROXY,
    Finding,
    SignInCheck,
)
from tailchat_gate.people.api import GROUP_INFO, USER_GROUPS, CannotTell, Done, TailchatApi
from tailchat_gate.people.bot import Bot, has_public_key
from tailchat_gate.people.groups.overview import GroupView, faults_of, read_views, warnings_of
from tailchat_gate.people.groups.watch import KEY_PROBLEM, KEY_REMEDY
from tailchat_gate.people.inquiry import Inquiry
from tailchat_gate.people.panel import Panel
from tailchat_gate.people.registration import RegistrationCheck
from tailchat_gate.people.watch import CLOSED
from tailchat_gate.proxy.upstream.resolver import Names

KEY: Final = "key"
BOT: Final = "bot"
GROUPS: Final = "groups"
PANEL: Final = "panel"
REGISTRATION: Final = "registration"
PEOPLE: Final = "people"
#: If one of these is wrong, no sign-in succeeds.
_INDISPENSABLE: Final = frozenset((REACHED, CLIENT, CALLBACK, SECRET))
#: Findings that only warn, because an admin may have intended them.
_ONLY_WARN: Final = frozenset((ISSUER,))
#: A sub that no account has.
_NOBODY: Final = "0" * 24


class Seen(NamedTuple):
    """The groups that the bot sees.

    `problem` says why they cannot be read, "" if they can, and `remedy` what to do about it.
    `is_outage`: Tailchat did not answer. `existing` has the ids of configured groups that exist
    although the bot is not in them.
    """

    views: tuple[GroupView, ...] = ()
    problem: str = ""
    remedy: str = ""
    existing: frozenset[str] = frozenset()
    is_outage: bool = False


async def look(settings: Settings, api: TailchatApi, bot: Bot) -> Seen:
    """Ask Tailchat for the groups of the bot."""
    result = await bot.call(USER_GROUPS, {}, limit=settings.tailchat.groups_max_bytes)
    views = read_views(result.data, bot.sub) if isinstance(result, Done) else None
    if views is None:
        why = result.why if isinstance(result, CannotTell) else ""
        problem = f"the gate's bot cannot ask Tailchat for its groups: {bot.problem or why}"
        is_outage = bool(why) and why == (bot.problem or why)
        return Seen(problem=problem, remedy=bot.remedy, is_outage=is_outage)
    sources = (source for group in settings.groups.values() for source in group.sources)
    missing = {source.group for source in sources} - {view.id for view in views}
    existing = {name for name in missing if await _exists(api, name)}
    return Seen(tuple(views), existing=frozenset(existing))


async def _exists(api: TailchatApi, group: str) -> bool:
    result = await api.call(GROUP_INFO, {"groupId": group})
    return isinstance(result, Done) and result.data is not None


async def key(api: TailchatApi, now: float) -> AsyncIterator[Statement]:
    """Say whether Tailchat's key is public, so that anybody can forge its tokens."""
    public = await has_public_key(api, now)
    if isinstance(public, CannotTell):
        text = f"Tailchat does not say whether its key is public: {public.why}"
        yield warning(KEY, text)._replace(needs=TAILCHAT)
    elif public:
        yield wrong(KEY, KEY_PROBLEM, KEY_REMEDY)
    else:
        yield ok(KEY, "Tailchat signs with a key of its own")


async def groups(
    settings: Settings, api: TailchatApi, bot: Bot, panel: Panel
) -> AsyncIterator[Statement]:
    """Say what is wrong with the bot, the groups of the configuration, and the panel."""
    uses_groups = any(group.sources for group in settings.groups.values())
    uses_panel = bool(settings.access.panel)
    seen = await look(settings, api, bot)
    needs = TAILCHAT if seen.is_outage else ""
    if not seen.problem:
        where = counted(len(seen.views), "group")
        yield ok(BOT, f"the gate's bot is signed in, and in {where} of Tailchat")
    elif uses_groups or uses_panel:
        yield wrong(BOT, seen.problem, seen.remedy)._replace(needs=needs)
        return
    else:
        text = (
            "only commands need the bot here, to find people by their names; it cannot be used: "
            f"{seen.problem}"
        )
        yield unknown(BOT, text, seen.remedy)._replace(needs=needs)
        return
    if uses_groups:
        for statement in _of_groups(settings, seen):
            yield statement
    if uses_panel:
        problem = await panel.problem_now()
        if problem:
            yield wrong(PANEL, f"access.panel: {problem}", "compare its ids with those in Tailchat")
        else:
            yield ok(PANEL, "the bot can write into access.panel")


def _of_groups(settings: Settings, seen: Seen) -> list[Statement]:
    statements = [
        wrong(GROUPS, fault, "`tailchat-gate tailchat-groups` lists the groups and roles")
        for fault in faults_of(settings.groups, seen.views, seen.existing)
    ]
    statements += [
        warning(GROUPS, sentence, "look at its roles in Tailchat")
        for sentence in warnings_of(settings.groups, seen.views)
    ]
    return statements or [
        ok(GROUPS, "Tailchat has each group and role that the configuration names")
    ]


def as_sentence(statement: Statement) -> str:
    """Return a statement as one sentence: its name, its text and the next step.

    Texts about routes and groups begin with the name of those instead.
    """
    is_named = statement.name in {REGISTRATION, GROUPS}
    text = statement.text if is_named else f"{statement.name}: {statement.text}"
    return f"{text}; {statement.remedy}" if statement.remedy else text


def ends_sign_ins(statement: Statement) -> bool:
    """Whether a statement means that no sign-in can succeed."""
    if statement.mark is not Mark.WRONG:
        return False
    refused = statement.name in {CLOCK, ISSUER} and REFUSED in statement.text
    return statement.name in _INDISPENSABLE or refused


async def sign_in(settings: Settings, check: SignInCheck, names: Names) -> AsyncIterator[Statement]:
    """Run the check of the sign-in; say what it found, or that a step was not checked.

    `names` looks up Tailchat's host.
    """
    tailchat = settings.tailchat
    good = {
        REACHED: f"{tailchat.internal_url or tailchat.api_url} answers",
        ISSUER: "Tailchat's issuer is the one that a sign-in has to come from",
        UNDER_PROXY: "Tailchat sends browsers to addresses like tailchat.api_url",
        CLOCK: "Tailchat's clock and the one here agree",
        CLIENT: f"Tailchat knows the app {tailchat.client_id}",
        CALLBACK: f"{settings.redirect_uri} is registered",
        SECRET: "Tailchat accepts tailchat.client_secret",
    }
    answered: set[str] = set()
    stopped, host = "", called_host(tailchat)
    async for step in check.steps():
        answered.add(step.question)
        if step.finding is None:
            yield ok(step.question, good[step.question])
        else:
            stopped = step.question
            is_nameless = step.finding.problem.endswith(UNKNOWN_NAME) or names.waits(host)
            needs = name_of(host) if is_nameless else ""
            yield of_finding(step.question, step.finding)._replace(needs=needs, lacks=stopped)
    for question in [question for question in good if question not in answered]:
        if question == UNDER_PROXY and ISSUER in answered:
            why = "because the gate reaches Tailchat at tailchat.internal_url"
            yield unknown(question, f"not checked, {why}")
        else:
            yield unknown(question, f"not checked: {stopped}")._replace(needs=stopped)


def of_finding(name: str, finding: Finding) -> Statement:
    """Return the statement of a finding."""
    mark = Mark.WARNING if finding.name in _ONLY_WARN else Mark.WRONG
    return Statement(name, mark, finding.problem, finding.remedy)


async def registration(check: RegistrationCheck) -> AsyncIterator[Statement]:
    """Say which routes are open to strangers, because they can register in Tailchat."""
    sentences = await check.run()
    if isinstance(sentences, CannotTell):
        yield warning(REGISTRATION, f"Tailchat cannot be asked: {sentences.why}")._replace(
            needs=TAILCHAT
        )
        return
    for sentence in sentences:
        yield warning(REGISTRATION, sentence)
    if not sentences:
        yield ok(REGISTRATION, "no route is open to everybody who registers in Tailchat")


async def people(settings: Settings, inquiry: Inquiry) -> AsyncIterator[Statement]:
    """Say whether Tailchat answers the gate's questions about people: bans, names, addresses."""
    if not settings.tailchat.people_refresh:
        yield warning(
            PEOPLE,
            "tailchat.people_refresh is off, so a banned person stays in until the session ends",
            "set tailchat.people_refresh",
        )
        return
    records = await inquiry.ask((_NOBODY,))
    if isinstance(records, dict):
        yield ok(PEOPLE, "Tailchat tells the gate of bans, names and e-mail addresses")
    elif isinstance(records, CannotTell):
        yield warning(PEOPLE, f"Tailchat cannot be asked: {records.why}")._replace(needs=TAILCHAT)
    else:
        yield wrong(
            PEOPLE,
            f"status {records.status}: {CLOSED}",
            "let Tailchat's proxy pass /api/user/getUserInfoList from the gate, or switch on the "
            "bot of the app",
        )
