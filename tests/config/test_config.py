"""The configuration: what is accepted, what is refused and how, and that no secret gets out."""

import pickle
import sys
import tomllib
import traceback
from collections import Counter
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from types import FrameType

import pytest
from configkit import (
    BAD,
    CORPUS,
    SESSION_SECRET,
    SMALLEST,
    good,
    problems,
    refused,
    saying,
)
from gatekit import make_settings
from pydantic import SecretStr, ValidationError

from tailchat_gate.config.lint.addresses import beside_the_gate
from tailchat_gate.config.lint.settings import lint
from tailchat_gate.config.load import ConfigError, Problem, load
from tailchat_gate.config.model import (
    Assertion,
    Limits,
    RouteSettings,
    Server,
    Session,
    Settings,
    Tailchat,
)
from tailchat_gate.config.report import report


def test_the_smallest_file_gets_every_default() -> None:
    """What the admin leaves out has the documented, safe default."""
    settings = good(CORPUS / "good" / "smallest.toml").settings

    assert settings.server == Server(
        listen=("127.0.0.1:4180",),
        public_url="https://gate.example.com",
        prefix="/oauth2",
        admin_listen="127.0.0.1:4181",
        trusted_proxies=(),
        workers=1,
        shutdown_timeout="30s",  # type: ignore[arg-type]  # written as in the file
        keepalive_timeout="75s",  # type: ignore[arg-type]  # as above
        header_timeout="20s",  # type: ignore[arg-type]  # as above
        body_timeout="60s",  # type: ignore[arg-type]  # as above
        via="tailchat-gate",
        forwarded=False,
    )
    assert settings.limits == Limits(
        target_bytes=16384, header_bytes=65536, header_count=128, cookie_bytes=16384
    )
    assert settings.tailchat.api_url == "https://tailchat.example.com"
    assert settings.tailchat.client_secret == SecretStr("app-secret")
    assert (settings.tailchat.scope, settings.tailchat.issuer) == ("openid profile", "")
    assert settings.tailchat.timeout == 10.0
    assert settings.session.secrets == (SecretStr(SESSION_SECRET),)
    assert (settings.session.lifetime, settings.session.idle) == (43200.0, 0.0)
    assert settings.access.deny == ()
    assert settings.assertion == Assertion(key_files=(), lifetime="5m")  # type: ignore[arg-type]  # as above
    assert dict(settings.groups) == {}
    assert settings.token == ()
    (route,) = settings.route
    assert (route.methods, route.deny) == ((), ())
    assert (route.name, route.host, route.path) == ("wiki", None, "/")
    assert (route.upstream, route.allow) == ("http://wiki", ("signed-in",))
    assert (dict(route.headers), route.header_encoding) == ({}, "percent")
    assert (route.connect_timeout, route.response_timeout) == (5.0, 60.0)
    assert (route.upstream_path, route.upstream_host) == (None, None)
    assert (route.rewrite_location, route.rewrite_cookies) == (False, False)
    assert (route.tls_ca, route.tls_certificate, route.tls_key) == (None, None, None)
    assert route.tls_server_name is None
    assert (route.idle_timeout, route.max_body_bytes) == (600.0, 0)
    assert (route.websocket_max_age, route.origins) == (0.0, ())
    assert (route.upgrades, route.trace) == (("websocket",), False)
    assert (route.assertion, route.audience, route.forward_authorization) == (True, "", False)
    assert (settings.pages.sign_in, settings.pages.contact) == ("redirect", "")
    assert (settings.log.level, settings.log.access) == ("info", True)


