"""Proxies that the tests of a file share: see Fronts in tests/kit/edgekit.py."""

from contextlib import AsyncExitStack
from pathlib import Path

import edgekit
import pytest
from edgekit import Fronts
from parts import missing


async def test_every_test_of_a_proxy_that_is_missing_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the first one alone: the next one finds the directory that it has left."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(edgekit, "program", missing)
    async with AsyncExitStack() as stack:
        fronts = Fronts(tmp_path, stack)
        for _ in range(2):
            with pytest.raises(pytest.skip.Exception, match="nginx is missing"):
                await fronts.get("nginx", catch_all=True)
