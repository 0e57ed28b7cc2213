"""Which person a command's target means, where it is written as a name."""

from pathlib import Path

from tailchat_gate.config.values.identifier import is_person_name


def person_meant(target: str, config: Path) -> str:
    """Return a target, for a name `sub:ID` of the person that somebody has confirmed."""
    if not is_person_name(target):
        return target
    # Imported here: other targets need no connection to Tailchat.
    from tailchat_gate.commands.people import confirmed_target  # noqa: PLC0415

    return confirmed_target(target, config)
