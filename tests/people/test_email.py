"""E-mail addresses: only verified ones reach tools, and only those that ask for them."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from gatekit import Clock, ask, make_settings, request_bytes
from recheckkit import HOSHINO, Person
from storykit import Story, story

from tailchat_gate.config.lint.settings import lint
from tailchat_gate.config.values.identifier import allow_entry
from tailchat_gate.people.facts import Facts, read_people

ADDRESS = "somebody.else@example.com"
ROUTES = [
    {"name": "tool"},
    {"name": "mail", "path": "/mail", "email": True},
    {
        "name": "template",
        "path": "/template",
        "headers": {"X-WEBAUTH-EMAIL": "{email}", "X-Id": "{sub}/{email}", "X-Own": "{sub}"},
    },
    {"name": "open", "path": "/open", "allow": ["public"], "email": True},
]

Start = Callable[..., Any]


@pytest.fixture
async def start(tmp_path: Path, clock: Clock) -> AsyncIterator[Start]:
    """Return a function that sets a scene with those routes; arguments as storykit.story."""
    async with AsyncExitStack() as stack:

        async def begin(**sections: Any) -> Story:  # noqa: ANN401 - as story
            sections = {"route": ROUTES, "server": {"trusted_proxies": ["127.0.0.1"]}, **sections}
            return await stack.enter_async_context(
                story(tmp_path / "access.log", clock, **sections)
            )

        yield begin


@pytest.fixture
async def scene(start: Start) -> Story:
    """Return a scene with those routes."""
    found = await start()
    assert isinstance(found, Story)
    return found


async def signed_in(scene: Story, *, verified: bool = True) -> Person:
    """Sign in with an address."""
    scene.tailchat.store.change(HOSHINO.sub, email=ADDRESS, email_verified=verified)
    email, password = ADDRESS, HOSHINO.password
    async with scene.visitor() as visitor:
        await visitor.sign_in(f"{scene.url}/", email, password)
        cookie = visitor.cookies(scene.url)["tailchat_gate"]
    return Person(scene, f"tailchat_gate={cookie}", scene.url.removeprefix("http://"))


def told(scene: Story, name: str) -> bytes | None:
    """Return the value of a field that the tool was told last."""
    return scene.tool.requests[-1].value(name)


async def asked_again(scene: Story) -> None:
    """Have Tailchat asked about the person, and let the next request look again."""
    await scene.gate.generation.people.confirm(HOSHINO.sub)
    scene.clock.now += 30


async def test_verified_address_reaches_the_tools_that_ask(scene: Story) -> None:
    """The route with email = true gets the field, a template its own, and no other tool any."""
    person = await signed_in(scene)

    await person.get("/mail")
    assert told(scene, "X-Tailchat-Email") == ADDRESS.encode()
    await person.get("/template")
    assert told(scene, "X-WEBAUTH-EMAIL") == ADDRESS.encode()
    assert told(scene, "X-Id") == f"{HOSHINO.sub}/{ADDRESS}".encode()
    assert told(scene, "X-Tailchat-Email") is None
    await person.get("/x")
    assert ADDRESS.encode() not in scene.tool.requests[-1].head
    answer = await person.asked_for("/mail")
    assert (answer.status, answer.value("X-Tailchat-Email")) == (202, ADDRESS)


async def test_first_request_after_a_restart_has_the_address(scene: Story) -> None:
    """A tool never sees a person of this session once without the address."""
    scene.tailchat.store.change(HOSHINO.sub, email=ADDRESS, email_verified=True)
    await ask(scene.gate.port, request_bytes("/mail", Cookie=scene.gate.cookie()))

    assert told(scene, "X-Tailchat-Email") == ADDRESS.encode()


async def test_somebody_elses_unverified_address_gets_into_no_tool(scene: Story) -> None:
    """An address that was only typed in reaches no tool, in no header, and no proxy either."""
    person = await signed_in(scene, verified=False)

    for path in ("/mail", "/template", "/x", "/open"):
        assert (await person.get(path)).status == 200
        assert ADDRESS.encode() not in scene.tool.requests[-1].head
    await person.get("/template")
    assert told(scene, "X-Id") is None
    assert told(scene, "X-Own") == HOSHINO.sub.encode()
    assert ADDRESS.encode() not in (await person.asked_for("/mail")).head


async def test_unverified_addresses_where_that_is_configured(start: Start) -> None:
    """With tailchat.unverified_email an address that was only typed in is passed on."""
    scene = await start(tailchat={"unverified_email": True})
    person = await signed_in(scene, verified=False)
    await person.get("/mail")

    assert told(scene, "X-Tailchat-Email") == ADDRESS.encode()


async def test_new_address_follows(scene: Story) -> None:
    """A change in Tailchat reaches the tool without a sign-in, and so does its loss."""
    person = await signed_in(scene)
    await person.get("/mail")
    scene.tailchat.store.change(HOSHINO.sub, email="new@example.com")
    await asked_again(scene)
    await person.get("/mail")
    assert told(scene, "X-Tailchat-Email") == b"new@example.com"

    scene.tailchat.store.change(HOSHINO.sub, email_verified=False)
    await asked_again(scene)
    await person.get("/mail")
    assert told(scene, "X-Tailchat-Email") is None


async def test_visitor_cannot_send_an_address(scene: Story) -> None:
    """The field is taken from every request, signed in or not, before the gate's own is set."""
    person = await signed_in(scene, verified=False)
    for path in ("/mail", "/open", "/x"):
        await person.get(path, X_Tailchat_Email="forged@example.com")
        assert b"forged" not in scene.tool.requests[-1].head
    await ask(scene.gate.port, request_bytes("/open", X_Tailchat_Email="forged@example.com"))
    assert b"forged" not in scene.tool.requests[-1].head


