"""How the processes share the tests: see tests/kit/sharing.py."""

from pathlib import Path

import weights
from sharing import shares

FILES = sorted(Path(__file__).parents[1].rglob("test_*.py"))


def test_every_file_is_in_one_share() -> None:
    """No file is left out, and none is run twice, by however many processes."""
    for count in (1, 2, 6, len(FILES) + 1):
        found = shares(FILES, count)
        assert len(found) == count
        assert sorted(file for share in found for file in share) == FILES


def test_the_shares_take_as_long_as_each_other() -> None:
    """They differ by no more than one file takes."""
    found = [sum(map(weights.weight, share)) for share in shares(FILES, 6)]

    assert max(found) - min(found) <= max(map(weights.weight, FILES))
