"""What the process knows about Tailchat, which outlives each configuration."""

from collections.abc import Callable
from typing import Final

from tailchat_gate.identity.oauth.reachability import Reachability
from tailchat_gate.identity.oauth.sign_in_watch import SignInState
from tailchat_gate.identity.sign_ins import SignIns
from tailchat_gate.observe.audit import Audit
from tailchat_gate.observe.log import Pace
from tailchat_gate.people.bot import BotSignIn
from tailchat_gate.people.facts import KnownPeople
from tailchat_gate.people.group_watch import GroupWatch
from tailchat_gate.people.panel import Outages
from tailchat_gate.state.store import Store


class TailchatState:
    """Tailchat's answers, and the calls under way.

    `clock` returns Unix seconds, `monotonic` seconds that never go back.
    """

    #: The Unix second of Tailchat's last answer about people, 0 for none yet.
    people_heard_at = 0.0
    #: Whether log lines are also posted in a panel of Tailchat.
    has_notices = True

    def __init__(
        self,
        store: Store,
        audit: Audit,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._clock = clock
        self.reachability: Final = Reachability(monotonic)
        self.sign_in: Final = SignInState()
        self.sign_ins: Final = SignIns()
        self.people: Final = KnownPeople()
        #: Who is in Tailchat's groups, and the sign-in of the bot that asks for it.
        self.group_watch: Final = GroupWatch(store, clock, audit)
        self.bot_sign_in: Final = BotSignIn()
        #: The warnings that were logged last about routes that strangers may enter.
        self.told_of_registration: Final[set[str]] = set()
        #: When each notice was last posted in the panel, and which tools are down.
        self.panel_pace: Final = Pace(clock)
        self.tools_down: Final[Outages] = {}

    async def close(self) -> None:
        """End the calls under way."""
        await self.group_watch.close()
        await self.sign_ins.close()

    def speak(self, *, for_all: bool) -> None:
        """Let one worker, with `for_all`, report what all workers find out alike."""
        self.has_notices = self.group_watch.tells = for_all

    def heard_of_people(self) -> None:
        """Record an answer about people."""
        self.people_heard_at = self._clock()
