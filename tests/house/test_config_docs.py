"""What is written about the configuration: the example, the schema and the docs are true."""

import json
import re
import runpy
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from configkit import BAD, CORPUS, SECRETS, SESSION_SECRET
from schemakit import Validator
from tables import check_each

from tailchat_gate.config.keys import SECRET_FORMS, Key, all_keys, file_schema, schema_text
from tailchat_gate.config.load import load
from tailchat_gate.config.model import READ_AT_START, Settings
from tailchat_gate.config.values.quantities import read_duration

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "config.example.toml"
#: What the example has a placeholder for.
ID = {"TAILCHAT_GATE_TAILCHAT__CLIENT_ID": "tc_1"}
FILLED_IN = {**SECRETS, **ID}
OVERVIEW = ROOT / "docs" / "configuration.md"
PAGES = sorted((ROOT / "docs" / "configure").glob("*.md"))

KEYS = {".".join(key.path): key for key in all_keys()}
# Shown by an example, since nothing is their default.
FREE = {
    "groups",
    *("token", "token.name", "token.hash", "token.routes", "token.expires"),
    *(f"route.{key}" for key in ("host", "upstream_path", "upstream_host", "health")),
    "server.client_ca",
    *(f"route.tls_{key}" for key in ("ca", "certificate", "key", "server_name")),
}
# Tables of which there are any number, each key of them apart.
TABLES = {"route", "token"}
DURATIONS = re.compile(r".*_(timeout|age)|timeout|lifetime|idle|recheck")
SECRET_KEYS = {f"{table}.{form}" for (table, _), forms in SECRET_FORMS.items() for form in forms}


def uncommented(text: str) -> str:
    """Take the # from the lines of the example that hold a key or begin a table."""
    return re.sub(r"^#(?=[a-z_]+ = |\[\[)", "", text, flags=re.MULTILINE)


def flat(document: dict[str, Any]) -> dict[str, Any]:
    """List the values of a file of one route by their key path."""
    found: dict[str, Any] = {}
    for table, content in document.items():
        if table == "groups":
            found["groups"] = content
            continue
        rows = content if isinstance(content, list) else [content]
        for row in rows:
            found |= {f"{table}.{key}": value for key, value in row.items()}
    return found


def same(key: Key, value: object) -> bool:
    """Tell whether a value as written is the key's default; spelling does not matter."""
    if DURATIONS.fullmatch(key.path[-1]):
        return read_duration(value) == read_duration(key.default)
    return key.default in (value, [value])


# The example


def test_the_example_loads_with_secrets_from_the_environment() -> None:
    """The example is a configuration, once variables hold the app's id and both secrets."""
    loaded = load(EXAMPLE, FILLED_IN)

    assert loaded.warnings == ()
    assert loaded.settings.route[0].name == "grafana"
    assert dict(loaded.settings.groups) == {}


def test_the_example_loads_with_secrets_from_files(tmp_path: Path) -> None:
    """The lines for files, with their # taken away, load it without any variable."""
    for name in ("tailchat", "gate"):
        (tmp_path / name).write_text(SESSION_SECRET, encoding="utf-8")
        (tmp_path / name).chmod(0o600)
    text = EXAMPLE.read_text(encoding="utf-8")
    for line in ("#client_secret_file = ", "#secret_file = "):
        assert text.count(line) == 1
        text = text.replace(line, line[1:])
    (tmp_path / "gate.toml").write_text(
        text.replace("/run/secrets", str(tmp_path)), encoding="utf-8"
    )

    assert load(tmp_path / "gate.toml", ID).warnings == ()


def test_the_example_holds_every_key_and_no_other() -> None:
    """Nothing that can be set is missing from the example, and nothing in it is invented."""
    written = flat(tomllib.loads(uncommented(EXAMPLE.read_text(encoding="utf-8"))))

    assert written.keys() == KEYS.keys() - TABLES


def test_the_example_shows_true_defaults() -> None:
    """Each line that is commented out, but for those called examples, is the key's default."""
    text = EXAMPLE.read_text(encoding="utf-8")
    active = flat(tomllib.loads(text))
    written = flat(tomllib.loads(uncommented(text)))
    silent = {path: value for path, value in written.items() if not active.get(path)}

    shown = silent.keys() - FREE - SECRET_KEYS
    assert len(shown) == len(KEYS) - 6 - len(FREE) - len(SECRET_KEYS)
    for path in shown:
        assert same(KEYS[path], silent[path]), path


