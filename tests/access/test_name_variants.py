"""Names that tools add to a path or drop from it count as readings of it, with real tools."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from choices import Choices, chosen
from gatekit import Response, RunningGate, ask, make_settings, request_bytes
from hypothesis import given, settings
from hypothesis import strategies as st
from routekit import ALICE, Asker, Row, make_table, may
from toolkit import apache, gunicorn, nginx, php

from tailchat_gate.access.routes import RouteTable
from tailchat_gate.identity.oauth.responses import Profile
from tailchat_gate.request.readings import (
    MAX_READINGS,
    TooManyReadingsError,
    readings,
    shortened,
)

Start = Callable[..., Any]
OPS = ("group:ops",)
ANYBODY = Profile("zoe", "Zoe", "0001", "")


def guarded(path: str, **keys: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - as in the file
    """Return routes for one tool: everything is public, and what is at `path` for one person."""
    return [
        {"name": "all", "allow": ["public"], **keys},
        {"name": "closed", "path": path, "allow": ["sub:alice"]},
    ]


async def get(gate: RunningGate, path: str) -> Response:
    """Ask as somebody who is signed in, and may not have what is closed."""
    return await ask(gate.port, request_bytes(path, Cookie=gate.cookie(ANYBODY)))


# What the rules say.

TABLE = make_table(
    *(Row("/"), Row("/admin", OPS), Row("/page.html", OPS), Row("/a/report.tar.gz", OPS)),
    *(Row("/in/index.html", OPS), Row("/users.d/x", OPS), Row("/v1", OPS)),
)


@pytest.mark.parametrize(
    "path",
    [
        # An ending tells the format (Django REST framework, Rails, Spring, JAX-RS).
        *(
            "/admin.json",
            "/admin.json/",
            "/ADMIN.Xml",
            "/admin.",
            "/admin.a.b.c",
            "/%61dmin%2ejson",
        ),
        *("/admin.json;v=1", "/x/../admin.json", "//admin.json", "/admin.php/x", "/v1.1"),
        # A front controller, wherever it is.
        *("/index.php/admin", "/public/index.php/admin/x", "/a/b/c/index.php/admin.json"),
        *("/index.php//admin", "/INDEX.PHP/Admin", "/app_dev.php/admin", "/index/admin"),
        *("/cgi-bin/app.cgi/admin", "/index.php/..%2findex.php/admin", "/index%2ephp/admin"),
        # A file that is served without its ending, or by another one.
        *(
            "/page",
            "/page/",
            "/page/x",
            "/PAGE",
            "/page.htm",
            "/pag%65",
            "/page;x",
            "/index.php/page",
        ),
        *("/index.php/page", "/a/report", "/a/report.tar", "/users/x"),
        # The file that answers for a folder.
        *("/in", "/in/", "/IN//", "/in/index", "/in/index.htm"),
        # Windows.
        *("/admin::$DATA", "/admin:$i30:$INDEX_ALLOCATION/x", "/admin.json::$data", "/admin%20"),
    ],
)
def test_the_strictest_rule_of_any_name_counts(path: str) -> None:
    """Who may not have what a tool may serve does not get it by another name; who may, does."""
    assert not may(TABLE, path)
    assert may(TABLE, path, ALICE)


@pytest.mark.parametrize(
    "path",
    [
        *("/adminx.json", "/x/admin.json", "/admin-2.json", "/x.json", "/.json", "/x/.htaccess"),
        *("/index.php", "/index.php?x=/admin", "/indexes/admin", "/x.phpx/admin", "/php/admin"),
        *("/pages", "/x/page", "/a", "/a/rep", "/in/x", "/in.d/index.html", "/v1.1/x", "/users"),
        *("/..json", "/x..", "/app.js", "/x/index.html", "/admi.n", "/public/admin"),
    ],
)
def test_other_names_are_as_open_as_before(path: str) -> None:
    """A name that is merely alike, or is further down, meets no rule but its own."""
    assert may(TABLE, path)


def test_a_path_without_a_route_behind_a_script_is_no_reason_to_refuse() -> None:
    """A wiki below /w is served at /w/index.php/Page, although nothing is at /Page."""
    table = make_table(Row("/w"), Row("/w/closed", OPS))

    assert may(table, "/w/index.php/Page")
    assert not may(table, "/w/index.php/closed")


def test_what_has_a_place_of_its_own_is_no_file_without_its_ending() -> None:
    """Beside a file for a few, a folder of the same name keeps what is in it."""
    table = make_table(Row("/"), Row("/docs"), Row("/docs.html", OPS))

    assert may(table, "/docs/x")
    assert not may(table, "/docs")


def table_of(*routes: dict[str, Any]) -> RouteTable:
    """Return the table of routes as in the file."""
    made = make_settings(route=list(routes), groups={"ops": ["alice"]})
    return RouteTable(made.route, made.groups)


def test_a_route_whose_tool_takes_names_as_they_are_says_so() -> None:
    """With `name_variants = false` on the route that serves, a name is what it is."""
    closed = {"name": "closed", "path": "/admin", "allow": ["group:ops"]}
    off = table_of({"name": "all", "allow": ["public"], "name_variants": False}, closed)
    on = table_of({"name": "all", "allow": ["public"]}, {**closed, "name_variants": False})

    for path in ("/admin.json", "/index.php/admin"):
        assert may(off, path)
        assert not may(on, path)
    assert not may(off, "/%61dmin")
    assert not may(off, "/admin%2f.json")


def test_a_route_with_a_path_of_its_own_is_judged_by_what_its_tool_sees() -> None:
    """Behind `upstream_path`, a front controller does not lead above the route, nor is refused."""
    table = table_of(
        {"name": "all", "allow": ["public"]},
        {"name": "admin", "path": "/admin", "allow": ["group:ops"]},
        {"name": "app", "path": "/app", "allow": ["public"], "upstream_path": "/"},
        {"name": "in", "path": "/app/admin", "allow": ["group:ops"], "upstream_path": "/admin"},
    )

    assert may(table, "/app/index.php/x")
    assert not may(table, "/app/index.php/admin")
    assert not may(table, "/app/admin.json")


#: Odd segments that no path has so many readings of that it is refused.
ONLY_FEW = 3
NAMES = ("admin", "page", "index", "index.php", "a.cgi", "x", "page.html", "..", "")
ENDINGS = ("", "", ".json", ".html", ".php", ".", "%2ejson", ";v", "::$DATA")


def segments(choices: Choices) -> list[str]:
    """Return up to six segments of a path, each a name with some ending."""
    return [choices.of(NAMES) + choices.of(ENDINGS) for _ in range(choices.between(0, 6))]


@given(parts=chosen(segments, 13))
@settings(max_examples=300, deadline=None)
def test_the_readings_by_name_are_bounded_and_complete(parts: list[str]) -> None:
    """Names that are left out of a reading that lacks some already give nothing new."""
    try:
        found = readings("/" + "/".join(parts))
        further = shortened(found)
    except TooManyReadingsError:
        assert len(parts) > ONLY_FEW  # refused, which lets nobody in
        return

    assert len(found | further) <= MAX_READINGS
    assert shortened(found | further) <= found | further
    assert all(reading.startswith("/") for reading in further)


COUNTING = table_of(*guarded("/admin"))
NOT_COUNTING = table_of(*({**route, "name_variants": False} for route in guarded("/admin")))


@given(parts=chosen(segments, 13), asker=st.sampled_from((Asker(), Asker("zoe"), ALICE)))
@settings(max_examples=300, deadline=None)
def test_the_key_only_ever_opens(parts: list[str], asker: Asker) -> None:
    """What passes with names counted passes without, and differs in readings by name alone."""
    path = "/" + "/".join(parts)

    if may(COUNTING, path, asker):
        assert may(NOT_COUNTING, path, asker)


# Real tools.

_DJANGO = """
import django
from django.conf import settings
settings.configure(
    SECRET_KEY="x", ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], INSTALLED_APPS=["rest_framework"],
    REST_FRAMEWORK={
        "DEFAULT_AUTHENTICATION_CLASSES": [], "UNAUTHENTICATED_USER": None,
        "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    },
)
django.setup()
from django.core.wsgi import get_wsgi_application
from django.urls import path
from rest_framework.decorators import api_view
from rest_framework.response import Response
from rest_framework.urlpatterns import format_suffix_patterns

