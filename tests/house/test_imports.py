import ast
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import pytest
from tables import check_each

import tailchat_gate

ROOT = Path(tailchat_gate.__file__).parent
PACKAGE = "tailchat_gate"

#: From the one that knows most to those that know nothing; a room imports from further down
#: only. Rooms of one line do not know each other.
ORDER: tuple[tuple[str, ...], ...] = (
    ("__main__",),
    ("cli",),
    ("commands",),
    ("serving",),
    ("diagnosis",),
    ("gate",),
    ("endpoints",),
    ("authorizer", "responses"),
    ("verdict",),
    ("proxy",),
    ("access",),
    ("people",),
    ("identity",),
    ("state",),
    ("observe", "demo"),
    ("config",),
    ("pages",),
    ("request",),
    ("reasons",),
    ("bounded",),
    ("syntax",),
    (PACKAGE,),
)
#: Rooms that may know less than their place in the order allows.
ONLY: Mapping[str, frozenset[str]] = {
    "observe": frozenset((PACKAGE, "bounded", "reasons", "request", "syntax")),
    "demo": frozenset(("config", "syntax")),
    "request": frozenset(("bounded", "reasons", "syntax")),
    "config": frozenset(("pages", "request", "syntax")),
    "pages": frozenset(("syntax",)),
    "reasons": frozenset(),
    PACKAGE: frozenset(),
    "state": frozenset(("bounded", "config", "observe", "syntax")),
    "bounded": frozenset(),
    "syntax": frozenset(),
}
#: The same within the rooms that have parts.
INSIDE: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "commands": (
        ("check", "init", "serve"),
        ("completion", "config", "doctor", "explain", "generate", "oauth2_proxy"),
        ("people",),
        ("state",),
        ("running_state",),
        ("admin", "demo", "first_files"),
        ("common", "completed_names"),
    ),
    "serving": (
        ("workers",),
        ("process",),
        ("server",),
        ("admin", "surroundings"),
        ("dashboard",),
        ("explanation", "reload"),
        ("explain_request",),
        ("wiring",),
        ("generations",),
        ("process_state",),
        ("listening", "reload_outcome", "shared_rates", "upgrade"),
        ("process_gauges", "signals", "systemd"),
    ),
    "people": (
        ("panel", "rechecks"),
        ("groups", "watch"),
        ("inquiry", "registration", "search"),
        ("bot",),
        ("api", "facts", "slices"),
    ),
    "identity": (
        ("host_sessions",),
        ("sites",),
        ("rechecker", "machine_tokens"),
        ("authenticator",),
        ("sign_ins",),
        ("access_requests", "recheck", "token_refresh"),
        ("grants", "revocation"),
        ("sessions",),
        ("oauth",),
        ("seal",),
    ),
    "state": (
        ("places",),
        ("redis", "sqlite"),
        ("activity", "bookkeeping", "memory", "rows", "waiting"),
        ("store",),
    ),
    "proxy": (
        ("exchange",),
        ("client",),
        ("upstream",),
        ("message", "static"),
        ("sockets",),
    ),
    "config": (
        ("load", "suggested"),
        ("excerpts", "overlay", "validation"),
        ("certificates",),
        ("document", "files", "lint", "report"),
        ("keys",),
        ("model",),
        ("never",),
        ("conflicts",),
        ("tables",),
        ("values",),
        ("positions",),
        ("problems", "state_directory"),
    ),
}
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}

#: Modules that decide: time, chance and the network are arguments there.
PURE = (
    "request",
    "access",
    "config.conflicts",
    "config.lint",
    "config.model",
    "config.tables",
    "pages.language",
    "bounded",
    "reasons",
    "syntax",
    "identity.sessions.cookie_fields",
    "identity.oauth.login",
    "identity.authenticator",
    "identity.oauth.login_state",
    "identity.recheck",
    "identity.oauth.responses",
    "identity.machine_tokens",
    "identity.revocation.state",
    "identity.revocation.records",
    "proxy.message",
)
IMPURE = frozenset(
    (
        *("asyncio", "socket", "ssl", "select", "selectors", "threading", "multiprocessing"),
        *("time", "datetime", "random", "secrets", "uuid", "os", "pathlib", "io", "subprocess"),
        *("logging", "aiohttp", "aiohttp_session", "http.client", "urllib.request", "uvloop"),
    )
)
#: The only rooms and modules outside the demo that draw secrets: a nonce, a session's ID and
#: a mask are made where they are needed, and are no decision.
DRAW = (
    "identity.seal",
    "identity.sessions.record",
    "proxy.exchange.tunnel",
    "commands.generate",
    "commands.demo",
)

