"""Commands take a person's name in Tailchat, and say whose it is; `check --online` asks, too."""

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from accounts import user_named
from clikit import GATE, environ, invoke
from gatekit import SECRET, Clock, make_settings
from storekit import StoredEntries
from storykit import served, story
from tailchat_browser import APP

from tailchat_gate.demo.faults import Response
from tailchat_gate.demo.tailchat import StandInTailchat
from tailchat_gate.identity.revocation.state import Lock
from tailchat_gate.people.registration import open_to_strangers, read_registration

BOB = user_named("bob")
CALLBACK = "https://gate.example.com/oauth2/callback"
NAME = "Plain Bob#7"
SEARCH = "user/searchUserWithUniqueName"
ROUTES = """
[[route]]
name = "wiki"
upstream = "http://127.0.0.1:9"

[[route]]
name = "ops"
path = "/ops"
upstream = "http://127.0.0.1:9"
allow = ["group:ops"]
"""

Run = Callable[..., Any]


@pytest.fixture
def stand_in() -> StandInTailchat:
    """Return a stand-in."""
    return StandInTailchat(apps=(replace(APP, redirect_uris=(CALLBACK,)),))


@pytest.fixture
async def address(stand_in: StandInTailchat) -> AsyncIterator[str]:
    """Serve the stand-in; return where."""
    async with served(stand_in.app()) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def config(address: str, tmp_path: Path) -> Path:
    """Return a configuration for the stand-in."""
    file = tmp_path / "config.toml"
    (tmp_path / "state").mkdir(mode=0o700)
    file.write_text(
        f"""
groups.ops = ["{BOB.sub}"]
server.public_url = "https://gate.example.com"
session.secret = "{SECRET}"
state.path = "{tmp_path / "state"}"
server.admin_listen = ""

[tailchat]
api_url = "{address}"
client_id = "{APP.client_id}"
client_secret = "{APP.client_secret}"
{ROUTES}
"""
    )
    file.chmod(0o600)
    return file


@pytest.fixture
def run(config: Path) -> Run:
    """Return a function that runs a command beside the stand-in."""

    async def run(*arguments: str) -> tuple[int, str, str]:
        return await asyncio.to_thread(invoke, *arguments, "--config", str(config))

    return run


async def with_terminal(config: Path, answer: str, *arguments: str) -> tuple[int, str]:
    """Run a command at a terminal, type an answer, and return its exit code and errors."""
    ours, theirs = os.openpty()
    try:
        process = await asyncio.create_subprocess_exec(
            *(*GATE, *arguments, "--config", str(config)),
            stdin=theirs,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=environ(),
        )
        os.write(ours, f"{answer}\n".encode())
        _, errors = await process.communicate()
    finally:
        os.close(ours)
        os.close(theirs)
    return process.returncode or 0, errors.decode()


async def test_name_is_looked_up_once_and_confirmed(config: Path) -> None:
    """At a terminal the command shows the ID, asks, and locks that ID."""
    code, errors = await with_terminal(config, "y", "lock", NAME)

    assert code == 0
    assert f"{NAME} is sub:{BOB.sub}, registered on 2026-01-01. Is that who you mean?" in errors
    (lock,) = await asyncio.to_thread(StoredEntries(config.parent / "state").read)
    assert isinstance(lock, Lock)
    assert lock.target == f"sub:{BOB.sub}"


async def test_a_no_changes_nothing(config: Path) -> None:
    """Who is not the person meant is not signed out."""
    code, errors = await with_terminal(config, "n", "sign-out", NAME)

    assert (code, "nothing was changed" in errors) == (1, True)
    assert not list((config.parent / "state").iterdir())


@pytest.mark.parametrize(
    ("command", "more"),
    [
        ("lock", ()),
        ("unlock", ()),
        ("sign-out", ()),
        ("grant", ("ops", "--for", "8h")),
        ("revoke", ("ops",)),
    ],
)
async def test_without_a_terminal_the_id_is_named_and_nothing_done(
    run: Run, config: Path, command: str, more: tuple[str, ...]
) -> None:
    """A script cannot look at the ID, so it is told to name it."""
    code, _, errors = await run(command, NAME, *more)

    assert code == 2
    assert f"write sub:{BOB.sub} instead" in errors
    assert not list((config.parent / "state").iterdir())


async def test_explain_says_who_it_explains_for(run: Run, stand_in: StandInTailchat) -> None:
    """`explain --as NAME` prints the ID, decides by it, and says that the account is banned."""
    code, out, errors = await run("explain", "https://gate.example.com/ops", "--as", NAME)
    assert code == 0
    assert f"{NAME} is {BOB.sub}" in errors
    assert f"asked by:   {BOB.sub}, in ops" in out

    stand_in.store.change(BOB.sub, banned=True)
    _, _, errors = await run("explain", "https://gate.example.com/ops", "--as", NAME)
    assert "refuses this account on every route: banned" in errors


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Nobody#1", "nobody in Tailchat has the name Nobody#1; check its capital letters"),
        ("plain bob#7", "nobody in Tailchat has the name plain bob#7"),
    ],
)
async def test_unknown_name(run: Run, name: str, told: str) -> None:
    """A name that nobody has is said, and so is that its case counts."""
    code, _, errors = await run("lock", name)

    assert (code, told in errors) == (1, True)


async def test_app_without_a_bot(run: Run, stand_in: StandInTailchat) -> None:
    """Without the bot capability the command says what is missing and what to write instead."""
    stand_in.store.apps[APP.client_id] = replace(APP, bot=False)
    code, _, errors = await run("lock", NAME)

    assert code == 1
    assert "the gate's bot cannot ask Tailchat" in errors
    assert "capability:bot" in errors
    assert "write sub:ID" in errors