def test_the_example_sets_what_is_required_and_nothing_else() -> None:
    """A line that is not commented out is a key without default."""
    active = flat(tomllib.loads(EXAMPLE.read_text(encoding="utf-8")))

    without_default = {path for path, key in KEYS.items() if key.default is None}
    assert active.keys() - {"groups"} == without_default - FREE - SECRET_KEYS - TABLES


def test_the_defaults_of_the_schema_are_those_of_the_settings() -> None:
    """Writing every default out changes nothing."""
    document = tomllib.loads(EXAMPLE.read_text(encoding="utf-8"))
    plain = load(EXAMPLE, FILLED_IN).settings
    for key in KEYS.values():
        if key.default is not None and len(key.path) > 1:
            table = document.setdefault(key.path[0], {})
            (table[0] if isinstance(table, list) else table)[key.path[1]] = key.default
    document["tailchat"] |= {"client_id": "tc_1", "client_secret": "app-secret"}
    document["session"] = {**document["session"], "secrets": [SESSION_SECRET]}

    assert Settings.model_validate(document) == plain


def test_each_key_of_the_example_has_its_words() -> None:
    """Above every key, after a blank line or another key, stands what it is for."""
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    keys = [number for number, line in enumerate(lines) if re.match(r"#?[a-z_]+ = ", line)]

    assert len(keys) == len(KEYS) - len(TABLES)
    for number in keys:
        above = lines[number - 1]
        assert above.startswith(("# ", "[groups]")) or number - 1 in keys, lines[number]


def test_each_comment_of_the_example_is_whole() -> None:
    """The last line of a comment ends a sentence: four once stopped in the middle."""
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    last = [
        one for one, after in pairwise(lines) if one[:2] == "# " and after[:2] not in {"#", "# "}
    ]

    assert len(last) > 100
    assert [line for line in last if not line.endswith(".")] == []


# The schema


def test_the_schema_on_disk_is_current() -> None:
    """docs/config.schema.json is what the models say today."""
    assert (ROOT / "docs" / "config.schema.json").read_text(encoding="utf-8") == schema_text()


def test_the_example_names_its_schema() -> None:
    """Editors find the schema by the first line of the example."""
    first = EXAMPLE.read_text(encoding="utf-8").splitlines()[0]
    name = first.removeprefix("#:schema ")

    assert json.loads((ROOT / name).read_text(encoding="utf-8")) == file_schema()


def test_every_key_has_a_description() -> None:
    """The schema tells an editor what each key is for, in one sentence."""
    for path, key in KEYS.items():
        assert re.fullmatch(r"[A-Z][^.]+(\.[^.]+)*\.", key.description), path


def errors(document: object) -> list[str]:
    """Return what the schema has against a file."""
    return list(Validator(file_schema()).errors(document))


@pytest.mark.parametrize(
    "file", [EXAMPLE, *sorted((CORPUS / "good").glob("*.toml"))], ids=lambda file: file.stem
)
def test_the_schema_accepts_what_loads(file: Path) -> None:
    """An editor marks nothing in a good file."""
    document = tomllib.loads(file.read_text(encoding="utf-8"))

    assert errors(document) == []


def test_the_schema_accepts_every_default() -> None:
    """A default that is written out is not marked either."""
    for table in file_schema()["$defs"].values():
        for described in table["properties"].values():
            if "default" in described:
                assert list(Validator(described).errors(described["default"])) == []


SEEN_BY_SCHEMA = {
    "unknown": {".secrt: unknown", ".servr: unknown", ".server.listn: unknown"},
    "limits": {
        ".limits.target_bytes: minimum",
        ".limits.header_bytes: maximum",
        ".limits.header_count: type",
        ".server.via: pattern",
        ".server.forwarded: type",
        ".route[0].max_body_bytes: minimum",
        ".route[0].websocket_max_age: anyOf",
    },
    "upstreams": {
        ".route[0].upstream: anyOf",
        ".route[0].upstream_path: pattern",
        ".route[0].upstream_host: pattern",
        ".route[0].tls_ca: pattern",
        ".route[0].origins[0]: pattern",
        ".route[0].upgrades[0]: pattern",
        ".route[0].upgrades[1]: pattern",
        ".route[1].upstream: anyOf",
        ".route[1].upgrades: uniqueItems",
    },
    "types": {".server: type", ".tailchat.api_url: type", ".session.lifetime: type"},
    "two_forms": {".tailchat: not", ".session: not"},
    "server": {".server.public_url: pattern", ".server.workers: anyOf"},
    "access": {
        ".access.allow: unknown",
        ".access.deny: uniqueItems",
        *(f".access.deny[{index}]: pattern" for index in (0, 1, 2, 4)),
        ".access.deny[7]: type",
    },
    "routes": {
        ".route[0].header_encoding: enum",
        ".route[0].allow: minItems",
        ".route[1].upstream: anyOf",
        ".route[2].allow[0]: pattern",
        ".route[2].deny[0]: pattern",
        ".route[2].deny[2]: pattern",
        ".route[5]: required",
        ".route[6].methods[1]: pattern",
        ".route[7].methods: uniqueItems",
        ".route[8].host: pattern",
    },
}


