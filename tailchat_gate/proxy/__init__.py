"""Forwarding: client connections, upstream connections, messages, static files."""
