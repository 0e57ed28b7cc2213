"""Single values: what each check accepts, in which spelling, and what it refuses."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailchat_gate.config.values import (
    address,
    header,
    identifier,
    path,
    quantities,
    url,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", 90.0),
        ("15m", 900.0),
        ("12h", 43200.0),
        ("2d", 172800.0),
        ("1h30m", 5400.0),
        ("1d1h1m1s", 90061.0),
        ("0", 0.0),
        ("0s", 0.0),
        (0, 0.0),
        ("365d", 31536000.0),
    ],
)
def test_durations(text: object, expected: float) -> None:
    """Durations are read into seconds."""
    assert quantities.read_duration(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        5,
        0.0,
        True,
        False,
        "1.5h",
        "-1s",
        "1s1m",
        "1m1m",
        "1h 30m",
        "1w",
        "1H",
        "٣s",
        "366d",
        "9999999999d",
        None,
        [],
        "s",
    ],
)
def test_not_durations(text: object) -> None:
    """A number without unit, and anything unclear, is refused."""
    with pytest.raises(ValueError, match="a duration in quotes"):
        quantities.read_duration(text)


@given(st.integers(min_value=0, max_value=365 * 86400))
def test_durations_are_written_as_they_are_read(length: int) -> None:
    """What `spelled` writes, `seconds` reads back."""
    assert quantities.read_duration(quantities.format_duration(float(length))) == length


@pytest.mark.parametrize(
    ("text", "expected"),
    [("512KiB", 524_288), ("1MiB", 1_048_576), ("0", 0), (0, 0), ("0KiB", 0)],
)
def test_sizes(text: object, expected: int) -> None:
    """Sizes are read into bytes."""
    assert quantities.read_size(text) == expected


@pytest.mark.parametrize(
    "text", ["", "1", 1, 1.0, True, False, "1MB", "1 MiB", "1mib", "-1KiB", "1.5MiB", "٣KiB", None]
)
def test_not_sizes(text: object) -> None:
    """A number without unit, and anything unclear, is refused."""
    with pytest.raises(ValueError, match="a size in quotes"):
        quantities.read_size(text)


@given(st.integers(min_value=0, max_value=2**20))
def test_sizes_are_written_as_they_are_read(kib: int) -> None:
    """What `format_size` writes, `read_size` reads back."""
    assert quantities.read_size(quantities.format_size(kib * 1024)) == kib * 1024


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://gate.example.com", "https://gate.example.com"),
        ("HTTPS://GATE.example.com:443/", "https://gate.example.com"),
        ("http://gate.example.com:80", "http://gate.example.com"),
        ("http://gate.example.com:443", "http://gate.example.com:443"),
        ("https://[2001:DB8:0::1]:8443", "https://[2001:db8::1]:8443"),
        ("http://192.0.2.7:08080", "http://192.0.2.7:8080"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
    ],
)
def test_origins(text: str, expected: str) -> None:
    """An origin has one spelling (RFC 6454)."""
    assert url.origin(text) == expected


NOT_URLS = [
    "",
    "gate.example.com",
    "//gate.example.com",
    "ftp://gate.example.com",
    "https://",
    "http\u017f://gate.example.com",
    "https:///x",
    "https://:443",
    "https://a@gate.example.com",
    "https://gate.example.com:0",
    "https://gate.example.com:65536",
    "https://gate.example.com:",
    "https://gate.example.com:8o",
    "https://gate.example.com?",
    "https://gate.example.com/#",
    "https://gate.example.com\\evil.example",
    "https://gate example.com",
    "https://gate.example.com\n",
    " https://gate.example.com",
    "https://gate..example.com",
    "https://-gate.example.com",
    "https://gate.example.com.",
    "https://[::1",
    "https://[fe80::1%25eth0]",
    "https://1.2.3",
    "https://0x7f.1",
    "https://256.1.1.1",
    "https://" + "a" * 64 + ".example",
    "https://" + "a." * 127 + "example",
]


@pytest.mark.parametrize(
    "text", [*NOT_URLS, "https://gate.example.com/x", "https://gate.example.com//"]
)
def test_not_origins(text: str) -> None:
    """Anything after the port, and any host that browsers would read otherwise, is refused."""
    with pytest.raises(ValueError, match="an http or https origin"):
        url.origin(text)


@pytest.mark.parametrize(
    "text",
    [
        *NOT_URLS,
        *(
            f"https://a.example/{rest}"
            for rest in ("a//b", "..", "a/./b", "a%2fb", "a;b", "a b", "/")
        ),
    ],
)
def test_not_base_urls(text: str) -> None:
    """A base URL has a plain path or none, so that paths can be put behind it."""
    with pytest.raises(ValueError, match="an http or https URL"):
        url.base_url(text)


@pytest.mark.parametrize(
    "text",
    [
        *NOT_URLS,
        "http://a:1/",
        "unix:",
        "unix:x",
        "unix://x",
        "unix:/a\n",
        "unix:/" + "x" * 107,
        "a:80",
        "h2c://a:80",
        "Static:200",
        "files:/srv",
    ],
)
def test_not_upstreams(text: str) -> None:
    """An upstream is one of five forms, which the refusal names."""
    forms = r"http://host:port.*https://host:port.*unix:/path.*static:.*file:"
    with pytest.raises(ValueError, match=forms):
        address.upstream(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "20",
        "0200",
        "199",
        "100",
        "101",
        "600",
        "999",
        "+20",
        " 200",
        "200 ",
        "20\u0966",
        "200/x",
    ],
)
def test_not_static_answers(text: str) -> None:
    """The gate answers with a final status of three digits (RFC 9110 section 15)."""
    with pytest.raises(ValueError, match="a status from 200 to 599"):
        address.upstream(f"static:{text}")


@pytest.mark.parametrize(
    "text",
    [
        *("", "/", "//", "srv", "./srv", "///srv", "//host/srv", "/srv//docs", "/srv//", "~/docs"),
        *("/..", "/../srv", "/srv/..", "/srv/.", "/srv/../etc", "/./srv", "/srv/./docs/"),
        *("/srv\0", "/srv/\n", "/srv/a\x7f"),
    ],
)
def test_not_directories(text: str) -> None:
    """A directory has one absolute spelling, and is not the whole machine."""
    with pytest.raises(ValueError, match='"file:" and an absolute path'):
        address.upstream(f"file:{text}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://grafana:3000", "http://grafana:3000"),
        ("http://My_App", "http://my_app"),
        ("https://[::1]:1", "https://[::1]:1"),
        ("unix:/run/My App.sock", "unix:/run/My App.sock"),
        ("static:200", "static:200"),
        ("static:599", "static:599"),
        ("file:/srv/Meine Bücher/..a/b..", "file:/srv/Meine Bücher/..a/b.."),
        ("file:/srv/docs/", "file:/srv/docs"),
    ],
)
def test_upstreams(text: str, expected: str) -> None:
    """An upstream keeps its port as written and the case of a path."""
    assert address.upstream(text) == expected


@pytest.mark.parametrize(
    ("text", "host", "port", "tls"),
    [
        ("http://grafana", "grafana", 80, False),
        ("https://grafana", "grafana", 443, True),
        ("https://grafana:80", "grafana", 80, True),
        ("http://[::1]:3000", "::1", 3000, False),
    ],
)
def test_tools_over_tcp(text: str, host: str, port: int, tls: bool) -> None:
    """The address of a tool says where to connect and how, with brackets and gaps filled in."""
    found = address.upstream_address(text)

    assert isinstance(found, address.HttpAddress)
    assert (found.host, found.port, found.tls) == (host, port, tls)
    assert str(found) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unix:/run/a.sock", address.UnixAddress("/run/a.sock")),
        ("static:404", address.StaticAddress(404)),
        ("file:/srv/docs/", address.FilesAddress("/srv/docs")),
    ],
)
def test_other_upstreams(text: str, expected: address.Upstream) -> None:
    """A socket, a status and a directory are told apart by their type."""
    assert address.upstream_address(text) == expected


@pytest.mark.parametrize("text", ["660", "0o660", "rw", "1777", "0668", ""])
def test_not_modes_of_a_socket(text: str) -> None:
    """A mode is four octal digits as chmod prints them, without set-id bits."""
    with pytest.raises(ValueError, match="octal digits"):
        identifier.unix_mode(text)


@pytest.mark.parametrize("text", ["www data", "-x", "a/b", "4294967296", "a" * 33])
def test_not_groups_of_the_machine(text: str) -> None:
    """A group is a name as the system has them, or a number."""
    with pytest.raises(ValueError, match="group of this machine"):
        identifier.unix_group(text)


@pytest.mark.parametrize(
    ("upstream", "listen", "expected"),
    [
        ("http://127.0.0.1:4180", "127.0.0.1:4180", True),
        ("http://localhost:4180", "127.0.0.1:4180", True),
        ("http://127.0.0.1:4180", "0.0.0.0:4180", True),
        ("http://[::1]:4180", "[::]:4180", True),
        ("http://0.0.0.0:4180", "127.0.0.1:4180", True),
        ("https://gate.lan", "gate.lan:443", True),
        ("unix:/run/gate.sock", "unix:/run/gate.sock", True),
        ("http://127.0.0.1:4181", "127.0.0.1:4180", False),
        ("http://[::1]:4180", "127.0.0.1:4180", False),
        ("http://wiki:4180", "0.0.0.0:4180", False),
        ("unix:/run/wiki.sock", "unix:/run/gate.sock", False),
        ("http://127.0.0.1:4180", "unix:/run/gate.sock", False),
        ("static:204", "127.0.0.1:4180", False),
    ],
)
def test_an_upstream_that_is_the_gate(upstream: str, listen: str, *, expected: bool) -> None:
    """Said only where it is certain, so that no tool is refused by mistake."""
    found = address.leads_to(address.upstream_address(upstream), address.listen_address(listen))
    assert found is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Grafana.LAN", "grafana.lan"),
        ("grafana:03000", "grafana:3000"),
        ("grafana:80", "grafana:80"),
        ("[2001:DB8::0]:1", "[2001:db8::]:1"),
        ("bücher.example", "xn--bcher-kva.example"),
    ],
)
def test_upstream_hosts(text: str, expected: str) -> None:
    """A host for a tool is written as a Host field holds it (RFC 9110 section 7.2)."""
    assert url.authority(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", ":80", "a:", "a:0", "a:65536", "::1", "a b", "a/b", "a@b", "http://a", "a?b", "a\r\nX: y"],
)
def test_not_upstream_hosts(text: str) -> None:
    """Nothing that is not a host and a port gets into a Host field."""
    with pytest.raises(ValueError, match="a host with or without a port"):
        url.authority(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Grafana.LAN.", "grafana.lan"),
        ("192.0.2.7", "192.0.2.7"),
        ("2001:DB8::0", "2001:db8::"),
        ("[::1]", "::1"),
    ],
)
def test_server_names(text: str, expected: str) -> None:
    """A name in a certificate has no dot at its end (RFC 6066 section 3) and no brackets."""
    assert url.server_name(text) == expected


@pytest.mark.parametrize("text", ["", ".", "a:443", "https://a", "*.a", "a..b", "[::1]:1", "a\0"])
def test_not_server_names(text: str) -> None:
    """A name is verified as it stands, so it is one name."""
    with pytest.raises(ValueError, match="the host name in the certificate"):
        url.server_name(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("/", "/"), ("/a/b/", "/a/b"), ("/ping", "/ping"), ("/a-b_c.d~e", "/a-b_c.d~e")],
)
def test_upstream_paths(text: str, expected: str) -> None:
    """A tool may be asked for any plain path, the gate's own /ping among them."""
    assert path.upstream_path(text) == expected


