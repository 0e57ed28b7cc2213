"""What commands say of Tailchat's groups, against the stand-in."""

import asyncio
import html
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from clikit import invoke
from dashboardkit import explain_url
from gatekit import ALICE, Clock, RawUpstream, until
from groupkit import (
    BOB,
    EVE,
    GROUP_ID,
    OPS,
    ROLE_ID,
    GroupScene,
    group_scene,
    known,
    status_of,
    watch_of,
)
from reloadkit import file_text, sections
from tailchat_browser import APP

from tailchat_gate.people.groups.watch import KEY_IS_PUBLIC


@pytest.fixture
async def scene(tmp_path: Path, clock: Clock) -> AsyncIterator[GroupScene]:
    """Return a Tailchat with one group."""
    async with group_scene(tmp_path, clock) as found:
        yield found


@pytest.fixture
def config(scene: GroupScene, tmp_path: Path) -> Path:
    """Return a file of a gate for that Tailchat."""
    return write(scene, tmp_path)


def write(scene: GroupScene, folder: Path, **given: Any) -> Path:  # noqa: ANN401 - as in the file
    """Write the file of a gate."""
    path = folder / "commands.toml"
    tables = sections("http://127.0.0.1:9", **scene.sections(**given))
    path.write_text(file_text(tables), "utf-8")
    path.chmod(0o600)
    return path


async def run(*arguments: object) -> tuple[int, str, str]:
    """Run a command beside the stand-in, which is in this loop."""
    return await asyncio.to_thread(invoke, *map(str, arguments))


async def test_the_list_has_the_line_to_copy_and_who_could_use_it(
    scene: GroupScene, config: Path
) -> None:
    """Each group and role has its entry, its members without the bot, and everybody in power."""
    groups = scene.tailchat.groups
    groups.add_role(scene.group, "help\x1b[31m", BOB.sub, can=["core.managePanel"])
    scene.group.fallback.append("core.invite")
    scene.group.name = "Ops\r\n☆\u202e"

    code, out, _ = await run("tailchat-groups", "--config", config)

    helper = f"{BOB.sub} with the role help [31m (core.managePanel)"
    assert code == 0
    assert out.splitlines() == [
        f"Ops  ☆?: 3 members, owner {EVE.sub}",
        f'  "tailchat-group:{GROUP_ID}"',
        f"    let in by: the owner {EVE.sub}; every member, by fallbackPermissions (core.invite)",
        "  oncall: 2 members",
        f'  "{OPS[0]}"',
        "  help [31m: 1 member",
        f'  "tailchat-role:{GROUP_ID}/6b{4:022x}"',
        f"    roles given by: the owner {EVE.sub}; {helper}",
    ]


async def test_the_list_for_programs(scene: GroupScene, config: Path) -> None:
    """As JSON it has the same entries, members and powers."""
    code, out, _ = await run("tailchat-groups", "--json", "--config", config)
    (group,) = json.loads(out)
    (role,) = group.pop("roles")
    members = set(group.pop("members"))

    assert code == 0
    assert group == {
        "entry": f"tailchat-group:{GROUP_ID}",
        "name": scene.group.name,
        "owner": EVE.sub,
        "let_in_by": [f"the owner {EVE.sub}"],
        "roles_given_by": [f"the owner {EVE.sub}"],
    }
    assert members == {ALICE.sub, BOB.sub, EVE.sub}
    assert (role["entry"], role["name"], len(role["members"])) == (OPS[0], "oncall", 2)


@pytest.mark.parametrize("form", [(), ("--json",)])
async def test_the_list_names_everybody_in_power(
    scene: GroupScene, config: Path, form: tuple[str, ...]
) -> None:
    """However many they are: nobody hides behind a number."""
    subs = [f"66{number:022x}" for number in range(100, 130)]
    scene.group.members.update({sub: [] for sub in subs})
    powers = ["core.manageRoles", "core.invite"]
    scene.tailchat.groups.add_role(scene.group, "helpers", *subs, can=powers)

    code, out, _ = await run("tailchat-groups", *form, "--config", config)

    assert code == 0
    for power in powers:
        assert f"{', '.join(subs)} with the role helpers ({power})" in out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("bot", "the gate's bot is not in this group, so it lets nobody in"),
        ("group", "there is no such group, so it lets nobody in"),
        ("role", "the group has no such role"),
        ("fallback", "every member may let people in (core.manageRoles)"),
        ("max", "groups.ops: 2 members, more than its max"),
        ("capability", "switch on the bot"),
        ("key", "set SECRET in Tailchat's environment"),
    ],
)
async def test_check_online_says_what_is_wrong(
    scene: GroupScene, tmp_path: Path, change: str, said: str
) -> None:
    """Each of the mistakes in Tailchat has its warning, and without one there is none."""
    scene.tailchat.store.apps[APP.client_id] = replace(
        APP, redirect_uris=("http://gate.test/oauth2/callback",)
    )
    config = write(scene, tmp_path, groups={"ops": {"members": OPS, "max": 2}})
    code, _, err = await run("check", "--online", "--config", config)
    assert code == 0, err
    assert "groups.ops" not in err

    match change:
        case "bot":
            scene.group.members.popitem()
        case "group":
            scene.tailchat.groups.by_id.clear()
        case "role":
            del scene.group.roles[ROLE_ID]
        case "fallback":
            scene.group.fallback.append("core.manageRoles")
        case "max":
            config = write(scene, tmp_path, groups={"ops": {"members": OPS, "max": 1}})
        case "capability":
            scene.tailchat.store.apps[APP.client_id] = replace(APP, bot=False)
        case "key":
            scene.tailchat.store.secret = "tailchat"
    _, _, err = await run("check", "--online", "--config", config)

    assert said in err


