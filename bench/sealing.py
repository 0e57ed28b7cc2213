"""Files of sealed sessions, one a line."""

import json
from pathlib import Path

from process import BenchError, finished
from scene import Scene
from sealed import PEOPLE

_SEALED = Path(__file__).with_name("sealed.py")
# A million of them take a minute and a half.
_LIMIT = 120


def seal(scene: Scene, origin: str, path: Path, count: int, people: int = PEOPLE) -> None:
    """Write `count` values of a Cookie header that the gates of the run at `origin` let in."""
    order = {"secret": scene.secret, "origin": origin, "count": count, "people": people}
    words = finished([scene.python, str(_SEALED)], limit=_LIMIT, given=json.dumps(order))
    if len(set(words.splitlines())) != count:
        raise BenchError(f"there are no {count} different sessions")
    path.write_text(words)
