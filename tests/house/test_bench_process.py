import os
import signal
import sys
from pathlib import Path

import process
import pytest
from benchkit import alive, wait_for

STAT = (
    "42 (a (very) odd name) S 7 42 42 0 -1 4194560 100 200 0 0 "
    "11 22 33 44 20 0 1 0 987654 1000000 250 18446744073709551615\n"
)


def test_stat_reads_around_a_command_name_with_brackets() -> None:
    """The fields of /proc/<pid>/stat are counted from the last bracket of the command name."""
    stat = process.parse_stat(STAT)

    assert (stat.parent, stat.ended, stat.born) == (7, 77, 987654)
    assert stat.rss == 250 * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("ended", [False, True])
def test_cpu_time_counts_children(tmp_path: Path, *, ended: bool) -> None:
    """What a child of a peer works is the peer's, while the child lives and afterwards."""
    work = f"{sys.executable} -c 'x = sum(range(10_000_000))' ; echo worked"
    args = ["sh", "-c", work if ended else f"({work}; read forever) & wait"]
    output = tmp_path / "out"
    with process.running(args, output=output) as pid:
        wait_for(output, "worked")
        used = process.cpu_seconds([pid])

    assert used > 0.05


def test_resident_memory_counts_children(tmp_path: Path) -> None:
    """The memory of a peer is that of all its processes."""
    hungry = "x = bytearray(64 << 20); print('full', flush=True); input()"
    output = tmp_path / "out"
    args = ["sh", "-c", f'sleep 60 | {sys.executable} -c "{hungry}"; true']
    with process.running(args, output=output) as pid:
        wait_for(output, "full")

        assert process.rss_bytes([pid]) > 64 << 20


def test_a_missing_program_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that is nowhere is an error that says what to install."""
    monkeypatch.setattr("process.shutil.which", lambda name, path: None)

    with pytest.raises(process.BenchError, match=r"wrk is missing; .*Debian: wrk"):
        process.program("wrk")


def test_a_process_and_its_children_end_with_the_block(tmp_path: Path) -> None:
    """What a block started is gone after it, also a child that ignores being asked."""
    stubborn = "trap '' TERM; echo ready; while :; do sleep 60; done"
    output = tmp_path / "out"
    with process.running(["sh", "-c", f'sh -c "{stubborn}" & wait'], output=output) as pid:
        wait_for(output, "ready")
        members = process.family(pid)

    assert len(members) >= 2
    assert not [child for child in members if alive(child)]


def test_a_signal_is_put_off_while_a_process_starts() -> None:
    """What comes within an undisturbed block flies at its end, when the process has an owner."""
    told = []

    def stop(signum: int, _frame: object) -> None:
        told.append(signum)
        raise SystemExit

    before = signal.signal(signal.SIGTERM, stop)
    try:
        block = process.undisturbed()
        block.__enter__()
        os.kill(os.getpid(), signal.SIGTERM)
        within = list(told)
        with pytest.raises(SystemExit):
            block.__exit__(None, None, None)
    finally:
        signal.signal(signal.SIGTERM, before)

    assert within == []
    assert told == [signal.SIGTERM]


def test_a_server_that_dies_is_reported_with_its_words(tmp_path: Path) -> None:
    """A peer that ends at its start is an error that quotes what it wrote."""
    output = tmp_path / "peer.log"
    with process.running(["sh", "-c", "echo bad config; exit 1"], output=output) as pid:
        port = process.free_port()
        with pytest.raises(process.BenchError, match=r"peer wrote:\nbad config"):
            process.wait_until_answering(pid, f"http://127.0.0.1:{port}/", output)


def test_a_port_is_given_to_one_process() -> None:
    """Another process that looks at a port before a server listens there is given the next one."""
    port = process.free_port()
    lines = (
        f"import sys; sys.path.insert(0, {str(Path(process.__file__).parent)!r})",
        f"import process; process._candidates = iter([{port}, *process._PORTS])",
        "print(process.free_port())",
    )
    assert int(process.finished([sys.executable, "-c", "\n".join(lines)], limit=60)) != port


def test_a_program_that_fails_is_reported_with_its_words() -> None:
    """A loader that ends badly is an error that quotes what it wrote."""
    assert process.finished(["cat"], limit=10, given="words") == "words"
    with pytest.raises(process.BenchError, match=r"sh failed: no good"):
        process.finished(["sh", "-c", "echo no good >&2; exit 3"], limit=10)


def test_a_program_that_hangs_is_ended() -> None:
    """A loader that does not end in its time is an error, and gone."""
    mine = set(process.family(os.getpid()))
    with pytest.raises(process.BenchError, match="sleep took longer than 0 s"):
        process.finished(["sleep", "60"], limit=0.1)

    assert {pid for pid in process.family(os.getpid()) if alive(pid)} <= mine
