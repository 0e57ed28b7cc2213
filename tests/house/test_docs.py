"""What the documents say is true: commands, examples, names and links."""

import re
import tomllib
from pathlib import Path

from click import Context
from gatekit import SECRET, make_settings
from prometheus_client.parser import text_string_to_metric_families
from tables import check_each

from tailchat_gate.cli import main
from tailchat_gate.config.certificates import CertificateFacts
from tailchat_gate.config.load import load
from tailchat_gate.identity.oauth.responses import Profile
from tailchat_gate.identity.sessions.cookie_fields import CookieNames, CookieReader
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.observe.metrics import ProcessMetrics
from tailchat_gate.proxy.message.assertion import HEADER
from tailchat_gate.proxy.message.identity_headers import identity_fields, machine_fields
from tailchat_gate.proxy.message.request_headers import RequestHeaders
from tailchat_gate.proxy.upstream.backends import Backend
from tailchat_gate.proxy.upstream.health import HealthRules
from tailchat_gate.request.client import ClientAddress
from tailchat_gate.request.fields import FieldSection
from tailchat_gate.request.head import RequestHead
from tailchat_gate.request.target import Target
from tailchat_gate.serving.process_state import ProcessState
from tailchat_gate.syntax import PING

ROOT = Path(__file__).parents[2]
TESTS = {path.name: path for path in (ROOT / "tests").rglob("test_*.py")}
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not {".venv", "node_modules", ".git", "build"} & set(path.relative_to(ROOT).parts)
)


def _fenced(text: str, after: str) -> str:
    match = re.search(re.escape(after) + r"\n```\w*\n(.*?)```", text, re.DOTALL)
    assert match is not None, after
    return match[1].strip()


def test_the_readme_has_the_two_commands() -> None:
    """The two commands that do all the set-up stand in the README as they are run."""
    demo, test = _fenced(README, "<!-- demo-command -->"), _fenced(README, "<!-- test-command -->")

    venv = "python3 -m venv .venv && .venv/bin/pip install "
    assert demo == venv + ". && .venv/bin/tailchat-gate demo"
    assert test == venv + "-e '.[test]' && .venv/bin/pytest"


