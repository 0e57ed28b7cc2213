"""All checks, in the order in which people read what they say."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

from tailchat_gate.config.load import Loaded
from tailchat_gate.diagnosis import (
    certificates,
    edge,
    groups,
    machine,
    names,
    running,
    sign_in,
    tools,
)
from tailchat_gate.diagnosis.statement import Check
from tailchat_gate.identity.oauth.sign_in_check import REACHED, SignInCheck
from tailchat_gate.people.api import TailchatApi
from tailchat_gate.people.bot import Bot
from tailchat_gate.people.inquiry import Inquiry
from tailchat_gate.people.panel import Panel
from tailchat_gate.people.registration import RegistrationCheck
from tailchat_gate.proxy.upstream.backends import Dialer
from tailchat_gate.proxy.upstream.resolver import NamesResolver


class TailchatCalls(NamedTuple):
    """What asks Tailchat, over one set of connections."""

    sign_in: SignInCheck
    api: TailchatApi
    bot: Bot
    inquiry: Inquiry
    registration: RegistrationCheck
    panel: Panel


class Surroundings(NamedTuple):
    """What the checks look at; `file` names the configuration.

    `clock`: Unix seconds. `of_gate` is what a gate that runs said of itself, if it was asked.
    """

    loaded: Loaded
    file: str
    environ: Mapping[str, str]
    tailchat: TailchatCalls
    dialer: Dialer
    clock: Callable[[], float]
    of_gate: running.Running = running.Running()


def tailchat_checks(around: Surroundings) -> Iterator[Check]:
    """Yield what is asked of Tailchat."""
    settings, calls = around.loaded.settings, around.tailchat
    yield Check(REACHED, partial(sign_in.sign_in, settings, calls.sign_in))
    yield Check(sign_in.PEOPLE, partial(sign_in.people, settings, calls.inquiry))
    yield Check(sign_in.REGISTRATION, partial(sign_in.registration, calls.registration))
    yield Check(groups.KEY, partial(groups.key, calls.api, around.clock()))
    asked = partial(groups.groups, settings, calls.api, calls.bot, calls.panel)
    yield Check(groups.GROUPS, asked)


def network_checks(around: Surroundings) -> Iterator[Check]:
    """Yield what is asked over the network beside Tailchat's own API."""
    settings, now = around.loaded.settings, around.clock()
    yield from names.name_checks(settings, around.dialer.names)
    resolver = NamesResolver(around.dialer.names)
    yield Check(edge.PUBLIC_URL, partial(edge.edge, settings, resolver, now))
    yield Check(certificates.CERTIFICATE, partial(certificates.tailchat, settings, resolver, now))
    yield from tools.tool_checks(settings, around.dialer, now)


def local_checks(around: Surroundings) -> Iterator[Check]:
    """Yield what is asked of this machine, and of the gate that runs on it.

    The store comes last: it is read as its owner, which changes the user of the whole process.
    """
    loaded = around.loaded
    settings, running_gate = loaded.settings, around.of_gate
    configuration = partial(machine.configuration, loaded, around.file, around.environ)
    yield Check(machine.CONFIGURATION, configuration)
    yield Check(machine.SECRETS, partial(machine.secret_files, loaded))
    yield Check(machine.START, partial(machine.start, settings))
    yield Check(running.GATE, partial(running.gate, settings, running_gate, around.file))
    limit = running_gate.descriptors
    yield Check(machine.DESCRIPTORS, partial(machine.descriptors, limit))