@pytest.mark.parametrize(
    "text", ["", "a", "//", "/a//b", "/a/../b", "/.", "/%61", "/a;b", "/a?b", "/a#b", "/\\", "/*"]
)
def test_not_upstream_paths(text: str) -> None:
    """A path that servers read in more than one way is never put before a visitor's."""
    with pytest.raises(ValueError, match='an absolute path such as "/" or "/wiki"'):
        path.upstream_path(text)


@pytest.mark.parametrize(
    "text", ["", "/", "a.pem", "./a.pem", "/etc/", "/a\0b", "/a\nb", "~/a.pem"]
)
def test_not_absolute_files(text: str) -> None:
    """A file is found wherever the gate was started."""
    with pytest.raises(ValueError, match="the absolute path of a file"):
        path.absolute_file(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("*", "*"),
        ("null", "null"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("Capacitor://Localhost/", "capacitor://localhost"),
        ("file://", "file://"),
        ("vscode-webview://*", "vscode-webview://*"),
        ("vscode-webview://1l6tdl0aqfk2", "vscode-webview://1l6tdl0aqfk2"),
        ("chrome-extension://abcdefgh", "chrome-extension://abcdefgh"),
        ("app://obsidian.md:8080", "app://obsidian.md:8080"),
        ("HTTPS://App.example.com:443/", "https://app.example.com"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_origins_of_pages_elsewhere(text: str, expected: str) -> None:
    """An origin is kept as browsers write it in Origin (RFC 6454 section 6.2)."""
    assert header.origin(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *NOT_URLS,
        *("NULL", "**", "https://*.example.com", "https://*", "https://a.example/x"),
        *(
            "wss://a.example",
            "ws://*",
            "javascript://x",
            "data://",
            "file:///srv",
            "://x",
            "a://b c",
        ),
        *(
            "capacitor:localhost",
            "capacitor://a/b",
            "capacitor://*.x",
            "capacitor://u@h",
            "a://b c",
        ),
    ],
)
def test_not_origins_of_pages_elsewhere(text: str) -> None:
    """An origin is one whole origin of a page; a page without one is never let in by name."""
    with pytest.raises(ValueError, match=r'an origin such as .* or "\*" alone'):
        header.origin(text)


@pytest.mark.parametrize("text", ["websocket", "irc", "connect-udp", "x_y.z"])
def test_protocols(text: str) -> None:
    """A protocol's name is kept as it is."""
    assert header.protocol(text) == text


@pytest.mark.parametrize(
    "text",
    [
        *("h2c", "H2C", "h2", "h3", "http", "HTTP/2.0", "https", "tls/1.2", "TLS"),
        *("", "WebSocket", "a/1", "a b", "a,b", "a\r\n", "é", "x" * 65),
    ],
)
def test_not_protocols(text: str) -> None:
    """No other form of HTTP can be tunnelled, in any case and version, and no list of names."""
    with pytest.raises(ValueError, match="the name of a protocol in lower case"):
        header.protocol(text)


@pytest.mark.parametrize("text", ["a b", "a/b", "gate:80", "a,b", "(gate)", "é", "a\n", "x" * 65])
def test_not_pseudonyms(text: str) -> None:
    """The gate's name in Via is one token, so that it cannot add an entry or a comment."""
    with pytest.raises(ValueError, match="one word of at most 64"):
        identifier.via(text)


@pytest.mark.parametrize("text", ["tailchat_gate", "gate.two-B_3", "x", "9" * 64])
def test_a_cookie_name(text: str) -> None:
    """A name for the session cookie is taken as it is."""
    assert identifier.cookie_name(text) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "a b", "a=b", "a;b", "__Host-gate", "_session", "tailchat_gate_login", "9" * 65),
        *("a_login_b", "\xe9", "a\n", "a,b", '"a"'),
    ],
)
def test_a_bad_cookie_name(text: str) -> None:
    """Nothing that another reader could take apart, nor the name of a login cookie."""
    with pytest.raises(ValueError, match="64 letters"):
        identifier.cookie_name(text)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:0", "127.0.0.1", 0),
        ("[::]:4180", "::", 4180),
        ("[fe80::1%eth0]:80", "fe80::1%eth0", 80),
        ("Gate.lan:65535", "gate.lan", 65535),
    ],
)
def test_listen_addresses(text: str, host: str, port: int) -> None:
    """A listener's host comes without brackets, ready to bind, and is written back with them."""
    found = address.listen_address(text)

    assert found == address.TcpAddress(host, port)
    assert address.listen_address(str(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        *("a/b", "a:80", "[::1]:80", "", ".", "a..b", "I♥NY.x", "-ü.x"),
        *("*", "*.", "*.*.x", "a.*.x", "*a.x", "**.x", "*x", "*..x", "*.a:80", "*.a/b", "*.a..b"),
        *("*.1.2.3.4", "*.[::1]", "*.0x7f", "*.3"),
    ],
)
def test_not_route_hosts(text: str) -> None:
    """A route's host is a bare name, or one behind a wildcard, and the same to every client."""
    with pytest.raises(ValueError, match=r"a host name or address|ASCII form"):
        url.route_host(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("WIKI.example.com.", "wiki.example.com"),
        ("[2001:DB8::0]", "[2001:db8::]"),
        ("192.0.2.7", "192.0.2.7"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("Straße.example", "xn--strae-oqa.example"),
        ("a_b.bücher.example", "a_b.xn--bcher-kva.example"),
        ("例え。テスト", "xn--r8jz45g.xn--zckzah"),
        ("*.Example.COM.", "*.example.com"),
        ("*.BÜCHER.example", "*.xn--bcher-kva.example"),
        ("*.lan", "*.lan"),
    ],
)
def test_route_hosts(text: str, expected: str) -> None:
    """A route's host is what a browser sends in Host, without port."""
    assert url.route_host(text) == expected


