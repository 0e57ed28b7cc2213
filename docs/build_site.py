"""Builds the documents as a site: `python docs/build_site.py`, with the extra `docs` installed.

Zensical reads one folder, and the pages are in several (README.md, docs/, bench/, fuzz/), which
link to each other. So the pages, their pictures and the files that they link to are copied into one
folder, at the same places. `python docs/build_site.py FOLDER` works in another folder than build/.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
_PAGES: Final = ("*.md", "bench/README.md", "fuzz/README.md", "docs/**/*.md", "docs/pictures/*")


def build(folder: Path) -> Path:
    """Build the site below a folder and return where it is; a dead link is an error."""
    pages = folder / "pages"
    shutil.rmtree(pages, ignore_errors=True)
    for source in [path for pattern in _PAGES for path in ROOT.glob(pattern)]:
        _copy(source, pages)
    for page in list(pages.rglob("*.md")):
        place = ROOT / page.parent.relative_to(pages)
        for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            _copy((place / link).resolve(), pages)
    config = shutil.copy(ROOT / "zensical.toml", folder)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    subprocess.run([*command, "--config-file", str(config)], check=True)
    return folder / "site"


def _copy(source: Path, pages: Path) -> None:
    """Copy a file of the repository that is not there yet."""
    if source.is_file() and source.is_relative_to(ROOT):
        target = pages / source.relative_to(ROOT)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


if __name__ == "__main__":
    print(build(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build"))
