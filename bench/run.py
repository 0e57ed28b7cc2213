"""Measures the gate beside nginx and Caddy in one interleaved run and prints the ratios."""

import argparse
import contextlib
import dataclasses
import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import report
from bodies import Transfer, transfer
from measure import Peer, Sample, measure
from peers import BODY, NAMES, Place, started, upstream
from process import BenchError, program


def bounded(low: int, high: int) -> Callable[[str], int]:
    """A parser of integers from `low` to `high`, for argparse."""

    def parse(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{value} is not within {low} and {high}")
        return value

    return parse


def chosen(text: str) -> tuple[str, ...]:
    """Names of peers, separated by commas, in the order of the table."""
    asked = set(text.split(","))
    if not asked <= set(NAMES):
        raise argparse.ArgumentTypeError(f"only {', '.join(NAMES)} are known")
    return tuple(name for name in NAMES if name in asked)


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=bounded(1, 60), default=5, help="of load a measurement")
    parser.add_argument("--rounds", type=bounded(1, 50), default=5)
    parser.add_argument("--connections", type=bounded(1, 512), default=32)
    parser.add_argument("--peers", type=chosen, default=NAMES, help="default: nginx,caddy,gate")
    parser.add_argument("--bodies", action="store_true", help="measure large bodies instead")
    parser.add_argument("--size", type=bounded(1, 4096), default=1024, help="of a body, in MiB")
    parser.add_argument("--quick", action="store_true", help="1 second, 2 rounds, 64 MiB")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample here")
    options = parser.parse_args(given)
    if options.quick:
        options.seconds, options.rounds, options.size = 1, 2, 64
    return options


def machine() -> dict[str, str]:
    """What the figures depend on besides the code."""
    versions = {}
    for package in ("aiohttp", "uvloop"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "cores": str(os.cpu_count()),
        "load": f"{os.getloadavg()[0]:.2f}",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "nginx": _line("nginx", "-v").rpartition("/")[2],
        "caddy": _line("caddy", "version").split(" ")[0],
        "uvloop": "none",
        **versions,
    }


def _line(name: str, flag: str) -> str:
    done = subprocess.run([program(name), flag], capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip()


def rotated(peers: Sequence[Peer], turn: int) -> list[Peer]:
    """The peers in the order of round `turn`: each comes first, second and last equally often."""
    start = turn % len(peers)
    return [*peers[start:], *peers[:start]]


def small_requests(peers: Sequence[Peer], options: argparse.Namespace) -> dict[str, list[Sample]]:
    """All rounds of the first scenario; the first load of each peer is a warm-up and dropped."""

    def once(peer: Peer, seconds: int) -> Sample:
        return measure(peer, seconds=seconds, connections=options.connections, body=BODY)

    rounds: dict[str, list[Sample]] = {peer.name: [] for peer in peers}
    for peer in peers:
        once(peer, min(2, options.seconds))
    for turn in range(options.rounds):
        for peer in rotated(peers, turn):
            result = once(peer, options.seconds)
            rounds[peer.name].append(result)
            print(
                f"round {turn + 1}/{options.rounds}  {peer.name:<6} {result.cpu_us:6.1f} us",
                file=sys.stderr,
            )
    return rounds


def large_bodies(peers: Sequence[Peer], options: argparse.Namespace, files: Path) -> list[Transfer]:
    """Both directions of the second scenario through each peer."""
    return [
        transfer(peer, direction, files, options.size << 20)
        for peer in peers
        for direction in ("download", "upload")
    ]


def bodies_table(transfers: Sequence[Transfer]) -> list[str]:
    """One line a transfer."""
    head = ["peer", "direction", "RSS MiB before", "peak", "growth", "seconds"]
    body = [
        [
            t.peer,
            t.direction,
            *(f"{value:.1f}" for value in (t.before_mib, t.peak_mib, t.growth_mib, t.seconds)),
        ]
        for t in transfers
    ]
    return report.align([head, *body])


def bench(options: argparse.Namespace) -> None:
    """Start everything, measure, print, and end everything."""
    for name in ("nginx", "caddy", "wrk"):
        program(name)
    facts = machine()
    print("  ".join(f"{name} {value}" for name, value in facts.items()))
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gate-bench-")))
        place = Place(directory, options.connections)
        behind = stack.enter_context(upstream(place))
        peers = [stack.enter_context(started(name, place, behind)) for name in options.peers]
        # Everyone gets the same request; a cookie is work for who only forwards it, too.
        headers = tuple(header for peer in peers for header in peer.headers)
        peers = [dataclasses.replace(peer, headers=headers) for peer in peers]
        kept: dict[str, object] = {"machine": facts, "options": _plain(options)}
        if options.bodies:
            transfers = large_bodies(peers, options, directory / "files")
            lines = [f"{options.size} MiB a body", *bodies_table(transfers)]
            kept["bodies"] = [dataclasses.asdict(one) for one in transfers]
        else:
            rounds = small_requests(peers, options)
            shape = f"{options.connections} connections, {options.rounds} rounds"
            head = f"{shape} of {options.seconds} s; median (least-greatest)"
            lines = [head, *report.table(rounds)]
            kept["rounds"] = {
                name: [dataclasses.asdict(one) for one in samples]
                for name, samples in rounds.items()
            }
    print("\n".join(lines))
    if options.json:
        options.json.write_text(json.dumps(kept, indent=2) + "\n")


def _plain(options: argparse.Namespace) -> dict[str, object]:
    return {name: value for name, value in vars(options).items() if name != "json"}


def _stop(signum: int, _frame: object) -> None:
    raise SystemExit(128 + signum)


def main() -> None:
    """Exit 0 with a table, 1 when a measurement failed, 2 for what the caller can put right."""
    # A harness told to end still ends what it has started.
    signal.signal(signal.SIGTERM, _stop)
    options = arguments(sys.argv[1:])
    try:
        bench(options)
    except BenchError as problem:
        sys.exit(f"bench: {problem}")


if __name__ == "__main__":
    main()