@pytest.mark.parametrize(
    "text", ["/ping", "wiki", "", "/a?b", "/a#b", "/a\\b", "/ä", "/a b", "/\x00"]
)
def test_not_route_paths(text: str) -> None:
    """A path that needs escaping, or that the gate answers itself, is refused."""
    with pytest.raises(ValueError, match="an absolute path"):
        path.route_path(text)


@pytest.mark.parametrize(
    "text", ["/", "", "oauth2", "/a/", "//a", "/a//b", "/./a", "/a/..", "/ping"]
)
def test_not_prefixes(text: str) -> None:
    """A prefix consists of whole plain segments."""
    with pytest.raises(ValueError, match="a path such as"):
        path.prefix(text)


def test_templates_are_taken_apart() -> None:
    """A template becomes literals and fields, with doubled braces single."""
    assert header.pieces("a{{{sub}}} {nickname}{{}}") == (
        ("text", "a{"),
        ("field", "sub"),
        ("text", "} "),
        ("field", "nickname"),
        ("text", "{}"),
    )


@pytest.mark.parametrize(
    "text", ["{", "}", "{}", "{ sub}", "{Sub}", "{sub!r}", "{sub.x}", "{{}", "\t"]
)
def test_not_templates(text: str) -> None:
    """A template has no format language, and no stray brace."""
    with pytest.raises(ValueError, match="visible ASCII"):
        header.template(text)


