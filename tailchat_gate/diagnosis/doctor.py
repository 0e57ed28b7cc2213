"""Lists all checks, in the order in which `doctor` prints their statements."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

from tailchat_gate.config.load import Loaded
from tailchat_gate.diagnosis import (
    certificates,
    edge,
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
    """The parts that call Tailchat, over one set of connections."""

    sign_in: SignInCheck
    api: TailchatApi
    bot: Bot
    inquiry: Inquiry
    registration: RegistrationCheck
    panel: Panel


class SetUp(NamedTuple):
    """What the checks need; `file` names the configuration, `clock` gives Unix seconds."""

    loaded: Loaded
    file: str
    environ: Mapping[str, str]
    tailchat: TailchatCalls
    dialer: Dialer
    clock: Callable[[], float]


def tailchat_checks(set_up: SetUp) -> Iterator[Check]:
    """Yield the checks that ask Tailchat's API."""
    settings, calls = set_up.loaded.settings, set_up.tailchat
    names = set_up.dialer.names
    yield Check(REACHED, partial(sign_in.sign_in, settings, calls.sign_in, names))
    yield Check(sign_in.PEOPLE, partial(sign_in.people, settings, calls.inquiry))
    yield Check(sign_in.REGISTRATION, partial(sign_in.registration, calls.registration))
    yield Check(sign_in.KEY, partial(sign_in.key, calls.api, set_up.clock()))
    check = partial(sign_in.groups, settings, calls.api, calls.bot, calls.panel)
    yield Check(sign_in.GROUPS, check)


def network_checks(set_up: SetUp) -> Iterator[Check]:
    """Yield the other checks over the network: names, certificates, the edge and the tools."""
    settings, now = set_up.loaded.settings, set_up.clock()
    known = set_up.dialer.names
    yield from names.name_checks(settings, known)
    yield Check(certificates.CERTIFICATE, partial(certificates.of_gate, settings, now))
    yield Check(edge.PUBLIC_URL, partial(edge.edge, settings, known, now))
    resolver = NamesResolver(known)
    yield Check(certificates.CERTIFICATE, partial(certificates.tailchat, settings, resolver, now))
    yield from tools.tool_checks(settings, set_up.dialer, now)


def local_checks(set_up: SetUp, running_gate: running.Running) -> Iterator[Check]:
    """Yield the checks of this machine and of the answer of the running gate.

    The store is not among them: it is read as its owner, which changes the user of the whole
    process, so its check runs alone.
    """
    loaded = set_up.loaded
    settings = loaded.settings
    configuration = partial(machine.configuration, loaded, set_up.file, set_up.environ)
    yield Check(machine.CONFIGURATION, configuration)
    yield Check(machine.SECRETS, partial(machine.secret_files, loaded))
    yield Check(machine.START, partial(machine.start, settings))
    gate = partial(running.gate, settings.server.admin_listen, running_gate, set_up.file)
    yield Check(running.GATE, gate)
    yield Check(machine.DESCRIPTORS, partial(machine.descriptors, running_gate.descriptors))
