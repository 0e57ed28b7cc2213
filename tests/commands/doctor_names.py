"""A name about which no name server says anything, in a network of its own: see netkit."""

import asyncio
import sys
from pathlib import Path

from doctorkit import diagnose, write_config
from netkit import Zone


async def main(folder: Path) -> None:
    """Ask about a name that is never answered, and about one that is."""
    zone = Zone()
    await zone.serve()
    zone.silent.add("silent.test")
    zone.records["tool.test"] = ["192.0.2.7"]
    routes = [
        {"name": "one", "upstream": "http://silent.test"},
        {"name": "two", "path": "/two", "upstream": "http://tool.test:9"},
        {"name": "three", "host": "missing.test"},
    ]
    path = write_config(folder, route=routes)
    found = await diagnose(path, apart=True)

    said = "this machine cannot look up"
    assert found.said("dns") == [
        ("wrong", f"route one: upstream: {said} silent.test: no name server answers"),
        ("ok", "route two: upstream: tool.test is 192.0.2.7"),
        ("warning", f"route three: host: {said} missing.test: Name or service not known"),
    ], found.said("dns")
    assert [mark for mark, _ in found.said("tool")] == ["wrong", "wrong"]
    assert found.said("store")
    assert "was not done" not in str(found)


asyncio.run(main(Path(sys.argv[-1])))
