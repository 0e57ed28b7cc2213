"""Sets and reads the stand-in Tailchat's signed cookies, in the real one's format."""

import hashlib
import hmac
from dataclasses import dataclass
from email.utils import formatdate

from aiohttp import web

from tailchat_gate.syntax import base64url


class UntypedPage(web.Response):
    """HTML without a Content-Type, as in Tailchat's error pages."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """A cookie's attributes: `expires` in Unix seconds, `same_site` "" for none."""

    path: str
    expires: float
    same_site: str
    secure: bool

    def __str__(self) -> str:
        """Return the text of the attributes, which follows the cookie's value."""
        parts = [f"path={self.path}", f"expires={formatdate(self.expires, usegmt=True)}"]
        if self.same_site:
            parts.append(f"samesite={self.same_site}")
        if self.secure:
            parts.append("secure")
        return "; ".join((*parts, "httponly"))


class Cookies:
    """Cookies in pairs, NAME and NAME.sig; the second is the signature of the first."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def read(self, request: web.BaseRequest, name: str) -> str:
        """Return the value of a cookie with a valid signature, else ""."""
        value = request.cookies.get(name, "")
        signature = request.cookies.get(f"{name}.sig", "")
        genuine = hmac.compare_digest(self._sign(name, value).encode(), signature.encode())
        return value if genuine else ""

    def write(
        self, response: web.StreamResponse, name: str, value: str, attributes: Attributes
    ) -> None:
        """Set both cookies of the pair."""
        response.headers.add("Set-Cookie", f"{name}={value}; {attributes}")
        signature = self._sign(name, value)
        response.headers.add("Set-Cookie", f"{name}.sig={signature}; {attributes}")

    def _sign(self, name: str, value: str) -> str:
        digest = hmac.new(self._key, f"{name}={value}".encode(), hashlib.sha256).digest()
        return base64url(digest)
