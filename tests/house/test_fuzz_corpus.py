"""The fuzzers' checks on what they kept, without atheris; and that a fault would be noticed."""

import base64
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import test_imports

from fuzz import corpus, registry
from fuzz.target import Target
from fuzz.targets import origin as origin_target
from fuzz.targets import path as path_target
from tailchat_gate.access import browser_origin, claimed_paths
from tailchat_gate.identity import seal
from tailchat_gate.identity.oauth import id_token, login, responses
from tailchat_gate.identity.revocation import records
from tailchat_gate.identity.revocation.state import SignedOut
from tailchat_gate.identity.sessions.cookie_fields import CookieReader
from tailchat_gate.pages import language
from tailchat_gate.proxy.message import (
    field_rules,
    response_fields,
    response_lines,
    websocket_frames,
)
from tailchat_gate.proxy.static import conditional
from tailchat_gate.request import (
    authorization,
    body,
    claims,
    fields,
    forwarded_request,
    intent,
    proxy_header,
    readings,
    trace_context,
)
from tailchat_gate.request.client import ClientResolver
from tailchat_gate.request.target import HostPatterns

#: Rooms in which bytes of strangers are read.
ROOMS = ("access", "identity", "pages", "proxy", "request")
#: Pure modules of those that read no bytes.
NO_PARSERS = {
    "access.reading_meter": "it counts readings",
    "access.rates": "it counts, by names that others read",
    "access.remedies": "it writes lines of a configuration, by what access.routes matches",
    "pages.admin_page": "it writes",
    "pages.brand": "it writes and counts, from the configuration",
    "pages.catalogues": "it reads the package's own files",
    "pages.environment": "it makes what writes",
    "pages.plots": "it writes",
    "pages.render": "it writes",
    "identity.authenticator": "it looks up what cookie_fields and identity.seal read",
    "identity.sessions.browser_name": "it looks for marks in a text that it cuts",
    "identity.oauth.return_targets": "a memory, of what identity.oauth.login judges",
    "identity.recheck": "it decides by what others read",
    "identity.sessions.stored": "it reads what the gate wrote, and believes what it sealed",
    "identity.token_refresh": "it reads what the gate wrote, and believes what it sealed",
    "proxy.client.connection": "it hands bytes to request.head and request.body",
    "proxy.client.own_connections": "it keeps connections",
    "proxy.exchange.forward_request": "it keeps bytes, by the methods that request.claims reads",
    "proxy.message.assertion": "it writes",
    "proxy.exchange.recorder": "it counts and logs",
    "proxy.exchange.subclassed": "a decorator for a compiler",
    "proxy.upstream.balancer": "it chooses among the addresses of the configuration",
    "request.context": "what is known of a request",
    "request.field_names": "lists of names",
    "request.recorded": "lists of names, and what spans are made of",
}


def inputs(name: str, target: Target) -> Iterator[tuple[str, bytes]]:
    """Yield the inputs of a target by their names: its seeds, then its files."""
    yield from ((f"seed {number}", seed) for number, seed in enumerate(target.seeds))
    yield from ((path.name, path.read_bytes()) for path in corpus.files(name))


@pytest.mark.parametrize("name", registry.NAMES)
def test_no_kept_input_shows_a_fault(name: str) -> None:
    """What must hold for any bytes holds for all that was kept, the faults found once too."""
    target = registry.load(name)

    for label, data in inputs(name, target):
        try:
            target.check(data)
        except Exception as error:
            error.add_note(f"{label}: {data!r}")
            raise


def test_every_pure_parser_has_a_target() -> None:
    """Each module without I/O in a room that reads bytes of strangers is run by a target."""
    covered = {parser for name in registry.NAMES for parser in registry.load(name).parsers}
    pure = {
        module
        for path in test_imports.ROOT.rglob("*.py")
        if (module := ".".join(path.relative_to(test_imports.ROOT).with_suffix("").parts))
        and module.startswith(tuple(f"{room}." for room in ROOMS))
        and not module.endswith("__init__")
        and not _imported(path) & test_imports.IMPURE
    }

    assert len(pure) > 20
    assert pure - covered == NO_PARSERS.keys()
    for module in covered:
        assert (test_imports.ROOT / f"{module.replace('.', '/')}.py").exists(), module


