"""The pages in docs/recipes: the route, files and command that a page prints are what is run."""

import re
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

RECIPES: Final = Path(__file__).parents[2] / "docs" / "recipes"
#: What the token of a page's [[token]] hashes to is put in by the test.
_HASH: Final = re.compile("sha256:[0-9a-f]{64}")
_LAST_RUN: Final = re.compile(r"^Last run: (\d{4}-\d\d-\d\d) with (.*)\.$", re.MULTILINE)
_BLOCK: Final = re.compile(r"<!-- (\w+)(?:: (\S+))? -->\n```\w*\n(.*?)```", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Places:
    """Where a test has what the page puts elsewhere."""

    #: The application's own port.
    port: int
    #: Where browsers find the gate.
    gate_port: int
    #: The application's working directory, /srv/NAME on the page.
    directory: Path
    token_hash: str = ""


@dataclass(frozen=True)
class RecipePage:
    """One page of docs/recipes."""

    path: Path
    text: str

    @classmethod
    def named(cls, name: str) -> Self:
        """Read a page."""
        path = RECIPES / f"{name}.md"
        return cls(path, path.read_text(encoding="utf-8"))

    @property
    def name(self) -> str:
        """The name of the page and of its route."""
        return self.path.stem

    @cached_property
    def _blocks(self) -> Mapping[tuple[str, str], str]:
        found = {(kind, name): text for kind, name, text in _BLOCK.findall(self.text)}
        assert ("route", "") in found, f"{self.path.name} has no block after <!-- route -->"
        return found

    @property
    def toml(self) -> str:
        """The tables for the gate, as they are printed."""
        return self._blocks["route", ""]

    @property
    def _route(self) -> Mapping[str, Any]:
        route: Mapping[str, Any] = tomllib.loads(self.toml)["route"][0]
        return route

    @property
    def host(self) -> str:
        """The host name of the application on the page."""
        return str(self._route["host"])

    @property
    def test_host(self) -> str:
        """The host name of the application in the test."""
        return self.host.replace(".example.com", ".test")

    def here(self, text: str, places: Places) -> str:
        """Return a text of the page with the test's places in it."""
        seen = f"{self.test_host}:{places.gate_port}"
        text = text.replace(f"/srv/{self.name}", str(places.directory))
        text = text.replace(f"https://{self.host}", f"http://{seen}").replace(self.host, seen)
        port = str(self._route["upstream"]).rpartition(":")[2]
        return re.sub(rf"(?<!\d){port}(?!\d)", str(places.port), text)

    def tables(self, places: Places) -> dict[str, Any]:
        """Return the tables for the gate, for the test."""
        text = self.here(_HASH.sub(places.token_hash, self.toml), places)
        return tomllib.loads(text.replace(f"{self.test_host}:{places.gate_port}", self.test_host))

    def files(self, places: Places) -> dict[str, str]:
        """Return the files that the page prints, by name."""
        return {
            name: self.here(text, places)
            for (kind, name), text in self._blocks.items()
            if kind == "file"
        }

    def commands(self, places: Places) -> list[list[str]]:
        """Return the commands that the page prints; the last of them is the application."""
        text = self.here(self._blocks["command", ""], places).replace("\\\n", " ")
        return [shlex.split(line) for line in text.splitlines()]

    @property
    def last_run(self) -> tuple[str, tuple[str, ...]]:
        """The date of the last run, and what was installed for it."""
        match = _LAST_RUN.search(self.text)
        assert match is not None, f"{self.path.name} does not say when it was run"
        return match[1], tuple(re.findall("`([^`]+)`", match[2]))

    def write_last_run(self, installed: tuple[str, ...]) -> None:
        """Write that it was run today with what was installed."""
        today = datetime.now(UTC).date().isoformat()
        with_ = ", ".join(f"`{one}`" for one in installed)
        text = _LAST_RUN.sub(lambda _: f"Last run: {today} with {with_}.", self.text)
        self.path.write_text(text, encoding="utf-8")


def block(marker: str, page: str = "tool-authors") -> str:
    """Return the block of a page of docs/ that follows a marker."""
    text = (RECIPES.parent / f"{page}.md").read_text(encoding="utf-8")
    match = re.search(rf"<!-- {marker} -->\n```\w+\n(.*?)```", text, re.DOTALL)
    assert match is not None, marker
    return match[1]


def pages() -> list[RecipePage]:
    """Return all pages but the index."""
    names = sorted(path.stem for path in RECIPES.glob("*.md") if path.stem != "README")
    return [RecipePage.named(name) for name in names]