def test_every_key_is_read_and_made_canonical() -> None:
    """Hosts, URLs, paths and durations come out in one spelling, whatever was written."""
    settings = good(CORPUS / "good" / "everything.toml").settings

    assert settings.server.listen == ("[::1]:4180", "localhost:4180", "unix:/run/gate/gate.sock")
    assert settings.server.public_url == "https://gate.example.com"
    assert (settings.server.prefix, settings.server.admin_listen) == ("/-/gate", "")
    assert settings.server.trusted_proxies == tuple(
        map(ip_network, ("10.0.0.0/8", "192.0.2.7/32", "fd00::/8"))
    )
    assert (settings.server.shutdown_timeout, settings.server.keepalive_timeout) == (90.0, 120.0)
    assert (settings.server.header_timeout, settings.server.body_timeout) == (65.0, 0.0)
    assert (settings.server.via, settings.server.forwarded) == ("", True)
    assert settings.limits == Limits(
        target_bytes=256,
        header_bytes=4096,
        header_count=1000,
        cookie_bytes=4096,
        logins="",
        requests_per_person="1200/hour",
        requests_per_token="5/second",
    )
    assert settings.tailchat.api_url == "https://tailchat.example.com:8443/chat"
    assert settings.tailchat.issuer == "http://127.0.0.1:3000/"
    assert (settings.tailchat.scope, settings.tailchat.timeout) == ("profile openid", 5.0)
    assert (settings.session.lifetime, settings.session.idle) == (30 * 86400.0, 0.0)
    assert settings.groups["ops"] == ("660000000000000000000001", "660000000000000000000002")
    assert settings.groups["on-call"] == ()
    assert settings.access.deny == (
        *("sub:660000000000000000000009", "group:on-call", "token:old_one"),
    )
    grafana, docs, files, health = settings.route
    assert (grafana.host, grafana.path) == ("grafana.example.com", "/a/b")
    assert grafana.upstream == "https://[2001:db8::1]:3000"
    assert grafana.methods == ("GET", "VERSION-CONTROL")
    assert grafana.allow == ("group:ops", "sub:660000000000000000000003", "token:Backup-1.0")
    assert grafana.deny == ("sub:660000000000000000000004", "token:backup")
    assert settings.assertion == Assertion(lifetime="1m30s")  # type: ignore[arg-type]  # as above
    backup, build = settings.token
    assert (backup.name, backup.routes) == ("Backup-1.0", ("grafana", "Docs"))
    assert (backup.hash[:14], backup.expires) == ("sha256:60303ae", 1_798_761_600.0)
    assert (build.routes, build.expires) == (None, 1_798_761_600.5)
    assert (grafana.assertion, grafana.forward_authorization) == (False, True)
    assert (docs.assertion, docs.audience) == (True, "https://docs.example/api")
    assert grafana.headers["Authorization"] == "Bearer {{x}} {nickname}"
    assert (grafana.header_encoding, grafana.response_timeout) == ("rfc2047", 0.0)
    assert (grafana.upstream_path, grafana.upstream_host) == ("/grafana/v1", "grafana.lan:3000")
    assert (grafana.rewrite_location, grafana.rewrite_cookies) == (True, True)
    assert grafana.tls_server_name == "grafana.lan"
    assert (grafana.idle_timeout, grafana.max_body_bytes) == (0.0, 2**40)
    assert (grafana.request_buffer, grafana.body_limit) == (64 << 20, 2**40)
    assert grafana.websocket_max_age == 86400.0
    assert (grafana.rate, grafana.rate_per_client) == ("999999999/day", "600/minute")
    assert grafana.origins == ("https://app.example.com", "https://xn--bcher-kva.example")
    assert grafana.upgrades == ("websocket", "irc")
    assert (files.upstream, health.upstream) == ("file:/usr", "static:204")
    assert (docs.host, docs.upstream) == ("xn--bcher-kva.example", "unix:/run/docs.sock")
    assert (settings.pages.sign_in, settings.pages.contact) == ("page", "Frag Åsa, Zimmer 3")
    assert (settings.log.level, settings.log.access) == ("debug", False)


@pytest.mark.parametrize("name", ["smallest", "everything", "neighbours", "rules"])
def test_good_files_give_no_warning(name: str) -> None:
    """Settings that are meant as they stand are not commented on."""
    assert good(CORPUS / "good" / f"{name}.toml").warnings == ()


