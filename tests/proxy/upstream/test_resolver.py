"""Names of tools: what one that does not resolve costs the others, and where names lead."""

from pathlib import Path

import pytest
import pytest_asyncio
from names_stories import STORIES
from netkit import run_in_network

#: All stories are told one after the other, for the first test that asks.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

LOOPS = ("asyncio", "uvloop")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory in which each story left how it ended."""
    script = Path(__file__).with_name("names_stories.py")
    directory = tmp_path_factory.mktemp("names")
    await run_in_network(script, *LOOPS, directory=directory)
    return directory


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("story", STORIES)
async def test_names_in_a_network_of_their_own(story: str, loop: str, told: Path) -> None:
    """Each story of names_stories.py holds with a real resolver, on both event loops."""
    assert {path.name: path.read_text() for path in (told / f"{story}-{loop}").glob("[dt]o*")} == {
        "done": ""
    }
