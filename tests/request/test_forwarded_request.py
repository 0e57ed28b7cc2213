import pytest

from tailchat_gate.reasons import RefusedError
from tailchat_gate.request.fields import HeadLimits
from tailchat_gate.request.forwarded_request import original_of
from tailchat_gate.request.head import RequestHead, RequestReader
from tailchat_gate.request.target import Host, Original

QUESTION = "/oauth2/auth"
WIKI = Host(b"wiki.test", "wiki.test", "")


def asked(
    *lines: str, line: str = f"GET {QUESTION} HTTP/1.1", host: str = "gate.test"
) -> Original | None:
    """Return the request that a question with these field lines names."""
    return original_of(head(*lines, line=line, host=host), QUESTION)


def head(
    *lines: str, line: str = f"GET {QUESTION} HTTP/1.1", host: str = "gate.test"
) -> RequestHead:
    """Return the head of a question with these field lines."""
    data = "\r\n".join((line, f"Host: {host}", *lines, "", "")).encode("latin-1")
    found = RequestReader(HeadLimits(4096, 8192, 64, 4096)).read(data)
    assert found is not None
    return found[0]


def told(original: Original | None) -> tuple[str, str, bytes]:
    """Return method, host and target of an original request."""
    assert original is not None
    return original.method, original.host.name, original.target.raw


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            (
                "X-Forwarded-Method: POST",
                "X-Forwarded-Host: wiki.test",
                "X-Forwarded-Uri: /a?b=%2F",
            ),
            ("POST", "wiki.test", b"/a?b=%2F"),
        ),
        (("X-Forwarded-Uri: /a",), ("", "gate.test", b"/a")),
        (
            ("X-Original-URL: https://wiki.test/a?b", "X-Original-Method: PUT"),
            ("PUT", "wiki.test", b"/a?b"),
        ),
        (("X-Original-URI: /a//b;c",), ("", "gate.test", b"/a//b;c")),
        (("X-Original-URL: https://wiki.test",), ("", "wiki.test", b"/")),
        (("X-Forwarded-Host: WIKI.test.:8443", "X-Forwarded-Uri: /"), ("", "wiki.test", b"/")),
        (
            ("X-Forwarded-Uri: /a", "X-Original-URI: /a"),
            ("", "gate.test", b"/a"),
        ),
    ],
)
def test_each_dialect_is_read(lines: tuple[str, ...], expected: tuple[str, str, bytes]) -> None:
    """Method, host and target come from the fields of either dialect, byte for byte."""
    assert told(asked(*lines)) == expected


def test_a_path_behind_the_question_is_the_request_itself() -> None:
    """Envoy puts the original path behind the question's, with the original method and Host."""
    found = asked(
        "X-Forwarded-Uri: /other", line=f"PUT {QUESTION}/a%2Fb?c HTTP/1.1", host="wiki.test"
    )

    assert told(found) == ("PUT", "wiki.test", b"/a%2Fb?c")


@pytest.mark.parametrize("path", ["/a/../b", "/a/%2e%2e/b", "/a%2F..%2Fb", "//a;b", "/a%3Fb"])
def test_a_visitors_odd_path_behind_the_question_is_judged(path: str) -> None:
    """What a visitor may send to Envoy is the original request, as long as it stays one."""
    assert told(asked(line=f"GET {QUESTION}{path} HTTP/1.1"))[2] == path.encode()


@pytest.mark.parametrize("path", ["/..%2Fuserinfo", "/../x", "/a/%2e%2e/..%2f", "/%252e%252e/x"])
def test_a_path_that_leads_out_of_the_question_is_refused(path: str) -> None:
    """A proxy that keeps the question from visitors may not see it in such a path."""
    with pytest.raises(RefusedError, match="out of the question"):
        asked(line=f"GET {QUESTION}{path} HTTP/1.1")


def test_nothing_is_named() -> None:
    """A question without an original request is told apart from one for the root."""
    assert asked("X-Forwarded-Host: wiki.test", "X-Forwarded-Method: GET") is None


@pytest.mark.parametrize(
    "lines",
    [
        ("X-Forwarded-Uri: /a", "X-Original-URI: /b"),
        ("X-Forwarded-Uri: /a", "X-Original-URL: https://wiki.test/a"),
        ("X-Forwarded-Uri: /a", "X-Forwarded-Method: GET", "X-Original-URI: /a"),
        ("X-Forwarded-Uri: /a", "X-Forwarded-Uri: /a"),
        ("X-Forwarded-Uri: /a", "X-Forwarded-Host: a", "X-Forwarded-Host: a"),
        ("X-Original-URL: https://gate.test/a", "X-Original-URI: /a"),
        ("X-Forwarded-Uri: /a", "X-Forwarded-Host: a, b"),
        ("X-Forwarded-Uri: /a", "X-Forwarded-Host: a/b"),
        ("X-Forwarded-Uri: /a", "X-Forwarded-Method: G ET"),
        ("X-Forwarded-Uri: /a", "X-Forwarded-Method: " + "A" * 33),
        ("X-Forwarded-Uri: a",),
        ("X-Forwarded-Uri: /%00",),
        ("X-Forwarded-Uri: /a#b",),
        ("X-Forwarded-Uri: /a\\b",),
        ("X-Forwarded-Uri: /a b",),
        ("X-Forwarded-Uri: /\xe4",),
        ("X-Forwarded-Uri: https://wiki.test/a",),
        ("X-Original-URL: ftp://wiki.test/a",),
        ("X-Original-URL: https://user@wiki.test/a",),
    ],
)
def test_what_no_proxy_sends_is_refused(lines: tuple[str, ...]) -> None:
    """Fields that came twice, differ between the dialects or are malformed name no request."""
    with pytest.raises(RefusedError):
        asked(*lines)


def test_what_was_read_is_kept_with_the_fields() -> None:
    """A proxy that asks again with the same fields costs no second reading."""
    question = head("X-Forwarded-Uri: /a")

    assert original_of(question, QUESTION) is original_of(question, QUESTION)
