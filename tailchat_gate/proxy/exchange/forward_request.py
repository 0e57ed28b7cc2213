"""The inputs of an exchange: the request to forward, the copy of its body, its upstream."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tailchat_gate.access.browser_origin import WorkerScopes
from tailchat_gate.identity.authenticator import Visitor
from tailchat_gate.identity.machine_tokens import Machine
from tailchat_gate.identity.revocation.state import SessionHolder
from tailchat_gate.proxy.client.active_request import Admission
from tailchat_gate.proxy.exchange.subclassed import mypyc_attr
from tailchat_gate.proxy.message.request_headers import takes_trailers
from tailchat_gate.proxy.message.response_fields import FieldEditor
from tailchat_gate.proxy.upstream.balancer import Member
from tailchat_gate.proxy.upstream.interfaces import ResponseTimeouts
from tailchat_gate.proxy.upstream.pool import Pool
from tailchat_gate.reasons import Reason
from tailchat_gate.request.body import Body
from tailchat_gate.request.claims import claimed_methods
from tailchat_gate.request.context import RequestContext
from tailchat_gate.request.fields import RawFields
from tailchat_gate.request.head import RequestHead
from tailchat_gate.syntax import IDEMPOTENT_METHODS

#: The largest body that is copied, to be sent again after a stale connection.
REPEATED_BYTES: Final = 65_536


def claims_no_other(request: RequestHead) -> bool:
    """Whether no override, such as X-HTTP-Method-Override, makes the method non-idempotent."""
    return claimed_methods(request.fields, request.target.query) <= IDEMPOTENT_METHODS


class SentBody:
    """The arrived part of a request's body: unsent bytes, and a copy for another try."""

    __slots__ = ("_copied", "_copy", "_waiting")

    def __init__(self) -> None:
        self._waiting: list[bytes] = []
        #: None once the body is larger than `REPEATED_BYTES`.
        self._copy: list[bytes] | None = []
        self._copied = 0

    def is_kept(self) -> bool:
        """Whether the whole body can be sent again."""
        return self._copy is not None

    def keep(self, data: bytes) -> None:
        """Copy bytes of the body, up to `REPEATED_BYTES` in all."""
        if self._copy is None:
            return
        self._copied += len(data)
        if self._copied > REPEATED_BYTES:
            self._copy = None
        else:
            self._copy.append(data)

    def wait(self, data: bytes) -> None:
        """Hold bytes until there is a connection."""
        self._waiting.append(data)

    def repeat(self) -> None:
        """Hold the whole copy for another connection."""
        self._waiting = list(self._copy or ())

    def take_waiting(self) -> list[bytes]:
        """Return the bytes that waited for a connection, and forget them."""
        waiting, self._waiting = self._waiting, []
        return waiting


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """The settings of a route's upstream, computed once for a configuration.

    `session_timeouts` is for exchanges that end with a session: its idle limit may be shorter.
    `connect_timeout` is in seconds. `trailers` makes the lines of a request's trailers.
    `keeps_out`: whether a Set-Cookie value on a host would replace another party's cookie.
    `workers` judges the service worker scopes that responses allow. `passed_fields` are lower-case
    names of response fields that pass although they affect more than the tool.
    """

    pool: Pool
    timeouts: ResponseTimeouts
    session_timeouts: ResponseTimeouts
    connect_timeout: float
    trailers: Callable[[RawFields], bytes]
    editor: FieldEditor | None
    keeps_out: Callable[[bytes, str], bool]
    workers: WorkerScopes
    passed_fields: frozenset[bytes]
    #: The most requests and tunnels at once: of the upstream, and of one client.
    most: int
    most_of_one: int
    #: How many seconds to try again after a refused connection.
    connect_retry: float
    #: Whether connections are used for more than one exchange.
    keepalive: bool
    #: The backend, if it is one of several.
    member: Member | None = None

    def enter(self, who: str) -> Reason | None:
        """Give a request of the client `who` a slot; return why not, None if it got one."""
        return self.pool.enter(who, self.most, self.most_of_one)


class ForwardRequest:
    """A request that may pass: its bytes for the upstream, and their context.

    `data` is the whole request head. `body` reads the body, None if there is none. `extra_fields`
    are header lines for the response. `upgrade` is the protocol to switch to, b"" for none.
    `session` is the session or token with which the exchange ends, `visitor` the signed-in person
    or the machine; both are None for an anonymous request.
    """

    __slots__ = ("body", "data", "extra_fields", "request", "session", "upgrade", "visitor")

    def __init__(
        self,
        request: RequestHead,
        data: bytes,
        body: Body | None,
        extra_fields: bytes,
        upgrade: bytes,
        session: SessionHolder | None,
        visitor: Visitor | Machine | None,
    ) -> None:
        self.request: Final = request
        self.data: Final = data
        self.body: Final = body
        self.extra_fields: Final = extra_fields
        self.upgrade: Final = upgrade
        self.session: Final = session
        self.visitor: Final = visitor

    def stored(self, data: bytes) -> "ForwardRequest":
        """Return the same for a request whose body is stored and follows `data`."""
        return ForwardRequest(
            self.request, data, None, self.extra_fields, self.upgrade, self.session, self.visitor
        )


@mypyc_attr(allow_interpreted_subclasses=True)
class Admitted:
    """The part of an exchange that depends on its request alone."""

    __slots__ = ()

    context: RequestContext
    forward_request: ForwardRequest

    @property
    def session(self) -> SessionHolder | None:
        """The session or token with which it ends, None for an anonymous request."""
        return self.forward_request.session

    @property
    def admission(self) -> Admission | None:
        """The basis on which it was let in, None if it may outlive its session."""
        session = self.forward_request.session
        if session is None and self.forward_request.visitor is not None:
            return None
        return Admission(self.context, session)

    @property
    def origin(self) -> bytes:
        """The origin that the visitor sees, b"" if the request names no host."""
        host = self.forward_request.request.fields.host.raw
        scheme = self.context.client_address.scheme
        return scheme.encode("ascii") + b"://" + host if host else b""

    @property
    def takes_trailers(self) -> bool:
        """Whether the client reads trailers."""
        fields = self.forward_request.request.fields
        return b"te" in fields.connection and takes_trailers(fields)

    def note_stream(self) -> None:
        """The response lasts as long as the client reads it: its duration is not the tool's."""
        self.context.stream = True
