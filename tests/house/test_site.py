"""The documents build as a site, strictly; what the builder does not look at is looked at here."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[2]
LOADED = {("script", "src"), ("img", "src"), ("source", "srcset"), ("link", "href")}


@dataclass
class Page:
    """What a page of the site links to and loads, and the places in it that a link can name."""

    links: set[str] = field(default_factory=set)
    loaded: set[str] = field(default_factory=set)
    anchors: set[str] = field(default_factory=set)


class Reader(HTMLParser):
    """Reads a page."""

    def __init__(self) -> None:
        super().__init__()
        self.page = Page()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take the addresses and anchors of an element."""
        for name, value in attrs:
            if value and name == "id":
                self.page.anchors.add(value)
            elif value and (tag, name) == ("a", "href"):
                self.page.links.add(value)
            elif value and (tag, name) in LOADED:
                self.page.loaded.add(value)


def read(file: Path) -> Page:
    """Read a page of the site."""
    reader = Reader()
    reader.feed(file.read_text(encoding="utf-8"))
    return reader.page


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Page]:
    """Return the pages of the site, built once."""
    folder = tmp_path_factory.mktemp("docs")
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "build_site.py"), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    top = (folder / "site").resolve()
    return {file: read(file) for file in top.rglob("*.html") if file.name != "404.html"}


def local(site: dict[Path, Page]) -> Iterator[tuple[Path, Path, str]]:
    """Yield each page with a file that it names, and the anchor there."""
    for file, page in site.items():
        for address in page.links | page.loaded:
            parts = urlsplit(address)
            if not parts.scheme and not parts.netloc:
                target = file.parent / unquote(parts.path) if parts.path else file
                # Not resolve(), which asks for each folder whether it is a link: there are none.
                yield file, Path(os.path.normpath(target)), parts.fragment


def test_every_link_of_the_site_leads_somewhere(site: dict[Path, Page]) -> None:
    """The site has each file and each heading that one of its pages names."""
    dead = set()
    for file, target, anchor in local(site):
        index = target / "index.html" if target.is_dir() else target
        known = not anchor or index not in site or anchor in site[index].anchors
        if not (index.is_file() and known):
            dead.add(f"{file.name} -> {target}#{anchor}")

    assert len(site) > 60
    assert dead == set()


def test_every_page_of_the_site_can_be_reached(site: dict[Path, Page]) -> None:
    """Links lead from the front page to each page."""
    front = min(site, key=lambda file: (file.name != "index.html", len(file.parts)))
    found, waiting = {front}, [front]
    targets: dict[Path, set[Path]] = {file: set() for file in site}
    for file, target, _ in local(site):
        targets[file].add(target / "index.html" if target.is_dir() else target)
    while waiting:
        fresh = targets[waiting.pop()] & site.keys() - found
        found |= fresh
        waiting += fresh

    assert sorted(site.keys() - found) == []


def test_the_site_loads_nothing_from_another_server(site: dict[Path, Page]) -> None:
    """Fonts, scripts and pictures are the site's own."""
    addresses = {address for page in site.values() for address in page.loaded}

    assert len(addresses) > 5
    assert [address for address in addresses if urlsplit(address).netloc] == []