def test_a_file_from_another_system_is_read(smallest: Path) -> None:
    """A byte order mark and CRLF line ends, as Windows editors write them, do no harm."""
    smallest.write_bytes(b"\xef\xbb\xbf" + SMALLEST.replace("\n", "\r\n").encode())

    assert good(smallest).settings.server.public_url == "https://gate.example.com"


def test_settings_cannot_be_changed() -> None:
    """Nothing that was loaded can be altered, neither a value nor a table with free keys."""
    settings = good(CORPUS / "good" / "everything.toml").settings

    with pytest.raises(ValidationError):
        settings.server.prefix = "/x"
    with pytest.raises(TypeError):
        settings.groups["x"] = ()  # type: ignore[index] # it must be refused
    with pytest.raises(TypeError):
        settings.route[0].headers["x"] = ""  # type: ignore[index] # it must be refused


def test_default_tables_are_not_shared_mutable_state() -> None:
    """A route without headers can be built any number of times, each with an immutable table."""
    first, second = (RouteSettings(name=name, upstream="http://a:1") for name in "ab")

    with pytest.raises(TypeError):
        first.headers["x"] = ""  # type: ignore[index] # it must be refused
    assert dict(second.headers) == {}


def test_settings_refuse_conflicts_however_they_are_built() -> None:
    """A Settings object without a file behind it holds the same promises."""
    with pytest.raises(ValidationError, match=r"route\[0\]\.allow\[0\]"):
        Settings(
            server=Server(public_url="http://localhost"),
            tailchat=Tailchat(
                api_url="http://localhost", client_id="x", client_secret=SecretStr("y")
            ),
            session=Session(secrets=(SecretStr(SESSION_SECRET),)),
            route=(RouteSettings(name="a", upstream="http://a:1", allow=("group:ops",)),),
        )


def test_a_file_is_judged_once() -> None:
    """Tables are compared once, and no name of a group is checked a second time."""
    calls: Counter[str] = Counter()

    def count(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            calls[frame.f_code.co_name] += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        settings = good(CORPUS / "good" / "everything.toml").settings
    finally:
        sys.setprofile(before)

    assert calls["conflicts"] == 1
    assert calls["group_name"] == len(settings.groups)


@pytest.mark.parametrize("file", BAD, ids=lambda file: file.stem)
def test_bad_files_are_refused_with_these_words(file: Path) -> None:
    """All problems of a file come at once, in the words that stand beside it."""
    text = report(problems(file, {})).replace(str(file), file.name)

    assert text + "\n" == file.with_suffix(".txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("file", BAD, ids=lambda file: file.stem)
def test_no_refusal_shows_a_secret(file: Path) -> None:
    """Whatever is wrong, the word that stands for secrets in the bad files is never repeated."""
    with pytest.raises(ConfigError) as refused:
        load(file, {})

    assert "hunter2" not in report(refused.value.problems)
    assert "hunter2" not in repr(refused.value)
    assert "hunter2" not in "".join(traceback.format_exception(refused.value))
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None


def test_no_frame_of_a_refusal_holds_what_was_read(tmp_path: Path) -> None:
    """A crash reporter that prints local variables finds no secret of a file either."""
    (tmp_path / "gate.toml").write_text('[session]\nsecret = "hunter2"\n', encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        load(tmp_path / "gate.toml", {})

    frames = [frame for frame, _ in traceback.walk_tb(refused.value.__traceback__)]
    assert len(frames) == 2
    assert "hunter2" not in repr(frames[1].f_locals)


def test_settings_never_show_their_secrets() -> None:
    """Neither repr, str nor JSON of loaded settings contains a secret."""
    settings = good(CORPUS / "good" / "everything.toml").settings

    for text in (repr(settings), str(settings), settings.model_dump_json(), f"{settings.session}"):
        assert SESSION_SECRET not in text
        assert "app-secret" not in text
    assert "**********" in repr(settings.tailchat)


def test_a_configuration_error_says_where_and_what() -> None:
    """The text of the exception itself is useful where only that is shown."""
    with pytest.raises(ConfigError, match=r"server\.public_url: expected a value such as"):
        load(CORPUS / "bad" / "empty.toml", {})


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda file: None, "No such file or directory"),
        (lambda file: file.mkdir(), "Is a directory"),
        (
            lambda file: file.write_bytes(b'[server]\nlisten = "\xff"'),
            "a byte that is not UTF-8",
        ),
        (
            lambda file: file.write_text("a = " + "[" * 5000),
            "too many lists or tables within each other",
        ),
    ],
    ids=["missing", "folder", "not UTF-8", "too deep"],
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, make: Callable[[Path], None], found: str
) -> None:
    """A file that gives no table is the one problem, under its own name."""
    file = tmp_path / "gate.toml"
    make(file)

    assert saying(problems(file)) == [(str(file), found)]


