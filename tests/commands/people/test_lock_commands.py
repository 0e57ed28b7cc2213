"""The commands that lock people out and sign them out, without a gate that runs."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from gatekit import SECRET
from storekit import StoredEntries

from tailchat_gate.cli import main
from tailchat_gate.config.values.quantities import read_duration
from tailchat_gate.identity.revocation.state import Lock, SignedOut, Unlock
from tailchat_gate.state.sqlite.files import NAME

Run = Callable[..., Result]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the state is."""
    made = tmp_path / "state"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
def run(tmp_path: Path, path: Path) -> Run:
    """Return a function that runs a command with a configuration."""

    def run(*arguments: str, state: str = str(path), more: str = "") -> Result:
        config = tmp_path / "config.toml"
        config.write_text(
            f"""
            server.public_url = "http://gate.test"
            tailchat = {{ api_url = "http://127.0.0.1:9", client_id = "tc_x", client_secret = "s" }}
            session = {{ secret = "{SECRET}", lifetime = "1h" }}
            state.path = "{state}"
            route = [{{ name = "tool", upstream = "http://127.0.0.1:9",
                        allow = ["signed-in", "token:backup"] }}]
            token = [{{ name = "backup", hash = "sha256:{"a5" * 32}" }}]
            {more}
            """.replace(",\n", ",")
        )
        config.chmod(0o600)
        return CliRunner().invoke(main, [*arguments, "--config", str(config)])

    return run


def test_what_the_commands_write(run: Run, path: Path) -> None:
    """Each command adds one entry, and says what is now so."""
    arguments = ("sub:66000000000000000000000a", "--message", "hands off", "--for", "2d")
    first = run("lock", *arguments).output
    (lock,) = StoredEntries(path).read()
    told = [
        first,
        run("lock", "token:backup").output,
        run("unlock", "sub:66000000000000000000000a").output,
        run("sign-out", "sub:66000000000000000000000a").output,
        run("sign-out", "all").output,
    ]
    machine, unlock, one, everybody = StoredEntries(path).read()

    assert isinstance(lock, Lock)
    assert lock.until == lock.at + 2 * 86400
    assert (lock.target, lock.message) == ("sub:66000000000000000000000a", "hands off")
    assert isinstance(machine, Lock)
    assert (machine.target, machine.until) == ("token:backup", None)
    assert isinstance(unlock, Unlock)
    assert isinstance(one, SignedOut)
    assert one.until == one.at + 3660
    assert isinstance(everybody, SignedOut)
    assert (one.target, everybody.target) == ("sub:66000000000000000000000a", "all")
    assert re.fullmatch(r"sub:66000000000000000000000a is locked until 20\d\d-.* UTC\n", told[0])
    assert told[1:] == [
        "token:backup is locked until unlocked\n",
        "sub:66000000000000000000000a is no longer locked\n",
        "sub:66000000000000000000000a is signed out\n",
        "everybody is signed out\n",
    ]


def test_the_list_of_locks(run: Run, path: Path) -> None:
    """`locks` prints who is locked out until when, as a table or as JSON, and makes no file."""
    assert run("locks").output == "nobody is locked out\n"
    assert not (path / NAME).exists()
    run("lock", "sub:66000000000000000000000a", "--for", "2d", "--message", "\u661f\u91ce")
    run("lock", "token:backup")

    table = run("locks").output.splitlines()
    rows = json.loads(run("locks", "--json").output)

    assert re.fullmatch(
        r"sub:66000000000000000000000a  until [-\d]{10} [:\d]{8} UTC  \u661f\u91ce", table[0]
    )
    assert table[1:] == [f"{'token:backup':<28}  until unlocked"]
    assert [row["target"] for row in rows] == ["sub:66000000000000000000000a", "token:backup"]
    assert rows[0]["until"] == rows[0]["locked_at"] + 2 * 86400
    assert (rows[0]["message"], rows[1]["until"]) == ("\u661f\u91ce", None)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("lock", "66a"), 'expected "sub:ID"'),
        (("lock", "660000000000000000000001"), 'mean "sub:660000000000000000000001"?'),
        (("lock", "sub:66000000000000000000000a", "--for", "2 days"), "a duration such as 90s"),
        (
            ("lock", "sub:66000000000000000000000a", "--message", "x" * 301),
            "at most 300 characters",
        ),
        (("lock", "sub:66000000000000000000000a", "--message", "a\nb"), "one line"),
        (("unlock", "group:ops"), 'expected "sub:ID"'),
        (("sign-out", "token:backup"), 'expected "sub:ID", "Name#2114" or "all"'),
    ],
)
def test_wrong_usage_is_said(run: Run, path: Path, arguments: tuple[str, ...], text: str) -> None:
    """What cannot be locked, for how long and with which words ends with 2, and nothing written."""
    done = run(*arguments)

    assert done.exit_code == 2
    assert text in done.output
    assert not (path / NAME).exists()


