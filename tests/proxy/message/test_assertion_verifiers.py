"""The verifiers in docs/assertion.md, as they are printed there, against a real gate."""

import asyncio
import json
import os
import re
import sys
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from gatekit import (
    SUB,
    Clock,
    RawUpstream,
    RunningGate,
    ask,
    make_settings,
    request_bytes,
    running_gate,
)
from openid_provider_process import MissingPart, find_node, install
from parts import missing
from process import free_port

from tailchat_gate.identity.machine_tokens import hash_of, make_token

DOCUMENT = Path(__file__).parents[3] / "docs" / "assertion.md"
NAME = "X-Tailchat-Assertion"
TOKEN = make_token(bytes(32))

#: Reads an assertion a line; answers each with what came of it, as JSON.
PYTHON = """
import json, sys
from verifier import verify
for line in sys.stdin:
    try:
        told = {"claims": verify(line.rstrip("\\n"))}
    except Exception as error:
        told = {"refused": type(error).__name__}
    print(json.dumps(told), flush=True)
"""
NODE = """
import { createInterface } from "node:readline";
import { verify } from "./verifier.mjs";
for await (const line of createInterface({ input: process.stdin })) {
  let told;
  try {
    told = { claims: await verify(line) };
  } catch (error) {
    told = { refused: error.code ?? error.name };
  }
  console.log(JSON.stringify(told));
}
"""


def snippet(language: str, gate: str) -> str:
    """Return a verifier of the document, for the tool "wiki" of a gate."""
    text = DOCUMENT.read_text(encoding="utf-8")
    match = re.search(rf"<!-- verify-{language} -->\n```\w+\n(.*?)```", text, re.DOTALL)
    assert match is not None
    assert match[1].count('"https://gate.example.com"') == match[1].count('"wiki"') == 1
    return match[1].replace("https://gate.example.com", gate)


@dataclass(frozen=True, slots=True)
class Verifier:
    """A program that checks assertions."""

    process: asyncio.subprocess.Process

    async def check(self, assertion: str) -> dict[str, Any]:
        """Return {"claims": ...} or {"refused": ...}."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{assertion}\n".encode())
        line = await self.process.stdout.readline()
        assert line, "the verifier ended"
        found = json.loads(line)
        assert isinstance(found, dict)
        return found


@asynccontextmanager
async def _program(*command: str, folder: Path) -> AsyncIterator[Verifier]:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={"PATH": os.environ.get("PATH", os.defpath)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Verifier(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()  # the end of its input ends it
        await process.wait()


@asynccontextmanager
async def python_verifier(folder: Path, gate: str) -> AsyncIterator[Verifier]:
    """Run the Python verifier."""
    await asyncio.to_thread((folder / "verifier.py").write_text, snippet("python", gate))
    await asyncio.to_thread((folder / "main.py").write_text, PYTHON)
    async with _program(sys.executable, "-W", "error", "main.py", folder=folder) as found:
        yield found


@asynccontextmanager
async def node_verifier(folder: Path, gate: str) -> AsyncIterator[Verifier]:
    """Run the Node verifier, with the jose that the tests' provider brings."""
    try:
        node = find_node()
        modules = await asyncio.to_thread(install, node)
    except MissingPart as part:
        missing(str(part))
    (folder / "node_modules").symlink_to(modules)
    await asyncio.to_thread((folder / "verifier.mjs").write_text, snippet("node", gate))
    await asyncio.to_thread((folder / "main.mjs").write_text, NODE)
    async with _program(*node.node, "main.mjs", folder=folder) as found:
        yield found


VERIFIERS = {"python": python_verifier, "node": node_verifier}


