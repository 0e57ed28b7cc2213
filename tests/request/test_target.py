import pytest
from hypothesis import given
from hypothesis import strategies as st
from tables import check_each

from tailchat_gate.reasons import RefusedError
from tailchat_gate.request.target import (
    NO_HOST,
    Host,
    read_host,
    read_target,
)

GATE = read_host(["gate.test"])


@pytest.mark.parametrize(
    ("raw", "name", "port"),
    [
        ("gate.test", "gate.test", ""),
        ("GATE.Test", "gate.test", ""),
        ("gate.test:8080", "gate.test", "8080"),
        ("gate.test:0", "gate.test", "0"),
        ("gate.test:65535", "gate.test", "65535"),
        ("gate.test.", "gate.test", ""),
        ("gate.test.:80", "gate.test", "80"),
        ("localhost", "localhost", ""),
        ("a", "a", ""),
        ("my_tool.lan", "my_tool.lan", ""),
        ("_x", "_x", ""),
        ("xn--9q8h.test", "xn--9q8h.test", ""),
        ("127.0.0.1:80", "127.0.0.1", "80"),
        ("[::1]", "[::1]", ""),
        ("[2001:DB8::1]:443", "[2001:db8::1]", "443"),
        ("[2001:db8:0:0::0.0.0.1]:443", "[2001:db8::1]", "443"),
        ("[0:0:0:0:0:0:0:1]", "[::1]", ""),
    ],
)
def test_host(raw: str, name: str, port: str) -> None:
    """A Host is kept as sent, and its name compared in lower case, in its one spelling."""
    assert read_host([raw]) == Host(raw.encode(), name, port)


def test_host_may_be_absent() -> None:
    """No Host at all is a host without a name (HTTP/1.0), which no route can be meant by."""
    assert read_host([]) is NO_HOST
    assert NO_HOST.name == ""


@pytest.mark.parametrize(
    "values",
    [
        ["gate.test", "gate.test"],
        ["gate.test", "evil.test"],
        ["gate.test", ""],
        [""],
        [" "],
        [" gate.test"],
        ["gate.test "],
        ["gate.test,evil.test"],
        ["gate.test, evil.test"],
        ["user@gate.test"],
        ["user:password@gate.test"],
        ["gate.test/path"],
        ["gate.test\\path"],
        ["gate.test?x"],
        ["gate.test#x"],
        ["http://gate.test"],
        ["gate.test:"],
        ["gate.test:65536"],
        ["gate.test:99999"],
        ["gate.test:000080"],
        ["gate.test:80a"],
        ["gate.test:-1"],
        ["gate.test:+80"],
        ["gate.test:8 0"],
        ["gate.test:80:80"],
        ["gate.test:٨٠"],
        [":80"],
        ["."],
        [".gate.test"],
        ["-gate.test"],
        ["gate..test"],
        ["gate.test.."],
        ["gate.test%00"],
        ["gate.test\x00"],
        ["gate.test\n"],
        ["gate.test\r\nX: y"],
        ["gate.test\t"],
        ["gate%2etest"],
        ["gäte.test"],
        ["gate\uff0etest"],
        ["\u212aate.test"],
        ["gate.te\u017ft"],
        ["gate.test\udcff"],
        ["::1"],
        ["[::1"],
        ["::1]"],
        ["[::1]]"],
        ["[::1%25eth0]"],
        ["[fe80::1%eth0]"],
        ["[]"],
        ["[:::::]"],
        ["[1:2:3]"],
        ["[::1.2.3]"],
        ["[g::1]"],
        ["[::1].test"],
        ["[" + "1:" * 30 + "]"],
        ["*"],
        ["a" * 256],
        ["<script>"],
    ],
)
def test_bad_host_is_refused(values: list[str]) -> None:
    """More than one Host, and whatever is not a host with an optional port, is refused."""
    with pytest.raises(RefusedError, match="Host"):
        read_host(values)


@pytest.mark.parametrize(
    ("raw", "path", "query"),
    [
        ("/", "/", ""),
        ("/a/b", "/a/b", ""),
        ("/a?b=c", "/a", "?b=c"),
        ("/a?", "/a", "?"),
        ("/?a?b?c", "/", "?a?b?c"),
        ("/a?z=1&a=2&z=3", "/a", "?z=1&a=2&z=3"),
        ("/%2F%3F%20%41%7e", "/%2F%3F%20%41%7e", ""),
        ("/%", "/%", ""),
        ("/%zz%2", "/%zz%2", ""),
        ("/%000", None, None),
        ("/%2500", "/%2500", ""),
        ("/?x=%00", "/", "?x=%00"),
        ("/?x=a\\b", "/", "?x=a\\b"),
        ("//evil.test/x", "//evil.test/x", ""),
        ("/../a/./b", "/../a/./b", ""),
        ("/a;b=c//d", "/a;b=c//d", ""),
        ("/\"<>[]^`{|}!$&'()*+,:=@~", "/\"<>[]^`{|}!$&'()*+,:=@~", ""),
        ("/http://evil.test/", "/http://evil.test/", ""),
        ("/a?/../b", "/a", "?/../b"),
    ],
)
def test_origin_form(raw: str, path: str | None, query: str | None) -> None:
    """A path and its query pass byte for byte, undecoded, unresolved and in order."""
    if path is None or query is None:
        with pytest.raises(RefusedError):
            read_target(raw, GATE)
        return
    target = read_target(raw, GATE)

    assert (target.raw, target.path, target.query) == (raw.encode(), path, query)


