"""Envoy as a plain proxy."""

import json
from pathlib import Path

_TYPES = "type.googleapis.com/envoy.extensions"
_MANY = 100_000
_LOG = {
    "time": "%START_TIME%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "method": "%REQ(:METHOD)%",
    "host": "%REQ(:AUTHORITY)%",
    "uri": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "status": "%RESPONSE_CODE%",
    "bytes": "%BYTES_SENT%",
    "duration": "%DURATION%",
    "user_agent": "%REQ(USER-AGENT)%",
}


def configuration(*, port: int, admin: int, upstream: int, log: Path) -> str:
    """The configuration file, as JSON."""
    return json.dumps(
        {
            "admin": {"address": _address(admin)},
            "static_resources": {
                "listeners": [
                    {
                        "name": "web",
                        "address": _address(port),
                        "tcp_backlog_size": 4096,
                        "filter_chains": [{"filters": [_manager(log)]}],
                    }
                ],
                "clusters": [_cluster(upstream)],
            },
        },
        indent=1,
    )


def arguments(binary: str, config: Path, threads: int) -> list[str]:
    """The command that runs it; it holds its log back for a fifth of a second at most."""
    return [
        binary,
        *("--config-path", str(config)),
        *("--concurrency", str(threads)),
        *("--file-flush-interval-msec", "200"),
        *("--log-level", "error"),
        "--disable-hot-restart",
    ]


def _address(port: int) -> object:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _manager(log: Path) -> object:
    everything = {"match": {"prefix": "/"}, "route": {"cluster": "tool", "timeout": "0s"}}
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "web",
            "use_remote_address": True,
            "upgrade_configs": [{"upgrade_type": "websocket"}],
            "access_log": [
                {
                    "name": "envoy.access_loggers.file",
                    "typed_config": {
                        "@type": f"{_TYPES}.access_loggers.file.v3.FileAccessLog",
                        "path": str(log),
                        "log_format": {"json_format": _LOG},
                    },
                }
            ],
            "route_config": {
                "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [everything]}]
            },
            "http_filters": [
                {
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": f"{_TYPES}.filters.http.router.v3.Router"},
                }
            ],
        },
    }


def _cluster(upstream: int) -> object:
    return {
        "name": "tool",
        "type": "STATIC",
        "connect_timeout": "10s",
        # Its defaults are 1,024 of each, which the works with many connections exceed.
        "circuit_breakers": {
            "thresholds": [
                {"max_connections": _MANY, "max_pending_requests": _MANY, "max_requests": _MANY}
            ]
        },
        "load_assignment": {
            "cluster_name": "tool",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(upstream)}}]}],
        },
    }
