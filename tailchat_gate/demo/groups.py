"""The groups of the stand-in Tailchat with members and roles, and the messages in their panels."""

import hashlib
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from types import MappingProxyType
from typing import Final

from tailchat_gate.demo.gateway import Action, ActionError, Params, bot_sub
from tailchat_gate.demo.store import Store
from tailchat_gate.demo.users import User

INVITE: Final = "core.invite"
MANAGE_ROLES: Final = "core.manageRoles"
MANAGE_PANEL: Final = "core.managePanel"
MANAGE_USER: Final = "core.manageUser"


@dataclass(slots=True)
class Role:
    """A role of a group; two roles may have the same name."""

    id: str
    name: str
    permissions: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Group:
    """A group; `members` maps each sub to ids of roles, some of which may be deleted."""

    id: str
    name: str
    owner: str
    members: dict[str, list[str]]
    roles: dict[str, Role] = field(default_factory=dict)
    panels: dict[str, str] = field(default_factory=dict)
    fallback: list[str] = field(default_factory=list)

    def may(self, sub: str, *permissions: str) -> bool:
        """Whether a person has one of the permissions."""
        held = set(self.fallback)
        for role_id in self.members.get(sub, ()):
            role = self.roles.get(role_id)
            held.update(role.permissions if role else ())
        return sub == self.owner or not held.isdisjoint(permissions)

    def as_json(self) -> dict[str, object]:
        """Return the group as getUserGroups does."""
        return {
            "_id": self.id,
            "name": self.name,
            "owner": self.owner,
            "members": [{"userId": sub, "roles": roles} for sub, roles in self.members.items()],
            "roles": [
                {"_id": role.id, "name": role.name, "permissions": role.permissions}
                for role in self.roles.values()
            ],
            "panels": [
                {"id": panel, "name": name, "type": 0, "fallbackPermissions": []}
                for panel, name in self.panels.items()
            ],
            "fallbackPermissions": self.fallback,
            "createdAt": "2026-01-01T00:00:00.000Z",
            "updatedAt": "2026-01-01T00:00:00.000Z",
            "__v": 0,
        }


