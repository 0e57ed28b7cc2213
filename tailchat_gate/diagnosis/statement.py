"""What a check says, and how checks run."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from typing import Final, NamedTuple, TypeVar

_T = TypeVar("_T")

#: What checks need, for `needs` and `lacks`; a name is one of its own, by `name_of`.
TAILCHAT: Final = "tailchat"
NAME_SERVERS: Final = "name servers"
RUNNING_GATE: Final = "gate"
STATE_SERVER: Final = "store"
#: In the place of `about`: the statement has nothing that its cause does not have.
REPEATED: Final = "repeated"

#: Seconds for one check. A call to Tailchat takes CALL_SECONDS at most, and none makes more than
#: three that hang.
CHECK_SECONDS: Final = 16.0
CALL_SECONDS: Final = 5.0


class Mark(StrEnum):
    """The kind of a statement; only `WRONG` makes the command fail."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"
    UNKNOWN = "unknown"


class Statement(NamedTuple):
    """What one check found: `name` is from a closed list, `remedy` the next step, if any.

    `needs` is what the check needed and did not get, `lacks` what others do not get because of what
    this statement says: words of `joined`, which makes one statement of both. `about` tells
    statements of one name apart there.
    """

    name: str
    mark: Mark
    text: str
    remedy: str = ""
    needs: str = ""
    lacks: str = ""
    about: str = ""

    @property
    def asks_for_a_look(self) -> bool:
        """Whether an admin should look at it."""
        return self.mark in {Mark.WARNING, Mark.WRONG}


def name_of(host: str) -> str:
    """Return what a check lacks that cannot look up a name."""
    return f"name {host}"


def ok(name: str, text: str) -> Statement:
    """Return that something is as it should be."""
    return Statement(name, Mark.OK, text)


def warning(name: str, text: str, remedy: str = "") -> Statement:
    """Return that something is probably not as it should be."""
    return Statement(name, Mark.WARNING, text, remedy)


def wrong(name: str, text: str, remedy: str = "") -> Statement:
    """Return that something is wrong."""
    return Statement(name, Mark.WRONG, text, remedy)


def unknown(name: str, text: str, remedy: str = "") -> Statement:
    """Return that something cannot be told from here."""
    return Statement(name, Mark.UNKNOWN, text, remedy)


def joined(found: Sequence[Statement]) -> list[Statement]:
    """Return statements with one for each outage, which names what was not checked because of it.

    It is that of the cause, else the first of those that give the same reason.
    """
    lacking = {one.lacks for one in found if one.lacks}
    causes: dict[str, int] = {}
    for index, one in enumerate(found):
        if one.lacks:
            causes.setdefault(one.lacks, index)
        if one.needs and one.needs not in lacking:
            causes.setdefault(_reason(one), index)
    held_up: dict[int, list[Statement]] = {index: [] for index in range(len(found))}
    for index, one in enumerate(found):
        cause = _cause(index, found, causes)
        if cause != index:
            held_up[cause].append(one)
            held_up[cause] += held_up.pop(index, [])
    return [_with(found[index], others) for index, others in held_up.items()]


def _reason(statement: Statement) -> str:
    """Return what statements of one outage have in common, where none tells of it alone."""
    return f"{statement.needs}: {statement.text.rpartition(': ')[2]}"


def _cause(index: int, found: Sequence[Statement], causes: Mapping[str, int]) -> int:
    """Return which statement says why this one is what it is; there may be some between."""
    seen = set()
    while (needs := found[index].needs) and index not in seen:
        seen.add(index)
        index = causes.get(needs, causes.get(_reason(found[index]), index))
    return index


def _with(cause: Statement, others: Sequence[Statement]) -> Statement:
    """Return the statement of a cause with the names of the checks that it held up."""
    marks = {one.mark for one in (cause, *others)}
    names = dict.fromkeys(
        f"{one.name} {one.about}".rstrip() for one in others if one.about != REPEATED
    )
    text = f"{cause.text}; not checked because of this: {', '.join(names)}" if names else cause.text
    return cause._replace(mark=Mark.WRONG if Mark.WRONG in marks else cause.mark, text=text)


class Check(NamedTuple):
    """One check: the name for what goes wrong with itself, and what yields its statements."""

    name: str
    run: Callable[[], AsyncIterator[Statement]]


async def run_checks(checks: Sequence[Check], seconds: float = CHECK_SECONDS) -> list[Statement]:
    """Run checks at once; return what they said, in the order of `checks`.

    One that hangs is ended after `seconds`, and what it had said until then stays. Raises nothing.
    """
    found: list[list[Statement]] = [[] for _ in checks]
    await asyncio.gather(
        *(_run(check, said, seconds) for check, said in zip(checks, found, strict=True))
    )
    return [statement for said in found for statement in said]


async def _run(check: Check, said: list[Statement], seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            async for statement in check.run():
                said.append(statement)  # noqa: PERF401 - what was said before the end stays
    except TimeoutError:
        said.append(wrong(check.name, f"this check was not done within {seconds:g} seconds"))
    except Exception as error:  # noqa: BLE001 - the other checks go on
        # Not the error's text: it may quote what it is about.
        fault = type(error).__name__
        said.append(unknown(check.name, f"not checked, because of a fault inside: {fault}"))


async def in_thread(work: Callable[[], _T]) -> _T:
    """Return what `work` returns, which may block, as a dead disk does.

    Not in the loop's executor: the end of the process waits for its threads.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_T] = loop.create_future()

    def settle(result: _T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type] # _T may be None itself

    def run() -> None:
        result, fault = None, None
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            fault = error
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(settle, result, fault)

    threading.Thread(target=run, name="check", daemon=True).start()
    return await done
