"""What a request is refused for before anybody asks who sent it."""

from typing import Final

from tailchat_gate.reasons import Reason


class RefusedError(ValueError):
    """Bytes that no honest client sends, or more of them than the gate takes.

    The text says what was wrong with them; `reason` tells the status.
    """

    def __init__(self, text: str, reason: Reason = Reason.BAD_REQUEST) -> None:
        super().__init__(text)
        self.reason: Final = reason
