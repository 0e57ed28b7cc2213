"""Hands records from the store to its followers, and collects what they know."""

from collections.abc import Iterable
from typing import Final

from tailchat_gate.state.store import ALL_OF_IT, ERASURE, Changes, Follower, Kind, Record


class Followers:
    """The followers of one store, by the kind that each follows."""

    def __init__(self) -> None:
        self._followers: dict[str, Follower] = {}
        #: Their kinds, by name.
        self.kinds: Final[dict[str, Kind]] = {}

    def add(self, follower: Follower) -> None:
        """Add a follower, the only one of its kind."""
        self.kinds[follower.kind.name] = follower.kind
        self._followers[follower.kind.name] = follower

    def hand_out(self, records: Iterable[Record], *, complete: bool, doubtful: bool) -> None:
        """Give each follower the records of its kind."""
        by_kind: dict[str, list[Record]] = {name: [] for name in self._followers}
        for record in records:
            doubtful = doubtful or not record.intact
            if record.kind in by_kind:
                by_kind[record.kind].append(record)
            elif record.kind == ERASURE and record.intact and not complete:
                self._erase(record.key, in_force=record.body == ALL_OF_IT)
        for name, follower in self._followers.items():
            if complete or by_kind[name]:
                follower.take(Changes(by_kind[name], complete, doubtful))

    def known(self, *, lost: bool) -> list[Record]:
        """Return what the store must hold; see Follower.known."""
        followers = self._followers.values()
        return [record for follower in followers for record in follower.known(lost=lost)]

    def unsaved(self, *, last: bool) -> list[Record]:
        """Return what changed and was not put; see Follower.unsaved."""
        followers = self._followers.values()
        return [record for follower in followers for record in follower.unsaved(last=last)]

    def _erase(self, sub: str, *, in_force: bool) -> None:
        for follower in self._followers.values():
            follower.erase(sub, in_force=in_force)
