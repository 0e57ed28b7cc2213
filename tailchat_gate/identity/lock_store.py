"""Keeps the locks of one process in step with the file that all processes share."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from tailchat_gate.config.word import SUB
from tailchat_gate.identity.lock_file import History, LockFile
from tailchat_gate.identity.locks import (
    EndedSession,
    Entry,
    Lock,
    SignedOut,
    Standing,
    Unlock,
)
from tailchat_gate.identity.session import SessionRecord
from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.observe.metrics import Metrics
from tailchat_gate.syntax import CLOCK_SKEW

#: How often the file is looked at; what another process wrote is known this much later.
LOOK_SECONDS: Final = 0.25
#: How long after a write that failed the next one is tried.
RETRY_SECONDS: Final = 5.0
#: How long the end of the gate waits for a disk.
CLOSE_SECONDS: Final = 2.0

#: Why a session ended.
SIGNED_OUT: Final = "signed-out"
SIGNED_OUT_EVERYWHERE: Final = "signed-out-everywhere"
REVOKED: Final = "revoked"

_log: Final = logging.getLogger(LOGGER_NAME)


class LockStore:
    """Ends sessions, and hears what other processes lock and end.

    What is ended here is over in this process at once, and in all others when they have looked
    at the file. Until it is opened everything is kept in the memory of this process. `clock`
    gives Unix seconds.
    """

    def __init__(self, standing: Standing, metrics: Metrics, clock: Callable[[], float]) -> None:
        self.standing: Final = standing
        self._metrics = metrics
        self._clock = clock
        self._file: LockFile | None = None
        # A thread of its own, so that a disk that hangs keeps nothing else waiting.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="locks")
        self._looking: asyncio.Task[None] | None = None
        self._changed: Callable[[], None] = lambda: None
        self._writes: set[asyncio.Task[None]] = set()
        #: What was said about a file that cannot be used; it is not said again and again.
        self._told: set[str] = set()
        #: How many entries the file did not take, and how many of them it has by now.
        self._lost = self._made_up_for = 0
        self._retry_at = 0.0

    async def open(self, path: str) -> None:
        """Read the file at `path`, which is made where it is missing. Raises LockFileError.

        "" is no file: everything stays in memory.
        """
        if not path:
            return
        file = LockFile(Path(path), self._clock)
        loop = asyncio.get_running_loop()
        self._take_in(await loop.run_in_executor(self._thread, file.open))
        self._file = file
        if file.exposed:
            _log.warning(
                "locks.file: every user of this machine can read it; mode 0600 or 0640 keeps it"
            )

    def start(self, changed: Callable[[], None]) -> None:
        """Begin to look at the file; `changed` is called when somebody's standing may have."""
        self._changed = changed
        if self._file is not None:
            self._looking = asyncio.get_running_loop().create_task(self._look(self._file))

    async def close(self) -> None:
        """Look no more; what is being written has CLOSE_SECONDS to come to its end."""
        if self._looking is not None:
            self._looking.cancel()
        last = asyncio.create_task(self._write_last())
        await asyncio.wait((last,), timeout=CLOSE_SECONDS)
        if not last.done():
            _log.error("locks.file hangs, and may lack what was ended last")
            last.cancel()
        self._thread.shutdown(wait=False)

    async def _write_last(self) -> None:
        if self._looking is not None:
            await asyncio.wait((self._looking, *self._writes))
        if self._behind:
            await self._write(())

    @property
    def _behind(self) -> bool:
        """Whether the file lacks something that is known here."""
        return self._lost > self._made_up_for

    async def end_session(self, record: SessionRecord, *, lifetime: float) -> None:
        """End the sign-in that a session came from, on every host; returns when it is written.

        `lifetime` is how many seconds a session lasts at most.
        """
        at, until = self._span(record, lifetime)
        await asyncio.shield(self._put(EndedSession(record.sid, record.sub, at, until), SIGNED_OUT))

    def revoke(self, record: SessionRecord, *, lifetime: float) -> None:
        """End a sign-in that Tailchat does not stand by, as end_session does, without waiting."""
        at, until = self._span(record, lifetime)
        self._put(EndedSession(record.sid, record.sub, at, until, revoked=True), REVOKED)

    async def sign_out_everywhere(self, record: SessionRecord, *, lifetime: float) -> None:
        """End everything that the person of a session has signed in so far, as end_session does."""
        at, until = self._span(record, lifetime)
        entry = SignedOut(SUB + record.sub, at, until)
        await asyncio.shield(self._put(entry, SIGNED_OUT_EVERYWHERE))

    def _span(self, record: SessionRecord, lifetime: float) -> tuple[int, int]:
        # A session that began under another clock may be of a second that is yet to come.
        at = max(int(self._clock()), record.signed_in_at)
        return at, at + int(lifetime) + CLOCK_SKEW

    def _put(self, entry: Entry, why: str) -> "asyncio.Task[None]":
        """Put an entry in force, and return the writing of it.

        That goes to its end, whether or not the browser waits for its answer.
        """
        if not self.standing.apply(entry):
            # Said before: whoever says it again and again makes no disk work for it.
            return asyncio.create_task(self._written())
        self._metrics.session_ended(why)
        self._changed()
        writing = asyncio.create_task(self._write((entry,)))
        self._writes.add(writing)
        writing.add_done_callback(self._writes.discard)
        return writing

    async def _written(self) -> None:
        """Wait for what is being written."""
        if self._writes:
            await asyncio.wait(self._writes)

    async def _write(self, entries: Sequence[Entry]) -> None:
        """Add entries to the file; where that fails they are in force here, and written later."""
        if self._file is None:
            return
        loop = asyncio.get_running_loop()
        self._retry_at = loop.time() + RETRY_SECONDS
        lost = self._lost
        known = self.standing.entries() if self._behind else []
        # Not the locks: they may have been lifted in a line that is not read yet.
        missing = [entry for entry in known if not isinstance(entry, Lock)]
        locks = [entry for entry in known if isinstance(entry, Lock)]
        try:
            await loop.run_in_executor(self._thread, self._file.append, (*missing, *entries), locks)
        except OSError as error:
            self._lost += 1
            self._tell("unwritable", error)
        else:
            self._made_up_for = max(self._made_up_for, lost)

    async def _look(self, file: LockFile) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self._look_once(file)
            except Exception:  # noqa: BLE001 - a fault here must not stop the looking
                _log.exception("locks.file could not be read")
                file.forget()
            if self._behind and loop.time() >= self._retry_at:
                await self._write(())

    async def _look_once(self, file: LockFile) -> None:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._thread, file.read_new)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not self._behind:
                # Somebody took it away: what is known stays in force, and makes it anew.
                self._lost += 1
            self._tell("unreadable", error)
            return
        if found is not None:
            self._take_in(found)
        if not self._behind:
            self._told.clear()

    def _take_in(self, found: History) -> None:
        if found.damaged:
            self._metrics.lock_file_error("damaged", found.damaged)
            details = {"lines": found.damaged, "error": "damaged"}
            _log.error("locks.file has lines that are damaged", extra={"details": details})
        standing = self.standing
        if found.whole:
            # Nothing at all is said by a file that was lost, as by one that is gone.
            lost = not found.entries and bool(standing.entries())
            self._lost += lost
            news = standing.renew(found.entries, doubtful=lost or found.damaged > 0)
        else:
            news = [entry for entry in found.entries if standing.apply(entry)]
        for entry in news:
            _announce(entry)
        if news:
            self._changed()

    def _tell(self, error: str, problem: OSError) -> None:
        self._metrics.lock_file_error(error)
        told = f"{error}: {problem.strerror or problem}"
        if told not in self._told:
            self._told.add(told)
            details = {"error": error, "problem": problem.strerror or str(problem)}
            _log.error("locks.file cannot be used", extra={"details": details})


def _announce(entry: Entry) -> None:
    """Log what an admin did."""
    if isinstance(entry, Lock):
        details = {"target": entry.target, "until": entry.until, "notice": entry.message}
        _log.info("a lock is in force", extra={"details": details})
    elif isinstance(entry, Unlock):
        _log.info("a lock is lifted", extra={"details": {"target": entry.target}})
