"""explain --header: what it says of request fields is what the gate does with them."""

import asyncio
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from configkit import SECRETS, good
from gatekit import RawUpstream, ask, running_gate

from tailchat_gate.cli import main
from tailchat_gate.request.field_names import CLAIMS, HOP_BY_HOP

CONFIG = """
[server]
public_url = "http://gate.test"
listen = "127.0.0.1:0"
admin_listen = ""

[tailchat]
api_url = "http://127.0.0.1:9"
client_id = "tc_1"

[state]
path = ""

[[route]]
name = "tool"
upstream = "UPSTREAM"
allow = ["public"]
headers = { "X-Who" = "{sub}" }

[[route]]
name = "passing"
path = "/passing"
upstream = "UPSTREAM"
allow = ["public"]
pass_fields = ["legacy_name", "X-Roles"]
methods = ["GET"]

[[route]]
name = "own"
path = "/own"
upstream = "static:204"
allow = ["public"]
"""
OUTPUT = re.compile(r"^header: +(\S+), (passed on|dropped): (.*)$", re.MULTILINE)


@pytest.fixture
def config(tmp_path: Path, upstream: RawUpstream) -> Path:
    """Return a configuration in front of a tool that records what it gets."""
    file = tmp_path / "gate.toml"
    file.write_text(CONFIG.replace("UPSTREAM", upstream.url), encoding="utf-8")
    file.chmod(0o600)
    return file


def explained(config: Path, path: str, *fields: str) -> str:
    """Return what explain prints of a request with these fields."""
    options = [word for field in fields for word in ("--header", field)]
    url = f"http://gate.test{path}"
    command = ["explain", "-c", str(config), url, *options]
    return CliRunner().invoke(main, command, env=dict(SECRETS)).output


def _request(path: str, fields: dict[str, str]) -> bytes:
    """Return a request with names as they stand."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"GET {path} HTTP/1.1\r\nHost: gate.test\r\n{lines}\r\n".encode("ascii")


NAMES = [
    *(name.replace("*", "x") for names in CLAIMS.values() for name in names),
    *(name.decode() for name in HOP_BY_HOP - {b"transfer-encoding", b"upgrade"}),
    *("X-Tailchat-Sub", "X-Forwarded-For", "Forwarded", "X_Forwarded_For", "X-Request-Id"),
    *("legacy_name", "X.Name", "X-Roles", "X_Roles", "X-Who", "x-who", "X_Who", "X-Api-Key"),
    *("Accept", "Cookie", "Authorization", "X-Listed", "Referer"),
]


@pytest.mark.parametrize("path", ["/", "/passing"])
async def test_the_gate_does_with_a_field_what_explain_says(
    tmp_path: Path, config: Path, upstream: RawUpstream, path: str
) -> None:
    """A field reaches the tool just where explain says that it is passed on."""
    values = dict.fromkeys(NAMES, "mine") | {"connection": "x-listed", "Cookie": "a=b"}
    values["te"], values["Referer"] = "trailers", "http://gate.test/"
    settings = (await asyncio.to_thread(good, config)).settings
    async with running_gate(settings, tmp_path / "access.log") as gate:
        wrong = []
        for name in NAMES:
            sent = {name: values[name]}
            if name == "X-Listed":
                sent["connection"] = "x-listed"
            fields = [f"{field}={value}" for field, value in sent.items()]
            said = await asyncio.to_thread(explained, config, path, *fields)
            upstream.requests.clear()
            await ask(gate.port, _request(path, sent))
            lines = upstream.requests[0].head.decode("latin-1").split("\r\n")
            found = [line for line in OUTPUT.findall(said) if line[0] == name]
            if [what for _, what, _ in found] != [
                "passed on" if f"{name}: {values[name]}" in lines else "dropped"
            ]:
                wrong.append((name, said))
        assert not wrong


@pytest.mark.parametrize(
    ("field", "path", "said"),
    [
        ("Proxy-Authorization=x", "/", "dropped: hop-by-hop, for one connection; no key"),
        ("X-Original-URL=/a", "/", "dropped: tools may take it for the path; pass_fields = ["),
        ("Remote-User=eve", "/", 'for the person; pass_fields = ["Remote-User"] of route tool'),
        ("X-Real-IP=1.2.3.4", "/", "dropped: tools may take it for the visitor's address"),
        ("X-Accel-Redirect=/a", "/", "dropped: tools may take it for an order to the server"),
        ("X-Tailchat-Sub=x", "/", "dropped: the gate alone sets it; no key passes it on"),
        ("X_Tailchat_Sub=x", "/", "dropped: the gate alone sets it; no key passes it on"),
        ("X-Who=eve", "/", "dropped: `headers` of route tool set it"),
        ("X-Who=eve", "/passing", "dropped: the gate sets it for this tool"),
        (
            "legacy_name=1",
            "/",
            'its name has more than A-Z, 0-9 and -; pass_fields = ["legacy_name',
        ),
        ("legacy_name=1", "/passing", "passed on: `pass_fields` of the route names it"),
        ("Host", "/", "dropped: the gate writes its own; no key passes it on"),
        ("Content-Length", "/", "dropped: the gate writes its own; no key passes it on"),
        ("Cookie=a=b", "/", "passed on: without the gate's own cookies"),
        ("X-Api-Key", "/", "passed on: no rule drops it"),
        (f"Authorization=Bearer tg_{'A' * 43}", "/", "`forward_authorization` of the route passes"),
        ("X-Api-Key", "/own", "none is passed on: the gate itself serves this route"),
        ("X-Y=\udcff", "/", "X-Y: \\xff"),
        ("X Y=1", "/", "expected NAME or NAME=VALUE"),
        ("X-Y=a\r\nX-Z: b", "/", "expected NAME or NAME=VALUE"),
    ],
)
def test_explain_names_the_rule(config: Path, field: str, path: str, said: str) -> None:
    """The rule by which a field is dropped or passed is told, and the key that passes it on."""
    assert said in explained(config, path, field)


def test_pass_fields_as_told_passes_the_field(config: Path) -> None:
    """The setting that explain proposes is one that works."""
    (line,) = re.findall(r"pass_fields = \[.*?\]", explained(config, "/", "X-Original-URL=/"))
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace('name = "tool"', f'name = "tool"\n{line}'), encoding="utf-8")

    assert "passed on: `pass_fields`" in explained(config, "/", "X-Original-URL=/")
