"""Caddy: reverse_proxy as it comes, and forward_auth to the gate."""

import os
from pathlib import Path

_MAIN = """\
{{
    admin off
    default_sni localhost
    metrics
    auto_https off
    persist_config off
    storage file_system {directory}/caddy
    log default {{
        output stderr
        level ERROR
    }}
}}
http://127.0.0.1:{admin} {{
    bind 127.0.0.1
    metrics
}}
{site}:{port} {{
    bind 127.0.0.1
{tls}    log {{
        output file {log} {{
            roll_disabled
        }}
        format json
    }}
{auth}    reverse_proxy 127.0.0.1:{upstream} {{
        transport http {{
            keepalive_idle_conns_per_host {pool}
        }}
    }}
}}
"""

_IDENTITY = (
    "X-Tailchat-Sub",
    "X-Tailchat-Nickname",
    "X-Tailchat-Discriminator",
    "X-Tailchat-Avatar",
    "X-Tailchat-Groups",
)
_FORWARD_AUTH = """\
    forward_auth 127.0.0.1:{gate} {{
        uri /oauth2/auth
        copy_headers {headers}
        transport http {{
            keepalive_idle_conns_per_host {pool}
        }}
    }}
"""


def caddyfile(
    directory: Path,
    *,
    port: int,
    admin: int,
    upstream: int,
    pool: int,
    log: Path,
    gate: int = 0,
    tls: tuple[Path, Path] | None = None,
) -> str:
    """The configuration of a proxy; `pool` is how many upstream connections it keeps.

    With `gate`, a port, that gate is asked about each request. With `tls`, a certificate and its
    key, it speaks HTTPS.
    """
    return _MAIN.format(
        directory=directory,
        site="https://localhost" if tls else "http://127.0.0.1",
        tls="    tls {} {}\n".format(*tls) if tls else "",
        port=port,
        admin=admin,
        upstream=upstream,
        pool=pool,
        log=log,
        auth=_FORWARD_AUTH.format(gate=gate, pool=pool, headers=" ".join(_IDENTITY))
        if gate
        else "",
    )


def environment(directory: Path) -> dict[str, str]:
    """What Caddy runs with: nothing of it is kept outside of `directory`."""
    return {**os.environ, "HOME": str(directory)}