async def test_address_is_in_no_cookie_and_no_log(
    scene: Story, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the session, nor the access log, the audit log or any repr has the address."""
    with caplog.at_level(logging.DEBUG):
        person = await signed_in(scene)
        await person.get("/mail")
        log = str(await scene.gate.log())
    texts = [record.getMessage() + str(record.__dict__) for record in caplog.records]
    known = scene.gate.generation.process_state.tailchat.people.get(HOSHINO.sub)
    assert known is not None

    assert ADDRESS not in person.record.to_bytes().decode()
    assert ADDRESS not in log
    assert not [text for text in texts if ADDRESS in text]
    assert ADDRESS not in repr(known.facts)


async def test_no_address_is_kept_where_no_route_uses_it(start: Start) -> None:
    """Without a route that asks for addresses, the gate keeps none."""
    scene = await start(route=[{"name": "tool"}])
    await signed_in(scene)
    known = scene.gate.generation.process_state.tailchat.people.get(HOSHINO.sub)

    assert known is not None
    assert isinstance(known.facts, Facts)
    assert known.facts.email == ""


@pytest.mark.parametrize(
    ("email", "kept"),
    [
        ("a.b+c@example.com", True),
        ("o'neil@host", True),
        ("a@b@c.example", False),
        ("no address", False),
        ("a@example.com\r\nX-Evil: 1", False),
        ("a@example.com,b@example.com", False),
        ('"quoted"@example.com', False),
        ("长@example.com", False),
        ("Name <a@example.com>", False),
        ("@example.com", False),
        ("a" * 250 + "@b.cd", False),
        ("", False),
        (None, False),
        (7, False),
    ],
)
def test_only_plain_addresses_are_read(email: object, kept: bool) -> None:
    """What tools could read in two ways is no address."""
    record = {"_id": HOSHINO.sub, "email": email, "emailVerified": True}
    found = read_people([HOSHINO.sub], [record], api_url="https://chat.example")

    assert found is not None
    facts = found[HOSHINO.sub]
    assert isinstance(facts, Facts)
    assert facts.email == (email if kept else "")


@pytest.mark.parametrize(
    ("tailchat", "route", "told"),
    [
        (
            {"unverified_email": True},
            {"email": True},
            "and tool get it: a tool that makes or finds",
        ),
        ({"unverified_email": True}, {"headers": {"X-Mail": "{email}"}}, "Grafana, Gitea"),
        ({"unverified_email": True}, {}, "no route uses e-mail addresses"),
        ({"people_refresh": "0"}, {"email": True}, "it is off, so tool get no e-mail address"),
        ({}, {"email": True}, ""),
        ({}, {}, ""),
    ],
)
def test_risky_and_idle_settings_are_told(
    tailchat: dict[str, object], route: dict[str, object], told: str
) -> None:
    """`check` names what unverified addresses do to tools, and settings without effect."""
    settings = make_settings(
        server={"public_url": "https://gate.example.com"},
        tailchat={"people_refresh": "30s", **tailchat},
        route=[{"name": "tool", **route}],
    )
    found = lint(settings)

    assert len(found) == bool(told)
    assert told in "".join(found)


@pytest.mark.parametrize("entry", ["email:a@example.com", "a@example.com", f"sub:{ADDRESS} "])
def test_address_authorises_nothing(entry: str) -> None:
    """No list takes an address."""
    with pytest.raises(ValueError, match="sub:ID"):
        allow_entry(entry)
