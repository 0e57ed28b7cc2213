"""The gates under measurement: as plain as one can be, and with everything that policy costs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

ASKED = "gate-asked"
MANY = "gate-1000-routes"
POLICY = "gate-policy"
TLS = "gate-tls"

_ROUTES = 1000
_GROUPS = 100
_MEMBERS = 50

_MAIN = """\
[server]
listen = "127.0.0.1:{port}"
{https}public_url = "{origin}"
admin_listen = "127.0.0.1:{admin}"
trusted_proxies = {trusted}

[tailchat]
api_url = "{tailchat}"
client_id = "{client}"
client_secret = "{client_secret}"

[session]
secret = "{secret}"

[state]
path = "{state}"

# One machine stands for many people.
[limits]
client_connections = 100000
client_requests = 100000

[log]
access = true
{rest}"""

_HTTPS = """\
https_listen = "127.0.0.1:{0}"
tls = [{{ certificate = "{1}", key = "{2}" }}]
"""

_ROUTE = """
[[route]]
name = "{name}"
{place}
upstream = "http://127.0.0.1:{upstream}"
max_connections = 100000
"""


@dataclass(frozen=True, slots=True)
class Around:
    """What a gate finds: the tool's port, its visitor's `sub`, a file with a key to sign with."""

    upstream: int
    sub: str
    key: Path


def configuration(
    name: str, around: Around, tls: tuple[int, Path, Path] | None = None, **values: object
) -> str:
    """The configuration file of the gate `name`.

    Values: port, origin, admin (a port), tailchat (its origin), client, client_secret, secret,
    state (a directory). `tls`: the port of HTTPS with the certificate and its key, None for none.
    """
    # A question about a request is believed only from a proxy that is named.
    trusted = ["127.0.0.1"] if name == ASKED else []
    https = _HTTPS.format(*tls) if tls else ""
    return _MAIN.format(https=https, trusted=_toml(trusted), rest=KINDS[name](around), **values)


def _one_route(around: Around) -> str:
    """One route, open to everybody who has signed in."""
    return _ROUTE.format(name="tool", place='path = "/"', upstream=around.upstream)


def _many_routes(around: Around) -> str:
    """A thousand routes; the last is for every host and path, and is the one that is asked."""
    return "".join(
        _ROUTE.format(name=f"tool-{number}", place=place, upstream=around.upstream)
        for number, place in enumerate(_places())
    )


def _policy(around: Around) -> str:
    """All that decides who may do what; a feature that costs each request is turned on here.

    A thousand routes, each for some of a hundred groups of fifty, in ten of which is the visitor;
    people and groups that may not; an identity that is signed. Locks are in the gate's file.
    """
    groups = [
        [f"77{group:011d}{member:011d}" for member in range(_MEMBERS)] for group in range(_GROUPS)
    ]
    for group in groups[::10]:
        group[0] = around.sub
    lines = ["", "[assertion]", f"key_files = {_toml([str(around.key)])}"]
    lines += ["", "[access]", f"deny = {_toml(['group:former', 'sub:990000000000000000000001'])}"]
    lines += ["", "[groups]", f"former = {_toml([f'88{number:022d}' for number in range(1000)])}"]
    lines += [f"team-{number} = {_toml(subs)}" for number, subs in enumerate(groups)]
    for number, place in enumerate(_places()):
        allowed = [f"group:team-{(number + more) % _GROUPS}" for more in range(10)]
        lines.append(
            _ROUTE.format(name=f"tool-{number}", place=place, upstream=around.upstream)
            + f"allow = {_toml(allowed)}\ndeny = {_toml([f'sub:99{number + 2:022d}'])}"
        )
    return "\n".join(lines) + "\n"


KINDS: Mapping[str, Callable[[Around], str]] = MappingProxyType(
    {"gate": _one_route, TLS: _one_route, ASKED: _one_route, MANY: _many_routes, POLICY: _policy}
)
"""What each gate has besides the addresses and secrets that all have: its routes, and who may.

ASKED stands behind a proxy that forwards by itself and asks; the others forward.
"""


def _places() -> list[str]:
    """A thousand places of routes: by turns a host and a path, and at last all the rest."""
    return [
        *(
            f'host = "tool-{number}.example.com"' if number % 2 else f'path = "/tools/{number}"'
            for number in range(_ROUTES - 1)
        ),
        'path = "/"',
    ]


def _toml(texts: list[str]) -> str:
    return "[" + ", ".join(f'"{text}"' for text in texts) + "]"
