"""What the figures of a run depend on, besides the code: the machine and everybody's version."""

import json
import os
import platform
import re
import subprocess
from collections.abc import Container
from pathlib import Path

import apache
from process import finished, program

# Of what programs say when asked: "nginx version: nginx/1.22.1", "v2.11.7 h1:...",
# "HAProxy version 2.6.12-1+deb12u4 ...", "Version:      3.7.15".
_VERSION = re.compile(r"(?:^v?|/|oauth2-proxy v|[Vv]ersion:? +)([0-9]+\.[0-9][0-9.]*[0-9])")

_MODULE = re.compile(rb"\tgithub\.com/oauth2-proxy/oauth2-proxy/v7\tv([0-9.]+)")
_UNKNOWN = "unknown"
# Versions say little without the compiler and the profile that a build was given: an interpreter
# without them takes a tenth more for the same request.
_INTERPRETER = """
import importlib.metadata as metadata, json, platform
facts = {"python": platform.python_version(), "compiled by": platform.python_compiler()}
for package in ("uvloop", "aiohttp"):
    try:
        facts[package] = metadata.version(package)
    except metadata.PackageNotFoundError:
        pass
from tailchat_gate import is_compiled
facts["request path"] = "compiled" if is_compiled() else "Python"
print(json.dumps(facts))
"""
_ASKED = {"haproxy": "-v", "envoy": "--version", "caddy": "version", "traefik": "version"}


def machine(python: str, oauth2_proxy: Path | None, without: Container[str]) -> dict[str, str]:
    """Names and values; `python` runs the gate, `without`: peers that are not there.

    Raises BenchError.
    """
    facts = {
        "cpu": _processor(),
        "cores": str(os.cpu_count()),
        "load": f"{os.getloadavg()[0]:.2f}",
        "kernel": platform.release(),
    }
    facts |= json.loads(finished([python, "-P", "-c", _INTERPRETER], limit=60))
    facts["nginx"] = _version(program("nginx"), "-v")
    for name, question in _ASKED.items():
        if name not in without:
            facts[name] = _version(program(name), question)
    if "mod_auth_openidc" not in without:
        facts["apache"] = _version(program("apache2"), "-v")
        facts["mod_auth_openidc"] = apache.version()
    if "oauth2-proxy" not in without:
        facts["oauth2-proxy"] = _oauth2_proxy(oauth2_proxy)
    return facts


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.machine()


def _oauth2_proxy(binary: Path | None) -> str:
    """As it says itself; one that `go install` built knows only its module's version."""
    assert binary is not None  # noqa: S101 - narrows for the checker
    if (version := _version(str(binary), "--version")) != _UNKNOWN:
        return version
    found = _MODULE.search(binary.read_bytes())
    return found[1].decode() if found else _UNKNOWN


def _version(*args: str) -> str:
    done = subprocess.run(args, capture_output=True, text=True, check=False, timeout=20)
    found = _VERSION.search(done.stdout + done.stderr)
    return found[1] if found else _UNKNOWN