@api_view(["GET"])
def admin(request, format=None):
    return Response({"secret": 1})

urlpatterns = format_suffix_patterns([path("admin", admin)])
application = get_wsgi_application()
"""


async def test_django_rest_framework(start_gate: Start, tmp_path: Path) -> None:
    """What Django REST framework serves as /admin.json too is closed by the rule for /admin."""
    async with gunicorn(tmp_path, _DJANGO) as tool:
        gate = await start_gate(tool, route=guarded("/admin"))
        off = await start_gate(tool, route=guarded("/admin", name_variants=False))
        for path in ("/admin", "/admin.json", "/admin.json/"):
            assert (await get(gate, path)).status == 403, path
        assert json.loads((await get(off, "/admin.json")).body) == {"secret": 1}


_PHP = "<?php echo 'secret', $_SERVER['PATH_INFO'] ?? '';"


async def test_php_front_controller(start_gate: Start, tmp_path: Path) -> None:
    """A path behind the name of a script is closed by the rule for that path."""
    for folder in (tmp_path / "site", tmp_path / "site/public"):
        folder.mkdir()
        (folder / "index.php").write_text(_PHP)
    async with php(tmp_path) as tool:
        gate = await start_gate(tool, route=guarded("/admin"))
        off = await start_gate(tool, route=guarded("/admin", name_variants=False))
        for path in ("/index.php/admin", "/public/index.php/admin/x"):
            assert (await get(gate, path)).status == 403, path
            assert (await get(off, path)).body.startswith(b"secret/admin"), path
        assert (await get(gate, "/public/index.php/open")).body == b"secret/open"


async def test_apache_multiviews(start_gate: Start, tmp_path: Path) -> None:
    """What Apache finds for a name without its ending is closed by the rule for the file."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/page.html").write_text("secret")
    lines = ("AddType text/html .html", "<Directory />", "Options +MultiViews", "</Directory>")
    async with apache(tmp_path, ("negotiation",), *lines) as tool:
        gate = await start_gate(tool, route=guarded("/page.html"))
        off = await start_gate(tool, route=guarded("/page.html", name_variants=False))
        for path in ("/page.html", "/page"):
            assert (await get(gate, path)).status == 403, path
        assert (await get(off, "/page")).body == b"secret"


async def test_nginx_try_files(start_gate: Start, tmp_path: Path) -> None:
    """What nginx tries with an ending, or as the index of a folder, is closed by its rule."""
    (tmp_path / "site/in").mkdir(parents=True)
    (tmp_path / "site/page.html").write_text("secret")
    (tmp_path / "site/in/index.html").write_text("secret")
    async with nginx(tmp_path, "location / { try_files $uri $uri.html $uri/ =404; }") as tool:
        for closed, path in (("/page.html", "/page"), ("/in/index.html", "/in/")):
            gate = await start_gate(tool, route=guarded(closed))
            off = await start_gate(tool, route=guarded(closed, name_variants=False))
            assert (await get(gate, path)).status == 403, path
            assert (await get(off, path)).body == b"secret", path