def _imported(path: Path) -> set[str]:
    modules = {module for module, _ in test_imports.imports(path.read_text(encoding="utf-8"))}
    return modules | {module.split(".")[0] for module in modules}


def test_every_target_is_registered() -> None:
    """The targets are the modules in fuzz/targets, and no folder of inputs is left over."""
    folder = Path(registry.__file__).parent / "targets"
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}

    assert modules == set(registry.NAMES)
    assert {path.name for path in corpus.KEPT.iterdir()} == modules


def test_the_corpus_is_small() -> None:
    """Each target keeps a few inputs to some hundred, each below 4 KiB, all below 1.5 MB."""
    sizes = {name: [path.stat().st_size for path in corpus.files(name)] for name in registry.NAMES}

    for name, found in sizes.items():
        assert 0 < len(found) < 200, name
        assert max(found) <= corpus.MAX_BYTES, name
    assert sum(map(sum, sizes.values())) < 1_500_000


def _loose_decode(token: str) -> bytes | None:
    """Decode as many decoders do: two spellings give the same bytes."""
    try:
        return base64.urlsafe_b64decode(token + "==")
    except ValueError:
        return None


def _first(section: fields.FieldSection, name: bytes) -> str:
    return next(iter(section.values(name)), b"").decode("latin-1")


def _by_ending(patterns: HostPatterns[str], host: str) -> str | None:
    """Compare letters, not labels."""
    known = patterns._exact.get(host)
    endings = (said for name, said in patterns._below.items() if host.endswith(name))
    return known or next(endings, None)


def _break_path(patch: pytest.MonkeyPatch) -> None:
    kinds = [
        [step for step in kind if step is not readings._without_parameters]
        for kind in readings._STEPS
    ]
    patch.setattr(readings, "_STEPS", kinds)
    made = tuple((routes, path_target._table(routes)) for routes in path_target._TABLES)
    patch.setattr(path_target, "_MADE", made)


#: A parser that is wrong in one point, for each target.
FAULTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "bearer": lambda patch: patch.setattr(authorization, "_MEANT", re.compile(rb"\bBearer tg_")),
    "callback": lambda patch: patch.setattr(login, "is_bound_to", lambda *_: True),
    "claims": lambda patch: patch.setattr(claimed_paths, "_check_authority", lambda *_: None),
    "client": lambda patch: patch.setattr(ClientResolver, "_is_trusted", lambda *_: True),
    "conditional": lambda patch: patch.setattr(conditional, "_is_time", lambda _: True),
    "cookie": lambda patch: patch.setattr(CookieReader, "_is_hidden", lambda *_: False),
    "frames": lambda patch: patch.setattr(websocket_frames, "_MASK_SIZE", 0),
    "host": lambda patch: patch.setattr(HostPatterns, "get", _by_ending),
    "id_token": lambda patch: patch.setattr(id_token, "_unique", dict),
    "intent": lambda patch: patch.setattr(intent, "_quality", lambda _: 1.0),
    "language": lambda patch: patch.setattr(language, "_elements", lambda field: field.split(",")),
    "lock_line": lambda patch: patch.setattr(records, "Unlock", SignedOut),
    "methods": lambda patch: patch.setattr(
        claims, "_PARAMETER", re.compile("(?i)[?&]_method=([^&;]*)")
    ),
    "origin": lambda patch: patch.setattr(
        origin_target,
        "is_foreign",
        lambda _, sent, own, __: not all(own[0] in one for one in sent),
    ),
    "original": lambda patch: patch.setattr(forwarded_request, "_one", _first),
    "path": _break_path,
    "profile": lambda patch: patch.setattr(responses, "_is_visible", lambda _: True),
    "proxy_header": lambda patch: patch.setattr(proxy_header, "_SIZES", {}),
    "reply": lambda patch: patch.setattr(response_lines, "HOP_BY_HOP", frozenset()),
    "request_body": lambda patch: patch.setattr(
        body, "_SIZE", re.compile(rb"0*([0-9A-Fa-f]{1,15})\s*(?:;.*)?")
    ),
    "request_head": lambda patch: patch.setattr(
        fields, "_LINES", re.compile(rb"(?:[^:\r\n]+:[^\x00\r\n]*\r\n)*")
    ),
    "return_to": lambda patch: patch.setattr(login, "_ASTRAY", re.compile("(?!)")),
    "rewriting": lambda patch: patch.setattr(response_fields, "_authority", lambda _: b"tool:3000"),
    "schemes": lambda patch: patch.setattr(authorization, "_QUOTED", re.compile(rb'"[^"]*"')),
    "seal": lambda patch: patch.setattr(seal, "_decode", _loose_decode),
    "tailchat_answer": lambda patch: patch.setattr(responses, "_TOKEN", re.compile(".+")),
    "trace": lambda patch: patch.setattr(
        trace_context, "_MEMBER", re.compile(rb"[a-z0-9_*/@-]+=[ -~]+")
    ),
    "unread": lambda patch: patch.setattr(
        intent, "_WANTED", re.compile(rb"(?i)\n *(accept|accept-language):[ \t]*([^\r\n]+)")
    ),
    "upstream_head": lambda patch: patch.setattr(field_rules, "is_plain", lambda _: True),
    "worker_scope": lambda patch: patch.setattr(
        browser_origin, "_PLAIN_SCOPE", re.compile(rb"/[A-Za-z0-9./]+")
    ),
}