def test_an_unreadable_file_does_not_hide_wrong_variables(tmp_path: Path) -> None:
    """The environment is checked even when there is no file."""
    found = refused(tmp_path / "none.toml", SERVER__LISTN="x")

    assert [problem.key_path for problem in found] == [
        str(tmp_path / "none.toml"),
        "TAILCHAT_GATE_SERVER__LISTN",
    ]


def test_smaller_headers_leave_the_default_of_cookies_alone(smallest: Path) -> None:
    """What the admin did not write is no problem beside what was written."""
    limits = good(smallest, LIMITS__HEADER_BYTES="8192").settings.limits

    assert (limits.header_bytes, limits.cookie_bytes) == (8192, 16384)


def test_one_wrong_table_does_not_hide_conflicts_of_another(tmp_path: Path) -> None:
    """Routes are compared with the prefix and groups even where their tables have problems."""
    file = tmp_path / "gate.toml"
    routes = SMALLEST + 'path = "/gate"\nallow = ["group:ops", "group:night"]\n'
    text = routes.replace("[server]\n", '[server]\nprefix = "/gate"\nworkers = 0\n')
    file.write_text(text + '[groups]\nops = [""]\n', encoding="utf-8")

    assert [problem.key_path for problem in problems(file)] == [
        "server.workers",
        "route[0].path",
        "route[0].allow[1]",
        "groups.ops[0]",
    ]


def test_long_values_are_shortened_and_control_characters_escaped(smallest: Path) -> None:
    """A report stays one readable line per finding, and cannot drive a terminal."""
    (problem,) = refused(smallest, SERVER__PREFIX="\x1b[2J\n" + "x" * 500)

    assert problem.found.isprintable()
    assert problem.found.isascii()
    assert len(problem.found) < 90


