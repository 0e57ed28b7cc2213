"""Reports the outcome of a form on the next page: sealed into that page's URL."""

import json
from collections.abc import Mapping
from typing import Final, NamedTuple, Self

from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.syntax import COMPACT

#: The parameter of the page's URL.
SAID: Final = "said"
#: The start of the sealed text.
_BEGIN: Final = b"said "
#: The most characters of a typed text in it.
_LONGEST: Final = 200

Value = str | int


class FormOutcome(NamedTuple):
    """An outcome: `code` names a sentence of the pages, `values` fill its placeholders."""

    code: str
    values: Mapping[str, Value]

    @classmethod
    def from_shown(cls, shown: Mapping[str, Value]) -> Self:
        """Return the outcome from the values for a page."""
        values = {name: value for name, value in shown.items() if name != "code"}
        return cls(str(shown["code"]), values)

    def shown(self) -> dict[str, Value]:
        """Return the values for a page."""
        return {"code": self.code, **self.values}


class SealedOutcomes:
    """Seals outcomes for the next page, so that a stranger's link cannot make a page show one.

    They are in the URL, not in memory, because another worker may serve the next page.
    """

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys

    def query(self, reader: str, outcome: FormOutcome) -> str:
        """Return the query, without "?", that shows `outcome` to `reader`, a session's ID."""
        values = {name: _short(value) for name, value in outcome.values.items()}
        note = json.dumps([reader, outcome.code, values], separators=COMPACT)
        return f"{SAID}={self._keys.seal(_BEGIN + note.encode('ascii'))}"

    def read(self, reader: str, query: Mapping[str, str]) -> FormOutcome | None:
        """Return the outcome to show to `reader`, None if the query has none for them."""
        sealed = self._keys.open(query.get(SAID, "")) or b""
        if not sealed.startswith(_BEGIN):
            # The same keys seal the tokens of forms.
            return None
        whose, code, values = json.loads(sealed.removeprefix(_BEGIN))
        return FormOutcome(code, values) if whose == reader else None


def _short(value: Value) -> Value:
    return value[:_LONGEST] if isinstance(value, str) else value
