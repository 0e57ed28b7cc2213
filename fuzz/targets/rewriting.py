"""Locations and cookies of a tool: what is rewritten leads to the gate, and nowhere else."""

from typing import Any

from fuzz.cutting import lines_of, steered
from fuzz.reference.browser import origin_of
from fuzz.reference.syntax import BadError, field_lines
from fuzz.target import Target
from tailchat_gate.config.model import RouteSettings
from tailchat_gate.proxy.message.response_fields import ResponseRewriter

_GATE = "https://gate.test"
_PAGE = _GATE + "/app/page"
_TOOL = ("http://tool:3000", "https://tool:3000", "http://own.lan", "https://own.lan")
_DEFAULT_PORTS = (":80", ":443", ":")


def _rewriter(**keys: Any) -> ResponseRewriter:  # noqa: ANN401 - as in the file
    own = {"name": "t", "upstream": "http://tool:3000", "upstream_host": "own.lan"}
    on = {"rewrite_location": True, "rewrite_cookies": True}
    return ResponseRewriter(RouteSettings.model_validate({**own, **on, **keys}))


_REWRITERS = (
    _rewriter(),
    _rewriter(path="/app", upstream_path="/"),
    _rewriter(path="/app", upstream_path="/tool"),
    _rewriter(path="/app"),
    _rewriter(path="/", upstream_path="/tool"),
)


def check(data: bytes) -> None:
    """Rewrite a Location and a Set-Cookie, a line each; one byte chooses the route."""
    steer, rest = steered(data, 1)
    rewriter = _REWRITERS[steer[0] % len(_REWRITERS)]
    location, cookie = (line.encode("latin-1") for line in lines_of(rest, 2))
    _check_location(rewriter, location)
    _check_cookie(rewriter, cookie)


def _is_value(value: bytes) -> bool:
    try:
        return field_lines(b"X: " + value + b"\r\n") == [(b"X", value)]
    except BadError:
        return False


def _check_location(rewriter: ResponseRewriter, value: bytes) -> None:
    if not _is_value(value):
        return
    found = rewriter.location(value, _GATE.encode())
    if value[:1] not in {b"'", b'"'}:
        assert rewriter.refresh(b"0; url=" + value, _GATE.encode()) == b"0; url=" + found
    assert _is_value(found)
    # Of the gate's page, the value as it is would lead there; of the tool's page, to the tool.
    meant = origin_of(value.decode("latin-1"), "http://tool:3000/x")
    leads = origin_of(found.decode("latin-1"), _PAGE)
    if found == value:
        return
    assert found.startswith(b"/")
    assert leads == _GATE
    port = next((port for port in _DEFAULT_PORTS if (meant or "").endswith(port)), "")
    assert (meant or "").removesuffix(port) in (*_TOOL, "http://gate.test", _GATE)


def _check_cookie(rewriter: ResponseRewriter, value: bytes) -> None:
    if not _is_value(value):
        return
    found = rewriter.set_cookie(value)
    assert b"\r" not in found
    assert b"\n" not in found
    pair, *attributes = found.split(b";")
    assert pair == value.split(b";")[0]
    names = [attribute.split(b"=")[0].strip().lower() for attribute in attributes]
    asked = [attribute.split(b"=")[0].strip().lower() for attribute in value.split(b";")[1:]]
    assert names == [name for name in asked if name != b"domain"]
    others = [a for a in value.split(b";")[1:] if a.split(b"=")[0].strip().lower() != b"domain"]
    for mine, theirs, name in zip(attributes, others, names, strict=True):
        if name != b"path" or pair.strip().lower().startswith(b"__host-"):
            assert mine == theirs
        else:
            path = mine.partition(b"=")[2]
            assert path == b"/" or not path.endswith(b"/")


TARGET = Target(
    check,
    parsers=("proxy.message.response_fields",),
    seeds=(
        b"\1http://tool:3000/x?y#z\na=b; Path=/; Domain=tool.lan; Secure",
        b"\2/tool/x\na=b; path=/tool/x/;domain=.lan",
        b"\0http://own.lan:80//evil.test\n__Host-a=b; Path=/; Secure",
        b"\3//evil.test/x\na=Domain=x; Max-Age=1",
        b"\4HTTPS://TOOL:3000\\x\na=b; Path=",
        b"\1?a\na",
        b"\1https://evil.test/x\na=b; Domain=evil.test",
        b"\1/\\evil.test\n=; =; ;;Path",
    ),
    words=(
        *(b"http://tool:3000", b"https://own.lan", b":80", b":443", b"/", b"//", b"\\", b"/tool"),
        *(
            b"/app",
            b"?",
            b"#",
            b"@",
            b"evil.test",
            b"\n",
            b"; Path=",
            b"; Domain=",
            b";",
            b"=",
            b" ",
        ),
        *(b"http://gate.test", b"//tool:3000", b"__Host-", b"\t", b"\xa0", b"http:", b"..", b"%2f"),
    ),
)
