"""Apache with mod_auth_openidc: its session in a sealed cookie of its own, as the gate has it."""

import grp
import os
import pwd
import re
import stat
from pathlib import Path

from process import BenchError, program

_FOLDERS = (Path("/usr/lib/apache2/modules"), Path("/usr/lib64/httpd/modules"))
_MODULES = (
    "mpm_event",
    # Debian has these two built in.
    "unixd",
    "log_config",
    "authn_core",
    "authz_core",
    "authz_user",
    "proxy",
    "proxy_http",
    "auth_openidc",
    "status",
)
_BUILT_IN = frozenset(("unixd", "log_config"))
# Apache refuses to work as root.
_NOBODY = "nobody"
# For the requests that are made beside a load.
_SPARE = 32

# The package of Debian has 25 threads a process, and up to 75 spare ones. Then a process that
# happens to get 26 of the connections closes idle ones to have a thread free, and one that is
# spare after the warm-up ends with those it has: both are errors under load.
_MAIN = """\
ServerRoot "{directory}"
DefaultRuntimeDir "{directory}"
PidFile "{log}.pid"
ServerName 127.0.0.1
Listen 127.0.0.1:{port}
Listen 127.0.0.1:{admin}
{modules}
{user}
StartServers 2
MinSpareThreads {threads}
MaxSpareThreads {all_threads}
ThreadLimit {threads}
ThreadsPerChild {threads}
MaxRequestWorkers {all_threads}
MaxConnectionsPerChild 0
KeepAlive On
MaxKeepAliveRequests 0
KeepAliveTimeout 75
ErrorLog /dev/stderr
LogLevel warn
LogFormat "{{\\"time\\":\\"%{{%FT%T%z}}t\\",\\"client\\":\\"%a\\",\\"user\\":\\"%u\\",\\"method\\":\\"%m\\",\\"host\\":\\"%{{Host}}i\\",\\"uri\\":\\"%U\\",\\"status\\":%>s,\\"bytes\\":%B,\\"duration\\":%D,\\"user_agent\\":\\"%{{User-Agent}}i\\"}}" json
CustomLog "{log}" json
OIDCProviderIssuer {provider}
OIDCProviderAuthorizationEndpoint {provider}/open/auth
OIDCProviderTokenEndpoint {provider}/open/token
OIDCProviderUserInfoEndpoint {provider}/open/me
OIDCProviderJwksUri {provider}/open/jwks
OIDCCABundlePath "{authority}"
OIDCClientID {client}
OIDCClientSecret {client_secret}
OIDCRedirectURI http://127.0.0.1:{port}/redirect_uri
OIDCCryptoPassphrase {secret}
OIDCSessionType client-cookie
OIDCSessionInactivityTimeout 28800
OIDCScope "openid profile"
OIDCPKCEMethod S256
OIDCRemoteUserClaim sub
ExtendedStatus On
<VirtualHost 127.0.0.1:{port}>
    ProxyPreserveHost On
    ProxyPass /upload http://127.0.0.1:{tool}/upload
    ProxyPass / http://127.0.0.1:{web}/
    <Location />
        AuthType openid-connect
        Require valid-user
    </Location>
</VirtualHost>
<VirtualHost 127.0.0.1:{admin}>
    <Location />
        Require all granted
        SetHandler server-status
    </Location>
</VirtualHost>
"""  # noqa: E501 - a LogFormat is one line


def configuration(connections: int, **values: object) -> str:
    """The configuration file of an Apache that takes `connections` at once.

    Values: directory, port, admin (a port), web and tool (ports of the upstreams), log, provider
    (its origin over TLS), authority (whose certificates are trusted), client, client_secret,
    secret. Raises BenchError where a module is missing.
    """
    threads = connections + _SPARE
    return _MAIN.format(
        modules="\n".join(_modules()),
        user=_user(),
        threads=threads,
        all_threads=2 * threads,
        **values,
    )


def must_run(directory: Path) -> None:
    """Raise BenchError where Apache cannot run with its files below `directory`."""
    program("apache2")
    _modules()
    if os.geteuid() != 0:
        return
    for path in (directory, *directory.parents):
        if not path.stat().st_mode & stat.S_IXOTH:
            raise BenchError(
                f"root's Apache works as {_NOBODY}, who may not enter {path} and so cannot read "
                "whom to trust; set TMPDIR to a folder that everybody may enter"
            )


def version() -> str:
    """The version of mod_auth_openidc, as the module tells it."""
    found = re.search(rb"mod_auth_openidc-([0-9.]+)", _module("auth_openidc").read_bytes())
    return found[1].decode() if found else "unknown"


def _module(name: str) -> Path:
    folder = next((path for path in _FOLDERS if path.is_dir()), _FOLDERS[0])
    return folder / f"mod_{name}.so"


def _modules() -> list[str]:
    lines = []
    for name in _MODULES:
        path = _module(name)
        if path.exists():
            lines.append(f"LoadModule {name}_module {path}")
        elif name not in _BUILT_IN:
            raise BenchError(
                f"{path} is missing; it comes as a system package "
                "(Debian: apache2-bin, libapache2-mod-auth-openidc)"
            )
    return lines


def _user() -> str:
    """Whom root's Apache works as; anybody else's works as itself."""
    if os.geteuid() != 0:
        return ""
    nobody = pwd.getpwnam(_NOBODY)
    return f"User {nobody.pw_name}\nGroup {grp.getgrgid(nobody.pw_gid).gr_name}"