@dataclass(frozen=True, slots=True)
class Scene:
    """A gate that signs at the time of this machine, before one tool, and a verifier of it."""

    gate: RunningGate
    tool: RawUpstream
    verifier: Verifier
    clock: Clock
    key: ec.EllipticCurvePrivateKey

    async def assertion(self, target: str = "/", *, ago: float = 0.0, **fields: str) -> str:
        """Return what the tool gets when the gate's clock is so many seconds behind."""
        self.clock.now = time.time() - ago
        response = await ask(
            self.gate.port, request_bytes(target, **(fields or {"Cookie": self.gate.cookie()}))
        )
        assert response.status == 200
        value = self.tool.requests.pop().value(NAME)
        assert value is not None
        return value.decode()


@pytest.fixture(params=VERIFIERS)
async def scene(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Scene]:
    """Return the scene, once with each verifier."""
    port, clock = free_port(), Clock(time.time())
    url = f"http://127.0.0.1:{port}"
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    await asyncio.to_thread((tmp_path / "key.pem").write_bytes, pem)
    async with RawUpstream() as tool:
        settings = make_settings(
            tool.url,
            server={"public_url": url, "listen": [f"127.0.0.1:{port}"]},
            assertion={"key_files": [str(tmp_path / "key.pem")]},
            groups={"ops": [SUB]},
            token=[{"name": "ci", "hash": hash_of(TOKEN)}],
            route=[
                {"name": "wiki", "allow": ["signed-in", "token:ci"]},
                {"name": "other", "path": "/other"},
            ],
        )
        async with (
            running_gate(settings, tmp_path / "access.log", clock) as gate,
            VERIFIERS[request.param](tmp_path, url) as verifier,
        ):
            # Its start takes seconds on a busy machine, and assertions get older meanwhile.
            await verifier.check("none")
            yield Scene(gate, tool, verifier, clock, key)


async def test_a_good_one_passes(scene: Scene) -> None:
    """The claims of a person and of a machine come out as the gate put them in."""
    person = (await scene.verifier.check(await scene.assertion()))["claims"]
    machine = await scene.verifier.check(await scene.assertion(Authorization=f"Bearer {TOKEN}"))

    assert (person["sub"], person["nickname"], person["groups"]) == (SUB, "Alice", ["ops"])
    assert (machine["claims"]["sub"], machine["claims"]["groups"]) == ("token:ci", [])


async def test_one_for_another_tool_is_refused(scene: Scene) -> None:
    """What another tool got from the same gate is no good here."""
    refused = await scene.verifier.check(await scene.assertion("/other"))

    assert refused["refused"] in {"InvalidAudienceError", "ERR_JWT_CLAIM_VALIDATION_FAILED"}


@pytest.mark.parametrize(("ago", "passes"), [(0, True), (320, True), (340, False), (-40, False)])
async def test_one_of_another_time_is_refused(scene: Scene, ago: float, passes: bool) -> None:
    """One that is over, or not yet good, is refused beyond 30 seconds for clocks."""
    found = await scene.verifier.check(await scene.assertion(ago=ago))

    assert ("claims" in found) == passes
    if not passes:
        assert found["refused"] in {
            *("ExpiredSignatureError", "ImmatureSignatureError"),
            *("ERR_JWT_EXPIRED", "ERR_JWT_CLAIM_VALIDATION_FAILED"),
        }


def _part(value: Mapping[str, object]) -> str:
    return urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def _claims(assertion: str, **changes: object) -> dict[str, Any]:
    claims = jwt.decode(assertion, options={"verify_signature": False})
    return {name: value for name, value in {**claims, **changes}.items() if value is not None}


def _forged(assertion: str, key: Any, alg: str, **headers: object) -> str:  # noqa: ANN401 - PyJWT's
    header = jwt.get_unverified_header(assertion)
    return jwt.encode(
        _claims(assertion, sub="admin"), key, alg, headers={"kid": header["kid"], **headers}
    )


def _without_signature(assertion: str, key: ec.EllipticCurvePrivateKey) -> str:
    header = {**jwt.get_unverified_header(assertion), "alg": "none"}
    return f"{_part(header)}.{_part(_claims(assertion))}."


def _other_key(assertion: str, key: ec.EllipticCurvePrivateKey) -> str:
    return _forged(assertion, ec.generate_private_key(ec.SECP256R1()), "ES256")