def test_to_unlock_what_is_not_locked_fails(run: Run, path: Path) -> None:
    """A misspelt sub is noticed."""
    done = run("unlock", "sub:66000000000000000000000a")
    listing = f"tailchat-gate locks --config {path.parent / 'config.toml'}"

    assert (done.exit_code, done.output) == (
        1,
        f"sub:66000000000000000000000a is not locked; `{listing}` lists who is\n",
    )
    assert not (path / NAME).exists()


@pytest.mark.parametrize("command", [("lock", "token:backup"), ("grant", "sub:a", "tool")])
def test_durations_are_typed_as_they_are_shown(run: Run, command: tuple[str, ...]) -> None:
    """Help and errors have no quotes that somebody would copy, and each example is taken."""
    told = run(*command, "--for", "2 days").output.partition("such as ")[2]
    told += run(command[0], "--help").output.partition("How long, such as ")[2].partition(".")[0]
    examples = re.findall(r"\b(?:[0-9]+[dhms])+\b", told)

    assert len(examples) >= 7
    assert '"' not in told
    for example in examples:
        assert read_duration(example) > 0


COMMANDS = [("lock", "all"), ("unlock", "all"), ("sign-out", "all"), ("locks",)]


@pytest.mark.parametrize("command", COMMANDS)
def test_without_a_file_the_commands_say_so(run: Run, command: tuple[str, ...]) -> None:
    """With "" there is nothing that a command could write to."""
    done = run(*command, state="")

    assert done.exit_code == 2
    assert "state.path is empty" in done.output


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_that_cannot_be_had_is_said(run: Run, path: Path, command: tuple[str, ...]) -> None:
    """The error names the key, the file and the reason, without a traceback."""
    (path / NAME).mkdir()
    done = run(*command)

    assert done.exit_code == 1
    assert "[state] path" in done.output
    assert "Is a directory" in done.output
    assert "Traceback" not in done.output


def test_explain_knows_of_locks(run: Run, path: Path) -> None:
    """Who is locked out is refused where they would be let in; a file out of reach is a warning."""
    url, who = "http://gate.test/x", ("--as", "66000000000000000000000a")
    before = run("explain", url, *who)
    run("lock", "sub:66000000000000000000000a", "--for", "1h")
    locked = run("explain", url, *who)
    other = run("explain", url, "--as", "66000000000000000000000b")
    run("lock", "token:backup")
    machine = run("explain", url, "--token", "backup")
    for file in path.iterdir():
        file.unlink()
    (path / NAME).mkdir()
    unreadable = run("explain", url, *who)

    assert (before.exit_code, locked.exit_code, other.exit_code) == (0, 1, 0)
    assert "decision:   refused: locked, 403" in locked.output
    why, _, lets_in = locked.output.rstrip().rpartition("\n")
    assert re.search(r"because of: sub:66.*a is locked until .* UTC\Z", why)
    file = path.parent / "config.toml"
    assert lets_in == f"lets in:    tailchat-gate unlock --config {file} sub:{who[1]}"
    assert (machine.exit_code, "refused: locked, 403" in machine.output) == (1, True)
    assert "because of: token:backup is locked until unlocked\n" in machine.output
    assert before.output in unreadable.output
    assert "warning: locks and grants are not checked: " in unreadable.output
    assert unreadable.exit_code == 0


def test_a_damaged_store_is_a_warning(run: Run, path: Path) -> None:
    """`locks` warns of the damage, and the next `lock` repairs the store."""
    run("lock", "sub:660000000000000000000001")
    (path / NAME).write_bytes(b"nonsense\n" * 1000)
    listed = run("locks")
    locked = run("lock", "sub:660000000000000000000002")
    again = run("locks")

    assert [done.exit_code for done in (listed, locked, again)] == [0, 0, 0]
    assert "warning: the state store has a fault: damaged: " in listed.stderr
    # The copy beside it has what was locked before.
    assert "sub:660000000000000000000001" in listed.stdout
    assert (again.stdout.count("sub:660"), again.stderr) == (2, "")


def test_a_configuration_that_is_wrong_elsewhere_does_not_keep_anybody_in(
    run: Run, path: Path
) -> None:
    """Locking out does not wait until a mistake in the file is found."""
    done = run("lock", "sub:66000000000000000000000a", more='server.typo = "x"')
    listed = run("locks", more='server.typo = "x"')
    lifted = run("unlock", "sub:66000000000000000000000a", more='server.typo = "x"')
    ended = run("sign-out", "all", more='server.typo = "x"')

    assert [each.exit_code for each in (done, listed, lifted, ended)] == [0, 0, 0, 0]
    assert done.stdout == "sub:66000000000000000000000a is locked until unlocked\n"
    assert done.stderr.startswith("warning: ")
    assert done.stderr.endswith(f"the state is in {path}\n")
    assert listed.stdout == "sub:66000000000000000000000a  until unlocked\n"
    assert len(StoredEntries(path).read()) == 2


