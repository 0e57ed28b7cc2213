"""`import-oauth2-proxy`: what it writes the gate loads, and lets in nobody who was kept out."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from clikit import invoke
from hypothesis import given, settings
from hypothesis import strategies as st

from tailchat_gate.commands.oauth2_proxy.conversion import Import
from tailchat_gate.commands.oauth2_proxy.options import OPTIONS
from tailchat_gate.config.keys import all_keys
from tailchat_gate.config.load import Loaded, load
from tailchat_gate.config.model import RouteSettings
from tailchat_gate.identity.seal import new_secret

ROOT = Path(__file__).parents[3]
URL = 'redirect_url = "https://tools.example.com/oauth2/callback"\n'
ANYBODY = 'email_domains = ["*"]\n'
TOOL = 'upstreams = ["http://127.0.0.1:3000"]\n'

Convert = Callable[[str], tuple[Loaded, str]]


@pytest.fixture
def convert(tmp_path: Path) -> Convert:
    """Return what imports a text and loads what comes of it; the second value are the remarks."""

    def run(text: str) -> tuple[Loaded, str]:
        (tmp_path / "old.cfg").write_text(text)
        code, out, err = invoke("import-oauth2-proxy", str(tmp_path / "old.cfg"))
        assert code == 0, err
        for name in ("client_secret", "session_secret"):
            (tmp_path / name).write_text(new_secret())
            (tmp_path / name).chmod(0o600)
        made = tmp_path / "config.toml"
        made.write_text(out.replace("/etc/tailchat-gate", str(tmp_path)).replace("tc_...", "tc_1"))
        return load(made, {}), err

    return run


def _routes(loaded: Loaded) -> dict[str, RouteSettings]:
    return {route.name: route for route in loaded.settings.route}


def test_what_has_a_counterpart_is_taken_over(convert: Convert) -> None:
    """Listeners, addresses, lifetimes and upstreams are those of the old file."""
    found, told = convert(
        URL
        + """
        http_address = ":4180"
        proxy_prefix = "/oauth2"
        metrics_address = ":9100"
        reverse_proxy = true
        trusted_proxy_ips = ["10.0.0.0/8"]
        cookie_expire = "168h0m0s"
        cookie_refresh = "1h"
        email_domains = ["*"]
        upstreams = ["http://127.0.0.1:3000/", "http://127.0.0.1:8080/api/", "file:///tmp#/files/"]
        upstream_timeout = "1m30s"
        pass_host_header = false
        proxy_websockets = false
        request_logging = false
        """
    )
    server, session, routes = found.settings.server, found.settings.session, _routes(found)

    assert (server.public_url, list(server.listen)) == (
        "https://tools.example.com",
        ["0.0.0.0:4180"],
    )
    assert server.admin_listen == "127.0.0.1:9100"
    assert "metrics_address: it has refusals and orders, too" in told
    assert [str(network) for network in server.trusted_proxies] == ["10.0.0.0/8"]
    assert (session.lifetime, session.recheck) == (7 * 86_400, 3_600)
    assert [(route.path, route.upstream) for route in routes.values()] == [
        ("/", "http://127.0.0.1:3000"),
        ("/api", "http://127.0.0.1:8080"),
        ("/files", "file:/tmp"),
    ]
    assert routes["tool-2"].upstream_host == "127.0.0.1:8080"
    assert (routes["tool-2"].response_timeout, routes["tool-2"].upgrades) == (90, ())
    assert routes["tool-1"].headers["X-Forwarded-User"] == "{sub}"
    assert found.settings.log.access is False


@pytest.mark.parametrize(
    ("restriction", "allow"),
    [
        ("", ("group:members",)),
        ('email_domains = ["example.com"]\n', ("group:members",)),
        (ANYBODY + 'allowed_groups = ["ops"]\n', ("group:members",)),
        (ANYBODY + 'authenticated_emails_file = "/x"\n', ("group:members",)),
        (ANYBODY + 'github_org = "ours"\n', ("group:members",)),
        (ANYBODY + 'keycloak_group = "ops"\n', ("group:members",)),
        (ANYBODY, ("signed-in",)),
    ],
)
def test_who_was_chosen_is_to_be_chosen_again(
    convert: Convert, restriction: str, allow: tuple[str, ...]
) -> None:
    """Where not everybody could enter, a group decides in which nobody is yet."""
    found, _ = convert(URL + TOOL + restriction)

    assert [tuple(route.allow) for route in found.settings.route] == [allow]
    assert all(not group.subs for group in found.settings.groups.values())


def test_addresses_that_were_not_believed_are_not_trusted(convert: Convert) -> None:
    """Only with reverse_proxy does oauth2-proxy read X-Forwarded-*, from those addresses."""
    found, told = convert(URL + TOOL + 'trusted_proxy_ips = ["10.0.0.0/8"]\n')

    assert found.settings.server.trusted_proxies == ()
    assert "trusted_proxy_ips: left out" in told


def test_a_public_path_is_of_its_methods_alone(convert: Convert) -> None:
    """Other methods of the path stay as they were, and no public route tells who it is."""
    found, told = convert(URL + TOOL + 'skip_auth_routes = ["GET=^/health/", "^/assets"]\n')
    routes = _routes(found)

    assert [(name, route.path, tuple(route.methods)) for name, route in routes.items()] == [
        ("tool-1", "/", ()),
        ("public-1", "/assets", ()),
        ("public-2-others", "/health", ()),
        ("public-2", "/health", ("GET",)),
    ]
    assert [tuple(route.allow) for route in routes.values()] == [
        ("group:members",),
        ("public",),
        ("group:members",),
        ("public",),
    ]
    assert not routes["public-1"].headers
    assert "^/assets opens /assets and everything below it" in told


@pytest.mark.parametrize(
    ("folder", "path", "expression", "served"),
    [
        ("/srv/files", "/files/", "^/files/open", "file:/srv/files/open"),
        ("/srv/files", "/", "^/open/", "file:/srv/files/open"),
        ("/", "/files", "GET=^/files/open", "file:/open"),
        ("/srv/files", "/files", "^/files", "file:/srv/files"),
    ],
)
def test_a_public_path_serves_the_files_below_it_alone(
    folder: str, path: str, expression: str, served: str
) -> None:
    """A route takes its own path off: with the folder of the whole tool it would open that."""
    old = {"upstreams": [f"file://{folder}#{path}"], "skip_auth_routes": [expression]}
    made = Import(old, "https://c.test", "https://g")
    below = [route for route in made.routes if route["name"].startswith("public-1")]

    assert {route["upstream"] for route in below} == {served}


@pytest.mark.parametrize(
    "expression",
    [
        "^/health$",
        "/",
        "^/",
        "^/.*",
        "POST!=^/x",
        "^/a(b|c)",
        "^/[^/]+/x",
        "health",
        "^/a|/b",
        *("(?i)/x", "/a//"),
    ],
)
def test_what_would_open_more_is_left_out(convert: Convert, expression: str) -> None:
    """An expression that no folder is opens nothing, and is told."""
    found, told = convert(URL + TOOL + f"skip_auth_routes = ['{expression}']\n")

    assert [tuple(route.allow) for route in found.settings.route] == [("group:members",)]
    assert f"skip_auth_routes: {expression} is " in told


EXPRESSIONS = st.lists(st.text("^$/ab.*|()=GETx-", max_size=9), max_size=3)


@pytest.mark.parametrize("option", ["skip_auth_regex", "skip_auth_routes"])
@settings(max_examples=300)
@given(EXPRESSIONS, st.text("/ab", max_size=5))
def test_no_path_opens_that_was_closed(option: str, expressions: list[str], path: str) -> None:
    """Every path that a public route serves matches an expression."""
    made = Import(
        {option: expressions, "upstreams": ["http://127.0.0.1:3000"]}, "https://c.test", "https://g"
    )
    opened = [route["path"] for route in made.routes if route["allow"] == ["public"]]
    if option == "skip_auth_routes":
        expressions = [text.split("=", 1)[-1] for text in expressions]
    patterns = [text for text in expressions if _compiles(text)]

    for folder in opened:
        served = f"{folder}/{path}"
        assert any(re.search(text, served) for text in patterns), (folder, expressions)


def _compiles(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True


def test_no_secret_is_shown(convert: Convert, tmp_path: Path) -> None:
    """Neither the configuration nor a remark has a secret of the old file."""
    secrets = ("s3cr3t-a", "s3cr3t-b", "s3cr3t-c", "s3cr3t-d", "s3cr3t-e")
    text = (
        f'{URL}client_secret = "s3cr3t-a"\ncookie_secret = "s3cr3t-b"\n'
        'basic_auth_password = "s3cr3t-c"\nredis_password = "s3cr3t-d"\n'
        'upstreams = ["http://me:s3cr3t-e@127.0.0.1:3000/", "http://me:s3cr3t-e@127.0.0.1:81/"]\n'
    )
    _, told = convert(text)
    made = (tmp_path / "config.toml").read_text()

    assert [secret for secret in secrets if secret in made + told] == []
    assert "client_secret: the App Secret of that app" in told


def test_an_option_that_is_none_is_told(convert: Convert) -> None:
    """With the one that was probably meant."""
    _, told = convert(URL + TOOL + "cookie_expires = '1h'\n")

    assert (
        "cookie_expires: no option of oauth2-proxy 7.15 that the gate knows; did you mean" in told
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (TOOL, "give --public-url"),
        (URL + "upstreams = [", "the YAML of --alpha-config is not read"),
        ("server:\n  BindAddress: x\n", "the YAML of --alpha-config is not read"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, text: str, problem: str) -> None:
    """Nothing is printed as a configuration then."""
    (tmp_path / "old.cfg").write_text(text)
    code, out, err = invoke("import-oauth2-proxy", str(tmp_path / "old.cfg"))

    assert (code, out) == (2, "")
    assert problem in err


def test_every_option_is_known() -> None:
    """The table has the options of oauth2-proxy 7.15, as its own structs name them."""
    names = (ROOT / "tests" / "data" / "oauth2_proxy_options.txt").read_text().split()

    assert sorted(OPTIONS) == names


def test_every_key_is_one_of_the_gates() -> None:
    """An option leads to a key or a table that exists."""
    keys = {".".join(key.path) for key in all_keys()}
    keys |= {key.partition(".")[0] for key in keys} | {"server.tls.certificate", "server.tls.key"}

    assert [
        option.key for option in OPTIONS.values() if option.key and option.key not in keys
    ] == []


def test_the_document_has_every_option() -> None:
    """The table for people is that of the command."""
    text = (ROOT / "docs" / "coming-from-oauth2-proxy.md").read_text()
    rows = re.findall(
        r"^\| `([a-z0-9_]+)` \| (?:`([a-z0-9_.]+)`)? *\| (.*) \|$", text, re.MULTILINE
    )

    assert {name: (key, remark.strip()) for name, key, remark in rows} == {
        name: (option.key, option.remark) for name, option in OPTIONS.items()
    }


@pytest.mark.parametrize("proxy", ["Authelia", "Vouch"])
def test_the_tables_of_other_proxies_name_keys_of_the_gate(proxy: str) -> None:
    """What stands beside an option of Authelia or Vouch is a key or a table that exists."""
    text = (ROOT / "docs" / "coming-from-oauth2-proxy.md").read_text()
    section = text.split(f"## From {proxy}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*`) \| (.*?) *\| .*\|$", section, re.MULTILINE)
    keys = {".".join(key.path) for key in all_keys()}
    keys |= {key.rpartition(".")[0] for key in keys}

    assert len(rows) > 20
    assert {name for _, here in rows for name in re.findall("`([^`]+)`", here)} <= keys
