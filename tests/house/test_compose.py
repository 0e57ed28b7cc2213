"""The Compose files: valid by the specification, tight, and served by a real Traefik."""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
import yaml  # type: ignore[import-untyped] # its types are a package of their own
from accounts import user_named
from compose_spec import PyCompose
from edgekit import Edge, Place, edge, in_front, program, traefik_text
from gatekit import Clock, RawUpstream, ask, request_bytes
from process import free_port
from visitor import FETCH, Visitor

ROOT: Final = Path(__file__).parents[2]
COMPOSE: Final = ROOT / "deploy" / "compose"
HOSHINO: Final = user_named("hoshino")
Tree = dict[str, Any]


def read(path: Path) -> Tree:
    """Return a file as a tree."""
    tree: Tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    return tree


def over(base: Any, more: Any) -> Any:  # noqa: ANN401 - as YAML has it
    """Lay one file over another, as `docker compose -f` does: lists are joined."""
    if isinstance(base, Mapping) and isinstance(more, Mapping):
        both = base.keys() & more.keys()
        return {**base, **more, **{key: over(base[key], more[key]) for key in both}}
    if isinstance(base, list) and isinstance(more, list):
        return [*base, *(one for one in more if one not in base)]
    return more


def with_traefik() -> Tree:
    """Return what the two files make together."""
    tree: Tree = over(read(ROOT / "compose.yaml"), read(COMPOSE / "traefik.yaml"))
    return tree


@pytest.mark.parametrize("name", ["", "redis.yaml", "traefik.yaml"])
def test_the_files_are_valid(name: str) -> None:
    """By the Compose specification, each alone without an unknown key, and over compose.yaml."""
    base = read(ROOT / "compose.yaml")
    if name:
        PyCompose.from_yaml((COMPOSE / name).read_text(encoding="utf-8"))
        base = over(base, read(COMPOSE / name))
    PyCompose.from_yaml(yaml.safe_dump(base)).validate()


def test_one_address_is_trusted_and_it_is_traefiks() -> None:
    """Traefik shares one network with the gate, where it has the address that the gate trusts."""
    tree = with_traefik()
    gate, traefik = tree["services"]["gate"], tree["services"]["traefik"]
    (shared,) = set(gate["networks"]) & set(traefik["networks"])
    address = ip_address(traefik["networks"][shared]["ipv4_address"])
    (pool,) = tree["networks"][shared]["ipam"]["config"]

    assert gate["environment"]["TAILCHAT_GATE_SERVER__TRUSTED_PROXIES"] == str(address)
    assert address in ip_network(pool["subnet"])
    # The first one is the machine's.
    assert address != next(ip_network(pool["subnet"]).hosts())
    members = {name for name, one in tree["services"].items() if shared in one["networks"]}
    assert members == {"gate", "traefik"}


def test_no_tool_is_reached_past_the_gate() -> None:
    """What the gate forwards to is out of Traefik's reach; the tool that is asked about is not."""
    services = with_traefik()["services"]
    traefik, gate = set(services["traefik"]["networks"]), set(services["gate"]["networks"])

    assert not set(services["whoami"]["networks"]) & traefik
    assert not set(services["wiki"]["networks"]) & gate
    published = {name for name, one in services.items() if "ports" in one}
    assert published == {"gate", "traefik"}
    for name, one in services.items():
        assert (one["read_only"], one["cap_drop"]) == (True, ["ALL"]), name
        assert "docker.sock" not in str(one.get("volumes")), name


def test_documentation_names_no_wider_address() -> None:
    """The page about Docker has the address of the file."""
    text = (ROOT / "docs" / "deployment-docker.md").read_text(encoding="utf-8")
    services = with_traefik()["services"]
    trusted = services["gate"]["environment"]["TAILCHAT_GATE_SERVER__TRUSTED_PROXIES"]

    assert f'trusted_proxies = ["{trusted}"]' in text
    assert f"ipv4_address: {trusted}" in text


def routes() -> Iterator[Tree]:
    """Yield the routes that the file gives the gate, before the tool of a test."""
    given = with_traefik()["services"]["gate"]["environment"]["TAILCHAT_GATE_ROUTE"]
    for route in json.loads(given):
        assert route.pop("upstream").startswith("http://")
        yield {**route, "host": route["host"].replace("example.com", "test")}
    yield {"name": "any-host", "upstream": "static:204", "allow": ["public"]}


