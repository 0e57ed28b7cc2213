"""The gate's own TLS: the certificate for each client, expiry dates, how many connections fit.

A context lives as long as its files are unchanged, so clients can resume their sessions after a
reload. After a change of a file they cannot, which a changed client_ca needs.
"""

import asyncio
import hashlib
import logging
import os
import ssl
from asyncio import sslproto
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from tailchat_gate.config.certificates import (
    CertificateFacts,
    certificate_files,
    date_problem,
    facts_of,
    server_context,
    wildcard_of,
)
from tailchat_gate.config.files import FileError
from tailchat_gate.config.model import Server
from tailchat_gate.observe.families import Collected, Family
from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.proxy.sockets import READ_BYTES

#: The most bytes of memory of a TLS connection with a head and an unread body: measured 207 kB on
#: asyncio's loop and 742 kB on uvloop's, whose read buffer is four times as large.
ASYNCIO_BYTES: Final = 256 << 10
UVLOOP_BYTES: Final = 768 << 10
#: TLS connections may take one in this many bytes of the process's memory.
_PART: Final = 2
_CGROUPS: Final = Path("/sys/fs/cgroup")
_OWN_CGROUPS: Final = Path("/proc/self/cgroup")
#: Seconds between two checks of expiry dates; a start and a reload check them too (config/lint).
LOOK_SECONDS: Final = 86_400.0
#: The outcomes of opening a connection. "crowded": it was ended to make room, and counts as
#: "failed" too. "refused": there was no room for it.
OUTCOMES: Final = ("opened", "failed", "slow", "refused", "crowded", "no-proxy-header")

_OPENED: Final = Family(
    "gate_connections_opened",
    "TLS handshakes and PROXY headers of clients that ended, by outcome.",
    ("outcome",),
)

#: The value of `clients_of` if clients need no certificate.
ANY_CLIENT: Final = b""

_log: Final = logging.getLogger(LOGGER_NAME)


def read_less() -> None:
    """Shrink the read buffers of asyncio's TLS connections in this process.

    By default each connection keeps one of 256 KiB from its beginning.
    """
    sslproto.SSLProtocol.max_size = READ_BYTES


def tls_connections(memory: int, *, uvloop: bool) -> int:
    """Return how many TLS connections fit into a process with `memory` bytes."""
    return max(1, memory // _PART // (UVLOOP_BYTES if uvloop else ASYNCIO_BYTES))


def memory_limit(own: Path = _OWN_CGROUPS, root: Path = _CGROUPS) -> int:
    """Return how many bytes of memory the machine and the cgroups allow this process. Blocks.

    The file `own` names its cgroups, whose files are below `root` (cgroups(7)).
    """
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min((machine, *_limits(own, root)))


def _limits(own: Path, root: Path) -> Iterator[int]:
    """Yield the limits of the cgroups and their parents, which limit their children too."""
    lines: list[str] = []
    with suppress(OSError, ValueError):
        lines = own.read_text().splitlines()
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if not controllers:
            folder, name = root, "memory.max"
        elif "memory" in controllers.split(","):
            folder, name = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        # In a container the path may be that of the machine, of which only the last part is there.
        path = Path(group.strip("/"))
        for each in (path, *path.parents):
            # "max" is no number, and means no limit.
            with suppress(OSError, ValueError):
                yield int((folder / each / name).read_text())


class CertificateWatch:
    """Checks the dates of the certificates in force; `clock` returns Unix seconds.

    `openings` counts TLS handshakes and PROXY headers by their outcome.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._facts: Sequence[CertificateFacts] = ()
        self._timer: asyncio.TimerHandle | None = None
        self.openings: Final[Counter[str]] = Counter()

    def use(self, facts: Sequence[CertificateFacts]) -> None:
        """Check these certificates from now on; needs a running event loop."""
        self._facts = facts
        self.close()
        if facts:
            self._wait()

    def close(self) -> None:
        """Stop checking."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def look(self) -> None:
        """Log each certificate that has expired or will soon."""
        for facts in self._facts:
            if problem := date_problem(facts, self._clock()):
                details = {"file": facts.file, "names": facts.names, "problem": problem}
                _log.warning("a certificate of the gate needs renewal", extra={"details": details})

    @property
    def expiries(self) -> dict[str, float]:
        """When the certificates expire, by file."""
        return {facts.file: facts.expires for facts in self._facts}

    def metrics(self) -> Iterator[Collected]:
        """Yield the outcomes of opening connections."""
        yield _OPENED, (((outcome,), self.openings[outcome]) for outcome in OUTCOMES)

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._wait()
        self.look()


class ServerTls:
    """The certificates of one configuration.

    Every new connection begins with `context`. `facts` has the names and dates of certificates.
    `digest` is equal for equal files and settings, `clients` if the same clients may connect.
    """

    def __init__(self, server: Server) -> None:
        """Read the files. Raises FileError."""
        files = _read(certificate_files(server))
        self.digest: Final = _digest(server, files)
        self.clients: Final = _clients(server, files)
        made = [server_context(each, server) for each in server.tls]
        try:
            self.facts: Final = tuple(map(facts_of, server.tls))
        except (OSError, ValueError):
            found = "a file that changed while it was read"
            raise FileError("server.tls", found, "certificates of X.509") from None
        self._by_name: Final = _by_name(zip(self.facts, made, strict=True))
        self.context: Final = made[0]
        for each in made:
            each.clients = self.clients
        self.context.sni_callback = self._choose

    def _choose(
        self, connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, _: ssl.SSLContext
    ) -> None:
        """Use the certificate for the name in the ClientHello (RFC 6066 section 3), if any."""
        wanted = (name or "").lower()
        context = self._by_name.get(wanted) or self._by_name.get(wildcard_of(wanted))
        if context is not None:
            connection.context = context


def server_tls(server: Server) -> ServerTls | None:
    """Return the TLS of a configuration, None if it has none. Raises FileError."""
    return ServerTls(server) if server.https_listen else None


def clients_of(tls: ServerTls | None) -> bytes:
    """Return a value that differs between configurations that admit different clients."""
    return ANY_CLIENT if tls is None else tls.clients


def _by_name(
    made: Iterable[tuple[CertificateFacts, ssl.SSLContext]],
) -> Mapping[str, ssl.SSLContext]:
    """Return the contexts by name; of two certificates for a name the first counts."""
    by_name: dict[str, ssl.SSLContext] = {}
    for facts, context in made:
        for name in facts.names:
            by_name.setdefault(name, context)
    return by_name


def _read(paths: Iterable[Path]) -> Mapping[Path, bytes]:
    """Return the files' contents. Raises FileError."""
    contents: dict[Path, bytes] = {}
    for path in paths:
        try:
            contents[path] = path.read_bytes()
        except OSError as error:
            wanted = "a file that can be read"
            raise FileError("server.tls", f"{path}: {error.strerror}", wanted) from None
    return contents


def _digest(server: Server, files: Mapping[Path, bytes]) -> bytes:
    """Return a value that changes with each file and setting of TLS."""
    digest = hashlib.sha256(repr((server.tls, server.client_certificate)).encode())
    # In the order of the settings: `files` has a file only once, even if two settings name it.
    for path in certificate_files(server):
        digest.update(hashlib.sha256(files[path]).digest())
    return digest.digest()


def _clients(server: Server, files: Mapping[Path, bytes]) -> bytes:
    """Return a value that changes with the requirements for a client's certificate."""
    if server.client_ca is None:
        return ANY_CLIENT
    authorities = files[Path(server.client_ca)]
    return hashlib.sha256(server.client_certificate.encode() + b"\n" + authorities).digest()
