"""Renders pages as HTML, in the visitor's language."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Final

from jinja2 import Template
from markupsafe import Markup

from tailchat_gate.pages.brand import Brand
from tailchat_gate.pages.catalogues import catalogues, with_texts
from tailchat_gate.pages.environment import make_environment
from tailchat_gate.pages.filters import clean, csp_source, initial, local
from tailchat_gate.pages.language import choose_language

#: The most entries of `detail` that a page shows.
MAX_DETAILS: Final = 8
#: The longest value of `detail` in a JSON body, in characters.
MAX_JSON_VALUE: Final = 2000

#: The directive that keeps a page out of frames (CSP Level 3, 6.4.2).
_NO_FRAMES: Final = "frame-ancestors 'none'"

#: Entries of `detail` that are for the visitor; the others are for the admin.
_FACTS: Final = frozenset(("tool", "nickname", "discriminator", "sub", "groups", "notice", "until"))


@dataclass(frozen=True, slots=True)
class _Shape:
    """The values that a page needs, and the optional ones with their defaults."""

    required: frozenset[str]
    optional: Mapping[str, object] = field(default_factory=dict)


_PAGES: Final[Mapping[str, _Shape]] = MappingProxyType(
    {
        "sign_in": _Shape(frozenset(("start_url",)), {"tool": "", "return_to": ""}),
        "sign_out": _Shape(frozenset(("csrf",)), {"nickname": "", "back_url": "/"}),
        "signed_out": _Shape(frozenset(("start_url",)), {"everywhere": False}),
        "problem": _Shape(
            frozenset(("reason", "request_id", "time", "status")),
            {
                "trace_id": "",
                "retry_url": "",
                "home_url": "",
                "retries": False,
                "detail": MappingProxyType({}),
                "elsewhere": "",
                "ask": MappingProxyType({}),
                "clears": False,
            },
        ),
        "frame": _Shape(frozenset(("reason", "open_url")), {"elsewhere": ""}),
        "request": _Shape(
            frozenset(("state", "tool", "sub", "back_url")), {"nickname": "", "discriminator": ""}
        ),
        "approvals": _Shape(frozenset(("requests", "csrf")), {"said": MappingProxyType({})}),
        "clear_cookies": _Shape(frozenset(), {"done": False}),
        "sign_in_again": _Shape(frozenset(("start_url",)), {"dated": True}),
        "embedded": _Shape(frozenset(("start_url", "arrive_url", "tab_url"))),
        "handed_over": _Shape(frozenset(("tab_url",))),
        "launcher": _Shape(
            frozenset(("tools",)),
            {
                "nickname": "",
                "waiting": (),
                "query": "",
                "filters": False,
                "decisions": 0,
                "approvals_url": "",
            },
        ),
        "onward": _Shape(frozenset(("next_url",))),
        "userinfo": _Shape(
            frozenset(("sub", "signed_in_at", "until", "csrf")),
            {
                "nickname": "",
                "discriminator": "",
                "groups": (),
                "grants": (),
                "sessions": (),
                "back_url": "/",
                "has_tool": True,
                "said": MappingProxyType({}),
            },
        ),
    }
)


class Pages:
    """The gate's pages for visitors; to render them reads no file.

    The first object in a process reads and compiles all templates and catalogues, so create it
    before the event loop starts. `contact` says who can help (free text, an e-mail address or an
    http(s) URL; "" for nobody), `prefix` is that of the gate's own paths, `public_url` its public
    origin, and `tailchat` the host at which people sign in.
    """

    #: The Content-Security-Policy field's value for every page (CSP Level 3).
    content_security_policy: str

    def __init__(
        self,
        *,
        contact: str = "",
        prefix: str = "/oauth2",
        public_url: str = "",
        tailchat: str = "",
        brand: Brand = Brand(),  # noqa: B008 - it is immutable
    ) -> None:
        package = _package()
        style = package.style + Markup(brand.style())  # noqa: S704 - contains only checked colours
        self._templates = package.templates
        own = catalogues("locales")
        self._catalogues = {
            language: with_texts(catalogue, brand.texts.get(language, {}))
            for language, catalogue in own.items()
        }
        self._shared = {
            "prefix": prefix,
            "switch": f"{prefix}/language",
            "contact": clean(contact),
            "contact_url": _contact_url(contact),
            "tailchat": tailchat,
            "site": clean(brand.name),
            "logo": brand.logo,
            "links": clean(brand.links),
            "style": style,
        }
        self._messages: Mapping[str, str] = {
            reason: entry["text"] for reason, entry in own["en"]["reason"].items()
        }
        # In some browsers form-action also blocks redirects after a form was sent, so people go to
        # Tailchat by a link, which no directive restricts.
        self.content_security_policy = "; ".join(
            (
                "default-src 'none'",
                f"style-src {csp_source(style)}",
                f"script-src {' '.join(package.scripts.values())}",
                "img-src data:",
                # The form for signing out on a tool's host continues on the public host.
                f"form-action 'self' {public_url}".rstrip(),
                "base-uri 'none'",
                _NO_FRAMES,
            )
        )

    def render(
        self, page: str, *, accept_language: str, here: object = "", **values: object
    ) -> str:
        """Return the HTML of `page` in the best language for an Accept-Language value.

        `here` is the path at which the page can be seen in another language, "" for none.
        Pages and their values (`?` = optional); all are texts unless stated:
        `sign_in`: start_url (with its `rd`), tool?, return_to?;
        `sign_out`: csrf, nickname?, back_url?;
        `signed_out`: start_url, everywhere? (whether on all devices);
        `problem`: reason (of the closed list), request_id, time (Unix seconds), status (int),
        trace_id?, retry_url?, home_url?, retries? (whether it tries again by itself), detail?
        (mapping of texts; tool, nickname, discriminator, sub, notice and until are shown openly,
        the rest under "Details"), elsewhere? ("form" where a page of another site sent one), ask?
        (of who may ask for access: tool, csrf, back), clears? (whether it offers to clear cookies);
        `clear_cookies`: done? (whether the response clears them);
        `frame`: reason, open_url (what a new tab is to show), elsewhere? ("frame" or "form" where
        a page of another site shows or sent it);
        `request`: state (open, declined or too_many), tool, sub, back_url, nickname?,
        discriminator?; `approvals`: csrf, requests (mappings with id, sub, nickname, discriminator,
        tool, reason, at in Unix seconds, own), said? (as FormOutcome.shown);
        `sign_in_again`: start_url, dated? (whether Tailchat said when the password was typed);
        `embedded`: start_url (where a new tab signs in), arrive_url (what takes the result),
        tab_url (the tool in a tab); `handed_over`: tab_url;
        `launcher`: tools (mappings with html, a result of draw_tile, and until in Unix seconds or
        0), nickname?, waiting? (mappings with title, url and at), query?, filters? (whether
        there is a box to filter by), decisions? (how many requests wait for this person, who
        decides them at approvals_url?);
        `onward`: next_url (which the browser goes to by itself);
        `userinfo`: sub, signed_in_at and until (Unix seconds), csrf, nickname?, discriminator?,
        groups? (sequence), grants? (pairs of a route's name and the Unix second of its end),
        sessions? (mappings with id, browser, signed_in_at, seen_at, is_this),
        back_url?, has_tool? (whether back_url leads to a tool), said?.
        Any text may be hostile. Raises LookupError for a page or reason that does not exist,
        TypeError for a missing or unknown value, and ValueError for a link that is neither a path
        nor an http(s) URL.
        """
        shape = _PAGES[page]
        given = frozenset(values)
        missing = shape.required - given
        unknown = given - shape.required - frozenset(shape.optional)
        if missing or unknown:
            raise TypeError(f"page {page}: missing {sorted(missing)}, unknown {sorted(unknown)}")
        full = {name: clean(value) for name, value in {**shape.optional, **values}.items()}
        for name, value in full.items():
            if name.endswith("_url") and value != "" and not _is_link(value):
                raise ValueError(f"page {page}: {name} is neither a path nor an http(s) URL")
        if "reason" in full and full["reason"] not in self._messages:
            raise LookupError(f"page {page}: no such reason")
        if page == "problem":
            full |= _split_detail(full.pop("detail"))
        catalogue = self._catalogues[choose_language(accept_language)]
        return self._templates[page].render(self._shared, **full, here=clean(here), t=catalogue)

    def headers(self, language: str, *, ancestors: Sequence[str] = ()) -> dict[str, str]:
        """Return the response fields of a page in `language`, a result of `choose_language`.

        `ancestors`: origins whose pages may show it in a frame, or "*" for any.
        """
        policy = self.content_security_policy
        return {
            **({} if ancestors else {"X-Frame-Options": "DENY"}),
            "Content-Type": "text/html; charset=utf-8",
            "Content-Language": self._catalogues[language]["tag"],
            "Content-Security-Policy": policy.replace(
                _NO_FRAMES, f"frame-ancestors {' '.join(ancestors)}"
            )
            if ancestors
            else policy,
            "X-Content-Type-Options": "nosniff",
            # The address of the callback contains a code, which must not reach a tool in Referer.
            # (Pages whose forms need an Origin relax this by themselves.)
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
            "Vary": "Accept-Language, Cookie",
        }

    def problem_json(
        self, reason: str, request_id: str, trace_id: str = "", /, **detail: str
    ) -> bytes:
        """Return the body of an error for programs: JSON in ASCII.

        Its members are error (the reason), message (one or two English sentences), request_id,
        trace_id if there is a trace, and the values of `detail` that are neither empty nor longer
        than MAX_JSON_VALUE; `detail` cannot replace the others. Raises KeyError for an unknown
        reason.
        """
        extra = {name: text for name, text in detail.items() if 0 < len(text) <= MAX_JSON_VALUE}
        body = {"error": reason, "message": self._messages[reason], "request_id": request_id}
        if trace_id:
            body["trace_id"] = trace_id
        return json.dumps(body | {n: v for n, v in extra.items() if n not in body}).encode("ascii")


def draw_tile(title: str, description: str, url: str, *, icon: str, picture: str) -> Markup:
    """Return the HTML of a tool's tile on the launcher, without the end of a grant.

    `icon` is an emoji, `picture` a data: URL; at most one of them is set.
    """
    texts = {"title": title, "description": description, "url": url, "icon": icon}
    shown = {name: clean(text) for name, text in texts.items()}
    return Markup(_package().parts.tile(**shown, picture=picture))  # noqa: S704 - it escapes


@dataclass(frozen=True, slots=True)
class _Package:
    """The templates of all pages, their macros (`parts`), the style, and CSP sources of scripts."""

    templates: Mapping[str, Template]
    parts: Any
    style: Markup
    scripts: Mapping[str, str]


@cache
def _package() -> _Package:
    """Read and compile the package's files, once, because it would take most of a reload's time."""
    package = files(__package__)
    sources = {
        entry.name: entry.read_text(encoding="utf-8")
        for entry in package.joinpath("templates").iterdir()
        if entry.is_file()
    }
    style = sources.pop("style.css")
    scripts = {name: sources.pop(name) for name in sorted(sources) if name.endswith(".js")}
    own_scripts = {
        name.removesuffix(".js"): Markup(text)  # noqa: S704 - the package's own files
        for name, text in scripts.items()
    }
    environment = make_environment(sources, {"scripts": own_scripts}, initial=initial, local=local)
    for name in sources:  # those that others extend or import, too
        environment.get_template(name)
    templates = {page: environment.get_template(f"{page}.html") for page in _PAGES}
    return _Package(
        templates,
        environment.get_template("parts.html").module,
        Markup(style),  # noqa: S704 - the package's own file
        {name: csp_source(text) for name, text in scripts.items()},
    )


def _is_link(value: object) -> bool:
    text = str(value)
    if text.startswith(("https://", "http://")):
        return True
    return text.startswith("/") and not text.startswith(("//", "/\\"))


def _contact_url(contact: str) -> str:
    """Return the URL of a contact, "" for one that is no URL and no e-mail address."""
    if contact.startswith(("https://", "http://")):
        return contact
    local, at, domain = contact.partition("@")
    if at and local and domain and not any(ch in ' "<>?&@' for ch in local + domain):
        return f"mailto:{contact}"
    return ""


def _split_detail(detail: object) -> dict[str, object]:
    """Split details into those for the visitor (`facts`) and those for the admin (`extra`)."""
    entries = dict(detail) if isinstance(detail, Mapping) else {}
    extra = [(name, text) for name, text in entries.items() if name not in _FACTS and text]
    facts = {name: entries.get(name) or "" for name in _FACTS}
    return {"facts": facts, "extra": extra[:MAX_DETAILS]}
