from pathlib import Path

import differing
import measure
import others
import process
import pytest
from benchkit import loaded, needs, serving

WRK = (
    "Running 1s test @ http://127.0.0.1/\n"
    '{"requests": 1000, "duration": 2000000, "p50": 500, "p99": 2500, "failed": 0, "why": ""}\n'
)


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


def test_a_session_takes_the_cookies_that_a_peer_renews() -> None:
    """A visitor sends the new value from then on, and nothing that is deleted or another's."""
    session = measure.Session({"one": "1", "two": "2"})
    session.take(["two=22; Path=/; HttpOnly", "one=; Max-Age=0", "third=3"])

    assert session.header == "Cookie: one=1; two=22"


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
    sent = [head["cookie"] for head in heard.of_load()]

    assert set(sent) == {f"session={number}" for number in range(7)}
    counts = [sent.count(cookie) for cookie in sorted(set(sent))]
    assert max(counts) - min(counts) <= 2


def test_a_load_sends_the_session_that_was_renewed_before() -> None:
    """A peer that renews its session is loaded with the new one, as by a browser."""
    with serving(set_cookie="mine=2; Path=/") as heard:
        loaded(heard, measure.Ask())

    assert heard.heads[0]["cookie"] == "mine=1"
    assert {head["cookie"] for head in heard.heads[1:]} == {"mine=2"}


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
    sent = heard.of_load()

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
        sent = [str(head).replace(heard.origin[len("http://") :], "") for head in heard.of_load()]
        # wrk writes what it asks next before it hears that it is over.
        loads.append(set(sorted(sent)[:90]))

    assert loads[0] == loads[1]
    assert not loads[0] & loads[2]


def test_a_session_that_is_sent_twice_yields_no_figure(tmp_path: Path) -> None:
    """A load of first requests fails when it has no new session left."""
    needs("wrk")
    cookies = tmp_path / "cookies"
    cookies.write_text("".join(f"session={number}\n" for number in range(7)))
    ask = measure.Ask("/page", session=False, differs="path", cookies=cookies, once=True)
    with serving() as heard, pytest.raises(process.BenchError, match="wrong"):
        loaded(heard, ask)


def test_a_new_session_has_all_the_fields_of_a_browser(tmp_path: Path) -> None:
    """Where requests differ, the cookies of a file are sessions among the twelve fields."""
    cookies = tmp_path / "cookies"
    cookies.write_text("".join(f"session={number}\n" for number in range(500)))
    ask = measure.Ask("/page", session=False, differs="cookie", cookies=cookies, once=True)
    with serving() as heard:
        loaded(heard, ask)
    sent = [head["cookie"] for head in heard.of_load()]

    assert len({cookie.partition("; view=")[0] for cookie in sent}) == len(sent) >= 100
    assert {len(head) for head in heard.of_load()} == {1 + 12}


def test_questions_differ_in_what_they_are_about() -> None:
    """The path of a question stays, and the path that it asks about is another each time."""
    ask = measure.Ask("/oauth2/auth", headers=others.QUESTION, differs="original,ids")
    with serving() as heard:
        loaded(heard, ask)
    sent = heard.of_load()

    assert {head["target"] for head in sent} == {"/oauth2/auth"}
    assert len({head["x-forwarded-uri"] for head in sent}) == len(sent) >= 100
    assert {head["x-forwarded-method"] for head in sent} == {"GET"}
