"""What axe-core finds in a page: its rules are WCAG's and the usual advice beside it."""

from importlib.resources import files
from typing import Final

from playwright.async_api import Page

_SCRIPT: Final = files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
#: What is found, without the parts of the page that pass.
_FIND: Final = """async () => {
    const found = await axe.run(document, {
        resultTypes: ["violations"], iframes: false, preload: false,
    });
    return found.violations.flatMap(
        (rule) => rule.nodes.map((node) => `${rule.id}: ${node.target} ${node.failureSummary}`)
    );
}"""


async def load_axe(tab: Page) -> None:
    """Load axe-core into the document of a tab, past its policy."""
    await tab.evaluate(_SCRIPT)


async def findings(tab: Page) -> list[str]:
    """Return what axe-core finds in a tab in which it is loaded."""
    found: list[str] = await tab.evaluate(_FIND)
    return found


async def write_page(tab: Page, html: str) -> None:
    """Show a page in the document of a tab; what is loaded there stays."""
    await tab.evaluate("html => { document.open(); document.write(html); document.close(); }", html)