#: Lines of a module, and of a function, at most.
MOST_LINES = 350
MOST_FUNCTION_LINES = 60
#: Modules and functions that are longer, until they are cut: none.
LONG_MODULES: tuple[str, ...] = ()
LONG_FUNCTIONS: tuple[str, ...] = ()


@cache
def imports(source: str) -> Sequence[tuple[str, tuple[str, ...]]]:
    """Return (module, names) for each import in a source, wherever in it, absolute ones only."""
    found: list[tuple[str, tuple[str, ...]]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import hides its arrow"
            found.append((node.module or "", tuple(alias.name for alias in node.names)))
    return found


def graph(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Return which of the modules in `sources` (dotted names) each one imports."""
    found: dict[str, set[str]] = {name: set() for name in sources}
    for name, source in sources.items():
        for module, members in imports(source):
            targets = {f"{module}.{member}" for member in members} & sources.keys()
            # A package is imported for itself only where something else than a module is taken.
            if not members or len(targets) < len(members):
                targets |= {module} & sources.keys()
            found[name] |= targets - {name}
    return found


def room(module: str) -> str:
    """Return the room that a module belongs to: the first part of its name in the package."""
    return module.removeprefix(f"{PACKAGE}.").partition(".")[0]


def wrong_arrows(arrows: Mapping[str, set[str]]) -> list[str]:
    """Return each import that runs against the order, as text."""
    wrong = []
    for source, targets in arrows.items():
        above = room(source)
        for target in targets:
            below = room(target)
            allowed = RANK[below] > RANK[above] and below in ONLY.get(above, {below})
            if above != below and not allowed:
                wrong.append(f"{source} > {target}")
    return sorted(wrong)


def cycle(arrows: Mapping[str, set[str]]) -> list[str]:
    """Return the modules that are in a cycle, or before one; none where there is no cycle."""
    left = {name: set(targets) for name, targets in arrows.items()}
    while ends := {name for name, targets in left.items() if not targets & left.keys()}:
        left = {name: targets for name, targets in left.items() if name not in ends}
    return sorted(left)


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {_module(path): path.read_text() for path in sorted(ROOT.rglob("*.py"))}


@cache
def arrows() -> Mapping[str, set[str]]:
    """Return the graph; not where tests are only collected, which each process does."""
    return graph(SOURCES)


def test_every_room_has_its_place() -> None:
    """A new module or package at the top has to be given its place in the order."""
    assert {room(module) for module in SOURCES} == RANK.keys()


def test_imports_run_one_way() -> None:
    """No import runs against the order of the rooms."""
    assert wrong_arrows(arrows()) == []


def test_no_cycles() -> None:
    """No two modules need each other, within a room or across rooms."""
    assert cycle(arrows()) == []


def test_demo_is_known_to_the_command_line_alone() -> None:
    """Nothing that serves knows of the demo."""
    knows = {room(source) for source, targets in arrows().items() if "demo" in map(room, targets)}

    assert knows <= {"demo", "commands"}


def test_pure_modules_import_nothing_impure() -> None:
    """A module that decides imports neither clock nor chance nor anything that does I/O."""
    pure = [
        module
        for module in SOURCES
        if module.removeprefix(f"{PACKAGE}.").startswith(tuple(f"{name}." for name in PURE))
        or module.removeprefix(f"{PACKAGE}.") in PURE
    ]

    assert len(pure) > 60
    check_each(pure, _imports_nothing_impure)


def _imports_nothing_impure(module: str) -> None:
    found = {name for name, _ in imports(SOURCES[module])}
    reached = found | {name.partition(".")[0] for name in found}

    assert reached & IMPURE == set()


def test_few_modules_draw_secrets() -> None:
    """No module but the listed ones imports a source of chance, and none a guessable one."""
    for module, source in SOURCES.items():
        found = {name for name, _ in imports(source)} & {"secrets", "random", "uuid"}
        assert found <= {"secrets"}
        assert not found or room(module) == "demo" or module.removeprefix(f"{PACKAGE}.") in DRAW


def test_pure_names_exist() -> None:
    """Every name in the list of pure modules stands for a module."""
    for name in (*PURE, *DRAW):
        assert f"{PACKAGE}.{name}" in SOURCES


def _inner(module: str) -> tuple[str, str]:
    """Return a module's room and the part of the room that it is in."""
    room, _, rest = module.removeprefix(f"{PACKAGE}.").partition(".")
    return room, rest.partition(".")[0]


def test_imports_run_one_way_within_a_room() -> None:
    """No import runs against the order of the parts of a room."""
    wrong = []
    for source, targets in arrows().items():
        room_above, above = _inner(source)
        ranks = {
            part: rank for rank, line in enumerate(INSIDE.get(room_above, ())) for part in line
        }
        for target in targets:
            room_below, below = _inner(target)
            inside = room_above == room_below and room_above in INSIDE and above and below
            if inside and above != below and ranks[below] <= ranks[above]:
                wrong.append(f"{source} > {target}")

    assert sorted(wrong) == []


def test_every_part_of_a_room_has_its_place() -> None:
    """A new module in a room that has an order of its own gets a place in it."""
    parts: dict[str, set[str]] = {room: set() for room in INSIDE}
    for module in SOURCES:
        room, part = _inner(module)
        if room in INSIDE and part:
            parts[room].add(part)

    assert parts == {
        room: {part for line in lines for part in line} for room, lines in INSIDE.items()
    }


def test_no_module_is_long() -> None:
    """No module has more than 350 lines but the named ones, and each of those still does."""
    long = {module for module, source in SOURCES.items() if source.count("\n") > MOST_LINES}

    assert {module.removeprefix(f"{PACKAGE}.") for module in long} == set(LONG_MODULES)


def test_no_function_is_long() -> None:
    """No function has more than 60 lines but the named ones, and each of those still does."""
    long = set()
    for module, source in SOURCES.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                if node.end_lineno - node.lineno >= MOST_FUNCTION_LINES:
                    long.add(f"{module.removeprefix(f'{PACKAGE}.')}:{node.name}")

    assert long == set(LONG_FUNCTIONS)


@pytest.mark.parametrize(
    ("source", "text", "arrow"),
    [
        ("request.x", "import tailchat_gate.gate", "request.x > gate"),
        ("request.x", "from tailchat_gate.config import model", "request.x > config.model"),
        ("observe.x", "from tailchat_gate.config.model import A", "observe.x > config.model"),
        ("pages.x", "def f():\n    from tailchat_gate.config import A", "pages.x > config"),
        ("demo.x", "from tailchat_gate.reasons import A", "demo.x > reasons"),
        ("endpoints", "from tailchat_gate.gate import A", "endpoints > gate"),
        ("identity.x", "from tailchat_gate.access.y import A", "identity.x > access.y"),
        ("gate", "from tailchat_gate.demo.y import A", None),
        ("gate", "from tailchat_gate.config.model import A", None),
        ("access.x", "from tailchat_gate.access.y import A", None),
    ],
)
def test_arrow_back_is_found(source: str, text: str, arrow: str | None) -> None:
    """The check sees an import that runs back, at the top of a module or inside a function."""
    names = ("gate", "config", "config.model", "pages", "reasons", "access", "access.y", "demo.y")
    sources = {f"{PACKAGE}.{name}": "" for name in names} | {f"{PACKAGE}.{source}": text}
    expected = [] if arrow is None else [arrow]

    wrong = wrong_arrows(graph(sources))
    assert [one.replace(f"{PACKAGE}.", "") for one in wrong] == expected


def test_cycle_is_found() -> None:
    """The check sees a cycle of two and of three modules, and none in a plain tree."""
    assert cycle({"a": {"b"}, "b": {"a"}, "c": set()}) == ["a", "b"]
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c"]
    assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_relative_import_is_refused() -> None:
    """A relative import is an error, because its arrow cannot be read off it."""
    with pytest.raises(AssertionError, match="relative"):
        list(imports("from . import x"))
