"""Measures the gate beside its peers in one interleaved run and prints tables and goals."""

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import report
from bodies import Transfer, transfer
from measure import Sample
from peers import Stage
from process import BenchError, program, raise_file_limit
from scene import scene
from works import Entry, Options, Work, works

_BODY_PEERS = ("nginx", "caddy", "gate")


def bounded(low: int, high: int) -> Callable[[str], int]:
    """A parser of integers from `low` to `high`, for argparse."""

    def parse(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{value} is not within {low} and {high}")
        return value

    return parse


def words(text: str) -> tuple[str, ...]:
    """Names, separated by commas."""
    return tuple(text.split(","))


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=words, default=(), help="of the tables, by name")
    parser.add_argument("--peers", type=words, default=(), help="of the entries, by name")
    parser.add_argument("--seconds", type=bounded(1, 60), default=4, help="of load a measurement")
    parser.add_argument("--rounds", type=bounded(1, 50), default=5)
    parser.add_argument("--connections", type=bounded(1, 512), default=32)
    parser.add_argument("--idle", type=bounded(10, 100_000), default=10_000, help="connections")
    parser.add_argument("--websockets", type=bounded(10, 50_000), default=5_000, help="idle ones")
    parser.add_argument("--quick", action="store_true", help="1 second, 1 round, few connections")
    parser.add_argument("--bodies", action="store_true", help="measure the memory of large bodies")
    parser.add_argument("--size", type=bounded(1, 4096), default=1024, help="of a body, in MiB")
    parser.add_argument("--oauth2-proxy", default="", metavar="PATH", help="its binary")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample here")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables here")
    options = parser.parse_args(given)
    if options.quick:
        options.seconds, options.rounds, options.size = 1, 1, 64
        options.idle, options.websockets = 500, 200
    return options


def machine() -> dict[str, str]:
    """What the figures depend on, besides the code."""
    caddy = subprocess.run(
        [program("caddy"), "version"], capture_output=True, text=True, check=False
    )
    nginx = subprocess.run([program("nginx"), "-v"], capture_output=True, text=True, check=False)
    facts = {
        "cores": str(os.cpu_count()),
        "load": f"{os.getloadavg()[0]:.2f}",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "nginx": nginx.stderr.strip().rpartition("/")[2],
        "caddy": caddy.stdout.split(" ")[0].strip(),
    }
    for package in ("uvloop", "aiohttp"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            facts[package] = importlib.metadata.version(package)
    return facts


def rotated(entries: Sequence[Entry], turn: int) -> list[Entry]:
    """The entries in another order each turn."""
    first = turn % len(entries)
    return [*entries[first:], *entries[:first]]


def play(work: Work, stage: Stage, options: Options, rounds: int) -> dict[str, list[Sample]]:
    """All rounds of one work; the first load of each entry is a warm-up and not counted."""
    found: dict[str, list[Sample]] = {entry.name: [] for entry in work.entries}
    if not work.once:
        short = Options(1, options.connections, options.idle, options.websockets, options.waiting)
        for entry in work.entries:
            entry.measure(stage, short)
    for turn in range(1 if work.once else rounds):
        for entry in rotated(work.entries, turn):
            found[entry.name].append(entry.measure(stage, options))
            print(f"{work.name} {turn + 1}: {entry.name}", file=sys.stderr)
    return found


def chosen(every: Sequence[Work], options: argparse.Namespace) -> list[Work]:
    """The works and entries that were asked for. Raises BenchError for unknown names."""
    known = {work.name for work in every}
    if wrong := set(options.work) - known:
        raise BenchError(f"no work is called {', '.join(sorted(wrong))}; there are {sorted(known)}")
    picked = []
    for work in every:
        if options.work and work.name not in options.work:
            continue
        entries = tuple(
            entry
            for entry in work.entries
            if not options.peers or work.name == "gate" or entry.name in options.peers
        )
        if entries:
            picked.append(Work(work.name, work.title, work.unit, entries, work.once))
    return picked


def bodies(stage: Stage, options: argparse.Namespace) -> list[Transfer]:
    """One large body in both directions through each peer."""
    files = stage.scene.directory / "files"
    return [
        transfer(stage.peer(name, upstream), direction, files, options.size << 20)
        for name in _BODY_PEERS
        for direction, upstream in (("download", "web"), ("upload", "tool"))
    ]


def bodies_rows(transfers: Sequence[Transfer]) -> list[report.Row]:
    """One line a transfer."""
    head = ["peer, direction", "RSS MiB before", "peak", "growth", "seconds"]
    return [
        head,
        *(
            [
                f"{t.peer}, {t.direction}",
                *(f"{v:.1f}" for v in (t.before_mib, t.peak_mib, t.growth_mib, t.seconds)),
            ]
            for t in transfers
        ),
    ]


def told(title: str, *tables: Sequence[report.Row]) -> list[str]:
    """Print tables under their title; return them as Markdown."""
    print(f"\n{title}")
    lines = [f"### {title}", ""]
    for rows in tables:
        if rows:
            print("\n".join(report.align(rows)))
            lines += report.markdown(rows)
    return lines


def bench(options: argparse.Namespace) -> None:
    """Start everything, measure, print, and end everything."""
    files = raise_file_limit()
    for name in ("nginx", "caddy", "wrk"):
        program(name)
    facts = machine()
    started = "  ".join(f"{name} {value}" for name, value in facts.items())
    print(started)
    found: dict[str, Mapping[str, Sequence[Sample]]] = {}
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gate-bench-")))
        around = stack.enter_context(scene(directory, sys.executable, files))
        stage = Stage(around, stack, options.oauth2_proxy)
        if options.bodies:
            lines = told(f"{options.size} MiB a body", bodies_rows(bodies(stage, options)))
        else:
            lines = []
            load = Options(
                options.seconds, options.connections, options.idle, options.websockets, 1000
            )
            every = works(stage, oauth2_proxy=bool(options.oauth2_proxy))
            for work in chosen(every, options):
                rounds = found[work.name] = play(work, stage, load, options.rounds)
                tables = report.figures(rounds, work.unit), report.compared(rounds)
                lines += told(f"{work.name}: {work.title}", *tables)
            lines = [*told("Goals", report.judged(found)), *lines]
    shape = f"{options.connections} connections, {options.rounds} rounds of {options.seconds} s"
    if options.markdown:
        head = [f"`{started}`", "", f"{shape}; median (least-greatest).", ""]
        options.markdown.write_text("\n".join([*head, *lines]).rstrip() + "\n")
    if options.json:
        kept = {"machine": facts, "shape": shape, "rounds": found}
        options.json.write_text(json.dumps(kept, indent=2) + "\n")
    print(f"\n{shape}; {time.monotonic() - began:.0f} s in all")


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
