"""The files and directories that routes name: found at the start, read, and told of."""

import asyncio
import os
import ssl
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from configkit import good, refused, saying
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from tailchat_gate.config.files import FileError, client_context, unusable
from tailchat_gate.config.values.url import server_name

DAY = timedelta(days=1)


def write_pair(
    folder: Path, name: str, encryption: KeySerializationEncryption | None = None
) -> tuple[str, str]:
    """Write a certificate for `name` that signs itself, and its key; return their paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / f"{name}.pem", folder / f"{name}.key"
    files[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())
    )
    files[1].chmod(0o600)
    return str(files[0]), str(files[1])


def _replace_by_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _write_other_key(file: Path, encryption: KeySerializationEncryption | None = None) -> None:
    _, key = write_pair(file.parent, "other", encryption)
    Path(key).rename(file)


def route(**keys: str) -> str:
    """Write a list of one https route, as the environment holds it."""
    pairs = {"name": "a", "upstream": "https://tool", **keys}
    return "[{" + ", ".join(f'{key} = "{value}"' for key, value in pairs.items()) + "}]"


def test_files_that_can_be_used_are_kept_as_written(smallest: Path, tmp_path: Path) -> None:
    """Good files give neither a problem nor a warning, and their paths are not changed."""
    certificate, key = write_pair(tmp_path, "client")
    written = route(tls_ca=certificate, tls_certificate=certificate, tls_key=key)

    loaded = good(smallest, ROUTE=written)

    assert loaded.warnings == ()
    (found,) = loaded.settings.route
    assert (found.tls_ca, found.tls_certificate, found.tls_key) == (certificate, certificate, key)


def test_all_files_are_looked_at(smallest: Path, tmp_path: Path) -> None:
    """A missing authority and a missing certificate are told at once, by the variable's name."""
    _, key = write_pair(tmp_path, "client")
    found = refused(
        smallest,
        ROUTE=route(tls_ca=f"{tmp_path}/ca.pem", tls_certificate=f"{tmp_path}/x.pem", tls_key=key),
    )

    assert saying(found) == [
        ("TAILCHAT_GATE_ROUTE[0].tls_ca", f"{tmp_path}/ca.pem: No such file or directory"),
        ("TAILCHAT_GATE_ROUTE[0].tls_certificate", f"{tmp_path}/x.pem: No such file or directory"),
    ]


BROKEN: list[tuple[str, Callable[[Path], object], str]] = [
    ("tls_ca", lambda file: file.write_text(""), "no certificate"),
    ("tls_ca", lambda file: file.write_bytes(b"\x30\x82\xff"), "no certificate"),
    ("tls_ca", _replace_by_folder, "Is a directory"),
    ("tls_certificate", lambda file: file.write_text("x"), "no certificate"),
    ("tls_certificate", _replace_by_folder, "Is a directory"),
    ("tls_key", lambda file: file.unlink(), "No such file or directory"),
    ("tls_key", lambda file: file.write_text("x"), "no private key"),
    (
        "tls_key",
        _write_other_key,
        "the private key of another certificate",
    ),
    (
        "tls_key",
        lambda file: _write_other_key(file, BestAvailableEncryption(b"hunter2")),
        "a private key with a password",
    ),
]


@pytest.mark.parametrize(("key", "spoil", "found"), BROKEN)
def test_a_file_that_cannot_be_used_is_told(
    smallest: Path, tmp_path: Path, key: str, spoil: Callable[[Path], object], found: str
) -> None:
    """What is wrong with a file is said under its key, without a word of what is in it."""
    certificate, private = write_pair(tmp_path, "client")
    authority, _ = write_pair(tmp_path, "authority")
    files = {"tls_ca": authority, "tls_certificate": certificate, "tls_key": private}
    spoil(Path(files[key]))

    (problem,) = refused(smallest, ROUTE=route(**files))

    assert problem.key_path == f"TAILCHAT_GATE_ROUTE[0].{key}"
    assert problem.found == f"{files[key]}: {found}"
    assert problem.expected.startswith("a PEM file with ")


def test_a_key_that_everybody_can_read_is_warned_of(smallest: Path, tmp_path: Path) -> None:
    """A private key that other users can read is used, and told."""
    certificate, key = write_pair(tmp_path, "client")
    Path(key).chmod(0o644)

    (warning,) = good(smallest, ROUTE=route(tls_certificate=certificate, tls_key=key)).warnings

    assert warning.startswith(f"route[0].tls_key: every user of this machine can read {key}")


