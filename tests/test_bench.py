# ruff: noqa: E402 (bench is a folder of scripts: its path is set before they are imported)
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench"
sys.path.insert(0, str(BENCH))

import login
import measure
import process
import report
import run

STAT = (
    "42 (a (very) odd name) S 7 42 42 0 -1 4194560 100 200 0 0 "
    "11 22 33 44 20 0 1 0 987654 1000000 250 18446744073709551615\n"
)
WRK = (
    "Running 1s test @ http://127.0.0.1/\n"
    '{"requests": 1000, "duration": 2000000, "p50": 500, "p99": 2500, "failed": 0}\n'
)


def sampled(cpu_us: float, p99_ms: float = 1.0) -> measure.Sample:
    """A sample in which only these two figures matter."""
    return measure.Sample(cpu_us=cpu_us, rate=1.0, p50_ms=1.0, p99_ms=p99_ms, rss_mib=1.0)


def test_stat_reads_around_a_command_name_with_brackets() -> None:
    """The fields of /proc/<pid>/stat are counted from the last bracket of the command name."""
    stat = process.parse_stat(STAT)

    assert (stat.parent, stat.ticks, stat.born) == (7, 110, 987654)
    assert stat.rss == 250 * os.sysconf("SC_PAGE_SIZE")


def test_wrk_is_read_from_its_json_line() -> None:
    """The line that result.lua prints is found in wrk's own report."""
    assert measure.parse_wrk(WRK) == measure.Load(1000, 2_000_000, 500, 2500, 0)


def test_wrk_without_a_result_is_an_error() -> None:
    """A report without the JSON line is refused, not read as zero."""
    with pytest.raises(process.BenchError, match="no result"):
        measure.parse_wrk("unable to connect\n")


def test_a_sample_is_per_request() -> None:
    """CPU seconds become microseconds a request, wrk's microseconds become milliseconds."""
    got = measure.sample(measure.parse_wrk(WRK), cpu=0.05, rss=3 << 20)

    assert got == measure.Sample(cpu_us=50.0, rate=500.0, p50_ms=0.5, p99_ms=2.5, rss_mib=3.0)


@pytest.mark.parametrize(("requests", "failed"), [(1000, 1), (0, 0)])
def test_failed_requests_spoil_a_sample(requests: int, failed: int) -> None:
    """A load with a failed request, or with none answered, yields no figure."""
    with pytest.raises(process.BenchError, match="requests failed"):
        measure.sample(measure.Load(requests, 1, 1, 1, failed), cpu=1.0, rss=1)


def test_ratios_are_taken_round_by_round() -> None:
    """A ratio relates two peers within a round, so a slow round does not spoil it."""
    rounds = {"gate": [sampled(60), sampled(120)], "caddy": [sampled(100), sampled(200)]}

    assert report.ratios(rounds, "gate", "caddy", lambda s: s.cpu_us) == [0.6, 0.6]


def test_the_table_shows_median_and_spread() -> None:
    """The table holds median, least and greatest, and the gate's ratio to every other peer."""
    rounds = {
        "nginx": [sampled(20), sampled(25), sampled(30)],
        "gate": [sampled(50, 2), sampled(50, 3), sampled(60, 4)],
    }
    lines = report.table(rounds)

    assert "25.0 (20.0-30.0)" in lines[1]
    assert "gate/nginx" in lines[-1]
    assert "2.00 (2.00-2.50)" in lines[-1]
    assert "3.00 (2.00-4.00)" in lines[-1]


def test_the_table_has_no_ratio_without_the_gate() -> None:
    """Peers alone are listed without ratios."""
    assert len(report.table({"nginx": [sampled(20)], "caddy": [sampled(90)]})) == 3


def test_each_peer_has_each_place_in_turn() -> None:
    """The order rotates by one from round to round."""
    peers = [measure.Peer(name, "", 0, Path()) for name in "abc"]
    orders = ["".join(peer.name for peer in run.rotated(peers, turn)) for turn in range(4)]

    assert orders == ["abc", "bca", "cab", "abc"]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (["--seconds", "0"], "not within 1 and 60"),
        (["--rounds", "1000"], "not within 1 and 50"),
        (["--connections", "x"], "invalid"),
        (["--peers", "apache"], "only nginx, caddy, gate are known"),
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
    """--quick is one second, two rounds, 64 MiB."""
    options = run.arguments(["--quick", "--rounds", "9"])

    assert (options.seconds, options.rounds, options.size) == (1, 2, 64)


