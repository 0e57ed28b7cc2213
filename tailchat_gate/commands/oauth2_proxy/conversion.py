"""`import-oauth2-proxy`: turns a configuration of oauth2-proxy into one of the gate."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import click

from tailchat_gate.commands.common import EXIT_USAGE, fail, toml
from tailchat_gate.commands.oauth2_proxy.options import OPTIONS
from tailchat_gate.config.problems import did_you_mean, shown
from tailchat_gate.config.values.quantities import format_duration

_LARGEST: Final = 1 << 20
_EVERYWHERE: Final = "0.0.0.0"  # noqa: S104 - what a Go address without a host means
_BEGINNING: Final = """\
# Made from a configuration of oauth2-proxy. Fill in client_id, the App ID in Tailchat, and write
# the two secret files: the App Secret, and what `tailchat-gate secret` prints for the session."""
_FOLDER: Final = "/etc/tailchat-gate"
#: Options that name people: with one of them the imported routes let nobody in until the people
#: are listed by their IDs.
_NAMES_PEOPLE: Final = frozenset(name for name, option in OPTIONS.items() if option.key == "groups")
#: A Go duration, such as 168h0m0s or 1h30m.
_DURATION: Final = re.compile(r"(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s)?")
#: An expression of skip_auth_routes that only matches the beginning of a path.
_PREFIX: Final = re.compile(r"\^?((?:/(?!/)|[A-Za-z0-9_~-]|\\\.)+)(?:\.\*)?(\$)?")
_METHOD_AND_PATH: Final = re.compile(r"\A(?:([A-Za-z]+)(!)?=)?(.*)", re.DOTALL)
#: The headers that oauth2-proxy sends tools unless pass_user_headers is false.
_USER_FIELDS: Final = {
    "X-Forwarded-User": "{sub}",
    "X-Forwarded-Preferred-Username": "{nickname}",
    "X-Forwarded-Email": "{email}",
    "X-Forwarded-Groups": "{groups}",
}

Table = dict[str, Any]


@click.command(name="import-oauth2-proxy")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--tailchat", default="https://tailchat.example.com", help="Address of Tailchat.")
@click.option("--public-url", help="Where people reach the gate; left out, that of redirect_url.")
def import_oauth2_proxy(*, file: Path, tailchat: str, public_url: str | None) -> None:
    """Print a configuration that does what oauth2-proxy's FILE does.

    FILE is the file of oauth2-proxy's --config, in TOML. Standard error lists the options without
    a counterpart, and the paths that need no sign-in. List the people again whom oauth2-proxy knew
    by their e-mail addresses: until then nobody enters. Secrets are not taken over.
    """
    old = _read(file)
    import_ = Import(old, tailchat, public_url or _origin(old.get("redirect_url")))
    click.echo(import_.text(), nl=False)
    for remark in import_.remarks:
        click.echo(remark, err=True)


def _read(file: Path) -> Table:
    try:
        with file.open("rb") as opened:
            content = opened.read(_LARGEST + 1)
    except OSError as error:
        fail(f"{file}: {error.strerror}", EXIT_USAGE)
    problem = "larger than 1 MiB"
    if len(content) <= _LARGEST:
        try:
            return tomllib.loads(content.decode())
        except UnicodeDecodeError:
            problem = "not UTF-8 text"
        except tomllib.TOMLDecodeError as error:
            # The error's text has a position, and no content of the file.
            problem = f"{error}; the YAML of --alpha-config is not read"
    return fail(f"{file}: {problem}", EXIT_USAGE)


def _origin(redirect_url: object) -> str:
    parts = _split(redirect_url)
    if parts is None or not parts.netloc:
        fail(
            "redirect_url does not say where people reach oauth2-proxy: give --public-url, such as "
            "https://gate.example.com",
            EXIT_USAGE,
        )
    return f"{parts.scheme}://{parts.netloc}"