def command(place: Place, web: int, openapi: int) -> list[str]:
    """Return the command of the file, with this test's addresses in it and in what it reads."""
    folder = place.directory / "dynamic"
    folder.mkdir()
    (folder / "asks.yaml").write_text(traefik_text(place))
    text = (COMPOSE / "traefik-routes.yaml").read_text(encoding="utf-8")
    for old, new, times in (
        ("      tls: {}\n", "", 3),
        ("gate:4180", f"127.0.0.1:{place.gate}", 1),
        ("service-gateway:3000", f"127.0.0.1:{place.tool}", 1),
        ("service-openapi:3003", f"127.0.0.1:{openapi}", 1),
        ("example.com", "test", 3),
    ):
        assert text.count(old) == times, old
        text = text.replace(old, new)
    routed, _, _ = text.partition("\ntls:\n")
    (folder / "routes.yaml").write_text(routed)
    words = "\n".join(with_traefik()["services"]["traefik"]["command"])
    for old, new in (
        ("address=:8080", f"address=127.0.0.1:{web}"),
        ("address=:8443", f"address=127.0.0.1:{place.port}"),
        ("/etc/traefik/dynamic", str(folder)),
    ):
        assert words.count(old) == 1, old
        words = words.replace(old, new)
    return [program("traefik"), *words.split("\n"), "--log.level=WARN"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def openapi() -> AsyncIterator[RawUpstream]:
    """Return the second of Tailchat's services."""
    async with RawUpstream() as found:
        yield found


@pytest.fixture(scope="module")
def web() -> int:
    """Return the port without TLS."""
    return free_port()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def front(
    tmp_path_factory: pytest.TempPathFactory, openapi: RawUpstream, web: int
) -> AsyncIterator[Edge]:
    """Serve what the files say."""
    port = int(openapi.url.rpartition(":")[2])
    started = edge(
        "traefik",
        tmp_path_factory.mktemp("compose"),
        Clock(),
        routes=tuple(routes()),
        command=lambda place: command(place, web, port),
    )
    async with started as found:
        yield found


@in_front
@pytest.mark.parametrize("host", ["whoami.test", "wiki.test"])
async def test_a_person_reaches_a_tool_either_way(front: Edge, host: str) -> None:
    """Forwarded by the gate, or by Traefik that asks; what a visitor says of himself is gone."""
    forged = {
        "X-Tailchat-Sub": "forged",
        "X_Tailchat_Sub": "forged",
        "X-Forwarded-For": "192.0.2.9",
    }
    async with Visitor() as visitor:
        closed = await visitor.open(front.url(host) + "/page", headers={**FETCH, **forged})
        page = await visitor.sign_in(front.url(host) + "/page", HOSHINO.email, HOSHINO.password)
        again = await visitor.open(front.url(host) + "/again", headers={**FETCH, **forged})

    assert (closed.status, page.status, again.status) == (401, 200, 200)
    assert page.url == front.url(host) + "/page"
    received = front.scene.tool.requests[-1]
    assert received.line.startswith(b"GET /again ")
    assert received.value("X-Tailchat-Sub") == HOSHINO.sub.encode()
    assert b"forged" not in received.head
    assert b"192.0.2.9" not in received.head


@in_front
async def test_tailchat_is_divided_as_in_its_own_file(front: Edge, openapi: RawUpstream) -> None:
    """Sign-ins go to the service for them, all else to the gateway."""
    host = f"tailchat.test:{front.port}"
    for path in ("/open/auth", "/api/user"):
        assert (await ask(front.port, request_bytes(path, host=host, Connection="close"))).body

    assert openapi.requests[-1].line == b"GET /open/auth HTTP/1.1"
    assert front.scene.tool.requests[-1].line == b"GET /api/user HTTP/1.1"


@in_front
async def test_plain_http_only_redirects(front: Edge, web: int) -> None:
    """Nothing is served without TLS."""
    response = await ask(web, request_bytes("/a", host="whoami.test", Connection="close"))

    assert response.status in {301, 308}
    assert response.value("Location") == "https://whoami.test/a"
