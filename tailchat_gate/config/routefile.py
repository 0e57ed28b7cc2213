"""The files and directories that routes name: whether they can be used."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from tailchat_gate.config.address import FilesAddress, HttpAddress, upstream_address
from tailchat_gate.config.conflict import Conflict
from tailchat_gate.config.partial import judged
from tailchat_gate.config.problem import key_path
from tailchat_gate.config.route import Route
from tailchat_gate.config.secretfile import exposed
from tailchat_gate.config.tls import pem_problems


def unusable(routes: Mapping[int, Route]) -> Iterator[Conflict]:
    """Look at every file and directory that routes name, by position in the file."""
    for index, route in routes.items():
        yield from judged(_unusable_of(index, route))


def _unusable_of(index: int, route: Route) -> Iterator[Conflict]:
    upstream = upstream_address(route.upstream)
    if isinstance(upstream, FilesAddress):
        reason = _closed(upstream.directory)
        if reason:
            found = f"{upstream.directory}: {reason}"
            wanted = "a directory whose files the gate can read"
            yield Conflict(("route", index, "upstream"), found, wanted)
    elif isinstance(upstream, HttpAddress) and upstream.tls:
        for wrong in pem_problems(route.tls_ca, route.tls_certificate, route.tls_key):
            yield Conflict(("route", index, wrong.key), wrong.found, wrong.expected)


def named_files(routes: Mapping[int, Route]) -> Iterator[Path]:
    """Yield the PEM files that routes name."""
    for route in routes.values():
        for path in (route.tls_ca, route.tls_certificate, route.tls_key):
            if path is not None:
                yield Path(path)


def exposed_keys(routes: Mapping[int, Route]) -> Iterator[str]:
    """Warn of private keys that every user of this machine can read."""
    for index, route in routes.items():
        if route.tls_key is not None and exposed(Path(route.tls_key)):
            place = key_path(("route", index, "tls_key"))
            yield (
                f"{place}: every user of this machine can read {route.tls_key}; mode 0600 or 0640 "
                "keeps it"
            )


def _closed(directory: str) -> str:
    """Say why no file below a directory can be opened, nothing where it can."""
    try:
        os.stat(f"{directory}/.")  # noqa: PTH116 - a Path would lose the dot, which needs entry
    except OSError as refused:
        return refused.strerror or "unreadable"
    return ""
