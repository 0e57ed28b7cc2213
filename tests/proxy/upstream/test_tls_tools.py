"""Tools with certificates of OpenSSL: from a private authority, and signed by themselves."""

import asyncio
import hashlib
import logging
import shutil
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from gatekit import OK, RawUpstream, RunningGate, ask, make_settings, request_bytes
from parts import missing
from reloadkit import file_gate

pytestmark = pytest.mark.both_loops

Start = Callable[..., Any]
#: Without the key identifiers that RFC 5280 wants, as many a private authority issues them.
_PLAIN = "subjectKeyIdentifier=none\nauthorityKeyIdentifier=none\n"


async def _run(directory: Path, *arguments: str) -> bytes:
    """Run openssl in a directory; return what it prints."""
    found = shutil.which("openssl")
    if found is None:
        missing("openssl")
    process = await asyncio.create_subprocess_exec(
        *(found, *arguments),
        cwd=directory,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, told = await process.communicate()
    assert process.returncode == 0, told.decode()
    return out


async def _self_signed(directory: Path, name: str, *, days: str = "2") -> Path:
    """Make a key and a certificate that it signs itself; return the path of both, in one file."""
    key, certificate = f"{name}.key", f"{name}.crt"
    await _run(
        directory,
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
        *("-keyout", key, "-out", certificate, "-days", days, "-subj", f"/CN={name}"),
    )
    return await _joined(directory, name)


async def _joined(directory: Path, name: str) -> Path:
    def join() -> Path:
        both = directory / f"{name}.pem"
        both.write_bytes(
            (directory / f"{name}.crt").read_bytes() + (directory / f"{name}.key").read_bytes()
        )
        return both

    return await asyncio.to_thread(join)


async def _plain_leaf(directory: Path) -> Path:
    """Make an authority and a certificate for localhost without key identifiers."""
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    await asyncio.to_thread(
        (directory / "leaf.cnf").write_text, f"{_PLAIN}subjectAltName=DNS:localhost\n"
    )
    await _run(
        directory,
        *("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.crt", "-days", "2"),
        *("-subj", "/CN=Private authority"),
    )
    await _run(
        directory,
        *("req", "-new", *curve, "-keyout", "leaf.key", "-out", "leaf.csr"),
        *("-subj", "/CN=localhost"),
    )
    await _run(
        directory,
        *("x509", "-req", "-in", "leaf.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-days", "2"),
        *("-extfile", "leaf.cnf", "-out", "leaf.crt"),
    )
    text = await _run(directory, "x509", "-in", "leaf.crt", "-noout", "-text")
    assert b"Key Identifier" not in text
    return await _joined(directory, "leaf")


async def _pin(directory: Path, name: str) -> str:
    """Return a pin as the documentation says how to make one."""
    public = await _run(directory, "x509", "-in", f"{name}.crt", "-noout", "-pubkey")
    await asyncio.to_thread((directory / "public.pem").write_bytes, public)
    der = await _run(directory, "pkey", "-pubin", "-in", "public.pem", "-outform", "DER")
    return f"sha256:{hashlib.sha256(der).hexdigest()}"


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Path], Any]]:
    """Return a function that serves a tool with the certificate and key of a file."""
    async with AsyncExitStack() as stack:

        async def start(pem: Path) -> RawUpstream:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            await asyncio.to_thread(context.load_cert_chain, pem)
            return await stack.enter_async_context(RawUpstream(OK, tls=context))

        yield start


async def _asked(gate: RunningGate, path: str = "/") -> int:
    return (await ask(gate.port, request_bytes(path, Cookie=gate.cookie()))).status


async def test_a_certificate_without_key_identifiers(
    start_gate: Start, serve: Callable[[Path], Any], tmp_path: Path
) -> None:
    """It is good under every version of Python, as it is for curl; its authority alone decides."""
    tool = await serve(await _plain_leaf(tmp_path))
    gate = await start_gate(
        route=[
            {"name": "ca", "path": "/ca", "upstream": tool.url, "tls_ca": f"{tmp_path}/ca.crt"},
            {"name": "system", "path": "/system", "upstream": tool.url},
        ]
    )

    assert await _asked(gate, "/ca") == 200
    assert await _asked(gate, "/system") == 502


