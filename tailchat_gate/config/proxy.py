"""The HTTP proxy between the gate and Tailchat: written down, or named by the environment."""

from typing import Final
from urllib.request import getproxies, proxy_bypass

from tailchat_gate.config.url import parse_url

ENVIRONMENT: Final = "environment"
"""Stands for what HTTP_PROXY, HTTPS_PROXY and NO_PROXY say, in either case."""
PROXY: Final = 'an address such as "http://proxy.example.com:3128", "environment", or "" for none'


def proxy_address(text: str) -> str:
    """Read the address of a proxy, without user and path. Raises ValueError."""
    if text in ("", ENVIRONMENT):
        return text
    url = parse_url(text, PROXY)
    if url.scheme != "http" or url.path not in ("", "/"):
        raise ValueError(PROXY)
    return url.origin


def proxy_for(setting: str, url: str) -> str:
    """Return the proxy for calls to a URL, "" for none.

    One that the environment names and that speaks no HTTP is none; a user and a password in its
    address stay there.
    """
    if setting != ENVIRONMENT:
        return setting
    found = parse_url(url, "")
    if proxy_bypass(found.authority):
        return ""
    chosen = getproxies().get(found.scheme, "")
    if chosen and "://" not in chosen:
        chosen = f"http://{chosen}"
    return chosen if chosen.lower().startswith("http://") else ""