class Import:
    """The gate's tables for an oauth2-proxy configuration, and remarks on the differences."""

    def __init__(self, old: Mapping[str, Any], tailchat: str, public_url: str) -> None:
        self._old = old
        self.remarks: list[str] = []
        self._remark_options()
        self.server: Final = dict(self._server(public_url))
        self.tailchat: Final[Table] = {
            "api_url": tailchat,
            "client_id": "tc_...",
            "client_secret_file": f"{_FOLDER}/client_secret",
        }
        self.session: Final = {"secret_file": f"{_FOLDER}/session_secret", **self._session()}
        # An unknown option may have named people, too.
        names_people = bool(_NAMES_PEOPLE & old.keys() or old.keys() - OPTIONS.keys())
        self._members = names_people or self._list("email_domains") != ["*"]
        self.routes: Final = [*self._routes()]
        self.routes.extend(self._public_routes())

    def text(self) -> str:
        """Return the configuration in TOML."""
        parts = [
            _BEGINNING,
            _table("[server]", self.server),
            _table("[tailchat]", self.tailchat),
            _table("[session]", self.session),
        ]
        if self._old.get("request_logging") is False:
            parts.append(_table("[log]", {"access": False}))
        if self._old.get("skip_provider_button") is False:
            parts.append(_table("[pages]", {"sign_in": "page"}))
        if self._members:
            parts.append(
                "# Who may enter, by ID: https://.../oauth2/userinfo shows a person their own.\n"
                '[groups]\nmembers = []\n#members = ["660000000000000000000001"]'
            )
        parts.extend(_table("[[route]]", route) for route in self.routes)
        return "\n\n".join(parts) + "\n"

    # The remarks.

    def _remark_options(self) -> None:
        for name in self._old:
            option = OPTIONS.get(name)
            if option is None:
                near = did_you_mean(name, OPTIONS)
                self._say(name, f"no option of oauth2-proxy 7.15 that the gate knows{near}")
            elif option.remark:
                where = f" ({option.key})" if option.key else ""
                self._say(name, f"{option.remark}{where}")

    def _say(self, name: str, remark: str) -> None:
        self.remarks.append(f"{name}: {remark}")

    # The tables.

    def _server(self, public_url: str) -> Iterator[tuple[str, Any]]:
        yield "public_url", public_url
        old = self._old
        if listen := _address(old.get("http_address")):
            yield "listen", listen
        certificate, key = old.get("tls_cert_file"), old.get("tls_key_file")
        if certificate and key:
            yield "https_listen", [_address(old.get("https_address", ":443"))]
            yield "tls", [{"certificate": certificate, "key": key}]
        if prefix := old.get("proxy_prefix"):
            yield "prefix", prefix
        if proxies := self._list("trusted_proxy_ips"):
            if old.get("reverse_proxy") is True:
                yield "trusted_proxies", proxies
            else:
                remark = "left out: without reverse_proxy oauth2-proxy believes no X-Forwarded-*"
                self._say("trusted_proxy_ips", remark)
        if metrics := _address(old.get("metrics_address")):
            # On loopback, because clients can also read refusals there and order a reload.
            yield "admin_listen", f"127.0.0.1:{metrics.rpartition(':')[2]}"

    def _session(self) -> Table:
        session: Table = {}
        for name, key in (("cookie_expire", "lifetime"), ("cookie_refresh", "recheck")):
            seconds = self._seconds(name)
            if seconds:
                session[key] = format_duration(seconds)
        return session

    def _routes(self) -> Iterator[Table]:
        seen: set[str] = set()
        for number, upstream in enumerate(self._list("upstreams"), 1):
            tool = _upstream(upstream)
            if tool is None:
                self._say("upstreams", f"{shown(upstream)} is no address that the gate can read")
            elif tool[0] in seen:
                self._say("upstreams", f"{shown(upstream)}: another has the path {tool[0]}")
            else:
                seen.add(tool[0])
                yield self._route(f"tool-{number}", *tool)
        if not seen:
            self._say("upstreams", "none: add a route, here is one that answers 404")
            yield self._route("tool", "/", "static:404")

    def _route(self, name: str, path: str, address: str) -> Table:
        old = self._old
        route: Table = {"name": name, "path": path, "upstream": address}
        route["allow"] = ["group:members"] if self._members else ["signed-in"]
        if not address.startswith(("http", "unix")):
            return route
        if old.get("pass_host_header") is False and address.startswith("http"):
            route["upstream_host"] = urlsplit(address).netloc
        if seconds := self._seconds("upstream_timeout"):
            route["response_timeout"] = format_duration(seconds)
        if old.get("proxy_websockets") is False:
            route["upgrades"] = []
        if old.get("disable_keep_alives") is True:
            route["upstream_keepalive"] = False
        if old.get("skip_auth_preflight") is True:
            route["preflight"] = True
        if old.get("pass_user_headers", True) is True:
            route["headers"] = _USER_FIELDS
        return route

    def _public_routes(self) -> Iterator[Table]:
        tools = list(self.routes)
        #: By path: the methods that need no session, None for all of them.
        public: dict[str, set[str] | None] = {}
        for name in ("skip_auth_regex", "skip_auth_routes"):
            for expression in self._list(name):
                opening = self._public_path(name, expression)
                if opening is None:
                    continue
                path, method = opening
                known = public.setdefault(path, set())
                public[path] = None if known is None or not method else known | {method}
        for number, (path, methods) in enumerate(sorted(public.items()), 1):
            yield from _opened(f"public-{number}", path, methods, tools)

    def _public_path(self, name: str, expression: str) -> tuple[str, str] | None:
        """Return the path and the method ("" for any) that an expression opens; None if none can.

        A route opens a whole folder; a remark says where the expression opened less or more.
        """
        method, negated, path = "", "", expression
        if name == "skip_auth_routes":
            method, negated, path = _METHOD_AND_PATH.findall(expression)[0]
        literal = None if negated else _PREFIX.fullmatch(path)
        if literal is None or not literal[1].startswith("/"):
            self._say(name, f"{expression} is not the beginning of a path: add a route for it")
            return None
        path = _folder(literal[1].replace("\\.", "."))
        if path == "/" or literal[2]:
            self._say(
                name, f"{expression} is not taken over: a public route opens all below {path}"
            )
            return None
        self._say(name, f"{expression} opens {path} and everything below it, and nothing else")
        return path, method.upper()

    # Values.

    def _list(self, name: str) -> list[str]:
        option = self._old.get(name, [])
        values = option if isinstance(option, list) else [option]
        return [value for value in values if isinstance(value, str)]

    def _seconds(self, name: str) -> int:
        """Return a Go duration in whole seconds, 0 for none; add a remark if it cannot be read."""
        text = self._old.get(name)
        if text in (None, "", "0", 0):
            return 0
        match = _DURATION.fullmatch(text) if isinstance(text, str) else None
        seconds = 0
        if match is not None:
            hours, minutes, rest = (int(part or 0) for part in match.groups())
            seconds = hours * 3600 + minutes * 60 + rest
        if not seconds:
            self._say(name, "a duration that is not in whole seconds, such as 168h, is left out")
        return seconds


