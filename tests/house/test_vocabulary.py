"""The code has one word for each thing, and it is that of the standards."""

import ast
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tables import check_each

import tailchat_gate

ROOT: Final = Path(tailchat_gate.__file__).parent
#: A word of this project's own, and the word that took its place.
REPLACED: Final = {
    "Arrival": "HandoffTarget",
    "Asks": "AccessForm",
    "Asked": "ClaimingRequest",
    "BadReplyError": "BadResponseError",
    "Barred": "Rejection",
    "Behind": "PageRenderer",
    "Comeback": "ReconnectGate",
    "CrewInside": "AllWorkers",
    "Doubt": "FaultStreak",
    "Found": "RowsRead",
    "HeldRequest": "PendingRequest",
    "Holder": "SessionHolder",
    "Inside": "ServingProcesses",
    "KEPT_OUT": "BLOCKED",
    "KeptPaths": "PathCache",
    "KeptTargets": "StoredTargets",
    "Lasting": "ProcessState",
    "LiveSessions": "SessionWatch",
    "LocalPlaces": "StaticSlots",
    "LockPlace": "StateLocation",
    "Look": "RecheckResult",
    "Marks": "FileStates",
    "Meaning": "ErrorMeaning",
    "Meant": "ResolvedName",
    "Meeting": "PathMatch",
    "Met": "ExplainedMatch",
    "Opened": "SessionCache",
    "PageServer": "AiohttpBridge",
    "Passage": "ForwardRequest",
    "PatientRechecks": "AwaitableRechecks",
    "Peers": "ClientConnectionLimits",
    "PeopleLooks": "PeopleRechecks",
    "ProcessInside": "SingleProcess",
    "QueueSlot": "WriteLock",
    "Remembered": "CachedAnswer",
    "ReplyLines": "ResponseLines",
    "ReplyReader": "ResponseReader",
    "ReplyRewriter": "ResponseRewriter",
    "ReplyTaker": "ResponseTaker",
    "Said": "FormOutcome",
    "SaidNotes": "SealedOutcomes",
    "SiteSession": "HostSession",
    "SiteSessions": "HostSessions",
    "Standing": "RevocationState",
    "Story": "MainHandler",
    "TicketLooks": "TicketRechecks",
    "Traffic": "UpstreamPools",
    "TurnedAway": "RecheckRefused",
    "Turns": "LoginQueue",
    "Unchecked": "NoRecheck",
    "UsedStates": "Redemptions",
    "Visit": "RequestContext",
    "Wants": "Questions",
    "_lasting": "_process_state",
    "_standing": "_revocation",
    "_visit": "_context",
    "barred": "rejection",
    "cautions": "lint",
    "comeback": "reconnect_gate",
    "complaint": "describe_error",
    "is_told": "eof_is_authentic",
    "keep_out": "set_blocked",
    "kept_out": "blocked",
    "last_hop": "final_hop",
    "lasting": "process_state",
    "local_places": "static_slots",
    "lock_place": "state_location",
    "marks_of": "file_states",
    "passage": "forward_request",
    "patience": "timeout",
    "read_arrival": "read_handoff_target",
    "standing": "revocation",
    "traffic": "upstream_pools",
    "visit": "context",
    "who_am_i": "redirect_to_userinfo",
}

#: Words that make a reader stop, in code and docs.
_UNPLAIN: Final = re.compile(r"\b(?:who(?:m|so)?ever|stands? by|of a kind that)\b", re.IGNORECASE)


def names(path: Path) -> Iterator[str]:
    """Yield each name in a module."""
    with tokenize.open(path) as source:
        for token in tokenize.generate_tokens(source.readline):
            if token.type == tokenize.NAME:
                yield token.string


def test_no_private_word_is_a_name() -> None:
    """No module uses a word that another one has replaced."""

    def check(path: Path) -> None:
        assert REPLACED.keys() & set(names(path)) == set()

    check_each(sorted(ROOT.rglob("*.py")), check)


def test_no_two_classes_have_one_name() -> None:
    """A public class has its name alone: who reads it need not look up which one is meant.

    A table of the configuration is named as in the file. The demo is a program of its own.
    """
    found: dict[str, list[str]] = {}
    for path in sorted(ROOT.rglob("*.py")):
        module = path.relative_to(ROOT).as_posix()
        if not module.startswith(("demo/", "config/tables/")):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    found.setdefault(node.name, []).append(module)

    assert {name: modules for name, modules in found.items() if len(modules) > 1} == {}


def test_no_sentence_has_to_be_read_twice() -> None:
    """No code and no page of the docs has a word whose sentence is hard to follow."""
    root = ROOT.parent
    code = [
        path
        for folder in ("tailchat_gate", "tests", "bench", "fuzz", "docs")
        for path in (root / folder).rglob("*")
        if path.suffix in {".py", ".md"} and path != Path(__file__)
    ]

    def check(path: Path) -> None:
        assert _UNPLAIN.findall(path.read_text(encoding="utf-8")) == []

    check_each([*code, *root.glob("*.md")], check)