@pytest.mark.parametrize("text", ["GET", "PROPFIND", "VERSION-CONTROL", "M-SEARCH", "TRACE"])
def test_methods(text: str) -> None:
    """A method is kept as it is."""
    assert identifier.method(text) == text


@pytest.mark.parametrize(
    "text", ["", "get", "Get", "GET ", "GET,POST", "*", "CONNECT", "GÉT", "GET\n", "A" * 33, "1A"]
)
def test_not_methods(text: str) -> None:
    """A method stands in capitals, one by one, and is not for the proxy itself."""
    with pytest.raises(ValueError, match="a method in capitals"):
        identifier.method(text)


@pytest.mark.parametrize(
    "text", ["group:ops", "sub:660000000000000000000001", "token:backup", "sub:public"]
)
def test_deny_entries(text: str) -> None:
    """A deny list names persons, groups and machines."""
    assert identifier.deny_entry(text) == text == identifier.allow_entry(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "public", "signed-in", "ops", "group:", "sub:", "token:", "sub:a b", "token:a b"),
        *("token:-x", "Group:ops", "nickname:Alice", "sub:名", "token:" + "x" * 65),
    ],
)
def test_not_deny_entries(text: str) -> None:
    """Nobody is denied by a word that is for everybody, or by a name that its owner chooses."""
    with pytest.raises(ValueError, match=r'^"group:NAME", "sub:ID" or "token:NAME"$'):
        identifier.deny_entry(text)


