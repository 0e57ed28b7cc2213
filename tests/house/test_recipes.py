"""The pages of docs/recipes: each loads, is complete, is run by a test, and is in the index."""

from dataclasses import replace
from pathlib import Path

import pytest
from configkit import SECRETS
from recipepage import RECIPES, RecipePage, pages

from tailchat_gate.config.load import load

TESTS = Path(__file__).parents[1] / "recipes"
GATE = """
[server]
public_url = "https://gate.example.com"

[tailchat]
api_url = "https://tailchat.example.com"
client_id = "tc_649aa2179e97b8b3b2d10041"

"""
SECTIONS = ["Route", "Test it", "Sign out", "What does not work"]


@pytest.fixture(params=pages(), ids=lambda page: page.name)
def page(request: pytest.FixtureRequest) -> RecipePage:
    """Return each page."""
    found = request.param
    assert isinstance(found, RecipePage)
    return found


def test_the_tables_of_a_page_load(page: RecipePage, tmp_path: Path) -> None:
    """What a page prints for the gate is good in a configuration, without a warning."""
    file = tmp_path / "gate.toml"
    file.write_text(GATE + page.toml, encoding="utf-8")
    file.chmod(0o600)

    loaded = load(file, SECRETS)

    assert [route.name for route in loaded.settings.route] == [page.name]
    assert loaded.settings.route[0].host == f"{page.name}.example.com"
    assert loaded.warnings == ()


def test_a_page_is_complete_and_has_a_test(page: RecipePage) -> None:
    """A page has all sections, says when it was run and with what, and is run by a test."""
    headings = [line[3:] for line in page.text.splitlines() if line.startswith("## ")]
    date, installed = page.last_run

    assert [name for name in headings if name in SECTIONS] == SECTIONS
    assert len(headings) == len(SECTIONS) + 1  # that of the application
    assert date >= "2026-11-29"
    assert all(("=" in one) or ("@" in one) for one in installed)
    assert (TESTS / f"test_{page.name.replace('-', '_')}.py").exists()
    assert f"]({page.name}.md)" in (RECIPES / "README.md").read_text(encoding="utf-8")


def test_every_test_has_a_page() -> None:
    """No recipe is run that no page tells."""
    tested = {path.stem.removeprefix("test_").replace("_", "-") for path in TESTS.glob("*.py")}

    assert tested == {page.name for page in pages()}


def test_a_run_is_written_on_its_page(page: RecipePage, tmp_path: Path) -> None:
    """The line with date and versions is replaced, and nothing else of the page."""
    written = replace(page, path=tmp_path / f"{page.name}.md")

    written.write_last_run(("package==1.0", "other==2.0"))
    after = written.path.read_text(encoding="utf-8")

    date, installed = replace(written, text=after).last_run
    assert date >= page.last_run[0]
    assert installed == ("package==1.0", "other==2.0")
    different = [line for line in after.splitlines() if line not in page.text.splitlines()]
    assert len(different) == 1
