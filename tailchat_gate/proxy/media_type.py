"""The media type of a file, from its name."""

from mimetypes import MimeTypes
from typing import Final

#: What Python knows differs between its versions for these, or is missing. XML names its own
#: encoding, which a charset of text/xml would overrule (RFC 7303 section 3.2).
_TYPES: Final = {
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".md": "text/markdown",
    ".log": "text/plain",
    ".xml": "application/xml",
    ".map": "application/json",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".toml": "application/toml",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".ttf": "font/ttf",
    ".otf": "font/otf",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".webp": "image/webp",
    ".avif": "image/avif",
    ".ogg": "audio/ogg",
    ".flac": "audio/flac",
    ".m4a": "audio/mp4",
    ".epub": "application/epub+zip",
    ".gz": "application/gzip",
    ".bz2": "application/x-bzip2",
    ".xz": "application/x-xz",
    ".zst": "application/zstd",
    ".7z": "application/x-7z-compressed",
}
UNKNOWN: Final = "application/octet-stream"


class MediaTypes:
    """A table of its own, alike on every machine: what the system lists is left aside."""

    def __init__(self) -> None:
        self._known = MimeTypes()
        # A compressed file is sent as what it is: "text, compressed" would be unpacked on the
        # way (RFC 9110 section 8.4), and whoever downloads an archive wants the archive.
        self._known.encodings_map.clear()
        for ending, media_type in _TYPES.items():
            self._known.add_type(media_type, ending)

    def content_type(self, name: str) -> str:
        """Return the Content-Type for a file name, with UTF-8 as the charset of text."""
        # As a path, because "data:text/html,x" as a URL would name its own type.
        media_type = self._known.guess_type(f"./{name}")[0] or UNKNOWN
        return f"{media_type}; charset=utf-8" if media_type.startswith("text/") else media_type
