"""The pictures of all pages: made here if they are asked for, and whole in any case."""

import re
import subprocess
import sys
from pathlib import Path

import gallery
import pytest
from gallery import CAPTIONS, FOLDER, FRONT
from parts import keeps_screenshots

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(600)
def test_the_pictures_are_made() -> None:
    """`pytest --screenshots` makes exactly the files that documents show, from the demo."""
    if not keeps_screenshots():
        pytest.skip("pictures are made with --screenshots")
    subprocess.run([sys.executable, gallery.__file__], check=True, cwd=ROOT)

    assert {path.name for path in FOLDER.iterdir()} == {
        f"{name}.webp" for name in (*CAPTIONS, *FRONT)
    }


def _page_templates() -> set[str]:
    """Return the templates that are pages: those that no other is made with."""
    folder = ROOT / "tailchat_gate/pages"
    texts = {
        f"{prefix}{path.stem}": path.read_text(encoding="utf-8")
        for prefix, name in (("", "templates"), ("admin-", "admin"))
        for path in (folder / name).glob("*.html")
    }
    parts = {
        f"{'admin-' if name.startswith('admin-') else ''}{part}"
        for name, text in texts.items()
        for part in re.findall(r'{%-? (?:extends|include|from) "(\w+)\.html"', text)
    }
    return texts.keys() - parts


def test_each_page_is_in_the_gallery() -> None:
    """Each page has a picture or more, and each picture of the gallery is there."""
    assert len(_page_templates()) > 15
    for name in _page_templates():
        assert [one for one in CAPTIONS if one == name or one.startswith(f"{name}-")], name
    assert {path.stem for path in FOLDER.iterdir()} == {*CAPTIONS, *FRONT}


def test_the_gallery_is_what_its_command_writes() -> None:
    """docs/gallery.md is the list that the pictures are made by."""
    assert (ROOT / "docs/gallery.md").read_text(encoding="utf-8") == gallery.document()


def test_pictures_are_small_and_used() -> None:
    """No picture is of more than 100 kB, all together of no more than 1.5 MB, and each is shown."""
    pictures = sorted(FOLDER.iterdir())
    sizes = [path.stat().st_size for path in pictures]
    texts = [
        path.read_text(encoding="utf-8")
        for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))
    ]

    assert max(sizes) < 100_000
    assert sum(sizes) < 1_500_000
    for path in pictures:
        assert any(f"pictures/{path.name}" in text for text in texts), path.name
