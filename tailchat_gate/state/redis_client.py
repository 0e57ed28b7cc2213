"""Calls to one Redis or Valkey server, each bounded in time."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from pydantic import SecretStr

from tailchat_gate.config.values.redis_url import RedisAddress, redis_address
from tailchat_gate.state.bookkeeping import FaultKind, StoreFault
from tailchat_gate.state.store import StoreError

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.exceptions import ResponseError

#: Seconds that a call may take, with connecting and its one repetition. Someone waits for it.
CALL_SECONDS: Final = 1.0
#: Answers of a server that reads, and does not write now.
_UNWRITABLE: Final = ("OOM", "READONLY", "MISCONF", "NOREPLICAS")
_NEEDED: Final = "state.url needs one server, or an address that always leads to the primary"


@dataclass(frozen=True, slots=True)
class RedisPlace:
    """A server, by its URL, and the password there."""

    url: str
    password: SecretStr | None = field(default=None, repr=False)

    @property
    def address(self) -> RedisAddress:
        """The address in the URL."""
        return redis_address(self.url)

    def __str__(self) -> str:
        """Return the URL, which has no password."""
        return self.url


class RedisClient:
    """Runs scripts; raises StoreFault for everything that keeps one from its result.

    Every script that changes something may be repeated, because it knows its own mark or nonce.
    """

    def __init__(self, place: RedisPlace, *, patience: float = CALL_SECONDS) -> None:
        self._place = place
        self._patience = patience
        self._client: Redis | None = None
        self._scripts: dict[str, Callable[..., Awaitable[Any]]] = {}

    def connect(self) -> None:
        """Make the client, which connects with its first call. Raises StoreError."""
        try:
            self._client = _client(self._place, self._patience)
        except ImportError:
            problem = (
                f"{self._place}: the package redis is missing: "
                "`pip install 'tailchat-gate[redis]'` installs it"
            )
            raise StoreError(problem, says_remedy=True) from None

    async def close(self) -> None:
        """Close every connection."""
        client, self._client = self._client, None
        self._scripts.clear()
        if client is not None:
            await client.aclose()

    async def run(self, script: str, keys: Sequence[str], arguments: Sequence[object]) -> Any:  # noqa: ANN401 - each script has its own result
        """Run a script. Raises StoreFault."""
        if self._client is None:
            raise StoreFault(FaultKind.UNREADABLE, f"{self._place} is not open")
        registered = self._scripts.get(script)
        if registered is None:
            registered = self._scripts[script] = self._client.register_script(script)
        encoded = [_encoded(argument) for argument in arguments]
        named = [_encoded(key) for key in keys]
        return await self._bounded(lambda: registered(keys=named, args=encoded))

    async def _bounded(self, call: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401 - as above
        from redis import exceptions  # noqa: PLC0415 - only where the store is Redis

        problem = ""
        kind = FaultKind.UNREADABLE
        try:
            async with asyncio.timeout(self._patience):
                try:
                    return await call()
                except exceptions.TimeoutError:
                    raise
                except exceptions.ConnectionError as lost:
                    if isinstance(lost.__cause__, exceptions.AuthenticationError):
                        raise
                # A connection that the server closed meanwhile, as over its restart.
                return await call()
        except (TimeoutError, exceptions.TimeoutError):
            problem = f"gives no answer within {self._patience:g} s"
        except exceptions.ResponseError as refused:
            word = str(refused).partition(" ")[0]
            kind = FaultKind.UNWRITABLE if word in _UNWRITABLE else FaultKind.UNREADABLE
            problem = _refusal(refused)
        except (exceptions.RedisError, OSError) as error:
            problem = _unreachable(error)
        # Outside of the handlers, so that no traceback holds what was sent.
        raise StoreFault(kind, f"{self._place} {problem}")


def _refusal(refused: "ResponseError") -> str:
    """Return what an answer says that is an error."""
    from redis import exceptions  # noqa: PLC0415 - only where the store is Redis

    if isinstance(refused, exceptions.AskError | exceptions.ClusterError):
        return f"is a node of a Cluster: {_NEEDED}"
    if str(refused).lower().startswith("unknown command"):
        return f"is a Sentinel, or takes no scripts: {_NEEDED}"
    return f"refuses a command: {str(refused)[:200]!a}"


def _unreachable(error: Exception) -> str:
    """Return why a server cannot be used, by the causes of an error."""
    from redis import exceptions  # noqa: PLC0415 - only where the store is Redis

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, exceptions.AuthenticationError):
            return "refuses the user or the password"
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"shows a certificate that is not valid here: {cause.verify_message[:200]!a}"
        cause = cause.__cause__ or cause.__context__
    return f"cannot be reached: {str(error)[:200]!a}"


def _client(place: RedisPlace, patience: float) -> "Redis":
    from redis.asyncio import Redis  # noqa: PLC0415 - only where the store is Redis
    from redis.asyncio.retry import Retry  # noqa: PLC0415 - as above
    from redis.backoff import NoBackoff  # noqa: PLC0415 - as above
    from redis.credentials import UsernamePasswordCredentialProvider  # noqa: PLC0415 - as above

    address = place.address
    # Not as an argument, which the representation of a client could show.
    credentials = (
        UsernamePasswordCredentialProvider(
            address.user or None, place.password.get_secret_value() if place.password else ""
        )
        if place.password or address.user
        else None
    )
    # The retries of the library itself take 14 s in all where a server is frozen.
    common: dict[str, Any] = {
        "db": address.database,
        "credential_provider": credentials,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": patience,
        "socket_connect_timeout": patience,
        "max_connections": 4,
    }
    if address.path:
        return Redis(unix_socket_path=address.path, **common)
    if address.tls:
        # The name is compared with the certificate, whatever the library's default is.
        common |= {
            "ssl": True,
            "ssl_ca_certs": address.ca_file or None,
            "ssl_check_hostname": True,
        }
    return Redis(host=address.host, port=address.port, **common)


def _encoded(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    return str(value).encode("utf-8", "surrogatepass")
