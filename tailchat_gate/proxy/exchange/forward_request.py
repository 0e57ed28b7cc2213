"""What an exchange is given: the request that may pass, and the settings of its upstream."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tailchat_gate.access.browser_origin import WorkerScopes
from tailchat_gate.identity.authenticator import Visitor
from tailchat_gate.identity.machine_tokens import Machine
from tailchat_gate.identity.revocation.state import SessionHolder
from tailchat_gate.proxy.message.response_fields import FieldEditor
from tailchat_gate.proxy.upstream.interfaces import ResponseTimeouts
from tailchat_gate.proxy.upstream.pool import Pool
from tailchat_gate.request.body import Body
from tailchat_gate.request.fields import RawFields
from tailchat_gate.request.head import RequestHead


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """What is known beforehand of a route's upstream.

    `session_timeouts` is for exchanges that end with a session, which may itself not be idle for
    long. `connect_timeout` is in seconds. `trailers` makes the lines of a request's trailers.
    `keeps_out` tells whether a Set-Cookie for a host would replace a cookie of somebody else's.
    `workers` judges the scopes that replies allow.
    `passed_fields` are names of a reply's fields that pass although they reach beyond the tool.
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
    #: How many requests and WebSockets the upstream may have at once, and one client of them.
    most: int
    most_of_one: int
    #: For how many seconds a refused connection is tried again.
    connect_retry: float
    #: Whether connections are used for more than one exchange.
    keepalive: bool


@dataclass(slots=True, eq=False)
class ForwardRequest:
    """A request that may pass: its bytes for the upstream, and what goes with them.

    `data` is the whole request head, `body` what reads its body, None where there is none.
    `extra_fields` are header lines for the reply. `upgrade` is the protocol to switch to, b""
    for none; `session` whose session or token the exchange ends with, None for nobody's; `visitor`
    who asks, None for nobody.
    """

    request: Final[RequestHead]
    data: Final[bytes]
    body: Final[Body | None]
    extra_fields: Final[bytes]
    upgrade: Final[bytes]
    session: Final[SessionHolder | None]
    visitor: Final[Visitor | Machine | None]
