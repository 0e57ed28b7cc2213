"""Measures the gate beside its peers in one interleaved run and prints tables and goals."""

import argparse
import contextlib
import itertools
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import report
import soak
from bodies import BODY_PEERS, Transfer, transfer
from goals import judged
from machine import machine
from matrix import matrix
from measure import Sample
from peers import Stage
from process import ENDING, BenchError, program, raise_file_limit
from roster import NAMES, absent
from scene import scene
from work import Entry, Options, Work
from works import GROUPS, works

_SOAK = "measure how memory grows over so many requests instead"
# Answers to a load that only shows that it works.
_QUICK = 500
_WORKS = tuple(work.name for work in works())

Tables = tuple[dict[str, list[str]], dict[str, object]]
"""What a scenario prints: lines of Markdown by their block, and the samples for --json."""


def bounded(low: int, high: int) -> Callable[[str], int]:
    """A parser of integers from `low` to `high`, for argparse."""

    def parse(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{value} is not within {low} and {high}")
        return value

    return parse


def names(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """A parser of some of the names `known`, separated by commas, for argparse."""

    def parse(text: str) -> tuple[str, ...]:
        given = tuple(text.split(","))
        for name in given:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return given

    return parse


def works_named(text: str) -> tuple[str, ...]:
    """The names of works in `text`, in which a group stands for all of it, for argparse."""
    given = names((*GROUPS, *_WORKS))(text)
    return tuple(itertools.chain.from_iterable(GROUPS.get(name, (name,)) for name in given))


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--work", type=works_named, default=(), help=", ".join((*GROUPS, *_WORKS)))
    add("--peers", type=names(NAMES), default=(), help=", ".join(NAMES))
    add("--seconds", type=bounded(1, 60), default=4, help="of load a measurement")
    add("--rounds", type=bounded(1, 50), default=5)
    add("--connections", type=bounded(1, 512), default=32, help="of a load")
    add("--all-cores", action="store_true", help="for the peers that can use more than one")
    add("--idle", type=bounded(10, 100_000), default=10_000, help="idle connections")
    add("--websockets", type=bounded(10, 50_000), default=5_000, help="idle WebSockets")
    add("--waiting", type=bounded(10, 5_000), default=1_000, help="requests to a slow tool")
    add(
        "--quick",
        action="store_true",
        help="1 round of 500 requests, 64 MiB bodies",
    )
    add("--bodies", action="store_true", help="measure the memory of large bodies instead")
    add("--soak", type=bounded(100, 10_000_000), default=0, metavar="REQUESTS", help=_SOAK)
    add("--size", type=bounded(1, 4096), default=1024, help="of a large body, in MiB")
    add(
        "--python",
        type=os.path.abspath,
        default=sys.executable,
        metavar="PATH",
        help="runs the gate",
    )
    add("--oauth2-proxy", type=Path, metavar="PATH", help="its binary")
    add("--json", type=Path, metavar="FILE", help="write every sample here")
    add("--markdown", type=Path, metavar="FILE", help="write the tables here")
    options = parser.parse_args(given)
    if options.oauth2_proxy:
        # It is run from another directory.
        options.oauth2_proxy = options.oauth2_proxy.resolve()
    if options.quick:
        options.seconds, options.rounds, options.size = 1, 1, 64
        options.idle, options.websockets, options.waiting = 500, 200, 100
    return options


def rotated(entries: Sequence[Entry], turn: int) -> list[Entry]:
    """The entries in another order each turn."""
    first = turn % len(entries)
    return [*entries[first:], *entries[:first]]


def play(work: Work, stage: Stage, options: Options, rounds: int) -> dict[str, list[Sample]]:
    """All rounds of one work; the first load of each entry is a warm-up and not counted."""
    found: dict[str, list[Sample]] = {entry.name: [] for entry in work.entries}
    if not work.once:
        for entry in work.entries:
            entry.measure(stage, replace(options, seconds=1))
    for turn in range(1 if work.once else rounds):
        for entry in rotated(work.entries, turn):
            found[entry.name].append(entry.measure(stage, replace(options, turn=turn + 1)))
            print(f"{work.name} {turn + 1}: {entry.name}", file=sys.stderr)
    return found


def chosen(
    every: Sequence[Work], wanted: Sequence[str], peers: Sequence[str], without: Mapping[str, str]
) -> list[Work]:
    """The works called `wanted`, with the entries of `peers`; an empty list means all.

    `without`: the peers that are not there, each with the reason. Raises BenchError where one of
    them is among `peers`.
    """
    for name in peers:
        if name in without:
            raise BenchError(f"{name} cannot be measured: {without[name]}")
    works_left = []
    for work in every:
        entries = tuple(
            entry
            for entry in work.entries
            if entry.peer not in without and (not peers or entry.peer in peers)
        )
        if entries and (not wanted or work.name in wanted):
            works_left.append(replace(work, entries=entries))
    return works_left


def bodies(stage: Stage, peers: Sequence[str], size: int) -> list[Transfer]:
    """One body of `size` bytes in both directions through each peer."""
    files = stage.scene.directory / "files"
    return [
        transfer(stage.peer(name, upstream), direction, files, size)
        for name in peers
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


def printed(title: str, *tables: tuple[str, Sequence[report.Row]]) -> list[str]:
    """Print tables, each with its caption, under their title; return them as Markdown."""
    print(f"\n{title}")
    lines = [f"### {title}", ""]
    for caption, rows in tables:
        if rows:
            print("\n".join([*([caption] * bool(caption)), *report.align(rows)]), flush=True)
            lines += [f"{caption}:", ""] if caption else []
            lines += report.markdown(rows)
    return lines


def measured(stage: Stage, chosen_works: Sequence[Work], options: argparse.Namespace) -> Tables:
    """Play the works; print the tables after each, or after each family, and the goals at last."""
    load = Options(
        options.seconds,
        options.connections,
        options.idle,
        options.websockets,
        options.waiting,
        count=_QUICK if options.quick else 0,
    )
    found: dict[str, Mapping[str, Sequence[Sample]]] = {}
    blocks: dict[str, list[str]] = {}
    for family, members in itertools.groupby(chosen_works, lambda work: work.family):
        kin = list(members)
        for work in kin:
            rounds = found[work.name] = play(work, stage, load, options.rounds)
            if not family:
                tables = report.figures(rounds, work.unit), report.compared(rounds, work.baseline)
                blocks.setdefault(work.block, []).extend(
                    printed(f"{work.name}: {work.title}", *(("", table) for table in tables))
                )
        if family:
            blocks.setdefault(kin[0].block, []).extend(
                printed(f"{family.name}: {family.title}", *matrix(kin, found, family.head))
            )
    for block, lines in blocks.items():
        names = {work.name for work in chosen_works if work.block == block}
        if goals := judged({name: rounds for name, rounds in found.items() if name in names}):
            lines[:0] = printed(f"Goals, {block}", ("", goals))
    return blocks, {"rounds": found}


def weighed(stage: Stage, peers: Sequence[str], options: argparse.Namespace) -> Tables:
    """Send the large bodies and print their table."""
    transfers = bodies(stage, peers, options.size << 20)
    lines = printed(f"{options.size} MiB a body", ("", bodies_rows(transfers)))
    return {"bodies": lines}, {"bodies": [asdict(one) for one in transfers]}


def soaked(stage: Stage, peers: Sequence[str], options: argparse.Namespace) -> Tables:
    """Send a great many requests and print what memory they left behind."""
    found = soak.soaks(stage, peers, options.soak)
    lines = printed(
        "soak: requests that all differ", ("", soak.rows(found)), ("", soak.judged(found))
    )
    return {"soak": lines}, soak.samples(found)


def bench(options: argparse.Namespace) -> None:
    """Start everything, measure, print, and end everything."""
    files = raise_file_limit()
    for name in ("nginx", "wrk"):
        program(name)
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gate-bench-")))
        without = absent(directory.parent, options.oauth2_proxy)
        picked = chosen(works(), options.work, options.peers, without)
        facts = machine(options.python, options.oauth2_proxy, without)
        started = "  ".join(f"{name} {value}" for name, value in facts.items())
        print(started)
        for name, reason in without.items():
            print(f"without {name}: {reason}")
        around = stack.enter_context(scene(directory, options.python, files))
        stage = Stage(
            around,
            stack,
            load=options.connections,
            threads=0 if options.all_cores else 1,
            oauth2_proxy=options.oauth2_proxy,
        )
        if options.soak:
            blocks, samples = soaked(stage, soak.chosen(options.peers), options)
        elif options.bodies:
            peers = [name for name in BODY_PEERS if name in (options.peers or BODY_PEERS)]
            blocks, samples = weighed(stage, [p for p in peers if p not in without], options)
        else:
            blocks, samples = measured(stage, picked, options)
    shape = f"{options.connections} connections, {options.rounds} rounds of {options.seconds} s"
    if options.quick:
        shape = f"{options.connections} connections, 1 round of {_QUICK} answers a load"
    if options.soak or options.bodies:
        shape = f"{soak.CONNECTIONS} connections" if options.soak else "1 connection"
    if options.markdown:
        head = [
            f"`{started}`",
            "",
            f"{shape}; median (least-greatest) where there is more than one round.",
            "",
        ]
        report.put(options.markdown, {name: [*head, *lines] for name, lines in blocks.items()})
    if options.json:
        options.json.write_text(json.dumps({"machine": facts, "shape": shape} | samples, indent=2))
    print(f"\n{shape}; {time.monotonic() - began:.0f} s in all")


def _stop(signum: int, _frame: object) -> None:
    # Once is enough; what is being ended then must not be left half done.
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + signum)


def main() -> None:
    """Exit 0 with a table, 1 when a measurement failed, 2 for a wrong option."""
    for number in ENDING:
        signal.signal(number, _stop)
    options = arguments(sys.argv[1:])
    try:
        bench(options)
    except BenchError as problem:
        sys.exit(f"bench: {problem}")


if __name__ == "__main__":
    main()