@pytest.mark.parametrize("place", ["/a{}b", "/{}", "/a?b{}c", "{}/a", "http://gate.test/{}"])
def test_raw_controls_spaces_and_non_ascii_are_refused(place: str) -> None:
    """No control byte, no space and no byte above 0x7e passes, wherever it stands."""

    def check(code: int) -> None:
        with pytest.raises(RefusedError):
            read_target(place.format(chr(code)), GATE)

    check_each([*range(0x21), 0x7F, 0x80, 0xA0, 0xE9, 0x2028, 0xFF0F, 0xDCFF], check)


@pytest.mark.parametrize(
    "raw",
    [
        "/a#b",
        "/#",
        "/a?b#c",
        "/a\\b",
        "/\\evil.test",
        "/%00",
        "/a%00.png",
        "/%00?x",
        "",
        "*",
        "a",
        "a/b",
        "?a",
        "../a",
        ".",
        "gate.test:443",
        "gate.test",
        "ftp://gate.test/",
        "ws://gate.test/",
        "javascript:alert(1)",
        "http:/gate.test/",
        "http:gate.test",
        "http//gate.test/",
        "xhttp://gate.test/",
        "httpss://gate.test/",
        "http\u017f://gate.test/",
        " http://gate.test/",
    ],
)
def test_other_forms_are_refused(raw: str) -> None:
    """Fragments, raw backslashes, encoded NULs, asterisk-form and authority-form are refused."""
    with pytest.raises(RefusedError):
        read_target(raw, GATE)


@pytest.mark.parametrize(
    ("raw", "host", "forwarded"),
    [
        ("http://gate.test/a?b=c", "gate.test", "/a?b=c"),
        ("https://gate.test/a", "gate.test", "/a"),
        ("HTTP://GATE.Test/A", "gate.test", "/A"),
        ("http://gate.test", "gate.test", "/"),
        ("http://gate.test?x", "gate.test", "/?x"),
        ("http://gate.test.:80/x", "Gate.test:80", "/x"),
        ("http://gate.test/../%2e%2e/a", "gate.test", "/../%2e%2e/a"),
        ("http://gate.test//evil.test/", "gate.test", "//evil.test/"),
        ("http://gate.test/http://evil.test/", "gate.test", "/http://evil.test/"),
        ("http://[::1]:8080/x", "[::1]:8080", "/x"),
    ],
)
def test_absolute_form_of_the_same_host(raw: str, host: str, forwarded: str) -> None:
    """An absolute URL of the host in the Host field goes on in origin-form."""
    target = read_target(raw, read_host([host]))

    assert target.raw == forwarded.encode()


@pytest.mark.parametrize(
    ("raw", "host"),
    [
        ("http://evil.test/", "gate.test"),
        ("http://gate.test:81/", "gate.test"),
        ("http://gate.test/", "gate.test:81"),
        ("http://gate.test:80/", "gate.test"),
        ("http://user@gate.test/", "gate.test"),
        ("http://user:pw@gate.test/", "gate.test"),
        ("http://gate.test@evil.test/", "gate.test"),
        ("http://evil.test\\@gate.test/", "gate.test"),
        ("http://gate.test:/", "gate.test"),
        ("http://gate.test:65536/", "gate.test"),
        ("http://", "gate.test"),
        ("http:///x", "gate.test"),
        ("http://?x", "gate.test"),
        ("http://gate.test\\x", "gate.test"),
        ("http://gate.test#x", "gate.test"),
        ("http://gate.test/x#y", "gate.test"),
        ("http://gate.test/%00", "gate.test"),
        ("http://g%61te.test/", "gate.test"),
        ("http://gate.test,evil.test/", "gate.test"),
    ],
)
def test_absolute_form_of_another_host_is_refused(raw: str, host: str) -> None:
    """An absolute URL that does not name the very host of the Host field is refused."""
    with pytest.raises(RefusedError):
        read_target(raw, read_host([host]))


@pytest.mark.parametrize("host", [NO_HOST, None])
def test_absolute_form_without_host_is_refused(host: Host | None) -> None:
    """An absolute URL without a Host field names a host that nobody confirmed."""
    with pytest.raises(RefusedError):
        read_target("http://gate.test/", host)


@given(text=st.text(st.characters(max_codepoint=0x17F), max_size=30))
def test_what_passes_is_visible_ascii(text: str) -> None:
    """Whatever comes after the slash, a target that is accepted is unchanged visible ASCII."""
    try:
        target = read_target("/" + text, GATE)
    except RefusedError:
        return

    assert target.raw == ("/" + text).encode("ascii")
    assert target.path + target.query == "/" + text
    assert all(0x21 <= octet <= 0x7E and octet != ord("#") for octet in target.raw)
    assert "\\" not in target.path
    assert "?" not in target.path


@given(text=st.text(st.characters(max_codepoint=0x17F), max_size=30))
def test_what_passes_as_host_is_plain(text: str) -> None:
    """Whatever is sent as Host, one that is accepted holds no separator and no odd byte."""
    try:
        host = read_host([text])
    except RefusedError:
        return

    assert host.raw == text.encode("ascii")
    assert not set(host.name) & set(" /\\?#@,%;\"'<>")
    assert host.name == host.name.lower()
    assert not host.name.endswith(".")


def test_error_says_nothing_of_the_target() -> None:
    """The text of a refusal repeats nothing that was sent, because it is shown and logged."""
    for sent in ("/secret-code#x", "http://secret-code/"):
        with pytest.raises(RefusedError) as caught:
            read_target(sent, GATE)
        assert "secret-code" not in str(caught.value)
