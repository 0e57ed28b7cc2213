"""Traefik as a plain proxy."""

import json
from pathlib import Path


def configuration(*, port: int, admin: int, pool: int, log: Path, routes: Path) -> str:
    """The file of what does not change while it runs, as JSON, which is YAML too.

    `pool`: how many upstream connections it keeps. `routes`: the other file.
    """
    return json.dumps(
        {
            "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
            "log": {"level": "ERROR"},
            "entryPoints": {
                "web": {"address": f"127.0.0.1:{port}"},
                "metrics": {"address": f"127.0.0.1:{admin}"},
            },
            "accessLog": {"filePath": str(log), "format": "json"},
            "metrics": {"prometheus": {"entryPoint": "metrics"}},
            "serversTransport": {"maxIdleConnsPerHost": pool},
            "providers": {"file": {"filename": str(routes), "watch": False}},
        },
        indent=1,
    )


def routing(upstream: int) -> str:
    """The file of routes: everything to the tool."""
    return json.dumps(
        {
            "http": {
                "routers": {
                    "all": {
                        "entryPoints": ["web"],
                        "rule": "PathPrefix(`/`)",
                        "service": "tool",
                    }
                },
                "services": {
                    "tool": {"loadBalancer": {"servers": [{"url": f"http://127.0.0.1:{upstream}"}]}}
                },
            }
        },
        indent=1,
    )