PARSERS: list[Callable[[str], object]] = [
    url.origin,
    url.base_url,
    url.issuer,
    address.upstream,
    address.listen,
    url.route_host,
    url.authority,
    url.server_name,
    header.origin,
    header.protocol,
    path.prefix,
    path.route_path,
    path.upstream_path,
    path.absolute_file,
    identifier.via,
    header.header_name,
    header.template,
    identifier.route_name,
    identifier.group_name,
    identifier.sub,
    identifier.scope,
    identifier.contact,
    identifier.allow_entry,
    identifier.deny_entry,
    identifier.method,
]
PIECES = (
    "http:// https:// unix: static: file: 204 / . .. : 80 a Å ß [ ::1 ] @ % ? # { } {sub} group: "
    "sub: - * 0x1 \n \0"
)
LIKELY = st.lists(st.sampled_from(PIECES.split(" ")), max_size=8).map("".join)


@given(text=st.one_of(st.text(max_size=40), LIKELY))
@settings(max_examples=200)
def test_any_text_is_canonical_or_refused(text: str) -> None:
    """No text crashes a check, and what is accepted is accepted again unchanged."""
    for parse in PARSERS:
        try:
            once: Any = parse(text)
        except ValueError:
            continue
        assert parse(once) == once, parse
        assert "\n" not in once, parse
