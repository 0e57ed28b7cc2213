"""What examples and templates have in the place of a value is refused, and said where it is."""

import re
import tomllib
from pathlib import Path

import pytest
from clikit import invoke
from configkit import SMALLEST, good, refused

from tailchat_gate.config.lint.addresses import of_examples

ROOT = Path(__file__).parents[2]
ID = "tc_649aa2179e97b8b3b2d10041"
#: What people copy. Lines of TOML within YAML are indented.
PRINTED = (
    *sorted(ROOT.glob("*.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
    *sorted(ROOT.glob("deploy/**/*.yaml")),
    *(ROOT / name for name in ("config.example.toml", "deploy/compose/config.toml")),
)
VALUE = re.compile(r'\bclient_(id|secret) = ("[^"\n]*")')


def test_what_is_printed_is_refused_until_it_is_filled_in(smallest: Path, tmp_path: Path) -> None:
    """Each client_id and client_secret that a document, an example or a command prints."""
    (tmp_path / "old.cfg").write_text('redirect_url = "https://a.example.net/oauth2/callback"\n')
    imported = invoke("import-oauth2-proxy", str(tmp_path / "old.cfg"))[1]
    texts = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in PRINTED}
    found = [
        (name, key, tomllib.loads(f"value = {value}")["value"])
        for name, text in (*texts.items(), ("import-oauth2-proxy", imported))
        for key, value in VALUE.findall(text)
    ]

    assert {"README.md", "config.example.toml", "import-oauth2-proxy"} <= {
        name for name, *_ in found
    }
    for name, key, value in set(found):
        (problem,) = refused(smallest, **{f"TAILCHAT__CLIENT_{key.upper()}": value})
        assert problem.expected.startswith(f'the "App {"ID" if key == "id" else "Secret"}"'), name
        assert "the app's page in Tailchat's open platform" in problem.expected


@pytest.mark.parametrize(
    "text",
    [
        *("tc_...", "tc_xxxxxxxx", "tc_<id>", "tc_YOUR-APP", "<client id>", "${CLIENT_ID}", "..."),
        *("your-client-id", "client_id", "changeme", "app.example.com", "tc_000000", "App ID"),
    ],
)
def test_a_placeholder_is_no_client_id(smallest: Path, text: str) -> None:
    """It is found before Tailchat would say that it knows no such app."""
    (problem,) = refused(smallest, TAILCHAT__CLIENT_ID=text)
    assert "\"App ID\" of the app's page in Tailchat's open platform" in problem.expected


@pytest.mark.parametrize("text", [ID, "tc_1", "tc_demo", "gate"])
def test_an_odd_client_id_is_taken(smallest: Path, text: str) -> None:
    """Another program may give out the ids."""
    assert good(smallest, TAILCHAT__CLIENT_ID=text).settings.tailchat.client_id == text


@pytest.mark.parametrize("key", ["PASSWORD", "SENTINEL_PASSWORD"])
@pytest.mark.parametrize("text", ["the password of the server", "<password>", "change me", "..."])
def test_a_placeholder_is_no_password(smallest: Path, key: str, text: str) -> None:
    """That of the example too; other passwords are people's own business."""
    url = {"STATE__URL": "redis+sentinel://a:1/m/0", f"STATE__{key}": text}
    assert any("reads like a placeholder" in one.expected for one in refused(smallest, **url))


def test_addresses_and_people_of_examples_are_warned_about(smallest: Path) -> None:
    """A copied file names hosts that nobody can have, and a person whom Tailchat cannot."""
    smallest.write_text(
        SMALLEST + 'host = "wiki.example"\nallow = ["sub:660000000000000000000001", "group:ops"]\n'
        '[groups]\nops = ["66f3a1c09b2e4d5f60718293", "660000000000000000000002"]\n'
    )
    found = list(of_examples(good(smallest).settings))

    assert [one.partition(" is the documents' example")[0] for one in found] == [
        "server.public_url: https://gate.example.com",
        "tailchat.api_url: https://tailchat.example.com",
        "route[0].host: wiki.example",
        "groups.ops: 660000000000000000000002",
        "route[0].allow: sub:660000000000000000000001",
    ]


def test_ordinary_names_are_not_warned_about(smallest: Path) -> None:
    """Neither are those that only look like the reserved ones."""
    smallest.write_text(SMALLEST.replace("example.com", "myexample.com"))

    assert list(of_examples(good(smallest).settings)) == []
