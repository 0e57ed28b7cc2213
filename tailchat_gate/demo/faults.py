"""Makes the stand-in Tailchat fail as a real one can, and records the calls to it."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

JSON: Final = "application/json; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Response:
    """Send this response without handling the request."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Handle the request, then change the members of a successful response."""

    change: Callable[[dict[str, object]], Mapping[str, object]]


class Hang:
    """Respond only after `release` was called; `started` is set once a call waits."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self._released = asyncio.Event()

    def release(self) -> None:
        """Let every waiting call continue."""
        self._released.set()

    async def wait(self) -> None:
        """Wait for `release`."""
        self.started.set()
        await self._released.wait()


@dataclass(frozen=True, slots=True)
class Close:
    """Close the connection without a response."""


Fault = Response | Rewrite | Hang | Close


@dataclass(slots=True)
class Faults:
    """The fault of each endpoint, None for no fault. A fault stays until you change it.

    `actions` has the faults of the gateway's actions by name, for example `user/getUserInfo`.
    """

    discovery: Fault | None = None
    jwks: Fault | None = None
    token: Fault | None = None
    me: Fault | None = None
    actions: dict[str, Fault] = field(default_factory=dict)

    def of(self, name: str) -> Fault | None:
        """Return the fault of an endpoint or action."""
        if "/" in name:
            return self.actions.get(name)
        fault: Fault | None = getattr(self, name)
        return fault


@dataclass(slots=True)
class Seen:
    """How often an endpoint was called, and the fields and body of the last call."""

    count: int = 0
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)

    def header(self, name: str) -> str | None:
        """Return the value of a field of the last call, None without one."""
        for key, value in self.headers:
            if key.lower() == name.lower():
                return value
        return None
