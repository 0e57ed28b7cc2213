"""The measurement of memory under all kinds of work."""

import subprocess
import sys

import mixed_soak
import pytest

MIB = 2**20


@pytest.mark.timeout(300)
def test_every_kind_of_work_is_done() -> None:
    """A short run does each of them against a real gate, and prints what became of it."""
    done = subprocess.run(
        [sys.executable, mixed_soak.__file__, "--minutes", "0.01", "--workers", "2"],
        capture_output=True,
        text=True,
        check=False,
    )

    # How it grows in its first second says nothing.
    assert done.returncode in {0, 1}, done.stderr
    for name in ("GET 200", "stranger 401", "sign-in done", "WebSocket done"):
        assert f"- {name}: " in done.stdout
    assert "| minute | RSS MiB of the parent | RSS MiB of worker 1 |" in done.stdout
    assert "- requests that failed: " in done.stdout
    assert "- growth in MiB, last quarter against first: " in done.stdout


@pytest.mark.parametrize(
    ("sizes", "grown"),
    [([50], 0), ([50, 60, 70, 80], 30), ([80, 50, 50, 50, 50, 50, 50, 60], -20)],
)
def test_growth_is_that_of_the_last_quarter(sizes: list[int], grown: float) -> None:
    """Its largest reading is compared with the largest of the first quarter."""
    readings = [
        mixed_soak.Reading(float(at), {1: size * MIB, 2: 0}, 10) for at, size in enumerate(sizes)
    ]
    assert mixed_soak.growth_mib(readings) == grown
