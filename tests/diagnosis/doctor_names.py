"""A name about which no name server says anything, in a network of its own: see netkit."""

import asyncio
import sys
from pathlib import Path

from doctorkit import diagnose, write_config
from netkit import Zone


async def main(folder: Path) -> None:
    """Ask about names that are never answered, which is one outage, and about one that is."""
    zone = Zone()
    await zone.serve()
    zone.silent |= {"silent.test", "quiet.test"}
    zone.records["tool.test"] = ["192.0.2.7"]
    routes = [
        {"name": "one", "upstream": "http://silent.test"},
        {"name": "two", "path": "/two", "upstream": "http://tool.test:9"},
        {"name": "three", "host": "missing.test"},
        {"name": "four", "path": "/four", "upstream": "http://quiet.test"},
    ]
    path = write_config(folder, route=routes)
    found = await diagnose(path, apart=True)

    said = "this machine cannot look up"
    held_up = "not checked because of this: dns quiet.test, tool one, tool four"
    assert found.said("dns") == [
        ("wrong", f"route one: upstream: {said} silent.test: no name server answers; {held_up}"),
        ("ok", "route two: upstream: tool.test is 192.0.2.7"),
        ("warning", f"route three: host: {said} missing.test: Name or service not known"),
    ], found.said("dns")
    assert [text.partition(":")[0] for _, text in found.said("tool")] == ["two"]
    assert found.said("store")
    assert "was not done" not in str(found)


asyncio.run(main(Path(sys.argv[-1])))
