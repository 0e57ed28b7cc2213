"""The statements of checks, and how checks run."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

from tailchat_gate.config.tables.identity import LONGEST_CALL

#: Words for `needs` and `lacks` of a statement; `name_of` makes one for each host name.
TAILCHAT: Final = "tailchat"
NAME_SERVERS: Final = "name servers"
RUNNING_GATE: Final = "gate"
STATE_SERVER: Final = "store"
#: A value of `about`: the statement only repeats what its cause says.
REPEATED: Final = "repeated"

#: Seconds for one call: as long as a gate waits for Tailchat, so that what serves is not called
#: dead because the machine is busy. A check makes at most three calls that hang.
CALL_SECONDS: Final = LONGEST_CALL
CHECK_SECONDS: Final = 3 * CALL_SECONDS + 1


class Mark(StrEnum):
    """The kind of a statement; only `WRONG` makes the command fail."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"
    UNKNOWN = "unknown"


class Statement(NamedTuple):
    """What a check found: `name` is from a closed list, `remedy` is the next step, "" for none.

    The rest is for `joined`, which merges the statements of one outage: `needs` names what the
    check needed and did not get, `lacks` what other checks cannot get because of this finding, and
    `about` distinguishes statements with the same name.
    """

    name: str
    mark: Mark
    text: str
    remedy: str = ""
    needs: str = ""
    lacks: str = ""
    about: str = ""

    @property
    def needs_attention(self) -> bool:
        """Whether an admin should look at it."""
        return self.mark in {Mark.WARNING, Mark.WRONG}


def name_of(host: str) -> str:
    """Return the word of `needs` and `lacks` for the lookup of a host name."""
    return f"name {host}"


def ok(name: str, text: str) -> Statement:
    """Make a statement that something is as it should be."""
    return Statement(name, Mark.OK, text)


def warning(name: str, text: str, remedy: str = "") -> Statement:
    """Make a statement that something is probably not as it should be."""
    return Statement(name, Mark.WARNING, text, remedy)


def wrong(name: str, text: str, remedy: str = "") -> Statement:
    """Make a statement that something is wrong."""
    return Statement(name, Mark.WRONG, text, remedy)


def unknown(name: str, text: str, remedy: str = "") -> Statement:
    """Make a statement that something could not be found out."""
    return Statement(name, Mark.UNKNOWN, text, remedy)


def joined(statements: Sequence[Statement]) -> list[Statement]:
    """Merge the statements of each outage into one, which names the checks that it held up.

    The one that stays is that of the cause, or else the first with the same reason.
    """
    lacking = {statement.lacks for statement in statements if statement.lacks}
    causes: dict[str, int] = {}
    for index, statement in enumerate(statements):
        if statement.lacks:
            causes.setdefault(statement.lacks, index)
        if statement.needs and statement.needs not in lacking:
            causes.setdefault(_reason(statement), index)
    held_up: dict[int, list[Statement]] = {index: [] for index in range(len(statements))}
    for index, statement in enumerate(statements):
        cause = _cause(index, statements, causes)
        if cause != index:
            held_up[cause].append(statement)
            held_up[cause] += held_up.pop(index, [])
    return [_with(statements[index], others) for index, others in held_up.items()]


def _reason(statement: Statement) -> str:
    """Return what the statements of one outage have in common: the need and the last clause."""
    return f"{statement.needs}: {statement.text.rpartition(': ')[2]}"


def _cause(index: int, statements: Sequence[Statement], causes: Mapping[str, int]) -> int:
    """Follow the needs of a statement to the index of the one that is their first cause."""
    seen = set()
    while (needs := statements[index].needs) and index not in seen:
        seen.add(index)
        index = causes.get(needs, causes.get(_reason(statements[index]), index))
    return index


def _with(cause: Statement, others: Sequence[Statement]) -> Statement:
    """Add the names of the checks that it held up to the statement of a cause."""
    marks = {statement.mark for statement in (cause, *others)}
    names = dict.fromkeys(
        f"{statement.name} {statement.about}".rstrip()
        for statement in others
        if statement.about != REPEATED
    )
    text = f"{cause.text}; not checked because of this: {', '.join(names)}" if names else cause.text
    return cause._replace(mark=Mark.WRONG if Mark.WRONG in marks else cause.mark, text=text)


class Check(NamedTuple):
    """One check: `run` yields its statements, `name` is for a failure of the check itself."""

    name: str
    run: Callable[[], AsyncIterator[Statement]]


async def run_checks(checks: Sequence[Check], seconds: float = CHECK_SECONDS) -> list[Statement]:
    """Run checks concurrently; return their statements in the order of `checks`.

    A check that hangs is cancelled after `seconds`; its statements until then stay. Raises nothing.
    """
    by_check: list[list[Statement]] = [[] for _ in checks]
    await asyncio.gather(
        *(
            _run(check, statements, seconds)
            for check, statements in zip(checks, by_check, strict=True)
        )
    )
    return [statement for statements in by_check for statement in statements]


async def _run(check: Check, statements: list[Statement], seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            async for statement in check.run():
                statements.append(statement)  # noqa: PERF401 - statements before a failure stay
    except TimeoutError:
        statements.append(wrong(check.name, f"this check was not done within {seconds:g} seconds"))
    except Exception as error:  # noqa: BLE001 - the other checks go on
        # Not the error's text, which may quote a secret.
        fault = type(error).__name__
        statements.append(unknown(check.name, f"not checked, because of a fault inside: {fault}"))