@pytest.mark.parametrize(
    ("name", "text", "warning"),
    [
        (
            "SERVER__PUBLIC_URL",
            "http://gate.lan",
            "server.public_url: it is http, so cookies are sent",
        ),
        ("TAILCHAT__API_URL", "http://chat.lan", "tailchat.api_url: it is http"),
        (
            "SERVER__TRUSTED_PROXIES",
            "0.0.0.0/1",
            "server.trusted_proxies: 0.0.0.0/1 is a large network",
        ),
        (
            "SERVER__TRUSTED_PROXIES",
            "2000::/3",
            "server.trusted_proxies: 2000::/3 is a large network",
        ),
        ("SERVER__UNIX_MODE", "0666", "server.unix_mode: every user of this machine"),
        ("TAILCHAT__SCOPE", "openid email", "tailchat.scope: Tailchat does not know email"),
        (
            "TAILCHAT__SCOPE",
            "openid profile offline_access",
            "tailchat.scope: offline_access brings a consent page at every sign-in, and nothing",
        ),
        ("SESSION__RECHECK", "15m", "session.recheck: without offline_access in tailchat.scope"),
        ("SESSION__RECHECK_OUTAGE", "fail", "session.recheck_outage: session.recheck is off"),
        (
            "ROUTE",
            f'[{{name = "a", upstream = "http://a", allow = ["signed-in", "sub:{"6" * 24}"]}}]',
            'route[0].allow: "signed-in" already lets every Tailchat user in',
        ),
        ("TAILCHAT__INTERNAL_URL", "http://chat.lan", "tailchat.internal_url: it is http"),
        ("LIMITS__COOKIE_BYTES", "4095", "limits.cookie_bytes: the gate's own cookies can take"),
        (
            "ROUTE",
            '[{name = "a", upstream = "http://a", origins = ["*"]}]',
            "route[0].origins: any site's page can send requests and open WebSockets here",
        ),
        (
            "ROUTE",
            '[{name = "a", upstream = "http://a", origins = ["http://app.lan"]}]',
            "route[0].origins: http://app.lan is http",
        ),
        (
            "ROUTE",
            '[{name = "a", upstream = "http://a", upgrades = [], websocket_max_age = "1h"}]',
            "route[0].websocket_max_age: upgrades does not name websocket",
        ),
        (
            "ROUTE",
            '[{name = "a", upstream = "http://a", upgrades = [], origins = ["*"]}]',
            "route[0].origins: any site's page can send requests",
        ),
        (
            "ROUTE",
            '[{name = "a", upstream = "http://a", origins = ["null"]}]',
            "route[0].origins: any page can make itself one without an origin",
        ),
        (
            "ROUTE",
            '[{name = "a", upstream = "static:204", headers = {X-A = "{sub}"}}]',
            "route[0].headers: static:204 has no tool",
        ),
        (
            "ROUTE",
            '[{name = "a", upstream = "http://a", trace = true}]',
            "route[0].trace: a tool that answers TRACE",
        ),
        (
            "ROUTE",
            '[{name = "a", upstream = "http://a", trace = true, methods = ["GET"]}]',
            "route[0].trace: methods does not name TRACE",
        ),
        (
            "ROUTE",
            '[{name = "a", upstream = "http://a", allow = ["public"], deny = ["token:x"]}]',
            "route[0].deny: the route is public, so these people still enter, but anonymously",
        ),
        (
            "ROUTE",
            (
                '[{name = "a", upstream = "http://a", allow = ["sub:660000000000000000000001"], '
                'deny = ["sub:660000000000000000000001"]}]'
            ),
            "route[0].deny: sub:660000000000000000000001 is in allow too; deny wins",
        ),
        (
            "ROUTE",
            '[{name = "a", upstream = "http://a", host = "*.example.com"}]',
            "route[0].host: *.example.com covers gate.example.com too",
        ),
    ],
)
def test_settings_that_may_not_be_meant_give_a_warning(
    smallest: Path, name: str, text: str, warning: str
) -> None:
    """Such settings are used, and commented on under their key."""
    (found,) = good(smallest, **{name: text}).warnings

    assert found.startswith(warning)


def test_rechecks_with_offline_access_give_no_warning(smallest: Path) -> None:
    """Rechecks with the scope they need are as they are meant, within the life of a consent."""
    keys = {"TAILCHAT__SCOPE": "openid profile offline_access", "SESSION__RECHECK": "15m"}

    assert good(smallest, **keys).warnings == ()
    assert good(smallest, **keys, SESSION__LIFETIME="14d").warnings == ()
    (found,) = good(smallest, **keys, SESSION__LIFETIME="15d").warnings
    assert found.startswith("session.recheck: Tailchat forgets a consent after 14d")


@pytest.mark.parametrize(
    "route",
    [
        'upstream = "http://a", origins = ["*"], allow = ["public"]',
        'upstream = "http://a", origins = ["https://app.lan", "http://localhost:1"]',
        'upstream = "http://a", origins = ["capacitor://localhost", "file://"]',
        'upstream = "http://a", upgrades = []',
        'upstream = "static:404"',
        'upstream = "http://a", allow = ["signed-in"], deny = ["token:y"]',
        'upstream = "http://a", host = "*.gate.example.com"',
        (
            'upstream = "http://a", host = "gate.example.com"}, '
            '{name = "b", upstream = "http://a", host = "*.example.com"'
        ),
    ],
)
def test_routes_that_are_meant_as_they_stand_give_no_warning(smallest: Path, route: str) -> None:
    """What a warning is about is the danger, not the key."""
    assert good(smallest, ROUTE=f'[{{name = "a", {route}}}]').warnings == ()


