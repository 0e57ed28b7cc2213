from collections.abc import Sequence

import measure
import process
import pytest
import run
import soak
import work
import works
from benchkit import sampled
from peers import Stage


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (["--seconds", "0"], "not within 1 and 60"),
        (["--rounds", "1000"], "not within 1 and 50"),
        (["--connections", "x"], "invalid"),
        (["--peers", "nginx,iis"], "'iis' is none of nginx, haproxy,"),
        (["--work", "smal"], "'smal' is none of differ, mixed, other, repeated, differ-nothing,"),
    ],
)
def test_a_wrong_option_ends_with_2(
    given: Sequence[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An option out of bounds is refused with what would be right."""
    with pytest.raises(SystemExit) as ended:
        run.arguments(given)

    assert ended.value.code == 2
    assert problem in capsys.readouterr().err


def test_quick_bounds_the_run() -> None:
    """--quick is one round of a second, and few of everything."""
    options = run.arguments(["--quick", "--rounds", "9", "--idle", "10000"])

    assert (options.seconds, options.rounds, options.size) == (1, 1, 64)
    assert (options.idle, options.websockets, options.waiting) == (500, 200, 100)


def test_the_run_is_of_the_size_that_was_asked_for() -> None:
    """Without an option there are 10,000 idle connections, 5,000 WebSockets, 1,000 in flight."""
    options = run.arguments([])

    assert (options.connections, options.idle, options.websockets, options.waiting) == (
        32,
        10_000,
        5_000,
        1_000,
    )
    assert options.peers == options.work == ()
    assert options.oauth2_proxy is None


def test_works_and_peers_are_chosen_by_name() -> None:
    """A work keeps the entries of the peers that were asked for, and is left out without any."""
    picked = run.chosen(works.works(), ("small", "gate", "tunnel"), ("nginx", "caddy"), {})

    assert {one.name: [entry.name for entry in one.entries] for one in picked} == {
        "small": ["nginx", "caddy"],
        "tunnel": ["nginx", "caddy"],
    }


def test_a_peer_that_is_not_there_is_left_out() -> None:
    """A run of everything goes on without a peer that cannot run, and has all the rest."""
    every = works.works()
    picked = run.chosen(every, (), (), {"caddy": "caddy is missing"})

    assert [one.name for one in picked] == [one.name for one in every]
    assert [entry.name for entry in picked[-1].entries] == [
        "nginx",
        "haproxy",
        "envoy",
        "traefik",
        "gate",
    ]


def test_a_peer_that_is_asked_for_and_not_there_is_an_error() -> None:
    """Who asks for a peer by name is told why it cannot be measured."""
    with pytest.raises(process.BenchError, match="caddy cannot be measured: caddy is missing"):
        run.chosen(works.works(), (), ("nginx", "caddy"), {"caddy": "caddy is missing"})


def test_each_entry_has_each_place_in_turn() -> None:
    """The order rotates by one from round to round."""
    entries = [work.Entry(name, name, lambda stage, options: sampled(1)) for name in "abc"]
    orders = ["".join(entry.name for entry in run.rotated(entries, turn)) for turn in range(4)]

    assert orders == ["abc", "bca", "cab", "abc"]


@pytest.mark.parametrize("once", [False, True])
def test_rounds_are_interleaved_after_a_warm_up(*, once: bool) -> None:
    """Every entry is measured in each round; the warm-up is short and its figure is dropped."""
    calls: list[tuple[str, int]] = []

    def entry(name: str) -> work.Entry:
        def measured(_stage: object, options: work.Options) -> measure.Sample:
            calls.append((name, options.seconds))
            return sampled(len(calls))

        return work.Entry(name, name, measured)

    one = work.Work("work", "", "request", (entry("a"), entry("b")), once=once)
    stage = Stage.__new__(Stage)
    found = run.play(one, stage, work.Options(4, 1, 1, 1, 1), 3)

    first = [] if once else [("a", 1), ("b", 1)]
    later = ["a", "b"] if once else ["a", "b", "b", "a", "a", "b"]
    assert calls == first + [(name, 4) for name in later]
    assert [one["cpu_us"] for one in found["b"]] == ([2] if once else [4, 5, 8])


def test_a_soak_is_read_at_its_first_requests_and_at_its_last() -> None:
    """The first mark is after 10,000 requests, then one at each 100,000, and one at the end."""
    assert soak.steps(1_000_000) == [10_000, 90_000, *[100_000] * 9]
    assert soak.steps(150_000) == [10_000, 90_000, 50_000]
    assert soak.steps(500) == [500]


def test_a_soak_is_judged_by_its_greatest_growth() -> None:
    """Memory that was given back at the end is growth all the same."""
    grown = soak.Soak("gate", [10, 20, 30], [100 << 20, 106 << 20, 101 << 20], [1, 9, 2], 3)
    plain = soak.Soak("nginx", [10, 20], [10 << 20, 99 << 20], [1, 1], None)

    assert list(soak.rows([grown])[1]) == [
        "gate",
        "10 to 30",
        "100.0",
        "101.0",
        "6.0",
        "9.00",
        "3",
    ]
    assert [list(line) for line in soak.judged([grown, plain])[1:]] == [
        ["growth in MiB, gate", "5", "6.0", "NO"]
    ]
