"""Records finished requests in the metrics and the access log."""

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from tailchat_gate.observe.access_log import AccessLog
from tailchat_gate.observe.metrics import Metrics
from tailchat_gate.observe.spans import Spans
from tailchat_gate.proxy.client.connection import ClientConnection
from tailchat_gate.reasons import BLOCKED, Reason
from tailchat_gate.request.context import RequestContext

#: The reasons that end a request under way because rules, groups or the configuration changed.
_RIGHT_LOST: Final = (
    *(Reason.DENIED, Reason.DENY_LISTED, Reason.NO_ROUTE, Reason.METHOD_REFUSED),
    *(Reason.CLAIM_REFUSED, Reason.TOKEN_UNKNOWN, Reason.TOKEN_ELSEWHERE),
    *(Reason.GROUPS_UNKNOWN, Reason.CROSS_ORIGIN),
)
#: The reasons that end a request under way with its session or right, and their metrics labels.
SESSION_OVER: Final = MappingProxyType(
    {
        Reason.NOT_SIGNED_IN: "expired",
        Reason.TOKEN_EXPIRED: "expired",
        Reason.SESSION_ENDED: Reason.SESSION_ENDED.value,
        Reason.SESSION_REVOKED: Reason.SESSION_REVOKED.value,
        Reason.RECHECK_FAILED: Reason.RECHECK_FAILED.value,
        Reason.SESSION_STORE_AWAY: Reason.SESSION_STORE_AWAY.value,
        Reason.LOCKED: Reason.LOCKED.value,
        Reason.MAINTENANCE: Reason.MAINTENANCE.value,
        **{reason: reason.value for reason in (*BLOCKED, *_RIGHT_LOST)},
    }
)


@dataclass(frozen=True, slots=True)
class Recorder:
    """Counts requests, and logs them if there is an `access_log`.

    `spans` takes the spans of sampled traces; `names_people`: they name the person.
    It must not refer to a configuration, because a tunnel may hold it for weeks.
    """

    metrics: Metrics
    access_log: AccessLog | None
    monotonic: Callable[[], float]
    spans: Spans
    names_people: bool

    def record(self, context: RequestContext) -> None:
        """Record a finished request."""
        now = self.monotonic()
        context.seconds = now - context.started
        self.metrics.request(context, now)
        if context.trace is not None and context.trace.span_id:
            self.spans.record(context, now, identity=self.names_people)
        if self.access_log is not None:
            self.access_log.write(context)

    def live_ended(self, reason: Reason) -> None:
        """Count a request that ended with its session or right, if `reason` is such a reason."""
        if reason in SESSION_OVER:
            self.metrics.live_ended(SESSION_OVER[reason])

    def tunnel_began(self, context: RequestContext) -> None:
        """Count a request whose protocol was switched, which counts as answered."""
        self.metrics.route(context.route).tunnel_began(context)

    def tunnel_over(
        self, client: ClientConnection, context: RequestContext, failure: Reason | None
    ) -> None:
        """Record a tunnel that has ended, and end the work of its client's connection."""
        if failure is not None:
            context.reason = failure
            self.live_ended(failure)
        now = self.monotonic()
        context.seconds = now - context.started
        self.metrics.route(context.route).tunnel_ended(context.seconds, context.sent_bytes)
        if context.trace is not None and context.trace.span_id:
            self.spans.record(context, now, identity=self.names_people)
        if self.access_log is not None:
            self.access_log.write(context)
        client.end(keep=False)
