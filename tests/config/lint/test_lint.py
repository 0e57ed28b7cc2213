"""Warnings of settings that can be used and are probably a mistake: addresses that meet."""

import pytest
from gatekit import make_settings

from tailchat_gate.config.lint.settings import lint

PUBLIC = "https://gate.example.com"


@pytest.mark.parametrize(
    ("server", "tailchat", "route", "told"),
    [
        (
            {"admin_listen": "127.0.0.1:4181"},
            {},
            {"upstream": "http://localhost:4181"},
            "route[0].upstream: http://localhost:4181 is server.admin_listen",
        ),
        (
            {"admin_listen": "unix:/run/gate-admin.sock"},
            {},
            {"upstream": "unix:/run/gate-admin.sock"},
            "route[0].upstream: unix:/run/gate-admin.sock is server.admin_listen",
        ),
        (
            {},
            {},
            {"upstream": "https://gate.example.com"},
            "route[0].upstream: https://gate.example.com is an address of the gate itself",
        ),
        ({}, {}, {"upstream": "http://gate.example.com"}, "is an address of the gate itself"),
        (
            {},
            {},
            {"upstream": "https://wiki.example.com", "host": "wiki.example.com"},
            "route[0].upstream: https://wiki.example.com is an address of the gate itself",
        ),
        ({}, {"api_url": PUBLIC}, {}, "tailchat.api_url: it is server.public_url"),
        ({"admin_listen": "127.0.0.1:4181"}, {}, {"upstream": "http://127.0.0.1:4182"}, ""),
        ({}, {}, {"upstream": "http://gate.example.com:3000"}, ""),
        ({}, {}, {"upstream": "http://wiki.example.com:3000", "host": "wiki.example.com"}, ""),
        ({}, {"api_url": "https://chat.example.com"}, {}, ""),
        ({}, {"internal_url": "http://127.0.0.1:11000"}, {}, ""),
    ],
)
def test_addresses_that_lead_back_are_told(
    server: dict[str, object], tailchat: dict[str, str], route: dict[str, str], told: str
) -> None:
    """A tool or a Tailchat at an address of the gate's own is named, any other is not."""
    settings = make_settings(
        server={"public_url": PUBLIC, **server},
        tailchat={"api_url": "https://chat.example.com", **tailchat},
        route=[{"name": "tool", **route}],
    )

    found = lint(settings)

    assert len(found) == bool(told)
    assert told in "".join(found)


@pytest.mark.parametrize(
    ("admin", "told"),
    [
        ("0.0.0.0:9100", True),
        ("[::]:4181", True),
        ("10.0.0.7:4181", True),
        ("gate.lan:4181", True),
        ("127.0.0.1:4181", False),
        ("[::1]:4181", False),
        ("localhost:4181", False),
        ("unix:/run/gate-admin.sock", False),
        ("", False),
    ],
)
def test_an_admin_listener_that_others_reach_is_told(admin: str, *, told: bool) -> None:
    """It has no sign-in, so who reaches it reads refusals and gives orders."""
    found = lint(make_settings(server={"public_url": PUBLIC, "admin_listen": admin}))
    wanted = [f"server.admin_listen: everybody who reaches {admin}"] * told
    assert [text.partition(",")[0] for text in found] == wanted


@pytest.mark.parametrize(
    ("admin", "told"),
    [("127.0.0.1:4181", True), ("0.0.0.0:9100", True), ("unix:/run/a.sock", False), ("", False)],
)
def test_orders_without_a_sign_in_are_told(admin: str, *, told: bool) -> None:
    """Every user of the machine reaches a port on loopback; a Unix socket is the gate's own."""
    server = {"public_url": PUBLIC, "admin_listen": admin, "admin_orders": True}
    found = [text for text in lint(make_settings(server=server)) if "server.admin_orders" in text]
    assert len(found) == told


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ("http://127.0.0.1:3000", "http://grafana.lan:3000", True),
        ("http://grafana.lan:3000", "http://[::1]:3000", True),
        ("http://grafana.lan:3000", "http://10.0.0.7:3000", True),
        ("http://127.0.0.1:3000", "http://localhost:3000", False),
        ("http://grafana.lan:3000", "http://10.0.0.7:3001", False),
        ("http://grafana.lan:3000", "http://wiki.lan:3000", False),
        ("http://grafana.lan:3000", "unix:/run/grafana.sock", False),
    ],
)
def test_two_addresses_of_what_may_be_one_tool_are_told(
    first: str, second: str, *, told: bool
) -> None:
    """Where the headers of one route are not taken from visitors of the other, that is said."""
    guarded = {"name": "a", "upstream": first, "headers": {"X-WEBAUTH-USER": "{sub}"}}
    beside = {"name": "b", "path": "/b", "upstream": second}
    lan = {"public_url": PUBLIC}
    settings = make_settings(server=lan, route=[guarded, beside])
    both = make_settings(
        server=lan, route=[guarded, {**beside, "headers": {"x_webauth_user": "{sub}"}}]
    )

    assert [text.split(":")[0] for text in lint(settings)] == ["route[1].upstream"] * told
    assert lint(both) == ()


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({"logins": "30/minute"}, ["limits.logins"]),
        ({"logins": "60/minute"}, []),
        ({"logins": ""}, []),
        ({"requests_per_person": "100/minute"}, ["limits.requests_per_person"]),
        ({"requests_per_person": "200/minute"}, []),
    ],
)
def test_a_rate_that_everyday_use_reaches_is_told(limits: dict[str, str], told: list[str]) -> None:
    """An office's tabs and one page of a dashboard are not refused without a warning."""
    keys = [text.partition(":")[0] for text in lint(make_settings(limits=limits))]
    assert [key for key in keys if key.startswith("limits.")] == told
