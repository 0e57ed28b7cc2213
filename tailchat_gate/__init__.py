"""Tailchat Gate: an authenticating reverse proxy for tools behind a Tailchat sign-in."""

__version__ = "0.1.0"