@pytest.mark.parametrize("name", registry.NAMES)
def test_each_target_notices_a_fault(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a parser that is wrong in one point, what is kept is enough to show it."""
    target = registry.load(name)
    FAULTS[name](monkeypatch)

    failed = []
    for label, data in inputs(name, target):
        try:
            target.check(data)
        except Exception:  # noqa: BLE001 - whichever: libFuzzer would tell of each
            failed.append(label)

    assert failed


def test_what_is_kept_is_the_least_that_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of inputs that run the same steps the smallest is kept; one that showed a fault stays."""
    monkeypatch.setattr(corpus, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(corpus, "GATHERED", tmp_path / "gathered")
    for folder, name, data in (
        ("kept", "old", b"zh;q=0.5" + b" " * 50),
        ("kept", f"{corpus.FOUND}tab", b"\t"),
        ("gathered", "same", b"zh;q=0.5"),
        ("gathered", "longer", b"zh;q=0.5,  "),
        ("gathered", "huge", b"fr," * 2000),
    ):
        (tmp_path / folder / "language").mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "language" / name).write_bytes(data)
    target = registry.load("language")._replace(seeds=(b"",))

    kept, of = corpus.distil("language", target)

    found = {path.name: path.read_bytes() for path in corpus.files("language")}
    assert (kept, of) == (len(found), 5)
    assert found[f"{corpus.FOUND}tab"] == b"\t"
    assert b"zh;q=0.5" in found.values()
    assert max(map(len, found.values())) < 20


def test_a_fuzzer_runs(tmp_path: Path) -> None:
    """`python -m fuzz TARGET` fuzzes, where atheris is installed (the extra `fuzz`)."""
    if find_spec("atheris") is None:
        pytest.skip("atheris is not installed: it is no part of the tests")
    command = (sys.executable, "-m", "fuzz", "intent", "--seconds", "1")
    environment = {**os.environ, "PYTHONPATH": str(corpus.ROOT), "FUZZ_GATHERED": str(tmp_path)}

    ran = subprocess.run(
        command, cwd=corpus.ROOT, env=environment, capture_output=True, check=False, text=True
    )

    assert ran.returncode == 0, ran.stderr
    assert re.search(r"stat::number_of_executed_units: +[1-9]", ran.stderr)
    assert list((tmp_path / "intent").iterdir())