@pytest.mark.parametrize(("state", "more"), [("/var/lib/nowhere", "= no TOML"), ("relative", "")])
def test_where_nothing_tells_where_state_is_it_is_not_guessed(
    run: Run, path: Path, state: str, more: str
) -> None:
    """A lock that no gate reads would be believed; --state names where locks are."""
    refused = run("lock", "sub:66000000000000000000000a", state=state, more=more)
    named = run(
        "lock", "sub:66000000000000000000000a", "--state", str(path), state=state, more=more
    )
    run("sign-out", "all", "--state", str(path), state=state, more=more)
    lock, ended = StoredEntries(path).read()

    assert refused.exit_code == 2
    assert "--state names the directory itself" in refused.stderr
    assert (named.exit_code, named.stderr) == (0, "")
    assert isinstance(lock, Lock)
    assert isinstance(ended, SignedOut)
    # The longest that a session can last, because nothing tells how long it does.
    assert ended.until == ended.at + 30 * 86400 + 60


def test_the_environment_tells_where_locks_are(
    run: Run, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes over a file that is wrong elsewhere as over one that is right, "" too."""
    monkeypatch.setenv("TAILCHAT_GATE_STATE__PATH", str(path))
    done = run("lock", "all", state="/var/lib/nowhere", more="server.typo = 1")
    monkeypatch.setenv("TAILCHAT_GATE_STATE__PATH", "")
    empty = run("lock", "all", more="server.typo = 1")

    assert (done.exit_code, done.stdout) == (0, "all is locked until unlocked\n")
    assert (path / NAME).exists()
    assert empty.exit_code == 2
    assert "state.path is empty" in empty.stderr


def test_a_lock_on_a_token_that_is_not_there_is_a_warning(run: Run) -> None:
    """A misspelt name keeps nobody out, so it is noticed; the lock is written all the same."""
    known = run("lock", "token:backup")
    done = run("lock", "token:bakcup")

    assert known.stderr == ""
    assert (done.exit_code, done.stdout) == (0, "token:bakcup is locked until unlocked\n")
    assert done.stderr == "warning: no [[token]] of the configuration has the name bakcup\n"


def test_explain_takes_a_person_as_lock_does(run: Run) -> None:
    """`--as sub:ID` is ID, and `--token token:backup` is backup."""
    url = "http://gate.test/x"
    person = (
        run("explain", url, "--as", "66000000000000000000000a"),
        run("explain", url, "--as", "sub:66000000000000000000000a"),
    )
    machine = (
        run("explain", url, "--token", "backup"),
        run("explain", url, "--token", "token:backup"),
    )

    assert person[0].output == person[1].output
    assert machine[0].output == machine[1].output
    assert "let through: token" in machine[0].output


@pytest.mark.parametrize(
    "command",
    [
        ("explain", "http://gate.test/x", "--as", "Bob"),
        ("explain", "http://gate.test/x", "--as", "sub:Bob"),
    ],
)
def test_a_person_who_cannot_be_is_a_warning(run: Run, command: tuple[str, ...]) -> None:
    """A nickname in place of an id is told by every command that takes a person."""
    done = run(*command)

    assert "warning: " in done.stderr
    assert "Bob is not a Tailchat id, which has 24 hex digits" in done.stderr
    upper = run(*(word.replace("Bob", "66000000000000000000000A") for word in command)).stderr
    assert "which has 24 hex digits in lower case" in upper
    usual = run(*(word.replace("Bob", "66000000000000000000000a") for word in command)).stderr
    assert "warning" not in usual


@pytest.mark.parametrize(
    "command",
    [
        ("lock",),
        ("unlock",),
        ("sign-out",),
        ("forget",),
        ("grant", "tool", "--for", "1h"),
        ("revoke", "tool"),
    ],
)
def test_an_id_that_nobody_can_have_is_refused(
    run: Run, path: Path, command: tuple[str, ...]
) -> None:
    """A digit less is no lock that somebody believes in; every ID that can be is accepted."""
    name, *more = command
    short, upper = (
        run(name, f"sub:{sub}", *more) for sub in ("6" * 23, "66000000000000000000000A")
    )
    for done in (short, upper):
        assert done.exit_code == 2
        assert "is not a Tailchat id, which has 24 hex digits" in done.stderr
        assert "nobody can have it; people see their ID on the page" in done.stderr
    assert "in lower case" in upper.stderr
    assert not (path / NAME).exists() or StoredEntries(path).read() == []
    for sub in ("0" * 24, "f" * 24, "0123456789abcdef01234567"):
        assert "nobody can have it" not in run(name, f"sub:{sub}", *more).stderr


def test_what_an_older_gate_stored_can_be_lifted(run: Run, path: Path) -> None:
    """A lock on what is no ID is lifted and forgotten as any other."""
    StoredEntries(path).append([Lock("sub:Bob", 1), Lock("sub:Eve", 1)])

    assert run("unlock", "sub:Bob").exit_code == 0
    assert run("forget", "sub:Eve", "--in-force").exit_code == 0
    assert run("locks").output == "nobody is locked out\n"
