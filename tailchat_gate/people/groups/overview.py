"""Finds out who has power in Tailchat's groups, for commands."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from tailchat_gate.config.values.group import Group, MemberSource
from tailchat_gate.config.values.quantities import counted
from tailchat_gate.syntax import TAILCHAT_ID, UNFIT_FOR_A_LINE

#: Permissions that allow giving roles: the second allows changing any role's permissions.
_GIVES_ROLES: Final = ("core.manageRoles", "core.managePanel")
_INVITES: Final = "core.invite"
_LONGEST_NAME: Final = 60


@dataclass(frozen=True, slots=True)
class Role:
    """A role; `name` has no control characters, `people` are the members who have it."""

    id: str
    name: str
    permissions: frozenset[str]
    people: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GroupView:
    """A group as an admin sees it; `fallback` are the permissions of every member."""

    id: str
    name: str
    owner: str
    people: tuple[str, ...]
    roles: tuple[Role, ...]
    fallback: frozenset[str]

    def who_may(self, *permissions: str) -> Iterator[str]:
        """Yield a phrase for the owner, and for each role that has one of the permissions."""
        yield f"the owner {self.owner}"
        for held in permissions:
            if held in self.fallback:
                yield f"every member, by fallbackPermissions ({held})"
            for role in self.roles:
                if held in role.permissions:
                    yield f"{_named(role.people)} with the role {role.name} ({held})"

    @property
    def role_givers(self) -> list[str]:
        """Phrases for the people who can give themselves any role."""
        return list(self.who_may(*_GIVES_ROLES))

    @property
    def inviters(self) -> list[str]:
        """Phrases for the people who can let others into the group."""
        return list(self.who_may(_INVITES))


def read_views(data: object, bot: str) -> list[GroupView] | None:
    """Read the groups of an answer, without the bot itself; None if it is not Tailchat's.

    Malformed ids, and control characters in names, are left out.
    """
    if not isinstance(data, list):
        return None
    return [view for group in data if (view := _view(group, bot)) is not None]


def lines_of(views: Collection[GroupView]) -> Iterator[str]:
    """Yield lines about the groups and their roles, each with its entry for [groups]."""
    for view in views:
        yield f"{view.name}: {counted(len(view.people), 'member')}, owner {view.owner}"
        yield f'  "{MemberSource(view.id).entry}"'
        yield f"    let in by: {'; '.join(view.inviters)}"
        for role in view.roles:
            yield f"  {role.name}: {counted(len(role.people), 'member')}"
            yield f'  "{MemberSource(view.id, role.id).entry}"'
        if view.roles:
            yield f"    roles given by: {'; '.join(view.role_givers)}"


def rows_of(views: Collection[GroupView]) -> list[dict[str, object]]:
    """Return the same as values for JSON."""
    return [
        {
            "entry": MemberSource(view.id).entry,
            "name": view.name,
            "owner": view.owner,
            "members": list(view.people),
            "let_in_by": view.inviters,
            "roles": [
                {
                    "entry": MemberSource(view.id, role.id).entry,
                    "name": role.name,
                    "members": list(role.people),
                }
                for role in view.roles
            ],
            "roles_given_by": view.role_givers,
        }
        for view in views
    ]


def faults_of(
    groups: Mapping[str, Group], views: Collection[GroupView], existing: Collection[str]
) -> Iterator[str]:
    """Yield why groups of a configuration let nobody, or not everybody, in.

    `existing` are the ids of groups in Tailchat that the bot is not in.
    """
    by_id = {view.id: view for view in views}
    for name, group in groups.items():
        members = set(group.subs)
        for source in group.sources:
            view = by_id.get(source.group)
            if view is None:
                there = source.group in existing
                why = "the gate's bot is not in this group" if there else "there is no such group"
                yield f"groups.{name}: {source.entry}: {why}, so it lets nobody in"
                continue
            role = next((role for role in view.roles if role.id == source.role), None)
            if source.role and role is None:
                yield f"groups.{name}: {source.entry}: the group has no such role"
            members.update(view.people if not source.role else role.people if role else ())
        if group.most is not None and group.sources and len(members) > group.most:
            yield f"groups.{name}: {len(members)} members, more than its max: it lets nobody in"


def warnings_of(groups: Mapping[str, Group], views: Collection[GroupView]) -> Iterator[str]:
    """Yield for which groups of a configuration every member may let people in."""
    by_id = {view.id: view for view in views}
    for name, group in groups.items():
        for source in group.sources:
            opened = _GIVES_ROLES if source.role else (_INVITES,)
            view = by_id.get(source.group)
            held = sorted(view.fallback.intersection(opened)) if view is not None else []
            if held:
                powers = ", ".join(held)
                yield f"groups.{name}: {source.entry}: every member may let people in ({powers})"


def _view(group: object, bot: str) -> GroupView | None:
    if not isinstance(group, dict) or not (name := _id(group.get("_id"))):
        return None
    people: dict[str, list[object]] = {}
    for member in _dicts(group.get("members")):
        sub, roles = _id(member.get("userId")), member.get("roles")
        if sub and sub != bot:
            people[sub] = roles if isinstance(roles, list) else []
    role_views = [
        Role(
            role_id,
            _name(role.get("name")),
            _texts(role.get("permissions")),
            tuple(sub for sub, held in people.items() if role_id in held),
        )
        for role in _dicts(group.get("roles"))
        if (role_id := _id(role.get("_id")))
    ]
    return GroupView(
        name,
        _name(group.get("name")),
        _id(group.get("owner")) or "unknown",
        tuple(people),
        tuple(role_views),
        _texts(group.get("fallbackPermissions")),
    )


def _dicts(value: object) -> Iterator[dict[str, object]]:
    return (each for each in (value if isinstance(value, list) else ()) if isinstance(each, dict))


def _texts(value: object) -> frozenset[str]:
    return frozenset(
        each for each in (value if isinstance(value, list) else ()) if isinstance(each, str)
    )


def _id(value: object) -> str:
    """Return an id, "" for anything else."""
    return value if isinstance(value, str) and TAILCHAT_ID.fullmatch(value) else ""


def _name(value: object) -> str:
    text = UNFIT_FOR_A_LINE.sub(" ", value) if isinstance(value, str) else ""
    return text.strip()[:_LONGEST_NAME] or "(no name)"


def _named(people: Collection[str]) -> str:
    # All of them, because each of them could give away the role.
    return ", ".join(people) or "nobody"
