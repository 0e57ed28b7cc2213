"""How much more two workers answer than one, in work that is nearly all the gate's own.

No tool is behind the gate: each answer is its own, so that on a machine with few processors the
load generator is the only other program that wants one. One gate of each kind runs all the time,
and both are measured in turn; medians are compared. On two processors wrk takes a part of one: the
column "wrk" says how much of a processor it took meanwhile.
"""

import argparse
import contextlib
import secrets
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

from certificate import make_certificate
from measure import Ask, Peer, Sample, measure
from process import free_port, running, wait_until_answering
from sealed import cookies

_SESSIONS = 50_000
_CONFIG = """\
[server]
public_url = "{origin}"
listen = "127.0.0.1:{port}"
https_listen = "127.0.0.1:{https}"
tls = [{{ certificate = "{chain}", key = "{key}" }}]
admin_listen = "127.0.0.1:{admin}"
trusted_proxies = ["127.0.0.1"]
workers = {workers}
[tailchat]
api_url = "http://127.0.0.1:9"
client_id = "tc_workers"
client_secret = "{secret}"
people_refresh = "0"
[session]
secret = "{secret}"
[state]
path = "{state}"
[limits]
client_connections = 100000
client_requests = 100000
handshakes = 10000
tls_connections = 10000
[log]
access = false
[[route]]
name = "own"
path = "/"
upstream = "static:204"
[[route]]
name = "public"
path = "/public"
upstream = "static:204"
allow = ["public"]
"""


@contextlib.contextmanager
def gate(directory: Path, workers: int, secret: str) -> Iterator[tuple[Peer, Peer]]:
    """Run a gate; yield it by HTTP and by HTTPS."""
    directory.mkdir()
    port, https, admin = free_port(), free_port(), free_port()
    certificate, state = make_certificate(directory), directory / "state"
    state.mkdir(0o700)
    config, log = directory / "config.toml", directory / "gate.log"
    values: Mapping[str, object] = {
        "origin": "https://localhost",
        "port": port,
        "https": https,
        "admin": admin,
        "chain": certificate.chain,
        "key": certificate.key,
        "workers": workers,
        "secret": secret,
        "state": state,
    }
    config.write_text(_CONFIG.format(**values))
    config.chmod(0o600)
    args = (sys.executable, "-m", "tailchat_gate", "serve", "-c", str(config))
    with running(args, output=log) as pid:
        wait_until_answering(pid, f"http://127.0.0.1:{admin}/readyz", log)
        origins = f"http://127.0.0.1:{port}", f"https://127.0.0.1:{https}"
        plain, by_tls = (Peer(f"{workers}", one, (pid,), (), "") for one in origins)
        yield plain, by_tls


def works(directory: Path, secret: str) -> Mapping[str, tuple[Ask, bool]]:
    """Return what is asked, by its title, and whether by TLS."""
    file = directory / "cookies"
    file.write_text("\n".join(cookies(secret, "https://localhost", _SESSIONS)))
    asked = ("X-Forwarded-Host: localhost", "X-Forwarded-Method: GET")
    host = ("Host: localhost", "X-Forwarded-Proto: https")
    first = file.read_text().partition("\n")[0]
    mine = (*host, f"Cookie: {first}")
    return {
        "a session that is new to the worker": (
            Ask(headers=host, session=False, status=204, cookies=file),
            False,
        ),
        "a TLS handshake, and one request": (
            Ask("/public", headers=host, session=False, status=204, close=True),
            True,
        ),
        "the launcher": (Ask("/oauth2", headers=mine, session=False), False),
        "/oauth2/auth, each time about another address": (
            Ask(
                "/oauth2/auth",
                headers=(*mine, *asked, "X-Forwarded-Uri: /"),
                session=False,
                status=202,
                differs="original",
            ),
            False,
        ),
        "a small response of the gate's own": (
            Ask(headers=mine, session=False, status=204),
            False,
        ),
    }


def lines(found: Mapping[str, Mapping[int, Sequence[Sample]]]) -> Iterator[str]:
    """Yield the table."""
    yield "| work | one worker/s | two/s | times | CPU us, one | two | wrk, one | two |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for title, samples in found.items():
        rate, cpu, wrk = (
            [median(one[key] for one in samples[count]) for count in (1, 2)]
            for key in ("rate", "cpu_us", "loader")
        )
        yield (
            f"| {title} | {rate[0]:,.0f} | {rate[1]:,.0f} | {rate[1] / rate[0]:.2f} "
            f"| {cpu[0]:.1f} | {cpu[1]:.1f} | {wrk[0]:.2f} | {wrk[1]:.2f} |"
        )


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, choices=range(1, 21), default=5, help="(5)")
    parser.add_argument("--seconds", type=int, choices=range(1, 61), default=4, help="of each (4)")
    parser.add_argument("--connections", type=int, choices=range(2, 1025), default=32, help="(32)")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="gate-workers-") as name,
        contextlib.ExitStack() as all_,
    ):
        directory, secret = Path(name), secrets.token_urlsafe(32)
        gates = {
            count: all_.enter_context(gate(directory / str(count), count, secret))
            for count in (1, 2)
        }
        asks = works(directory, secret)
        found: dict[str, dict[int, list[Sample]]] = {title: {1: [], 2: []} for title in asks}
        for turn in range(options.rounds):
            for title, (ask, by_tls) in asks.items():
                for count, peers in gates.items():
                    sample = measure(
                        peers[by_tls],
                        ask,
                        seconds=options.seconds,
                        connections=options.connections,
                        seed=turn,
                    )
                    found[title][count].append(sample)
    print("\n".join(lines(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
