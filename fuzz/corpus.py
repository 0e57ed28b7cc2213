"""The inputs that are kept: files in `fuzz/corpus/TARGET`, few and small."""

import hashlib
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final

from fuzz.target import Target

ROOT: Final = Path(__file__).parent.parent
KEPT: Final = ROOT / "fuzz" / "corpus"
#: What runs gather, and what they find; build output, not kept in the repository.
GATHERED: Final = Path(os.environ.get("FUZZ_GATHERED") or ROOT / "build" / "fuzz")
FINDINGS: Final = GATHERED / "findings"
MAX_BYTES: Final = 4096
#: Files whose names begin so once showed a fault, and stay.
FOUND: Final = "found-"
_WATCHED: Final = (str(ROOT / "tailchat_gate"), str(ROOT / "fuzz" / "reference"))

Steps = set[tuple[str, int, int, int]]


def files(name: str) -> list[Path]:
    """Return the kept files of a target, in order."""
    return sorted(path for path in (KEPT / name).glob("*") if path.is_file())


def gathered(name: str) -> list[Path]:
    """Return what the last runs of a target gathered."""
    return sorted(path for path in (GATHERED / name).glob("*") if path.is_file())


def distil(name: str, target: Target) -> tuple[int, int]:
    """Keep the smallest inputs that together run what all of them do; return how many of all.

    An input counts for the steps from line to line that it makes the parser or the plain reader
    take, and for how often: once, twice, up to four times, up to eight and so on.
    """
    seen: Steps = set()
    for seed in target.seeds:
        seen |= steps_of(target.check, seed)
    known = files(name)
    fixed = [path for path in known if path.name.startswith(FOUND)]
    for path in fixed:
        seen |= steps_of(target.check, path.read_bytes())
    rest = {path.read_bytes() for path in (*known, *gathered(name)) if path not in fixed}
    kept = set(_needed(target.check, rest, seen))
    for path in known:
        if path not in fixed and path.read_bytes() not in kept:
            path.unlink()
    (KEPT / name).mkdir(parents=True, exist_ok=True)
    for data in kept:
        (KEPT / name / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    return len(kept) + len(fixed), len(rest) + len(fixed)


def _needed(
    check: Callable[[bytes], None], inputs: Iterable[bytes], seen: Steps
) -> Iterator[bytes]:
    for data in sorted(inputs, key=lambda data: (len(data), data)):
        if len(data) > MAX_BYTES:
            continue
        new = steps_of(check, data) - seen
        if new:
            seen |= new
            yield data


def steps_of(check: Callable[[bytes], None], data: bytes) -> Steps:
    """Return the steps from line to line that a check takes in what is watched, and how often.

    The number of times is told as that of the bits that it takes.
    """
    found: Counter[tuple[str, int, int]] = Counter()

    def enter(frame: FrameType, _event: str, _value: object) -> Any:  # noqa: ANN401 - sys.settrace's
        name = frame.f_code.co_filename
        if not name.startswith(_WATCHED):
            return None
        last = frame.f_code.co_firstlineno

        def step(frame: FrameType, event: str, _value: object) -> Any:  # noqa: ANN401 - as above
            nonlocal last
            if event == "line":
                found[name, last, frame.f_lineno] += 1
                last = frame.f_lineno
            return step

        return step

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        check(data)
    finally:
        sys.settrace(before)
    return {(*step, times.bit_length()) for step, times in found.items()}
