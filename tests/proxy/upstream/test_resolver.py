"""Names of tools: what one that does not resolve costs the others, and where names lead."""

from pathlib import Path

import pytest
from names_stories import STORIES
from netkit import run_in_network


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("story", STORIES)
async def test_names_in_a_network_of_their_own(story: str, loop: str, tmp_path: Path) -> None:
    """Each story of names_stories.py holds with a real resolver, on both event loops."""
    script = Path(__file__).parents[2] / "kit" / "names_stories.py"

    await run_in_network(script, story, loop, directory=tmp_path)
