"""Builds the documents as a site: `python docs/build_site.py`, with the extra `docs` installed.

Zensical reads one folder, and the pages are in several (README.md, docs/, bench/, fuzz/), which
link to each other. So the pages and the files that they link to are copied into one folder, at the
same places. `python docs/build_site.py FOLDER` works in another folder than build/.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
_FILES: Final = (
    *("*.md", "LICENSE", "compose.yaml", "config.example.toml"),
    *("bench/README.md", "bench/gate.py", "bench/jupyterlab.json", "fuzz/README.md"),
    "deploy/**/*",
    *(f"docs/**/*.{kind}" for kind in ("json", "md", "png", "webp")),
)


def build(folder: Path) -> Path:
    """Build the site below a folder and return where it is; a dead link is an error."""
    pages = folder / "pages"
    shutil.rmtree(pages, ignore_errors=True)
    for pattern in _FILES:
        for source in filter(Path.is_file, ROOT.glob(pattern)):
            target = pages / source.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    config = shutil.copy(ROOT / "zensical.toml", folder)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    subprocess.run([*command, "--config-file", str(config)], check=True)
    return folder / "site"


if __name__ == "__main__":
    print(build(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build"))