async def test_a_pin_stands_for_a_certificate_that_nobody_signed(
    start_gate: Start,
    serve: Callable[[Path], Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """By tls_pin a self-signed tool of another name is known by its key, and no other tool is."""
    tool = await serve(await _self_signed(tmp_path, "appliance"))
    pin = await _pin(tmp_path, "appliance")
    other = "sha256:" + "0" * 64
    colons = "sha256:" + ":".join(pin[7:][n : n + 2].upper() for n in range(0, 64, 2))
    gate = await start_gate(
        route=[
            {"name": name, "path": f"/{name}", "upstream": tool.url, "tls_pin": pins}
            for name, pins in {"one": [pin], "two": [other, colons], "wrong": [other]}.items()
        ]
    )

    assert [await _asked(gate, path) for path in ("/one", "/two")] == [200, 200]
    with caplog.at_level(logging.WARNING, "tailchat_gate"):
        assert await _asked(gate, "/wrong") == 502
    assert len(tool.requests) == 2
    # The admin who changed the tool's key reads here what the new pin is.
    assert pin in str([vars(record).get("details") for record in caplog.records])


async def test_a_pin_beside_an_authority(
    start_gate: Start, serve: Callable[[Path], Any], tmp_path: Path
) -> None:
    """With tls_ca both have to hold: the certificate is valid, and the key is one of the pins."""
    tool = await serve(await _plain_leaf(tmp_path))
    await _self_signed(tmp_path, "other")
    pin, authority = await _pin(tmp_path, "leaf"), f"{tmp_path}/ca.crt"
    route = {"upstream": tool.url, "tls_pin": [pin], "tls_ca": authority}
    gate = await start_gate(
        route=[
            {**route, "name": "both", "path": "/both"},
            {**route, "name": "pin", "path": "/pin", "tls_ca": f"{tmp_path}/other.crt"},
            {**route, "name": "ca", "path": "/ca", "tls_pin": ["sha256:" + "0" * 64]},
            {**route, "name": "host", "path": "/host", "tls_server_name": "tool.lan"},
        ]
    )

    assert await _asked(gate, "/both") == 200
    assert [await _asked(gate, path) for path in ("/pin", "/ca", "/host")] == [502, 502, 502]
    assert len(tool.requests) == 1


@pytest.mark.parametrize(
    ("upstream", "pin", "told"),
    [
        ("https://tool", "sha256:" + "0" * 63, "64 hex digits"),
        ("https://tool", "sha1:" + "0" * 64, "64 hex digits"),
        ("https://tool", "0" * 64, "64 hex digits"),
        ("http://tool", "sha256:" + "0" * 64, "an https upstream"),
    ],
)
def test_what_no_pin_is(upstream: str, pin: str, told: str) -> None:
    """A pin in another form, or of a tool without TLS, is a problem of the configuration."""
    with pytest.raises(ValueError, match=told):
        make_settings(upstream, route=[{"name": "tool", "tls_pin": [pin]}])


async def test_a_pin_is_exchanged_by_a_reload(
    serve: Callable[[Path], Any],
    tmp_path: Path,
    clock: Any,  # noqa: ANN401 - a gatekit.Clock
) -> None:
    """Connections that were opened under another pin are not used under the next."""
    tool = await serve(await _self_signed(tmp_path, "appliance"))
    pin, other = await _pin(tmp_path, "appliance"), "sha256:" + "0" * 64

    def route(pins: list[str]) -> dict[str, Any]:
        return {"name": "tool", "upstream": tool.url, "tls_pin": pins, "connect_retry": "0s"}

    async with file_gate(tmp_path, tool.url, clock, route=[route([pin])]) as gate:
        assert await _asked(gate.gate) == 200
        await gate.change(route=[route([other])])
        assert await _asked(gate.gate) == 502
        await gate.change(route=[route([other, pin])])
        assert await _asked(gate.gate) == 200
