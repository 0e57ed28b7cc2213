"""Tailchat Gate: an authenticating reverse proxy for tools behind a Tailchat sign-in."""

from importlib.util import find_spec

__version__ = "0.1.0"


def is_compiled() -> bool:
    """Return whether the modules of the request path are compiled, as a build may have them."""
    found = find_spec("tailchat_gate.request.head")
    return found is not None and not str(found.origin).endswith(".py")
