"""Locations and cookies of a tool, as the visitor gets them."""

from typing import Any

import pytest
from gatekit import make_settings

from tailchat_gate.proxy.message.response_fields import ResponseRewriter, rewriter_of


def _rewriter(**route: Any) -> ResponseRewriter:  # noqa: ANN401 - as in the file
    keys = {"name": "t", "rewrite_location": True, "rewrite_cookies": True, **route}
    return ResponseRewriter(make_settings("http://tool:3000", route=[keys]).route[0])


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (b"http://tool:3000/x?y#z", b"/app/x?y#z"),
        (b"HTTP://TOOL:3000", b"/app/"),
        (b"https://tool:3000/x", b"/app/x"),
        (b"http://own.lan/x", b"/app/x"),
        (b"http://own.lan:80/x", b"/app/x"),
        (b"/x", b"/app/x"),
        (b"/", b"/app/"),
        (b"/?a", b"/app/?a"),
        (b"x/y", b"x/y"),
        (b"?a", b"?a"),
        (b"//evil.test/x", b"//evil.test/x"),
        (b"/\\evil.test/x", b"/\\evil.test/x"),
        (b"http://tool:3000//evil.test/x", b"/app/evil.test/x"),
        (b"http://tool:3000/\\evil.test/x", b"/app/evil.test/x"),
        (b"http://tool:3000/\t/evil.test", b"http://tool:3000/\t/evil.test"),
        (b"/\t/evil.test", b"/\t/evil.test"),
        (b"http://tool:3001/x", b"http://tool:3001/x"),
        (b"http://tool:3000@evil.test/x", b"http://tool:3000@evil.test/x"),
        (b"https://elsewhere.test/x", b"https://elsewhere.test/x"),
        (b"", b""),
    ],
)
def test_a_location_of_the_tool_becomes_the_gates(value: bytes, sent: bytes) -> None:
    """The tool's own address and paths lead back through the route; all else stays as it is."""
    rewriter = _rewriter(path="/app", upstream_path="/", upstream_host="own.lan")

    assert rewriter.location(value) == sent


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (b"https://Wiki.test:8443/x?y", b"/app/x?y"),
        (b"http://wiki.test:8443/x", b"/app/x"),
        (b"//wiki.test:8443/x", b"/app/x"),
        (b"//wiki.test:8443", b"/app/"),
        (b"//tool:3000/x", b"/app/x"),
        (b"//own.lan//evil.test", b"/app/evil.test"),
        (b"https://wiki.test:8443/app/x", b"/app/x"),
        (b"https://wiki.test:8443/app", b"/app"),
        (b"https://wiki.test:8443/apple", b"/app/apple"),
        (b"https://wiki.test:8443/\\evil.test", b"/app/evil.test"),
        (b"https://wiki.test/x", b"https://wiki.test/x"),
        (b"//wiki.test:8443@evil.test/", b"//wiki.test:8443@evil.test/"),
        (b"//wiki.test:8443\\@evil.test/", b"/app/@evil.test/"),
        (b"ftp://tool:3000/x", b"ftp://tool:3000/x"),
        (b"///tool:3000/x", b"///tool:3000/x"),
    ],
)
def test_an_address_by_the_visitors_own_name(value: bytes, sent: bytes) -> None:
    """A tool that builds addresses of Host, with a scheme or without, is led back too."""
    rewriter = _rewriter(path="/app", upstream_path="/", upstream_host="own.lan")

    assert rewriter.location(value, b"https://wiki.test:8443") == sent


