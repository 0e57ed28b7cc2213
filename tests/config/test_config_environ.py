"""The environment over the file: which variables there are, and how each is read."""

from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from configkit import CORPUS, SECRETS, SMALLEST, good, problems, refused, saying

from tailchat_gate.config.model import Settings

SUB = "660000000000000000000001"


@pytest.mark.parametrize(
    ("name", "text", "get", "expected"),
    [
        ("SERVER__LISTEN", "0.0.0.0:1", lambda s: s.server.listen, ("0.0.0.0:1",)),
        (
            "SERVER__LISTEN",
            "127.0.0.1:1, unix:/g.sock",
            lambda s: s.server.listen,
            ("127.0.0.1:1", "unix:/g.sock"),
        ),
        (
            "SERVER__TRUSTED_PROXIES",
            '["10.0.0.0/8"]',
            lambda s: s.server.trusted_proxies,
            (ip_network("10.0.0.0/8"),),
        ),
        ("SERVER__TRUSTED_PROXIES", "['::1']", lambda s: len(s.server.trusted_proxies), 1),
        ("SERVER__TRUSTED_PROXIES", "::1,10.0.0.1", lambda s: len(s.server.trusted_proxies), 2),
        ("SERVER__TRUSTED_PROXIES", "", lambda s: s.server.trusted_proxies, ()),
        ("SERVER__ADMIN_LISTEN", "", lambda s: s.server.admin_listen, ""),
        ("SERVER__VIA", "", lambda s: s.server.via, ""),
        ("SERVER__FORWARDED", "true", lambda s: s.server.forwarded, True),
        ("SERVER__BODY_TIMEOUT", "0", lambda s: s.server.body_timeout, 0.0),
        ("LIMITS__HEADER_COUNT", "8", lambda s: s.limits.header_count, 8),
        ("SERVER__WORKERS", "1", lambda s: s.server.workers, 1),
        ("SERVER__WORKERS", "auto", lambda s: s.server.workers, "auto"),
        ("SESSION__LIFETIME", "8h", lambda s: s.session.lifetime, 28800.0),
        ("SESSION__IDLE", "0", lambda s: s.session.idle, 0.0),
        ("LOG__ACCESS", "false", lambda s: s.log.access, False),
        ("PAGES__CONTACT", '"quoted"', lambda s: s.pages.contact, '"quoted"'),
        ("GROUPS", f'{{ops = ["{SUB}"]}}', lambda s: dict(s.groups), {"ops": (SUB,)}),
        ("GROUPS", f'{{"ops": ["{SUB}"]}}', lambda s: dict(s.groups), {"ops": (SUB,)}),
        (
            "ROUTE",
            '[{"name": "b", "upstream": "http://b:1"}]',
            lambda s: [r.name for r in s.route],
            ["b"],
        ),
        (
            "ROUTE",
            '[{name = "b", upstream = "http://b:1"}]',
            lambda s: [r.upstream for r in s.route],
            ["http://b:1"],
        ),
    ],
)
def test_the_environment_goes_over_the_file(
    smallest: Path, name: str, text: str, get: Callable[[Settings], Any], expected: object
) -> None:
    """A variable replaces its key, read by the kind of value the key has."""
    assert get(good(smallest, **{name: text}).settings) == expected


def test_the_environment_replaces_a_wrong_value_of_the_file(tmp_path: Path) -> None:
    """What the environment replaces is not judged."""
    file = tmp_path / "gate.toml"
    file.write_text(SMALLEST.replace("https://gate.example.com", "nonsense"), encoding="utf-8")

    public_url = good(file, SERVER__PUBLIC_URL="https://a.example").settings.server.public_url
    assert public_url == "https://a.example"


def test_an_empty_file_and_the_environment_are_enough() -> None:
    """Everything can come from the environment."""
    loaded = good(
        CORPUS / "bad" / "empty.toml",
        SERVER__PUBLIC_URL="https://gate.example.com",
        TAILCHAT__API_URL="https://tailchat.example.com",
        TAILCHAT__CLIENT_ID="tc_1",
        ROUTE='[{"name": "wiki", "upstream": "http://wiki"}]',
    )

    assert loaded.settings.route[0].name == "wiki"