@pytest.mark.parametrize(
    "answer",
    [
        b'{"code":200,"data":{"_id":"nobody","nickname":"Plain Bob","discriminator":"7"}}',
        b'{"code":200,"data":{"_id":"66%s","nickname":"Other","discriminator":"7"}}' % (b"0" * 22),
        b'{"code":200,"data":[]}',
    ],
)
async def test_odd_answer_locks_nobody(
    run: Run, stand_in: StandInTailchat, config: Path, answer: bytes
) -> None:
    """An answer about somebody of another name, or about no account, is not used."""
    stand_in.faults.actions[SEARCH] = Response(200, answer)
    code, _, errors = await run("lock", NAME)

    assert (code, "cannot be read" in errors) == (1, True)
    assert not list((config.parent / "state").iterdir())


async def test_outage_of_tailchat(run: Run, stand_in: StandInTailchat) -> None:
    """A Tailchat that does not answer is said, and nothing is done."""
    stand_in.faults.actions[SEARCH] = Response(504, b'{"name":"RequestTimeoutError"}')
    code, _, errors = await run("lock", NAME)

    assert (code, "Tailchat cannot be asked who" in errors) == (1, True)


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("https://gate.example.com", "https://other.example.com", "redirect-uri: the app in"),
        (APP.client_secret, "another-secret-of-no-app", "client-secret: Tailchat does not accept"),
        (APP.client_id, "tc_00000000000000000000000f", "client-id: Tailchat knows no app"),
    ],
)
async def test_check_online_fails_where_nobody_can_sign_in(
    run: Run, config: Path, right: str, wrong: str, told: str
) -> None:
    """It is an error with an exit code, before the first visitor ends on a page of Tailchat's."""
    text = await asyncio.to_thread(config.read_text)
    await asyncio.to_thread(config.write_text, text.replace(f'"{right}"', f'"{wrong}"'))
    code, out, errors = await run("check", "--online")
    found = json.loads((await run("check", "--online", "--json"))[1])

    assert (code, "good" in out, "nobody can sign in with it\n" in errors) == (1, False, True)
    assert f"error: {told}" in errors
    said = [one["key"] for one in found["problems"] if one["severity"] == "error"]
    assert said == [told.partition(":")[0]]
    assert (await run("check"))[0] == 0


async def test_check_online_names_the_open_routes(run: Run, stand_in: StandInTailchat) -> None:
    """`check --online` names each route that only asks for a sign-in, while that is for anybody."""
    code, _, errors = await run("check", "--online")
    assert code == 0
    assert "warning: wiki: everybody who reaches Tailchat may enter, by registering" in errors
    assert "any e-mail address, which nobody verifies" in errors
    assert "warning: ops" not in errors

    stand_in.store.client_config["disableUserRegister"] = True
    assert "everybody who reaches" not in (await run("check", "--online"))[2]
    stand_in.faults.actions["config/client"] = Response(504, b"{}")
    assert "Tailchat cannot be asked: status 504" in (await run("check", "--online"))[2]
    assert "Tailchat" not in (await run("check"))[2]


@pytest.mark.parametrize(
    ("data", "access", "tailchat", "told"),
    [
        ({}, {}, {}, ["tool: everybody", "mail: everybody", "mail: Tailchat does not verify"]),
        (
            {"emailVerification": True},
            {},
            {},
            ["by registering there with an e-mail address;", "mail: everybody"],
        ),
        ({"disableUserRegister": True, "emailVerification": True}, {}, {}, []),
        ({"disableUserRegister": True}, {}, {}, ["it gets none of people whose address"]),
        (
            {"disableUserRegister": True},
            {},
            {"unverified_email": True},
            ["it gets addresses that anybody can have registered with"],
        ),
        (
            {"disableUserRegister": True, "emailVerification": True},
            {"guests": True},
            {},
            ["tool: everybody who reaches Tailchat may enter, as a guest", "mail: everybody"],
        ),
        (
            {
                "disableUserRegister": True,
                "emailVerification": True,
                "disableGuestLogin": True,
            },
            {"guests": True},
            {},
            [],
        ),
    ],
)
def test_what_is_said_of_registration(
    data: dict[str, object],
    access: dict[str, object],
    tailchat: dict[str, object],
    told: list[str],
) -> None:
    """Each route that strangers can enter is named, and each that gets unverified addresses."""
    routes = [
        {"name": "tool"},
        {"name": "mail", "path": "/mail", "email": True},
        {"name": "ops", "path": "/ops", "allow": ["sub:660000000000000000000001"]},
    ]
    settings = make_settings(access=access, tailchat=tailchat, route=routes)
    found = read_registration(data)
    assert found is not None

    said = list(open_to_strangers(settings, found))
    assert len(said) == len(told)
    for sentence, part in zip(said, told, strict=True):
        assert part in sentence


@pytest.mark.parametrize("data", [None, [], {"disableUserRegister": "yes"}])
def test_odd_settings_say_nothing(data: object) -> None:
    """What is no setting of Tailchat's is not read."""
    assert read_registration(data) is None


async def test_start_says_so_once(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names the open routes once, and again only when that has changed."""
    async with story(tmp_path / "access.log", clock) as scene:
        generation = scene.gate.generation
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                generation.registration.start()
                task = generation.registration._task
                assert task is not None
                await task
    assert scene.tailchat.seen["config/client"].count == 2
    said = [one.message for one in caplog.records if "may enter, by registering" in one.message]

    assert len(said) == 1
    assert said[0].startswith("tool: everybody who reaches Tailchat")