def test_a_way_to_tls_stays_one() -> None:
    """A redirect from http to the same host by https keeps its scheme: a path would go round."""
    rewriter = _rewriter(path="/app", upstream_path="/")

    assert (
        rewriter.location(b"https://wiki.test/x", b"http://wiki.test") == b"https://wiki.test/app/x"
    )
    assert rewriter.location(b"http://wiki.test/x", b"https://wiki.test") == b"/app/x"


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (b"5; url=http://tool:3000/x", b"5; url=/app/x"),
        (b"0;URL='/x'", b"0;URL='/app/x'"),
        (b'0, url = "//own.lan/x" z', b'0, url = "/app/x" z'),
        (b"0.5 ; /x", b"0.5 ; /app/x"),
        (b"3 url=/x", b"3 url=/app/x"),
        (b"0; url=https://evil.test/x", b"0; url=https://evil.test/x"),
        (b"5", b"5"),
        (b"5; url=x", b"5; url=x"),
        (b"x; url=/x", b"x; url=/x"),
        (b"", b""),
    ],
)
def test_a_refresh(value: bytes, sent: bytes) -> None:
    """The address in a Refresh is rewritten as a Location is, however it is written."""
    rewriter = _rewriter(path="/app", upstream_path="/", upstream_host="own.lan")

    assert rewriter.refresh(value) == sent


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (b"/tool/x", b"/app/x"),
        (b"/tool", b"/app"),
        (b"/toolbox", b"/toolbox"),
        (b"/other", b"/other"),
        (b"http://tool:3000/other", b"/other"),
    ],
)
def test_a_path_outside_of_the_replacement_stays(value: bytes, sent: bytes) -> None:
    """Only whole segments of upstream_path are mapped back."""
    assert _rewriter(path="/app", upstream_path="/tool").location(value) == sent


def test_without_a_prefix_only_the_origin_goes() -> None:
    """On a route at "/" the path stays the same, and never begins with two slashes."""
    rewriter = _rewriter()

    assert rewriter.location(b"http://tool:3000/a//b") == b"/a//b"
    assert rewriter.location(b"http://tool:3000") == b"/"
    assert rewriter.location(b"http://tool:3000//a") == b"/a"
    assert rewriter.location(b"http://tool:3000?a") == b"/?a"


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (b"a=b; Path=/; Domain=tool.lan; Secure", b"a=b; Path=/app; Secure"),
        (b"a=b; path=/x/;domain=.lan", b"a=b; Path=/app/x"),
        (b"a=b; HttpOnly", b"a=b; HttpOnly"),
        (b"__Host-a=b; Path=/; Secure", b"__Host-a=b; Path=/; Secure"),
        (b"a=Domain=x; Max-Age=1", b"a=Domain=x; Max-Age=1"),
        (b"a=b; Path=", b"a=b; Path=/app"),
    ],
)
def test_a_cookie_gets_the_routes_path(value: bytes, sent: bytes) -> None:
    """Domain goes, Path is mapped back, the rest keeps its bytes."""
    assert _rewriter(path="/app", upstream_path="/").set_cookie(value) == sent


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (b"/tool/x", b"/x"),
        (b"/tool", b"/"),
        (b"/tool?a", b"/?a"),
        (b"/tool//evil.test/x", b"/evil.test/x"),
        (b"/tool/\\evil.test", b"/evil.test"),
        (b"http://tool:3000/tool///evil.test", b"/evil.test"),
        (b"/tool/a//b", b"/a//b"),
    ],
)
def test_a_path_that_is_cut_off_leads_to_no_other_host(value: bytes, sent: bytes) -> None:
    """What is left of a path at "/" never begins with two slashes."""
    assert _rewriter(path="/", upstream_path="/tool").location(value) == sent


def test_nothing_is_rewritten_unasked() -> None:
    """Each of the two is done only where its key says so."""
    route = make_settings("http://tool:3000").route[0]
    assert rewriter_of(route) is None

    only_locations = _rewriter(path="/app", upstream_path="/", rewrite_cookies=False)
    only_cookies = _rewriter(path="/app", upstream_path="/", rewrite_location=False)

    assert only_locations.set_cookie(b"a=b; Domain=x") == b"a=b; Domain=x"
    assert only_cookies.location(b"/x") == b"/x"
