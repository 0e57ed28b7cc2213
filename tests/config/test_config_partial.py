"""Checks between keys do not wait until each key is right by itself, and make nothing up."""

from pathlib import Path

import pytest
from configkit import refused, saying, write_smallest

HASH = "sha256:" + "a5" * 32
OPS = '{ops = ["660000000000000000000001"]}'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a good configuration, which the environment makes wrong."""
    return write_smallest(tmp_path)


def places(file: Path, **environ: str) -> set[str]:
    """Return where the problems are, without the prefix of the environment."""
    return {place.removeprefix("TAILCHAT_GATE_") for place, _ in saying(refused(file, **environ))}


@pytest.mark.parametrize(
    ("wrong", "also"),
    [
        ('allow = ["group:opps"]', "allow[0]"),
        ('deny = ["group:opps"]', "deny[0]"),
        ('allow = ["token:nobody"]', "allow[0]"),
        ('path = "/oauth2/x"', "path"),
        ('methods = ["TRACE"]', "methods[0]"),
        ('methods = ["GET"], preflight = true', "preflight"),
        ('tls_ca = "/etc/ssl/none.pem"', "tls_ca"),
        ('name = "B"', "name"),
    ],
)
def test_a_route_with_a_problem_is_compared_all_the_same(file: Path, wrong: str, also: str) -> None:
    """What is wrong beside other keys is told with what is wrong by itself."""
    name = "" if "name" in wrong else 'name = "a", '
    at = "" if "path" in wrong else 'path = "/a", '
    odd = f'{{{name}{at}upstream = "http://a", max_body = "much", {wrong}}}'
    routes = f'[{{name = "b", path = "/b", upstream = "http://b"}}, {odd}]'

    assert places(file, ROUTE=routes, GROUPS=OPS) == {"ROUTE[1].max_body", f"ROUTE[1].{also}"}


@pytest.mark.parametrize(
    "wrong",
    [
        'upstream = "a", tls_ca = "/none.pem", headers = {A = "{sub}"}',
        'upstream = "http://a", methods = ["get"]',
        'upstream = "http://a", host = "b c"',
        'upstream = "http://a", path = "b"',
        'upstream = "http://a", methods = ["TRACE"], trace = "yes"',
        'upstream = "https://a", tls_certificate = "/c.pem", tls_key = 1',
        'upstream = "static:204", websocket_max_age = "long"',
    ],
)
def test_nothing_is_made_up_about_a_key_that_cannot_be_read(file: Path, wrong: str) -> None:
    """No default stands in for a wrong key, so one mistake is one problem."""
    routes = f'[{{name = "b", upstream = "http://b"}}, {{name = "a", {wrong}}}]'
    at = "" if "path" in wrong or "host" in wrong or "methods" in wrong else 'path = "/a", '
    routes = routes.replace('{name = "a", ', f'{{name = "a", {at}')

    assert len(refused(file, ROUTE=routes)) == 1, saying(refused(file, ROUTE=routes))


def test_tables_beside_one_that_is_wrong_are_compared(file: Path) -> None:
    """The prefix, the listeners and the tokens count, whatever else their tables have."""
    found = places(
        file,
        SERVER__KEEPALIVE_TIMEOUT="long",
        SERVER__PREFIX="/gate",
        SERVER__LISTEN="127.0.0.1:4000",
        TOKEN=f'[{{name = "ci", hash = "{HASH}", routes = ["wikki"], expires = "soon"}},'
        f' {{name = "cd", hash = "{HASH}"}}]',
        ROUTE='[{name = "a", path = "/gate/x", upstream = "http://127.0.0.1:4000", allow = []}]',
    )

    assert found == {
        *("SERVER__KEEPALIVE_TIMEOUT", "TOKEN[0].expires", "ROUTE[0].allow"),
        *("TOKEN[0].routes[0]", "TOKEN[1].hash", "ROUTE[0].path", "ROUTE[0].upstream"),
    }