class Groups:
    """All groups; `by_id` may be changed at any time."""

    def __init__(self, store: Store) -> None:
        self.store: Final = store
        self.by_id: Final[dict[str, Group]] = {}
        self._invites: dict[str, str] = {}
        self._count = 0
        self.actions: Final[Mapping[str, Action]] = MappingProxyType(
            {
                "group/getUserGroups": self._of_caller,
                "group/getGroupBasicInfo": self._basic_info,
                "group/createGroup": self._create,
                "group/quitGroup": self._quit,
                "group/invite/createGroupInvite": self._invite,
                "group/invite/applyInvite": self._apply_invite,
                "group/createGroupRole": self._create_role,
                "group/deleteGroupRole": self._delete_role,
                "group/updateGroupRolePermission": self._set_permissions,
                "group/appendGroupMemberRoles": self._append_roles,
                "group/removeGroupMemberRoles": self._remove_roles,
                "group/deleteGroupMember": self._delete_member,
                "openapi/integration/addBotUser": self._add_bot,
            }
        )
        self.open_actions: Final = frozenset(("group/getGroupBasicInfo",))

    def add(self, name: str, owner: str, *members: str) -> Group:
        """Make a group with one panel."""
        panel = self._new_id()
        people: dict[str, list[str]] = {sub: [] for sub in (owner, *members)}
        group = Group(self._new_id(), name, owner, people, panels={panel: "general"})
        self.by_id[group.id] = group
        return group

    def add_role(self, group: Group, name: str, *members: str, can: Iterable[str] = ()) -> Role:
        """Make a role of a group and give it to members."""
        role = Role(self._new_id(), name, list(can))
        group.roles[role.id] = role
        for sub in members:
            group.members.setdefault(sub, []).append(role.id)
        return role

    def add_bot(self, group: Group, client_id: str) -> None:
        """Put an app's bot into a group."""
        group.members.setdefault(bot_sub(client_id), [])

    def _new_id(self) -> str:
        self._count += 1
        return f"6b{self._count:022x}"

    def _of_caller(self, _params: Params, caller: User | None) -> object:
        sub = _sub(caller)
        return [group.as_json() for group in self.by_id.values() if sub in group.members]

    def _basic_info(self, params: Params, _caller: User | None) -> object:
        group = self.by_id.get(str(params.get("groupId")))
        if group is None:
            return None
        return {"name": group.name, "owner": group.owner, "memberCount": len(group.members)}

    def _create(self, params: Params, caller: User | None) -> object:
        return self.add(str(params.get("name", "")), _sub(caller)).as_json()

    def _quit(self, params: Params, caller: User | None) -> object:
        group, sub = self._group(params), _sub(caller)
        if group.owner == sub:
            del self.by_id[group.id]
        group.members.pop(sub, None)
        return None

    def _invite(self, params: Params, caller: User | None) -> object:
        group = self.group_for(params, caller, INVITE)
        code = secrets.token_urlsafe(6)
        self._invites[code] = group.id
        return {"code": code, "groupId": group.id, "creator": _sub(caller)}

    def _apply_invite(self, params: Params, caller: User | None) -> object:
        group = self.by_id.get(self._invites.get(str(params.get("code")), ""))
        if group is None:
            raise ActionError(HTTPStatus.INTERNAL_SERVER_ERROR, "invite code invalid")
        group.members.setdefault(_sub(caller), [])
        return group.as_json()

    def _create_role(self, params: Params, caller: User | None) -> object:
        group = self.group_for(params, caller, MANAGE_ROLES, MANAGE_PANEL)
        self.add_role(group, str(params.get("roleName", "")), can=_texts(params, "permissions"))
        return group.as_json()

    def _delete_role(self, params: Params, caller: User | None) -> object:
        # Tailchat: members keep the id of a deleted role.
        group = self.group_for(params, caller, MANAGE_ROLES, MANAGE_PANEL)
        group.roles.pop(str(params.get("roleId")), None)
        return group.as_json()

    def _set_permissions(self, params: Params, caller: User | None) -> object:
        # Tailchat: a member who may manage panels may change any role, also their own.
        group = self.group_for(params, caller, MANAGE_ROLES, MANAGE_PANEL)
        group.roles[str(params.get("roleId"))].permissions = _texts(params, "permissions")
        return group.as_json()

    def _append_roles(self, params: Params, caller: User | None) -> object:
        return self._each_member(params, caller, lambda held, more: [*held, *more])

    def _remove_roles(self, params: Params, caller: User | None) -> object:
        return self._each_member(
            params, caller, lambda held, less: [role for role in held if role not in less]
        )

    def _each_member(
        self,
        params: Params,
        caller: User | None,
        change: Callable[[list[str], list[str]], list[str]],
    ) -> object:
        group = self.group_for(params, caller, MANAGE_ROLES)
        for sub in _texts(params, "memberIds"):
            if sub in group.members:
                group.members[sub] = change(group.members[sub], _texts(params, "roles"))
        return group.as_json()

    def _delete_member(self, params: Params, caller: User | None) -> object:
        group = self.group_for(params, caller, MANAGE_USER)
        group.members.pop(str(params.get("memberId")), None)
        return group.as_json()

    def _add_bot(self, params: Params, _caller: User | None) -> object:
        # Tailchat: anybody may do this, even without being a member of the group.
        group, client_id = self._group(params), str(params.get("appId"))
        if bot_sub(client_id) in group.members:
            raise ActionError(HTTPStatus.INTERNAL_SERVER_ERROR, "已加入该群组")
        self.add_bot(group, client_id)
        return None

    def _group(self, params: Params) -> Group:
        group = self.by_id.get(str(params.get("groupId")))
        if group is None:
            raise _no_permission()
        return group

    def group_for(self, params: Params, caller: User | None, *permissions: str) -> Group:
        """Return the group that a call names; raises ActionError without one of `permissions`.

        The caller must be a member, also if no permission is named.
        """
        group, sub = self._group(params), _sub(caller)
        if sub not in group.members or (permissions and not group.may(sub, *permissions)):
            raise _no_permission()
        return group


class Messages:
    """The messages; `sent` has them from the oldest on."""

    def __init__(self, groups: Groups) -> None:
        self._groups = groups
        self.sent: Final[list[dict[str, object]]] = []
        self.actions: Final[Mapping[str, Action]] = MappingProxyType(
            {
                "chat/message/sendMessage": self._send,
                "chat/converse/createDMConverse": self._converse,
            }
        )
        self.open_actions: Final[frozenset[str]] = frozenset()

    def _send(self, params: Params, caller: User | None) -> object:
        # Tailchat: it does not check that the panel exists or belongs to the group.
        if params.get("groupId"):
            self._groups.group_for(params, caller)
        message = {
            "_id": f"6c{len(self.sent):022x}",
            "content": params.get("content", ""),
            "plain": params.get("plain"),
            "meta": params.get("meta"),
            "author": _sub(caller),
            "groupId": params.get("groupId"),
            "converseId": params.get("converseId"),
        }
        self.sent.append(message)
        return message

    def _converse(self, params: Params, caller: User | None) -> object:
        members = sorted({*_texts(params, "memberIds"), _sub(caller)})
        digest = hashlib.sha256(" ".join(members).encode()).hexdigest()
        return {"_id": f"6d{digest[:22]}", "members": members}


def _sub(caller: User | None) -> str:
    assert caller is not None  # noqa: S101 - only open actions come without a token
    return caller.sub


def _texts(params: Params, name: str) -> list[str]:
    texts = params.get(name)
    return [str(each) for each in texts] if isinstance(texts, list) else []


def _no_permission() -> ActionError:
    return ActionError(HTTPStatus.FORBIDDEN, "no permission", name="NoPermissionError")