def _split(text: object) -> SplitResult | None:
    try:
        return urlsplit(text) if isinstance(text, str) else None
    except ValueError:
        return None


def _address(text: object) -> str:
    """Translate an address to listen on, such as http://:4180 or unix:///run/x; "" for none."""
    if not isinstance(text, str) or not text:
        return ""
    scheme, separator, rest = text.rpartition("://")
    if scheme == "unix":
        return f"unix:{rest.partition(',')[0]}"
    rest = rest if separator else text
    return f"{_EVERYWHERE}{rest}" if rest.startswith(":") else rest


def _upstream(text: str) -> tuple[str, str] | None:
    """Return the path and the upstream of a route; None for an address that cannot be read."""
    parts = _split(text)
    match parts.scheme if parts is not None else "", parts:
        case "http" | "https" as scheme, SplitResult(netloc=host, path=path) if host:
            # The route gets the path of the address, because the tool sees the request's path.
            return _folder(path), f"{scheme}://{host.rpartition('@')[2]}"
        case "file", SplitResult(path=path, fragment=place) if path:
            return _folder(place or path), f"file:{_folder(path)}"
        case "unix", SplitResult(path=path) if path:
            return "/", f"unix:{path}"
        case "static", SplitResult(netloc=status):
            return "/", f"static:{status if status.isdecimal() else '200'}"
    return None


def _folder(path: str) -> str:
    return path.rstrip("/") or "/"


def _opened(name: str, path: str, methods: set[str] | None, tools: list[Table]) -> Iterator[Table]:
    """Yield a public route for a path, before it one that keeps other methods as they were."""
    behind = [tool for tool in tools if _is_below(path, tool["path"])]
    if not behind:
        return
    tool = max(behind, key=lambda table: len(table["path"]))
    own = {"name", "path", "allow", "headers", "upstream"}
    same = {key: value for key, value in tool.items() if key not in own}
    opened: Table = {"name": name, "path": path}
    place = {"path": path, "upstream": _at(tool, path)}
    if methods is not None:
        opened["methods"] = sorted(methods - {"HEAD"} if "GET" in methods else methods)
        if path != tool["path"]:
            yield {**tool, "name": f"{name}-others", **place}
    yield {**opened, **place, **same, "allow": ["public"]}


def _at(tool: Table, path: str) -> str:
    """Return the upstream of a route for a path below a tool.

    A route to files serves its own path from the top of its directory, so the directory has to be
    the one of that path.
    """
    upstream: str = tool["upstream"]
    if not upstream.startswith("file:"):
        return upstream
    return _folder(upstream.rstrip("/") + path[len(tool["path"].rstrip("/")) :])


def _is_below(path: str, folder: str) -> bool:
    return folder in {"/", path} or path.startswith(f"{folder}/")


def _table(heading: str, values: Mapping[str, Any]) -> str:
    return "\n".join([heading, *(f"{key} = {toml(value)}" for key, value in values.items())])
