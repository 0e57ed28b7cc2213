"""nginx: as the tool behind every peer, as a plain proxy, and asking the gate with auth_request."""

import contextlib
import os
import pwd
from collections.abc import Iterator
from pathlib import Path

from process import program, running

# Connections are never closed for their number of requests, nor logged twice; every temporary
# file stays in the directory of the run.
_MAIN = """\
daemon off;
{user}
worker_processes 1;
pid {directory}/{name}.pid;
error_log stderr warn;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    default_type text/plain;
    keepalive_requests 1000000000;
    client_max_body_size 0;
    client_body_temp_path {directory}/{name}-body;
    proxy_temp_path {directory}/{name}-proxy;
    fastcgi_temp_path {directory}/{name}-fastcgi;
    scgi_temp_path {directory}/{name}-scgi;
    uwsgi_temp_path {directory}/{name}-uwsgi;
{http}
}}
"""

# The tool. Server-side includes make the length of /chunked unknown, and so the reply chunked,
# in as many chunks as there are buffers.
TOOLS = """\
    open_file_cache max=100;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = / {{ return 200 '{body}'; }}
        location /page {{ return 200 '{body}'; }}
        location /unchanged {{ add_header ETag '"1-5e0f77ab"' always; return 304; }}
        location /denied {{ return 401 '{body}'; }}
        location = /oauth2/auth {{ return 202; }}
        location /files/ {{ alias {directory}/files/; sendfile on; }}
        location /chunked/ {{
            alias {directory}/files/;
            ssi on;
            ssi_types text/plain;
            output_buffers 2 4k;
        }}
    }}"""

_LOG = """\
    log_format json escape=json '{{"time":"$time_iso8601","client":"$remote_addr",'
        '"method":"$request_method","host":"$host","uri":"$request_uri","status":$status,'
        '"bytes":$body_bytes_sent,"duration":$request_time,"user_agent":"$http_user_agent"}}';
"""

# As it is written where no WebSocket has to pass ...
_PLAIN_CONNECTION = 'proxy_set_header Connection "";'
# ... and where one has to.
_UPGRADE_MAP = """\
    map $http_upgrade $connection_upgrade { default upgrade; "" ""; }
"""
_UPGRADE_CONNECTION = """proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_read_timeout 600s;"""

# What metrics of nginx are read from.
_STATUS = """
    server {{
        listen 127.0.0.1:{admin};
        location / {{ stub_status; }}
    }}"""

_PROXY = """\
    upstream tool {{
        server 127.0.0.1:{upstream};
        keepalive {pool};
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        access_log {log} json;
        location / {{
            proxy_pass http://tool;
            proxy_http_version 1.1;
            {connection}
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Host $http_host;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_request_buffering off;
            proxy_max_temp_file_size 0;
        }}
    }}"""

# As in deploy/nginx.
_AUTH_REQUEST = """\
    upstream tool {{
        server 127.0.0.1:{upstream};
        keepalive {pool};
        keepalive_requests 1000000000;
    }}
    upstream gate {{
        server 127.0.0.1:{gate};
        keepalive {pool};
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        access_log {log} json;
        location / {{
            auth_request /oauth2/auth;
            auth_request_set $tailchat_sub $upstream_http_x_tailchat_sub;
            auth_request_set $tailchat_nickname $upstream_http_x_tailchat_nickname;
            auth_request_set $tailchat_discriminator $upstream_http_x_tailchat_discriminator;
            auth_request_set $tailchat_avatar $upstream_http_x_tailchat_avatar;
            auth_request_set $tailchat_groups $upstream_http_x_tailchat_groups;
            proxy_set_header X-Tailchat-Sub $tailchat_sub;
            proxy_set_header X-Tailchat-Nickname $tailchat_nickname;
            proxy_set_header X-Tailchat-Discriminator $tailchat_discriminator;
            proxy_set_header X-Tailchat-Avatar $tailchat_avatar;
            proxy_set_header X-Tailchat-Groups $tailchat_groups;
            auth_request_set $tailchat_cookie $upstream_http_set_cookie;
            add_header Set-Cookie $tailchat_cookie always;
            proxy_pass http://tool;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Host $http_host;
            proxy_set_header X-Forwarded-Proto $scheme;
        }}
        location = /oauth2/auth {{
            internal;
            proxy_pass http://gate;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
            proxy_set_header X-Forwarded-Method $request_method;
            proxy_set_header X-Forwarded-Uri $request_uri;
            proxy_set_header X-Original-URL "";
            proxy_set_header X-Original-URI "";
            proxy_set_header X-Original-Method "";
            proxy_set_header Connection "";
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Host $http_host;
            proxy_set_header X-Forwarded-Proto $scheme;
        }}
    }}"""


@contextlib.contextmanager
def nginx(directory: Path, name: str, http: str, *, connections: int) -> Iterator[tuple[int, Path]]:
    """Run an nginx with these directives of its http block; yields its id and its words."""
    # Started by root, nginx would give its worker to a user who cannot read the directory.
    user = f"user {pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 else ""
    config = directory / f"{name}.conf"
    config.write_text(
        _MAIN.format(user=user, directory=directory, name=name, http=http, connections=connections)
    )
    output = directory / f"{name}.log"
    args = [program("nginx"), "-p", str(directory), "-e", "stderr", "-c", str(config)]
    with running(args, output=output) as pid:
        yield pid, output


def proxy(*, port: int, admin: int, upstream: int, pool: int, log: Path, websockets: bool) -> str:
    """Directives of a plain proxy; `pool` is how many upstream connections it keeps."""
    connection = _UPGRADE_CONNECTION if websockets else _PLAIN_CONNECTION
    server = _PROXY.format(port=port, upstream=upstream, pool=pool, log=log, connection=connection)
    upgrades = _UPGRADE_MAP if websockets else ""
    return _LOG.format() + upgrades + server + _STATUS.format(admin=admin)


def auth_request(*, port: int, admin: int, upstream: int, gate: int, pool: int, log: Path) -> str:
    """Directives of a proxy that asks the gate on port `gate` about each request."""
    server = _AUTH_REQUEST.format(port=port, upstream=upstream, gate=gate, pool=pool, log=log)
    return _LOG.format() + server + _STATUS.format(admin=admin)
