"""Scopes of service workers: one that is allowed begins no address of a step of the sign-in."""

from urllib.parse import unquote, urljoin, urlsplit

from fuzz.cutting import lines_of
from fuzz.target import Target
from tailchat_gate.access.browser_origin import WorkerScopes

_PREFIX = "/a/oauth2"
_STEPS = tuple(f"{_PREFIX}/{step}?code=c" for step in ("start", "callback", "arrive"))


def check(data: bytes) -> None:
    """Judge a scope for a script: the path of the script on a line, then the value."""
    path, value = lines_of(data, 2)
    scopes = WorkerScopes(_PREFIX)
    script = f"/{path}"
    directory = script.rpartition("/")[0] + "/"
    assert scopes.script_takes_in(script) == any(step.startswith(directory) for step in _STEPS)
    if scopes.may_allow(value.encode("latin-1")):
        for scope in (value, unquote(value), _as_browsers_do(script, value)):
            assert not any(step.startswith(scope) or scope.startswith(step) for step in _STEPS)
            assert scope == value, "more than one reading"


def _as_browsers_do(script: str, value: str) -> str:
    """Return the path of a value that is read as a URL beside the script (URL Standard)."""
    plain = value.strip().replace("\t", "").replace("\\", "/")
    return urlsplit(urljoin(f"http://gate.test{script}", plain)).path


TARGET = Target(
    check,
    parsers=("access.browser_origin",),
    seeds=(
        b"app/sw.js\n/app/",
        b"sw.js\n/",
        b"a/sw.js\n/a",
        b"a/b/sw.js\n../",
        b"b/sw.js\n/a/oauth2/arrive",
        b"b/sw.js\n/a/../b/",
        b"b/sw.js\n/a/b/../",
        b"b/sw.js\n//a/",
        b"b/sw.js\n/a/%6fauth2/",
        b"b/sw.js\n/a\\oauth2",
    ),
    words=(b"/a/", b"/a/oauth2/", b"/a/o", b"../", b"./", b"%2e", b"\\", b"\t", b"//", b"http://"),
)