async def test_the_list_without_a_bot_says_what_to_switch_on(
    scene: GroupScene, config: Path
) -> None:
    """An app without the capability gets the remedy, and no secret is shown."""
    scene.tailchat.store.apps[APP.client_id] = replace(APP, bot=False)

    code, out, err = await run("tailchat-groups", "--config", config)

    assert (code, out) == (1, "")
    assert "switch on the bot in Tailchat's settings of the app" in err
    assert APP.client_secret not in err


async def test_explain_knows_what_the_store_knows(
    scene: GroupScene, tmp_path: Path, upstream: RawUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The groups of a person have the configuration's names; too old an answer is told."""
    config = write(scene, tmp_path)
    monkeypatch.setattr("time.time", scene.clock)
    before = await run("explain", "http://gate.test/", "--as", ALICE.sub, "--config", config)
    assert before[0] == 1
    assert "Tailchat has not said lately whether in ops" in before[1]
    assert "refused: groups-unknown, 503" in before[1]

    async with scene.gate(tmp_path, upstream) as gate:
        await known(gate, sizes={"ops": 2})
    code, out, _ = await run("explain", "http://gate.test/", "--as", ALICE.sub, "--config", config)
    assert code == 0
    assert f"asked by:   {ALICE.sub}, in ops" in out
    assert "X-Tailchat-Groups: ops" in out
    code, out, _ = await run("explain", "http://gate.test/", "--as", EVE.sub, "--config", config)
    assert code == 1
    assert "refused: denied, 403" in out


async def test_explain_knows_the_public_key(
    scene: GroupScene, tmp_path: Path, upstream: RawUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stored members count for nothing then, as in the gate, and the admin page agrees."""
    config = write(scene, tmp_path)
    monkeypatch.setattr("time.time", scene.clock)
    arguments = ("explain", "http://gate.test/", "--as", ALICE.sub, "--config", config)
    async with scene.gate(tmp_path, upstream) as gate:
        await known(gate, sizes={"ops": 2})
        scene.tailchat.store.secret = "tailchat"
        watch = watch_of(gate)
        watch.use(gate.gate.generation.groups._replace(server="again"))
        await until(lambda: watch.key_is_public is True)
        await known(gate, sizes={"ops": 0})
        assert await status_of(gate, ALICE) == (403, "denied")
        page = (await gate.ask_admin(explain_url("http://gate.test/", f"sub:{ALICE.sub}")))[1]
    code, out, _ = await run(*arguments)
    for said in (out, html.unescape(page)):
        assert f"asked by:   {ALICE.sub}, in no group" in said
        assert f"groups:     {KEY_IS_PUBLIC}" in said
        assert "refused: denied, 403" in said
    assert code == 1

    await scene.down()
    code, out, _ = await run(*arguments)
    assert "groups:     Tailchat does not say whether its key is public: " in out
    assert code == 0


async def test_explain_asks_nothing_about_the_key_where_no_group_counts(
    scene: GroupScene, tmp_path: Path
) -> None:
    """Not for nobody or a machine, and not where no group has members from Tailchat."""
    with_groups, without = write(scene, tmp_path), tmp_path / "other"
    await run("explain", "http://gate.test/", "--config", with_groups)
    without.mkdir()
    plain = write(scene, without, groups={"ops": [ALICE.sub]})
    code, out, _ = await run("explain", "http://gate.test/", "--as", ALICE.sub, "--config", plain)
    assert (code, "groups: " in out) == (0, False)
    assert scene.tailchat.seen["user/checkTokenValid"].count == 0