def test_a_directory_is_told_when_it_is_a_file(smallest: Path, tmp_path: Path) -> None:
    """Files are served from a directory, never from a file's name."""
    (tmp_path / "docs").write_text("x", encoding="utf-8")

    found = refused(smallest, ROUTE=route(upstream=f"file:{tmp_path}/docs"))

    assert saying(found) == [
        ("TAILCHAT_GATE_ROUTE[0].upstream", f"{tmp_path}/docs: Not a directory")
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="no directory is closed to root")
def test_a_directory_that_cannot_be_entered_is_told(smallest: Path, tmp_path: Path) -> None:
    """A directory whose files the gate could never open is refused at the start."""
    (tmp_path / "docs").mkdir(mode=0o600)

    found = refused(smallest, ROUTE=route(upstream=f"file:{tmp_path}/docs"))

    assert saying(found) == [
        ("TAILCHAT_GATE_ROUTE[0].upstream", f"{tmp_path}/docs: Permission denied")
    ]


def test_a_directory_that_can_be_entered_is_taken(smallest: Path, tmp_path: Path) -> None:
    """A directory need not be listable: the gate opens files by name."""
    (tmp_path / "docs").mkdir(mode=0o500)

    assert good(smallest, ROUTE=route(upstream=f"file:{tmp_path}/docs")).warnings == ()


def test_files_of_other_routes_are_not_touched(smallest: Path) -> None:
    """A route without files, over TLS or not, has nothing that could be missing."""
    settings = good(smallest, ROUTE=route()).settings

    assert list(unusable(dict(enumerate(settings.route)))) == []


def test_a_context_verifies_by_the_systems_authorities() -> None:
    """Without files, a tool is verified as any https server is."""
    context = client_context(None, None, None)

    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.get_ca_certs() == ssl.create_default_context().get_ca_certs()


def test_a_context_cannot_be_made_of_a_broken_file(tmp_path: Path) -> None:
    """Files that went bad since the check stop the gate, not its verification."""
    (tmp_path / "ca.pem").write_text("x", encoding="utf-8")

    with pytest.raises(FileError, match=r"tls_ca: .*ca\.pem: no certificate") as wrong:
        client_context(str(tmp_path / "ca.pem"), None, None)
    assert wrong.value.key == "tls_ca"


async def _handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> bytes:
    """Connect over TLS on loopback; return the name of the client's certificate."""
    shown: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        shown.set_result(certificate or b"")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server) as listening:
        port = listening.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=client, server_hostname=name
        )
        await reader.read()
        writer.close()
        return await shown


async def test_a_tool_and_the_gate_know_each_other(tmp_path: Path) -> None:
    """A tool with a private authority is verified by name, and gets the gate's certificate."""

    def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext, bytes]:
        tool, gate = write_pair(tmp_path, "tool.lan"), write_pair(tmp_path, "gate.lan")
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(*tool)
        server.load_verify_locations(gate[0])
        server.verify_mode = ssl.CERT_REQUIRED
        own = x509.load_pem_x509_certificate(Path(gate[0]).read_bytes())
        return server, client_context(tool[0], *gate), own.public_bytes(Encoding.DER)

    server, client, expected = await asyncio.to_thread(contexts)

    assert await _handshake(server, client, server_name("Tool.LAN.")) == expected


@pytest.mark.parametrize(("name", "trusted"), [("gate.lan", "tool.lan"), ("tool.lan", "gate.lan")])
async def test_a_tool_that_cannot_be_verified_is_not_spoken_to(
    tmp_path: Path, name: str, trusted: str
) -> None:
    """Another name and another authority are refused alike."""

    def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
        pairs = {each: write_pair(tmp_path, each) for each in ("tool.lan", "gate.lan")}
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(*pairs["tool.lan"])
        return server, client_context(pairs[trusted][0], None, None)

    server, client = await asyncio.to_thread(contexts)

    with pytest.raises(ssl.SSLCertVerificationError):
        await _handshake(server, client, name)


def test_a_collector_needs_the_packages_of_the_extra(
    smallest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without them the configuration is refused, with the command that installs them."""
    with_collector = '\n[tracing]\nendpoint = "http://127.0.0.1:4318"\n'
    smallest.write_text(smallest.read_text() + with_collector)
    assert good(smallest).settings.tracing.endpoint == "http://127.0.0.1:4318"
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)

    (problem,) = refused(smallest)
    assert "pip install 'tailchat-gate[tracing]'" in str(problem)
