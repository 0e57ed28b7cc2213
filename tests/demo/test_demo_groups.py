"""The stand-in's groups: who may invite, give roles and take them, as in Tailchat."""

from collections.abc import AsyncIterator

import pytest
from accounts import user_named
from gatekit import Clock
from storykit import served
from tailchat_browser import APP

from tailchat_gate.demo.gateway import bot_sub
from tailchat_gate.demo.groups import MANAGE_PANEL, Group
from tailchat_gate.demo.tailchat import StandInTailchat
from tailchat_gate.identity.oauth.back_channel import BackChannel
from tailchat_gate.people.api import Done, Refused, TailchatApi

HOSHINO, BOB, EVE = (user_named(name).sub for name in ("hoshino", "bob", "eve"))


@pytest.fixture
def stand_in(clock: Clock) -> StandInTailchat:
    """Return a stand-in whose people are signed in, each with their sub as token."""
    found = StandInTailchat(apps=(APP,), clock=clock)
    found.store.api_tokens.update({sub: sub for sub in (HOSHINO, BOB, EVE)})
    return found


@pytest.fixture
async def api(stand_in: StandInTailchat, clock: Clock) -> AsyncIterator[TailchatApi]:
    """Return the calls of its actions."""
    async with served(stand_in.app()) as port:
        channel = BackChannel(f"http://127.0.0.1:{port}")
        try:
            yield TailchatApi(channel, clock=clock)
        finally:
            await channel.close()


@pytest.fixture
def group(stand_in: StandInTailchat) -> Group:
    """Return a group of Hoshino's with Bob in it."""
    return stand_in.groups.add("Ops", HOSHINO, BOB)


async def test_an_invitation_lets_anybody_in_and_a_removed_member_back(
    api: TailchatApi, group: Group
) -> None:
    """A plain member makes none; one that was made is good for any number of people."""
    about = {"groupId": group.id}
    refused = await api.call("group/invite/createGroupInvite", about, BOB)
    made = await api.call("group/invite/createGroupInvite", about, HOSHINO)
    assert isinstance(refused, Refused)
    assert (refused.status, refused.name) == (403, "NoPermissionError")
    assert isinstance(made, Done)
    assert isinstance(made.data, dict)
    code = {"code": made.data["code"]}

    await api.call("group/invite/applyInvite", code, EVE)
    await api.call("group/deleteGroupMember", {**about, "memberId": EVE}, HOSHINO)
    assert set(group.members) == {HOSHINO, BOB}
    await api.call("group/invite/applyInvite", code, EVE)
    assert set(group.members) == {HOSHINO, BOB, EVE}
    assert isinstance(await api.call("group/invite/applyInvite", {"code": "x"}, EVE), Refused)


async def test_a_role_is_given_taken_and_outlived_by_its_id(api: TailchatApi, group: Group) -> None:
    """Its owner gives it; a member keeps the id of a role that was deleted."""
    about = {"groupId": group.id}
    await api.call("group/createGroupRole", {**about, "roleName": "oncall"}, HOSHINO)
    (role,) = group.roles
    given = {**about, "memberIds": [BOB], "roles": [role]}
    assert isinstance(await api.call("group/appendGroupMemberRoles", given, BOB), Refused)
    await api.call("group/appendGroupMemberRoles", given, HOSHINO)
    assert group.members[BOB] == [role]
    await api.call("group/removeGroupMemberRoles", given, HOSHINO)
    assert group.members[BOB] == []

    await api.call("group/appendGroupMemberRoles", given, HOSHINO)
    await api.call("group/deleteGroupRole", {**about, "roleId": role}, HOSHINO)
    assert (group.members[BOB], group.roles) == ([role], {})


async def test_who_manages_panels_makes_themselves_more(
    api: TailchatApi, stand_in: StandInTailchat, group: Group
) -> None:
    """core.managePanel changes what a role may, one's own among them, and so gives any role."""
    role = stand_in.groups.add_role(group, "panels", BOB, can=[MANAGE_PANEL])
    other = stand_in.groups.add_role(group, "ops")
    given = {"groupId": group.id, "memberIds": [BOB], "roles": [other.id]}
    assert isinstance(await api.call("group/appendGroupMemberRoles", given, BOB), Refused)
    more = {"groupId": group.id, "roleId": role.id, "permissions": ["core.manageRoles"]}
    await api.call("group/updateGroupRolePermission", more, BOB)
    await api.call("group/appendGroupMemberRoles", given, BOB)

    assert other.id in group.members[BOB]


async def test_anybody_puts_the_bot_into_any_group(api: TailchatApi, group: Group) -> None:
    """A stranger to the group may, once; so that it is in a group means nothing."""
    asked = {"groupId": group.id, "appId": APP.client_id}
    assert isinstance(await api.call("openapi/integration/addBotUser", asked, EVE), Done)
    again = await api.call("openapi/integration/addBotUser", asked, EVE)

    assert bot_sub(APP.client_id) in group.members
    assert isinstance(again, Refused)
    assert again.status == 500