@pytest.mark.parametrize(
    "public_url",
    ["http://localhost:4180", "http://127.0.0.1", "http://[::1]", "http://a.localhost"],
)
def test_http_on_this_machine_gives_no_warning(smallest: Path, public_url: str) -> None:
    """Nobody is on the way between a browser and its own machine."""
    assert good(smallest, SERVER__PUBLIC_URL=public_url).warnings == ()


def test_a_report_counts_its_problems() -> None:
    """One problem is called one."""
    one = Problem("a", "b", "c")

    told = "error: a: found b\n = expected: c"
    assert report([one]) == f"1 problem in the configuration\n\n{told}"
    assert report([one, one]) == f"2 problems in the configuration\n\n{told}\n\n{told}"


def test_problems_can_be_pickled() -> None:
    """A problem travels between processes as plain data."""
    found = Problem("a", "b", "c")

    assert pickle.loads(pickle.dumps(found)) == found  # noqa: S301 - written one line above


def test_the_corpus_is_toml_where_it_claims_to_be() -> None:
    """Each bad file but the two about syntax is refused for what it says, not for how."""
    for file in BAD:
        if file.stem not in {"syntax", "unfinished"}:
            tomllib.loads(file.read_text(encoding="utf-8"))


def test_people_who_are_allowed_and_denied_are_told() -> None:
    """Who is denied everywhere and allowed somewhere is told, and a denied group is no vain one."""
    sub = "660000000000000000000001"
    settings = make_settings(
        groups={"ops": [sub], "former": [sub]},
        access={"deny": ["group:former", "group:ops"]},
        route=[{"name": "tool", "allow": ["group:ops"], "deny": ["group:former"]}],
    )

    told = [text for text in lint(settings) if "server" not in text and "tailchat" not in text]

    assert told == ["access.deny: group:ops is in allow too; deny wins"]


@pytest.mark.parametrize(
    ("groups", "allow", "warning"),
    [
        ({"ops": ["660000000000000000000001"]}, ["group:ops"], ""),
        ({"ops": []}, ["signed-in"], ""),
        ({"ops": ["660000000000000000000001"]}, ["signed-in"], "no route allows or denies it"),
    ],
)
def test_people_who_are_listed_in_vain_are_told(
    groups: dict[str, list[str]], allow: list[str], warning: str
) -> None:
    """A group that opens nothing is warned of."""
    route = {"name": "tool", "upstream": "http://127.0.0.1:9", "allow": allow}
    settings = make_settings(groups=groups, route=[route])

    told = [text for text in lint(settings) if text.startswith("groups.")]

    assert bool(told) is bool(warning)
    assert all(warning in text for text in told)


@pytest.mark.parametrize(
    ("routes", "told"),
    [
        ('{name = "a", upstream = "http://a"}', "a can be reached"),
        (
            (
                '{name = "a", upstream = "http://a", host = "gate.example.com"}, '
                '{name = "b", upstream = "file:/srv", host = "gate.example.com", path = "/b"}'
            ),
            "a, b can be reached at gate.example.com, where the gate's own pages are",
        ),
        ('{name = "a", upstream = "http://a", host = "a.example.com"}', ""),
        ('{name = "a", upstream = "static:404"}', ""),
        (
            (
                '{name = "a", upstream = "static:404", host = "gate.example.com"}, '
                '{name = "b", upstream = "http://b"}'
            ),
            "",
        ),
    ],
)
def test_tools_on_the_gates_own_host_are_told(smallest: Path, routes: str, told: str) -> None:
    """What shares the origin of the gate's pages is named when the file is checked."""
    settings = good(smallest, ROUTE=f"[{routes}]").settings

    found = "".join(beside_the_gate(settings))

    assert found.startswith(f"server.public_url: {told}") if told else not found
