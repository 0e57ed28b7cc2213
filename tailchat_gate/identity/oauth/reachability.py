"""Whether Tailchat answers, and if not, why: in metrics and in the log."""

import logging
import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Final

import aiohttp

from tailchat_gate.observe.families import Collected, Family, Merge, by_one, gauge
from tailchat_gate.observe.log import LOGGER_NAME, FaultLog
from tailchat_gate.observe.tls import after_handshakes, expiry_of

#: OpenSSL's codes of faults of a certificate (X509_V_ERR_*).
_CERTIFICATE_CAUSES: Final = MappingProxyType(
    {
        9: "certificate-not-yet-valid",
        10: "certificate-expired",
        62: "certificate-other-host",
        64: "certificate-other-host",
    }
)
_CAUSES: Final[tuple[tuple[tuple[type[Exception], ...], str], ...]] = (
    ((aiohttp.ClientProxyConnectionError, aiohttp.ClientHttpProxyError), "proxy"),
    ((aiohttp.ClientConnectorSSLError,), "tls"),
    ((aiohttp.ClientConnectorDNSError,), "dns"),
)
#: The log message for each cause.
MESSAGES: Final = MappingProxyType(
    {
        "certificate-expired": "Tailchat's certificate has expired: renew it there",
        "certificate-not-yet-valid": (
            "Tailchat's certificate is not valid yet: compare the clocks of both machines"
        ),
        "certificate-other-host": (
            "Tailchat's certificate is for another host: check tailchat.api_url and internal_url"
        ),
        "certificate-untrusted": (
            "Tailchat's certificate is not trusted: name its authority in tailchat.ca_file or in "
            "the environment variable SSL_CERT_FILE"
        ),
        "tls": "no TLS connection to Tailchat: is it plain http there?",
        "dns": "the name of Tailchat's host cannot be looked up",
        "refused": "Tailchat's host refuses connections: is Tailchat running?",
        "unreachable": "Tailchat's host cannot be reached",
        "proxy": "the proxy to Tailchat cannot be used: check tailchat.proxy",
        "timeout": "Tailchat does not answer in time",
        "closed": "Tailchat closes the connection without an answer",
        "malformed": "Tailchat's answer is not HTTP, or it is too long",
        "server-error": "Tailchat, or a proxy in front of it, answers with a server error",
    }
)

_FAULTS: Final = Family("gate_tailchat_faults", "Calls that Tailchat failed, by cause.", ("cause",))
_UP: Final = gauge("gate_tailchat_up", "Whether Tailchat answered the last call.", merge=Merge.MIN)
_CERTIFICATE: Final = gauge(
    "gate_tailchat_certificate_expiry_timestamp_seconds",
    "When the certificate that Tailchat last showed expires, in Unix seconds.",
    merge=Merge.MIN,
)

_log: Final = logging.getLogger(LOGGER_NAME)


class Reachability:
    """Records whether Tailchat answers; `clock` returns seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        #: None before the first call.
        self.up: bool | None = None
        self.faults: Final[Counter[str]] = Counter()
        self.certificate_expires = 0.0
        self._log = FaultLog(clock)

    def answered(self) -> None:
        """Record an answer."""
        if self.up is False:
            _log.info("Tailchat answers again")
        self.up = True

    def failed(self, cause: str, call: str, problem: str) -> None:
        """Record a fault; it is logged at most once a minute for each cause."""
        self.up = False
        self.faults[cause] += 1
        details = {"cause": cause, "call": call, "problem": problem}
        # An error only for certificates, which the operator must renew; callers log the rest.
        level = logging.ERROR if cause.startswith("certificate-") else logging.INFO
        self._log.tell(MESSAGES[cause], details, level=level)

    def collect(self) -> Iterator[Collected]:
        """Yield the metrics about Tailchat."""
        yield _FAULTS, by_one(self.faults, MESSAGES)
        yield _UP, () if self.up is None else (((), self.up),)
        yield _CERTIFICATE, (((), self.certificate_expires),) if self.certificate_expires else ()

    def watch(self, context: ssl.SSLContext) -> None:
        """Record in every handshake of `context` when the certificate expires."""
        after_handshakes(context, self._note)

    def _note(self, connection: ssl.SSLObject) -> None:
        self.certificate_expires = expiry_of(connection)


def cause_of(error: Exception) -> str:
    """Return the cause of a transport fault, a key of MESSAGES."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        refusal = error.certificate_error
        code = refusal.verify_code if isinstance(refusal, ssl.SSLCertVerificationError) else 0
        return _CERTIFICATE_CAUSES.get(code, "certificate-untrusted")
    for kinds, cause in _CAUSES:
        if isinstance(error, kinds):
            return cause
    if isinstance(error, aiohttp.ClientConnectorError):
        return "refused" if isinstance(error.os_error, ConnectionRefusedError) else "unreachable"
    was_closed = isinstance(error, (aiohttp.ServerConnectionError, aiohttp.ClientOSError))
    return "closed" if was_closed else "malformed"
