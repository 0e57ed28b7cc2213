"""The decision about a request, and its basis."""

from collections.abc import Mapping, Sequence
from typing import Final

from tailchat_gate.access.policy import Rule
from tailchat_gate.access.routes import Match
from tailchat_gate.identity.authenticator import Visitor
from tailchat_gate.identity.host_sessions import HostSession
from tailchat_gate.identity.machine_tokens import Machine
from tailchat_gate.identity.revocation.state import Rejection
from tailchat_gate.identity.sessions.record import SessionRecord


class Verdict:
    """The decision and its basis: `match` is None where no route serves the target.

    `visitor` sent the request, None where the tool must take it for anonymous. `host_session` has
    the sessions of the requested host. `rejection` says why the session was rejected, if that is
    the reason of the refusal.
    """

    __slots__ = ("allowed", "host_session", "match", "rejection", "rewritten", "visitor")

    def __init__(
        self,
        allowed: bool,  # noqa: FBT001 - a keyword makes a dict
        match: Match | None,
        visitor: Visitor | Machine | None,
        host_session: HostSession,
        rejection: Rejection | None,
        rewritten: Mapping[bytes, bytes],
    ) -> None:
        self.allowed: Final = allowed
        self.match: Final = match
        self.visitor: Final = visitor
        self.host_session: Final = host_session
        self.rejection: Final = rejection
        #: Request fields that the tool gets with another value, by their names in lower case.
        self.rewritten: Final = rewritten

    def refused(self, rejection: Rejection | None) -> "Verdict":
        """Return the same for a request that is refused after all."""
        allowed, match, visitor = False, self.match, self.visitor
        return Verdict(allowed, match, visitor, self.host_session, rejection, self.rewritten)

    @property
    def record(self) -> SessionRecord | None:
        """The session of the person who sent the request, None for a machine or without one."""
        return self.visitor.record if isinstance(self.visitor, Visitor) else None

    @property
    def rules(self) -> Sequence[Rule]:
        """The rules that were applied, none where no route serves the target."""
        return self.match.rules if self.match is not None else ()

    def renewal(self) -> str | None:
        """The Set-Cookie value that renews the visitor's session, where one is due."""
        visitor = self.visitor
        return (
            self.host_session.authenticator.renewal(visitor)
            if isinstance(visitor, Visitor)
            else None
        )