def test_the_chinese_pages_have_the_readmes_commands_and_files() -> None:
    """What the Chinese quickstart and README print to be copied is in the README."""
    for name in ("README.zh.md", "docs/quickstart.zh.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        blocks = re.findall(r"^```\w+\n.*?^```$", text, re.DOTALL | re.MULTILINE)
        assert blocks
        assert [block for block in blocks if block not in README] == []


def test_the_five_line_configuration_loads(tmp_path: Path) -> None:
    """The README's configuration is good once its secret files exist."""
    (tmp_path / "client_secret").write_text("the-client-secret-of-the-app\n")
    (tmp_path / "session_secret").write_text(SECRET + "\n")
    blocks = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    text = next(block for block in blocks if "public_url" in block)
    assert len(text.strip().splitlines()) == 5
    tomllib.loads(text)
    path = tmp_path / "config.toml"
    path.write_text(text.replace("/etc/tailchat-gate", str(tmp_path)).replace("tc_...", "tc_1"))

    settings = load(path, {}).settings

    assert settings.route[0].host == "grafana.example.com"
    assert settings.route[0].allow == ("group:ops",)


def test_what_is_printed_as_toml_is_toml() -> None:
    """What a document prints as a part of a configuration can be read."""
    check_each(DOCUMENTS, _prints_toml)


def _prints_toml(path: Path) -> None:
    for block in re.findall(
        r"^ *```toml\n(.*?)```", path.read_text("utf-8"), re.DOTALL | re.MULTILINE
    ):
        tomllib.loads(block)


def test_every_metric_is_documented() -> None:
    """Each metric family with each of its labels is in docs/operate/metrics.md."""
    document = (ROOT / "docs/operate/metrics.md").read_text(encoding="utf-8")
    process_state = ProcessState()
    metrics = process_state.metrics
    process_state.upstream_pools.failures["http://tool", "refused"] += 1
    process_state.upstream_pools.take("key", Backend("http://tool"))
    process_state.upstream_pools.judge("key", HealthRules(3, 10.0, 0.0, None))
    metrics.know_routes(["tool"])
    metrics.login("signed-in")
    metrics.session_ended("signed-out")
    metrics.live_ended("locked")
    metrics.state_error("damaged")
    metrics.tailchat_call("token", 0.1, "ok")
    metrics.recheck("ok")
    process_state.token_expiries = (1e11,)
    process_state.certificates._facts = (CertificateFacts("a.pem", (), 0.0, 1e11),)
    process_state.tailchat.group_watch._resolved.people["ops"] = frozenset()

    process_state.certificate_expiries = (("/tls.pem", 1e11),)
    (
        process_state.tailchat.reachability.up,
        process_state.tailchat.reachability.certificate_expires,
    ) = True, 1e11
    metrics.state_worked("write", 0.1)
    counts = process_state.upstream_pools.counts["http://tool"]
    counts.up, counts.certificate_expires = True, 1e11
    about_process, _ = ProcessMetrics().render()
    document_of = metrics.render() + about_process

    for family in text_string_to_metric_families(document_of.decode()):
        name = family.name + ("_total" if family.type == "counter" else "")
        row = next((r for r in document.splitlines() if r.startswith(f"| `{name}` ")), None)
        assert row is not None, name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        assert labels == set(re.findall(r"`(\w+)`", row.split("|")[2])), name


def test_every_header_to_the_tool_is_documented() -> None:
    """Each header that the gate sets is in docs/headers.md."""
    document = (ROOT / "docs/headers.md").read_text(encoding="utf-8")
    record = SessionRecord.begin(Profile("s", "n", "d", "http://a"), now=0, login="")
    fields = FieldSection([(b"Host", b"h"), (b"Connection", b"TE"), (b"TE", b"trailers")])
    routes = make_settings(route=[{"name": "a", "path": "/a", "upstream_path": "/"}]).route
    headers = RequestHeaders(
        CookieReader(CookieNames.for_origin("http://h")),
        routes,
        via="gate",
        forwarded=True,
        real_ip=True,
    )
    head = headers.head(
        RequestHead("GET", False, Target(b"/", "/", ""), fields),
        b"/",
        address=ClientAddress("a", "http", "a"),
        settings=routes[0],
        request_id="i",
        upgrade=False,
        identity=identity_fields(record, ["g"]) + machine_fields("m") + HEADER + b": x\r\n",
    )
    names = [line.partition(b":")[0].decode() for line in head.split(b"\r\n")[1:] if line]

    assert len(names) == 19
    for name in names:
        assert f"`{name}`" in document


def test_every_command_is_documented() -> None:
    """Each command of the CLI is in docs/operate/commands.md, and no other."""
    document = (ROOT / "docs/operate/commands.md").read_text(encoding="utf-8")

    assert set(main.list_commands(Context(main))) == set(
        re.findall(r"^\| `tailchat-gate ([\w-]+)", document, re.MULTILINE)
    )


def test_every_action_of_tailchat_is_in_the_table_of_calls() -> None:
    """And none that the gate does not call; the stand-in of the demo serves others, too."""
    package, demo = ROOT / "tailchat_gate", ROOT / "tailchat_gate" / "demo"
    quoted = re.compile(r'"((?:chat|config|group|openapi|user)/[A-Za-z/]+)"')
    called = {
        action
        for path in package.rglob("*.py")
        if demo not in path.parents
        for action in quoted.findall(path.read_text("utf-8"))
    }
    told = re.findall(r"`POST api_url/api/([A-Za-z/]+)`", (ROOT / "docs/tailchat.md").read_text())
    assert "user/getUserInfoList" in called
    assert sorted(told) == sorted(called)


def test_what_an_admin_copies_has_tailchats_words() -> None:
    """Tailchat's page shows "App ID" and "App Secret", never a client ID."""
    pages = [path for path in DOCUMENTS if "adr" not in path.parts]
    texts = (ROOT / "tailchat_gate" / "commands").rglob("*.py")

    wrong = re.compile("client id\\b", re.IGNORECASE)
    assert [path.name for path in (*pages, *texts) if wrong.search(path.read_text("utf-8"))] == []


def test_links_between_documents_lead_somewhere() -> None:
    """A relative link names a file of the project."""
    check_each(DOCUMENTS, _leads_somewhere)


def _leads_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8")):
        if "://" not in link:
            assert (path.parent / link).exists(), link


def _anchors(page: Path) -> set[str]:
    """Return the anchors that a forge gives a page's headings."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    headings = re.findall(r"^#+ (.+?) *$", plain, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_anchors_of_links_name_a_heading() -> None:
    """A link to a place in a document names one of its headings."""
    check_each(DOCUMENTS, _names_headings)


def _names_headings(path: Path) -> None:
    for link, anchor in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", path.read_text(encoding="utf-8")):
        page = path.parent / link if link else path
        if "://" not in link and page.suffix == ".md":
            assert anchor in _anchors(page), f"{link}#{anchor}"


def test_documents_that_the_program_names_exist() -> None:
    """A document named in a message, a comment, an alert or a script is there, with its place."""
    named = set()
    for folder in ("tailchat_gate", "deploy", "bench", "fuzz", "tests"):
        for path in (ROOT / folder).rglob("*.*"):
            if path.suffix in {".py", ".yml", ".yaml", ".toml", ".conf", ".cfg", ".lua", ".html"}:
                text = path.read_text(encoding="utf-8")
                named |= set(re.findall(r"\bdocs/([\w/-]+\.md)(?:#([\w-]+))?", text))

    assert len(named) > 30
    for page, anchor in named:
        assert (ROOT / "docs" / page).is_file(), page
        assert not anchor or anchor in _anchors(ROOT / "docs" / page), f"{page}#{anchor}"


def test_the_threat_model_names_tests_that_exist() -> None:
    """Each test file that a page of the threat model points to is there."""
    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "docs/security").glob("*.md")]
    named = {name for page in pages for name in re.findall(r"`(test_\w+\.py)`", page)}

    assert len(named) > 100
    assert named - TESTS.keys() == set()


def test_every_requirement_names_tests_that_exist() -> None:
    """Each test that docs/requirements.md points to is there by its name."""
    document = (ROOT / "docs/requirements.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", document)

    assert len(named) > 50
    for file, test in named:
        source = TESTS[file].read_text(encoding="utf-8")
        assert f"def {test}(" in source, f"{file}::{test}"


def test_the_list_of_decisions_is_whole() -> None:
    """docs/adr/README.md names each decision by its number and title."""
    folder = ROOT / "docs/adr"
    pages = sorted(path for path in folder.glob("*.md") if path.name != "README.md")
    titles = [path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ") for path in pages]
    listed = (folder / "README.md").read_text(encoding="utf-8").splitlines()

    for title, path in zip(titles, pages, strict=True):
        assert f"- [{title}]({path.name})" in listed


def test_every_decision_has_the_same_sections() -> None:
    """A page of docs/adr says when it holds, why, what was decided, against what, at what price."""
    sections = ["Status", "Context", "Decision", "Alternatives", "Consequences"]

    def check(path: Path) -> None:
        assert re.findall(r"^## (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE) == sections

    check_each(sorted((ROOT / "docs/adr").glob("0*.md")), check)


def test_decisions_name_only_files_that_exist() -> None:
    """A module or test that a page of docs/adr names is there, also after it was moved."""
    there = [
        f"/{path.relative_to(ROOT)}"
        for folder in ("tailchat_gate", "tests", "bench", "fuzz", "docs")
        for path in (ROOT / folder).rglob("*.py")
    ]

    def check(path: Path) -> None:
        named = set(
            re.findall(r"`(\w+/[\w/]+\.py|test_\w+\.py)`", path.read_text(encoding="utf-8"))
        )
        assert {name for name in named if not any(p.endswith(f"/{name}") for p in there)} == set()

    check_each(sorted((ROOT / "docs/adr").glob("0*.md")), check)


def test_troubleshooting_quotes_pages_as_they_are() -> None:
    """What a person is said to see is the heading of a page."""
    document = (ROOT / "docs/operate/troubleshooting.md").read_text(encoding="utf-8")
    catalogue = (ROOT / "tailchat_gate/pages/locales/en.toml").read_text(encoding="utf-8")
    section = document.split("| The page says |")[1].split("\n\n")[0]
    rows = [row.split("|")[1] for row in section.splitlines() if row.startswith('| "')]

    assert len(rows) > 10
    for quoted in (text for row in rows for text in re.findall(r'"([^"]+)"', row)):
        assert f'title = "{quoted}"' in catalogue, quoted


def test_every_line_of_the_proxys_requirements_is_there() -> None:
    """The forty lines of RFC 9110 and 9112 stand in docs/requirements.md, each with its tests."""
    document = (ROOT / "docs/requirements.md").read_text(encoding="utf-8")
    section = document.split("## Proxy")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \|.*\|(.*)\|$", section, re.MULTILINE)

    assert [int(number) for number, _ in rows] == list(range(1, 41))
    assert all("::test_" in shown for _, shown in rows)


def test_every_address_of_the_gate_is_documented() -> None:
    """The gate's own addresses are those of the table in docs/operate/addresses.md."""
    source = (ROOT / "tailchat_gate/endpoints/router.py").read_text(encoding="utf-8")
    own = {f"/oauth2{path}" for path in re.findall(r'f"\{prefix\}(/[\w.]+)":', source)} | {PING}
    document = (ROOT / "docs/operate/addresses.md").read_text(encoding="utf-8")

    assert len(own) == 16
    assert own == set(re.findall(r"^\| `GET (/[\w/.]+)", document, re.MULTILINE))


def test_the_architecture_names_every_room_and_only_files_that_exist() -> None:
    """Each folder and top-level module of the package is in docs/architecture.md."""
    document = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    package = ROOT / "tailchat_gate"
    rooms = [path.name + "/" for path in package.iterdir() if (path / "__init__.py").exists()]
    modules = [path.name for path in package.glob("*.py") if not path.name.startswith("__")]

    for name in (*rooms, *modules):
        assert f"`{name}`" in document, name
    for name in re.findall(r"`([\w/]+\.py)`", document):
        assert (package / name).exists() or list(package.rglob(name)) or (ROOT / name).exists(), (
            name
        )
