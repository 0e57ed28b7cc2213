"""Whether people can sign in at Tailchat, and whom that lets in."""

from collections.abc import AsyncIterator
from typing import Final

from tailchat_gate.config.model import Settings
from tailchat_gate.diagnosis.groups import GROUPS
from tailchat_gate.diagnosis.statement import Mark, Statement, ok, unknown, warning, wrong
from tailchat_gate.identity.oauth.sign_in_check import (
    CALLBACK,
    CLIENT,
    CLOCK,
    ISSUER,
    REACHED,
    SECRET,
    UNDER_PROXY,
    Finding,
    SignInCheck,
)
from tailchat_gate.people.api import CannotTell
from tailchat_gate.people.inquiry import Inquiry
from tailchat_gate.people.registration import RegistrationCheck
from tailchat_gate.people.watch import CLOSED

REGISTRATION: Final = "registration"
PEOPLE: Final = "people"
#: What an admin may want so.
_MAY_BE_SO: Final = frozenset((ISSUER,))
#: An id that nobody has.
_NOBODY: Final = "0" * 24


def as_sentence(statement: Statement) -> str:
    """Return a statement as one sentence, with its next step.

    What is said of routes and groups begins with their names.
    """
    is_named = statement.name in {REGISTRATION, GROUPS}
    text = statement.text if is_named else f"{statement.name}: {statement.text}"
    return f"{text}; {statement.remedy}" if statement.remedy else text


async def sign_in(settings: Settings, check: SignInCheck) -> AsyncIterator[Statement]:
    """Say of each question of the check what was found."""
    tailchat = settings.tailchat
    good = {
        REACHED: f"{tailchat.internal_url or tailchat.api_url} answers",
        ISSUER: "Tailchat's issuer is what a sign-in has to come from",
        UNDER_PROXY: "Tailchat sends browsers to addresses like tailchat.api_url",
        CLOCK: "Tailchat's clock and the one here agree",
        CLIENT: f"Tailchat knows the app {tailchat.client_id}",
        CALLBACK: f"{settings.redirect_uri} is registered",
        SECRET: "Tailchat accepts tailchat.client_secret",
    }
    asked: set[str] = set()
    async for step in check.steps():
        asked.add(step.question)
        if step.finding is None:
            yield ok(step.question, good[step.question])
        else:
            yield of_finding(step.question, step.finding)
    for question in [question for question in good if question not in asked]:
        why = "because of what is wrong above"
        if question == UNDER_PROXY and ISSUER in asked:
            why = "because the gate reaches Tailchat at tailchat.internal_url"
        yield unknown(question, f"not checked, {why}")


def of_finding(name: str, finding: Finding) -> Statement:
    """Return the statement of a finding."""
    mark = Mark.WARNING if finding.name in _MAY_BE_SO else Mark.WRONG
    return Statement(name, mark, finding.problem, finding.remedy)


async def registration(check: RegistrationCheck) -> AsyncIterator[Statement]:
    """Say which routes strangers may enter, as Tailchat says of its registration."""
    found = await check.run()
    if isinstance(found, CannotTell):
        yield warning(REGISTRATION, f"Tailchat cannot be asked: {found.why}")
        return
    for sentence in found:
        yield warning(REGISTRATION, sentence)
    if not found:
        yield ok(REGISTRATION, "no route is open to everybody who registers in Tailchat")


async def people(settings: Settings, inquiry: Inquiry) -> AsyncIterator[Statement]:
    """Say whether Tailchat tells the gate about people: bans, names, addresses."""
    if not settings.tailchat.people_refresh:
        yield warning(
            PEOPLE,
            "tailchat.people_refresh is off, so a banned person stays until the session ends",
            "set tailchat.people_refresh",
        )
        return
    found = await inquiry.ask((_NOBODY,))
    if isinstance(found, dict):
        yield ok(PEOPLE, "Tailchat tells the gate of bans, names and e-mail addresses")
    elif isinstance(found, CannotTell):
        yield warning(PEOPLE, f"Tailchat cannot be asked: {found.why}")
    else:
        yield wrong(
            PEOPLE,
            f"status {found.status}: {CLOSED}",
            "let Tailchat's proxy pass /api/user/getUserInfoList from the gate, or switch on the "
            "bot of the app",
        )