@pytest.mark.parametrize(
    ("name", "text", "place", "found"),
    [
        ("SERVER__WORKERS", "two", "SERVER__WORKERS", "text that is neither TOML nor JSON"),
        ("SERVER__WORKERS", '"1"', "SERVER__WORKERS", '"1"'),
        ("LOG__ACCESS", "yes", "LOG__ACCESS", "text that is neither TOML nor JSON"),
        ("SERVER__LISTEN", "127.0.0.1:1,", "SERVER__LISTEN[1]", '""'),
        ("SERVER__LISTEN", "a:1,a:1", "SERVER__LISTEN", "a list"),
        ("SERVER__LISTEN", "[:1]:80", "SERVER__LISTEN", None),
        ("SERVER__LISTEN", "a b:80", "SERVER__LISTEN[0]", '"a b:80"'),
        ("SERVER__ADMIN_LISTEN", "[:1]:80", "SERVER__ADMIN_LISTEN", '"[:1]:80"'),
        ("SERVER__TRUSTED_PROXIES", "[5]", "SERVER__TRUSTED_PROXIES[0]", "the number 5"),
        ("SERVER__TRUSTED_PROXIES", "fe80::%eth0/64", None, '"fe80::%eth0/64"'),
        ("SERVER__TRUSTED_PROXIES", "[true]", "SERVER__TRUSTED_PROXIES[0]", "true"),
        ("SERVER__WORKERS", "1" + "0" * 40, "SERVER__WORKERS", "a very large number"),
        ("SERVER__PUBLIC_URL", "http://\udcff", "SERVER__PUBLIC_URL", '"http://\\udcff"'),
        ("LOG__LEVEL", "loud", "LOG__LEVEL", '"loud"'),
        ("LOG__ACCESS", "1", "LOG__ACCESS", "the number 1"),
        ("SERVER__TRUSTED_PROXIES", '["hunter2"', "SERVER__TRUSTED_PROXIES", None),
        ("SERVER__TRUSTED_PROXIES", "10.0.0.1/8", "SERVER__TRUSTED_PROXIES[0]", '"10.0.0.1/8"'),
        ("SESSION__LIFETIME", "60", "SESSION__LIFETIME", '"60"'),
        ("GROUPS", '{ops = "1"}', "GROUPS.ops", "text"),
        ("GROUPS", "{", "GROUPS", None),
        ("GROUPS", "{}\n[groups.x]\na = 1", "GROUPS", None),
        ("ROUTE", '[{"name": "b", "upstream": "b:1"}]', "ROUTE[0].upstream", '"b:1"'),
        ("ROUTE", "null", "ROUTE", "nothing"),
        ("ROUTE", "[]", "ROUTE", "nothing"),
        ("ROUTE", "hunter2", "ROUTE", None),
        ("ROUTE", "[" * 5000, "ROUTE", None),
    ],
)
def test_a_wrong_variable_is_named(
    smallest: Path, name: str, text: str, place: str | None, found: str | None
) -> None:
    """The one problem carries the variable's name, and text that cannot be read is not shown."""
    ((where, what),) = saying(refused(smallest, **{name: text}))

    assert where == f"TAILCHAT_GATE_{place or f'{name}[0]'}"
    # Of a list or table, where and why is said behind that.
    assert (what if found else what.partition(";")[0]) == (
        found or "text that is neither TOML nor JSON"
    )
    assert "hunter2" not in what


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("SESSION__LIFETIME", 'a duration, such as "90s", "15m"'),
        ("TAILCHAT__GROUPS_MAX_BYTES", 'a size, such as "512KiB"'),
        ("SERVER__UNIX_MODE", 'four octal digits such as "0660"'),
    ],
)
def test_a_variable_wants_no_quotes(smallest: Path, name: str, expected: str) -> None:
    """Quotes are part of a variable's value, so none are asked for."""
    (problem,) = refused(smallest, **{name: "60"})

    assert problem.expected.startswith(expected)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("TAILCHAT_GATE_SERVER__TRUSTED_PROXIE", "TAILCHAT_GATE_SERVER__TRUSTED_PROXIES"),
        ("TAILCHAT_GATE_SERVER_LISTEN", "TAILCHAT_GATE_SERVER__LISTEN"),
        ("tailchat_gate_server__listen", "TAILCHAT_GATE_SERVER__LISTEN"),
        ("TAILCHAT_GATE_ROUTES", "TAILCHAT_GATE_ROUTE"),
        ("TAILCHAT_GATE_CONFIGS", "TAILCHAT_GATE_CONFIG"),
        ("TAILCHAT_GATE_SERVER_PORT", None),
        ("TAILCHAT_GATE_", None),
    ],
)
def test_an_unknown_variable_is_a_problem(smallest: Path, name: str, near: str | None) -> None:
    """A misspelt name is refused with the nearest known one, and its value is not shown."""
    (problem,) = problems(smallest, {**SECRETS, name: "hunter2"})

    assert problem.key_path == name
    assert problem.found == "an unknown variable"
    if near:
        assert f'did you mean "{near}"?' in problem.expected


def test_foreign_variables_are_left_alone(smallest: Path) -> None:
    """Names that Kubernetes makes for a Service called tailchat-gate are nobody's settings."""
    loaded = good(
        smallest,
        CONFIG="/etc/gate.toml",
        SERVICE_HOST="10.0.0.11",
        SERVICE_PORT="4180",
        SERVICE_PORT_HTTP="4180",
        PORT="tcp://10.0.0.11:4180",
        PORT_4180_TCP="tcp://10.0.0.11:4180",
        PORT_4180_TCP_PROTO="tcp",
        PORT_4180_TCP_PORT="4180",
        PORT_4180_TCP_ADDR="10.0.0.11",
        ADMIN_SERVICE_HOST="10.0.0.12",
        ADMIN_PORT="tcp://10.0.0.12:4181",
    )

    assert loaded.warnings == ()