@pytest.mark.parametrize("name", SEEN_BY_SCHEMA)
def test_the_schema_refuses_what_an_editor_can_see(name: str) -> None:
    """Misspelt keys, wrong types and wrong words are marked while they are written."""
    (file,) = (file for file in BAD if file.stem == name)
    document = tomllib.loads(file.read_text(encoding="utf-8"))

    assert set(errors(document)) >= SEEN_BY_SCHEMA[name]


# The docs


def test_the_list_of_all_keys_is_current() -> None:
    """docs/keys.md is what `python docs/keys.py` writes today."""
    page = runpy.run_path(str(ROOT / "docs" / "keys.py"))["page"]

    assert (ROOT / "docs" / "keys.md").read_text(encoding="utf-8") == page()


def sections() -> list[tuple[str, str]]:
    """Return each key that has a section in docs/configure/, with the section, page by page."""
    found: list[tuple[str, str]] = []
    for page in PAGES:
        parts = re.split(r"^## (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
        both = zip(parts[1::2], parts[2::2], strict=True)
        found += [(heading.strip("`"), text) for heading, text in both if heading[0] == "`"]
    return found


def test_the_docs_hold_every_key_once() -> None:
    """Each key has one section, on one page, and no section is about a key that is not there."""
    assert sorted(name for name, _ in sections()) == sorted(KEYS)


def test_the_overview_names_each_page_once() -> None:
    """docs/configuration.md leads to every page of keys."""
    named = re.findall(
        r"^\| \[.+\]\(configure/(.+)\) \|", OVERVIEW.read_text("utf-8"), re.MULTILINE
    )

    assert sorted(named) == [page.name for page in PAGES]


def test_the_docs_tell_the_truth_about_a_key() -> None:
    """Type, default and variable stand under each heading, with a sentence on its meaning."""
    check_each(KEYS, _tells_the_truth)


def _tells_the_truth(name: str) -> None:
    key, text = KEYS[name], dict(sections())[name]
    facts = dict(re.findall(r"^- (Type|Default|Environment): (.+)$", text, flags=re.MULTILINE))

    variable = f"`{key.env}`" if key.env else f"within `TAILCHAT_GATE_{key.path[0].upper()}`"
    assert facts["Environment"] == variable
    assert facts["Type"]
    if key.default is None:
        assert facts["Default"].startswith("none, ")
    else:
        written = facts["Default"].strip("`")
        assert same(key, tomllib.loads(f"default = {written}")["default"])
    assert re.search(r"^[A-Z].+\.$", text.split("Environment", 1)[1], flags=re.MULTILINE)


def test_the_docs_name_what_a_reload_refuses() -> None:
    """The sections of the keys that need a restart say so, and no others do."""
    forms = [[path, *SECRET_FORMS.get(path, ())] for path in READ_AT_START]
    refused = {f"{path[0]}.{key}" for path, *others in forms for key in (path[1], *others)}

    said = {name for name, text in sections() if text.rstrip().endswith(": a reload refuses it.")}

    assert said == refused


def test_the_files_in_the_docs_load(tmp_path: Path) -> None:
    """What the docs print as a file is one."""
    first = re.findall(r"```toml\n(.*?)```", OVERVIEW.read_text(encoding="utf-8"), re.DOTALL)[0]
    for name in ("tailchat", "gate"):
        (tmp_path / name).write_text(SESSION_SECRET, encoding="utf-8")
    (tmp_path / "gate.toml").write_text(
        first.replace("/run/secrets", str(tmp_path)), encoding="utf-8"
    )

    loaded = load(tmp_path / "gate.toml", ID)
    assert loaded.settings.route[0].upstream == "http://grafana:3000"


def test_the_docs_have_one_sentence_a_line() -> None:
    """A change of one sentence is a change of one line."""
    for page in (OVERVIEW, *PAGES):
        outside = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for line in outside.splitlines():
            assert not re.search(r"[a-z`)]\. [A-Z]", line), line
