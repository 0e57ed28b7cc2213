"""Apache with mod_auth_openidc: its session in a sealed cookie of its own, as the gate has it."""

import grp
import os
import pwd
from pathlib import Path

from process import BenchError

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
)
_BUILT_IN = frozenset(("unixd", "log_config"))

# The figures of mpm_event are those of the package of Debian, but for MaxSpareThreads: with less
# Apache ends a process after the warm-up, and with it connections under load.
_MAIN = """\
ServerRoot "{directory}"
DefaultRuntimeDir "{directory}"
PidFile "{log}.pid"
ServerName 127.0.0.1
Listen 127.0.0.1:{port}
{modules}
{user}
StartServers 2
MinSpareThreads 25
MaxSpareThreads 150
ThreadLimit 64
ThreadsPerChild 25
MaxRequestWorkers 150
MaxConnectionsPerChild 0
KeepAlive On
MaxKeepAliveRequests 0
KeepAliveTimeout 75
ErrorLog /dev/stderr
LogLevel warn
LogFormat "{{\\"time\\":\\"%{{%FT%T%z}}t\\",\\"client\\":\\"%a\\",\\"user\\":\\"%u\\",\\"method\\":\\"%m\\",\\"host\\":\\"%{{Host}}i\\",\\"uri\\":\\"%U\\",\\"status\\":%>s,\\"bytes\\":%B,\\"duration\\":%D,\\"user_agent\\":\\"%{{User-Agent}}i\\"}}" json
CustomLog "{log}" json
ProxyPreserveHost On
ProxyPass /upload http://127.0.0.1:{tool}/upload
ProxyPass / http://127.0.0.1:{web}/
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
OIDCScope "openid profile"
OIDCPKCEMethod S256
OIDCRemoteUserClaim sub
<Location />
    AuthType openid-connect
    Require valid-user
</Location>
"""  # noqa: E501 - a LogFormat is one line


def configuration(**values: object) -> str:
    """The configuration file.

    Values: directory, port, web and tool (ports of the upstreams), log, provider (its origin over
    TLS), authority (whose certificates are trusted), client, client_secret, secret. Raises
    BenchError where a module is missing.
    """
    return _MAIN.format(modules="\n".join(_modules()), user=_user(), **values)


def _modules() -> list[str]:
    folder = next((path for path in _FOLDERS if path.is_dir()), _FOLDERS[0])
    lines = []
    for name in _MODULES:
        path = folder / f"mod_{name}.so"
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
    nobody = pwd.getpwnam("nobody")
    return f"User {nobody.pw_name}\nGroup {grp.getgrgid(nobody.pw_gid).gr_name}"
