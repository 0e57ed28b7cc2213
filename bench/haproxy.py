"""HAProxy as a plain proxy."""

_MAIN = """\
global
    nbthread {threads}
    maxconn {connections}
    log stdout format raw local0
defaults
    mode http
    log global
    timeout connect 10s
    timeout client 600s
    timeout server 600s
    timeout tunnel 600s
    http-reuse always
frontend web
    bind 127.0.0.1:{port} backlog 4096
    http-request capture req.hdr(Host) len 128
    http-request capture req.hdr(User-Agent) len 256
    log-format '{{"time":"%tr","client":"%ci","method":"%HM","host":"%[capture.req.hdr(0),json(utf8s)]","uri":"%[capture.req.uri,json(utf8s)]","status":%ST,"bytes":%B,"duration":%Ta,"user_agent":"%[capture.req.hdr(1),json(utf8s)]"}}'
    option forwardfor
    http-request set-header X-Forwarded-Host %[req.hdr(Host)]
    http-request set-header X-Forwarded-Proto http
    default_backend tool
backend tool
    server tool 127.0.0.1:{upstream} pool-max-conn {pool}
frontend metrics
    bind 127.0.0.1:{admin}
    no log
    http-request use-service prometheus-exporter
"""  # noqa: E501 - a log-format is one line


def configuration(**values: object) -> str:
    """The configuration file.

    Values: port, admin (a port), upstream (a port), pool (how many upstream connections it keeps),
    connections (how many it takes), threads.
    """
    return _MAIN.format(**values)