def _own_key_in_the_header(assertion: str, key: ec.EllipticCurvePrivateKey) -> str:
    own = ec.generate_private_key(ec.SECP256R1())
    jwk = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(own.public_key()))
    return _forged(assertion, own, "ES256", jwk=jwk)


def _unknown_key(assertion: str, key: ec.EllipticCurvePrivateKey) -> str:
    return _forged(assertion, ec.generate_private_key(ec.SECP256R1()), "ES256", kid="unknown")


def _public_key_as_secret(assertion: str, key: ec.EllipticCurvePrivateKey) -> str:
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    header = {**jwt.get_unverified_header(assertion), "alg": "HS256"}
    signed = f"{_part(header)}.{_part(_claims(assertion, sub='admin'))}"
    # By hand, because PyJWT refuses to make one.
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(
        signed.encode(), public
    )
    return f"{signed}.{urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def _other_subject(assertion: str, key: ec.EllipticCurvePrivateKey) -> str:
    header, _, signature = assertion.split(".")
    return f"{header}.{_part(_claims(assertion, sub='admin'))}.{signature}"


def _later(assertion: str, key: ec.EllipticCurvePrivateKey) -> str:
    header, _, signature = assertion.split(".")
    return f"{header}.{_part(_claims(assertion, exp=2**31))}.{signature}"


def _other_signature(assertion: str, key: ec.EllipticCurvePrivateKey) -> str:
    head, _, signature = assertion.rpartition(".")
    raw = bytearray(urlsafe_b64decode(signature + "=="))
    raw[40] ^= 1
    return f"{head}.{urlsafe_b64encode(raw).rstrip(b'=').decode()}"


def _zero_signature(assertion: str, key: ec.EllipticCurvePrivateKey) -> str:
    # CVE-2022-21449: r and s of zero fit any text where nobody looks.
    head = assertion.rpartition(".")[0]
    return f"{head}.{urlsafe_b64encode(bytes(64)).rstrip(b'=').decode()}"


def _of_the_gate_s_key(**changes: object) -> Callable[[str, ec.EllipticCurvePrivateKey], str]:
    def make(assertion: str, key: ec.EllipticCurvePrivateKey) -> str:
        kid = jwt.get_unverified_header(assertion)["kid"]
        return jwt.encode(_claims(assertion, **changes), key, "ES256", headers={"kid": kid})

    return make


BAD: dict[str, Callable[[str, ec.EllipticCurvePrivateKey], str]] = {
    "alg none": _without_signature,
    "other key": _other_key,
    "own key in the header": _own_key_in_the_header,
    "unknown key": _unknown_key,
    "HS256 with the public key": _public_key_as_secret,
    "other subject": _other_subject,
    "later": _later,
    "other signature": _other_signature,
    "zero signature": _zero_signature,
    "other issuer": _of_the_gate_s_key(iss="https://gate.example.org"),
    "no issuer": _of_the_gate_s_key(iss=None),
    "no audience": _of_the_gate_s_key(aud=None),
    "no subject": _of_the_gate_s_key(sub=None),
    "no end": _of_the_gate_s_key(exp=None),
    "no beginning": _of_the_gate_s_key(nbf=None),
    "cut": lambda assertion, key: assertion[:-1],
    "two parts": lambda assertion, key: assertion.rpartition(".")[0],
    "nothing": lambda assertion, key: "",
}


async def test_every_bad_one_is_refused(scene: Scene) -> None:
    """Forged, altered or incomplete, none passes; a good one does before and after."""
    good = await scene.assertion()
    assert "claims" in await scene.verifier.check(good)
    found = {name: await scene.verifier.check(make(good, scene.key)) for name, make in BAD.items()}

    assert {name: told for name, told in found.items() if "claims" in told} == {}
    assert "claims" in await scene.verifier.check(good)
    # The gate's key signs what is complete: what was refused above lacked what it lacked.
    whole = _of_the_gate_s_key()(good, scene.key)
    assert "claims" in await scene.verifier.check(whole)
