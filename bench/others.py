"""The works beside the plain GET of a visitor who is known: what each first and last one costs."""

from functools import partial
from http import HTTPStatus

from gate import ASKED
from measure import Ask, Sample
from peers import Stage
from roster import OAUTH2_PROXY, PLAIN
from scene import BODY
from sealed import PEOPLE
from sealing import seal
from work import Entry, Family, Options, Work, load, loaded, loads

FAMILY = Family("other", "other requests with twelve header fields that differ", "request")
QUESTION = (
    "X-Forwarded-For: 127.0.0.1",
    "X-Forwarded-Host: 127.0.0.1",
    "X-Forwarded-Proto: http",
    "X-Forwarded-Method: GET",
    "X-Forwarded-Uri: /",
)
"""What a proxy says of the request that it asks about, as deploy/nginx has it."""

_ALL = "path,ids,referer,validator,cookie"
_POST = 1000
_FETCH = ("Accept: application/json, text/plain, */*", "Sec-Fetch-Mode: cors")
_EVERYBODY = (*PLAIN, OAUTH2_PROXY, "gate")
# More first requests than a gate answers in a second.
_FIRST = 20_000
# People who have many sessions, as those do who open one tool after the other.
_KNOWN = 100

ROWS = {
    "first-request": "first request of a connection",
    "post": "POST of 1 kB",
    "unchanged": "GET that the tool answers with 304",
    "denied": "fetch without a session: 401",
    "question": "/oauth2/auth about another request each time",
    "new-session": "first request of a new session",
    "new-person": "first request of a person whom the gate does not know",
}
"""Name and title.

A plain proxy does the same with the same request: it forwards the fetch and the question to the
tool, which answers them with 401 and 202, and the session as any other cookie.
"""


def others() -> tuple[Work, ...]:
    """Return a work for each row."""
    denied = Ask(
        "/denied",
        headers=_FETCH,
        session=False,
        status=HTTPStatus.UNAUTHORIZED.value,
        differs=_ALL,
    )
    entries = {
        "first-request": loads(_EVERYBODY, Ask("/page", answer=BODY, close=True, differs=_ALL)),
        "post": loads(_EVERYBODY, Ask("/page", answer=BODY, post=_POST, differs=_ALL)),
        "unchanged": loads(
            _EVERYBODY,
            Ask(
                "/unchanged",
                status=HTTPStatus.NOT_MODIFIED.value,
                differs="path,ids,referer,cookie",
            ),
        ),
        "denied": loads(_EVERYBODY, denied),
        "question": _questions(),
        "new-session": _of_sessions(_KNOWN),
        "new-person": _of_sessions(PEOPLE),
    }
    return tuple(
        Work(name, title, "request", entries[name], family=FAMILY, block=FAMILY.name)
        for name, title in ROWS.items()
    )


def _questions() -> tuple[Entry, ...]:
    ask = Ask(
        "/oauth2/auth",
        headers=QUESTION,
        status=HTTPStatus.ACCEPTED.value,
        differs="original,ids,referer,validator,cookie",
    )
    peers = {name: name for name in (*PLAIN, OAUTH2_PROXY)} | {"gate": ASKED}
    return tuple(Entry(name, name, partial(load, peer, "web", ask)) for name, peer in peers.items())


def _of_sessions(people: int) -> tuple[Entry, ...]:
    return tuple(
        Entry(name, name, partial(_new_sessions, name, people)) for name in (*PLAIN, "gate")
    )


def _new_sessions(name: str, people: int, stage: Stage, options: Options) -> Sample:
    """Each request with a session that its peer has not seen before, of so many people.

    The sessions of a turn are the same for every peer; a plain proxy, which knows none, may get
    one twice.
    """
    gate = stage.peer("gate")
    cookies = stage.scene.directory / f"new-sessions-{people}-{options.turn}"
    count = 2 * options.count or _FIRST * options.seconds
    if not cookies.exists():
        for old in cookies.parent.glob("new-sessions-*"):
            old.unlink()
        seal(stage.scene, gate.origin, cookies, count, people)
    own = name == "gate"
    ask = Ask(
        "/page",
        answer=BODY,
        session=False,
        differs=_ALL,
        cookies=cookies,
        visitors=min(count, people) if own else 0,
        once=own,
    )
    return loaded(stage.peer(name), ask, options)