def test_a_missing_program_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that is nowhere is an error that says what to install."""
    monkeypatch.setattr("process.shutil.which", lambda name, path: None)

    with pytest.raises(process.BenchError, match=r"wrk is missing; .*Debian: wrk"):
        process.program("wrk")


def test_the_first_form_of_a_page_is_read() -> None:
    """Action, method and every named field are taken, the second form and stray fields not."""
    page = """
        <input name=stray value=1>
        <form action="/open/x/login" METHOD=POST>
          <input name="email"><input type=hidden name=csrf value="a&amp;b"><button>Go</button>
        </form>
        <input name=after value=1>
        <form action="/other"><input name=q></form>"""

    assert login.first_form(page) == login.Form(
        "/open/x/login", "post", {"email": "", "csrf": "a&b"}
    )


def test_a_page_without_a_form_has_none() -> None:
    """A page without a form yields None."""
    assert login.first_form("<p>nothing here</p>") is None


def test_a_process_and_its_children_end_with_the_block(tmp_path: Path) -> None:
    """What a block started is gone after it, also a child that ignores being asked."""
    stubborn = "trap '' TERM; echo ready; while :; do sleep 60; done"
    args = ["sh", "-c", f'sh -c "{stubborn}" & wait']
    output = tmp_path / "out"
    with process.running(args, output=output) as pid:
        while "ready" not in output.read_text():
            time.sleep(0.01)
        members = process.family(pid)

    assert len(members) >= 2
    assert not [child for child in members if alive(child)]


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text[text.rindex(")") + 2] not in "ZX"


def test_a_server_that_dies_is_reported_with_its_words(tmp_path: Path) -> None:
    """A peer that ends at its start is an error that quotes what it wrote."""
    output = tmp_path / "peer.log"
    with process.running(["sh", "-c", "echo bad config; exit 1"], output=output) as pid:
        port = process.free_port()
        with pytest.raises(process.BenchError, match=r"peer wrote:\nbad config"):
            process.wait_until_answering(pid, f"http://127.0.0.1:{port}/", output)


def needs_programs() -> None:
    """Skip, or in CI fail, where a program of the harness is missing."""
    try:
        for name in ("nginx", "wrk", "caddy"):
            process.program(name)
    except process.BenchError as problem:
        if os.environ.get("CI"):
            pytest.fail(str(problem))
        pytest.skip(str(problem))


def started_run(tmp_path: Path, *options: str) -> subprocess.Popen[str]:
    """The harness as a program, with its temporary files under `tmp_path`."""
    return subprocess.Popen(
        [sys.executable, str(BENCH / "run.py"), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )


def test_the_peers_are_measured_for_real(tmp_path: Path) -> None:
    """A quick run signs in at the gate, prints a table, leaves its samples and nothing else."""
    needs_programs()
    kept = tmp_path / "out.json"
    harness = started_run(tmp_path, "--quick", "--json", str(kept))
    out, err = harness.communicate(timeout=50)

    assert harness.returncode == 0, err
    assert "us CPU/request" in out
    assert "gate/caddy" in out
    samples = json.loads(kept.read_text())["rounds"]
    assert {name: len(several) for name, several in samples.items()} == dict.fromkeys(
        ("nginx", "caddy", "gate"), 2
    )
    assert all(one["cpu_us"] > 0 for several in samples.values() for one in several)
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_large_bodies_arrive_whole(tmp_path: Path) -> None:
    """The body scenario counts every byte through each peer and prints the growth."""
    needs_programs()
    harness = started_run(tmp_path, "--bodies", "--size", "16")
    out, err = harness.communicate(timeout=50)

    assert harness.returncode == 0, err
    assert [line.split()[:2] for line in out.splitlines()[-6:]] == [
        [peer, direction]
        for peer in ("nginx", "caddy", "gate")
        for direction in ("download", "upload")
    ]


def test_the_gate_takes_large_bodies_in_constant_memory(tmp_path: Path) -> None:
    """256 MiB down and up, with a reader that pauses, cost the gate a bounded buffer."""
    needs_programs()
    kept = tmp_path / "out.json"
    options = ("--bodies", "--size", "256", "--peers", "gate", "--json", str(kept))
    _, err = (harness := started_run(tmp_path, *options)).communicate(timeout=50)

    assert harness.returncode == 0, err
    for body in json.loads(kept.read_text())["bodies"]:
        assert body["peak_mib"] - body["before_mib"] < 32, body


def test_a_run_that_is_ended_ends_what_it_started(tmp_path: Path) -> None:
    """After SIGTERM no server of the run lives and no file of it is left."""
    needs_programs()
    harness = started_run(tmp_path, "--rounds", "50")
    limit = time.monotonic() + 30
    while len(members := process.family(harness.pid)) < 9 and time.monotonic() < limit:
        time.sleep(0.05)
    harness.send_signal(signal.SIGTERM)
    harness.communicate(timeout=30)

    assert len(members) >= 9
    assert harness.returncode == 128 + signal.SIGTERM
    assert not [pid for pid in members if alive(pid)]
    assert list(tmp_path.iterdir()) == []
