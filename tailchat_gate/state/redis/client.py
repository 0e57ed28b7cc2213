"""Calls to Redis or Valkey, each bounded in time."""

import asyncio
import ssl
from collections.abc import Sequence
from hashlib import sha1
from typing import TYPE_CHECKING, Any, Final

from tailchat_gate.state.bookkeeping import FaultKind, StoreFault
from tailchat_gate.state.redis.servers import RedisPlace, Servers, servers
from tailchat_gate.state.store import StoreError

if TYPE_CHECKING:
    from redis.exceptions import ResponseError

#: Seconds that a call may take, with connecting and one retry, while a request waits for it.
CALL_SECONDS: Final = 1.0
#: The same for commands, where no request waits.
COMMAND_SECONDS: Final = 5.0
#: The first words of error answers of a server that cannot be written now.
_UNWRITABLE: Final = ("MISCONF", "NOREPLICAS")
_SLOW: Final = "gives no answer within"
_AWAY: Final = "cannot be reached"
_MOVING: Final = "does not serve the gate's keys now: the Cluster is down, or moves them"
_NO_PRIMARY: Final = "is without a primary: no Sentinel that answers names one for this service"
#: How the problems begin that may pass by themselves.
_PASSING: Final = (_SLOW, _AWAY, _MOVING, _NO_PRIMARY)
_NEEDED_CLUSTER: Final = "state.url names one as redis+cluster://HOST:PORT"
_NEEDED_SENTINELS: Final = "state.url names Sentinels as redis+sentinel://HOST:PORT/SERVICE"


class RedisClient:
    """Runs scripts; raises StoreFault if one gives no result.

    A script may be run twice: those that change data recognise a repetition by a mark or a nonce.
    """

    def __init__(self, place: RedisPlace, *, timeout: float = CALL_SECONDS) -> None:
        self._place = place
        self._timeout = timeout
        self._servers: Servers | None = None
        #: The hashes by which the server knows the scripts.
        self._hashes: dict[str, str] = {}

    def connect(self) -> None:
        """Make the client, which connects with its first call. Raises StoreError."""
        try:
            self._servers = servers(self._place, self._timeout)
        except ImportError:
            problem = (
                f"{self._place}: the package redis is missing: "
                "`pip install 'tailchat-gate[redis]'` installs it"
            )
            raise StoreError(problem, says_remedy=True) from None

    async def close(self) -> None:
        """Close every connection."""
        servers, self._servers = self._servers, None
        if servers is not None:
            await servers.close()

    async def run(self, script: str, keys: Sequence[str], arguments: Sequence[object]) -> Any:  # noqa: ANN401 - each script has its own result
        """Run a script. Raises StoreFault."""
        if self._servers is None:
            raise StoreFault(FaultKind.UNREADABLE, f"{self._place} is not open")
        words = [_encoded(word) for word in (len(keys), *keys, *arguments)]
        return await self._bounded(self._servers, script, words)

    async def _call(self, servers: Servers, script: str, words: Sequence[bytes]) -> Any:  # noqa: ANN401 - as above
        from redis.exceptions import NoScriptError  # noqa: PLC0415 - only where the store is Redis

        known = self._hashes.get(script)
        if known is None:
            known = self._hashes[script] = sha1(script.encode(), usedforsecurity=False).hexdigest()
        await servers.prepare()
        try:
            return await servers.execute("EVALSHA", known, *words)
        except NoScriptError:
            return await servers.execute("EVAL", script, *words)

    async def _bounded(self, servers: Servers, script: str, words: Sequence[bytes]) -> Any:  # noqa: ANN401 - as above
        from redis import exceptions  # noqa: PLC0415 - only where the store is Redis

        problem, is_refusal = "", False
        kind = FaultKind.UNREADABLE
        try:
            async with asyncio.timeout(self._timeout):
                try:
                    return await self._call(servers, script, words)
                except exceptions.TimeoutError:
                    raise
                except exceptions.ConnectionError as lost:
                    if isinstance(lost.__cause__, exceptions.AuthenticationError):
                        raise
                    servers.failed()
                # The server closed the connection meanwhile, as when it restarts: try once more.
                return await self._call(servers, script, words)
        except (TimeoutError, exceptions.TimeoutError):
            problem = f"{_SLOW} {self._timeout:g} s"
        except exceptions.ResponseError as refused:
            # For these two answers the library has classes, and removes the first word.
            by_class = isinstance(refused, exceptions.OutOfMemoryError | exceptions.ReadOnlyError)
            if by_class or str(refused).partition(" ")[0] in _UNWRITABLE:
                kind = FaultKind.UNWRITABLE
            problem, is_refusal = _refusal(refused, self._place), True
        except (exceptions.RedisError, exceptions.RedisClusterException, OSError) as error:
            problem = _unreachable(error)
        servers.failed()
        # Raised outside the handlers, so that no traceback holds what was sent.
        may_pass = problem.startswith(_PASSING)
        problem = f"{self._place} {problem}"
        raise StoreFault(kind, problem, is_refusal=is_refusal, may_pass=may_pass)


def _refusal(refused: "ResponseError", place: RedisPlace) -> str:
    """Return the text of an error answer."""
    from redis import exceptions  # noqa: PLC0415 - only where the store is Redis

    if isinstance(refused, exceptions.AskError | exceptions.ClusterError):
        if place.address.hosts:
            return _MOVING
        return f"is a node of a Cluster: {_NEEDED_CLUSTER}"
    if str(refused).lower().startswith("unknown command"):
        return f"is a Sentinel, or takes no scripts: {_NEEDED_SENTINELS}"
    return f"refuses a command: {str(refused)[:200]!a}"


def _unreachable(error: Exception) -> str:
    """Say why a server cannot be used, from an error and its causes."""
    from redis import exceptions  # noqa: PLC0415 - only where the store is Redis
    from redis.asyncio.sentinel import MasterNotFoundError  # noqa: PLC0415 - as above

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, exceptions.AuthenticationError):
            return "refuses the user or the password"
        if isinstance(cause, MasterNotFoundError):
            # The errors of the Sentinels are only in its text.
            if exceptions.AuthenticationError.__name__ in str(cause):
                return "is without a primary: a Sentinel refuses the user or the password"
            return _NO_PRIMARY
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"shows a certificate that is not valid here: {cause.verify_message[:200]!a}"
        cause = cause.__cause__ or cause.__context__
    return f"{_AWAY}: {str(error)[:200]!a}"


def _encoded(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    return str(value).encode("utf-8", "surrogatepass")
