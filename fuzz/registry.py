"""Every target by its name."""

from importlib import import_module
from typing import Final

from fuzz.target import Target

NAMES: Final = (
    *("bearer", "callback", "claims", "client", "conditional", "cookie", "frames", "host"),
    "id_token",
    *("intent", "language", "lock_line", "methods", "origin", "original", "path", "profile"),
    "proxy_header",
    *("reply", "request_body", "request_head", "return_to", "rewriting", "schemes", "seal"),
    *("tailchat_answer", "trace", "unread", "upstream_head", "worker_scope"),
)


def load(name: str) -> Target:
    """Return a target; only now is what it checks imported, so that it can be instrumented."""
    found = import_module(f"fuzz.targets.{name}").TARGET
    assert isinstance(found, Target)
    return found
