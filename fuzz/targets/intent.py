"""What a request is for: a page in a browser's tab only where the client says so."""

from fuzz.target import Target
from tailchat_gate.reasons import RefusedError
from tailchat_gate.request.fields import FieldSection, split_fields
from tailchat_gate.request.intent import Intent, read_intent, wants_html

_HTML = ("text/html", "application/xhtml+xml")


def check(data: bytes) -> None:
    """Read the intent of a request: a line with its method, then its fields."""
    line, _, rest = data.partition(b"\n")
    try:
        headers = FieldSection(split_fields(rest)).headers
    except RefusedError:
        return
    method = line.decode("latin-1")
    found = read_intent(method, headers)
    names = {name.lower() for name in headers}
    assert (found is Intent.UPGRADE) == ("upgrade" in names)
    if found is Intent.NAVIGATION:
        assert method in {"GET", "HEAD"}
        assert "x-requested-with" not in names
        if "sec-fetch-mode" in names:
            assert headers["Sec-Fetch-Mode"] == "navigate"
            assert headers.get("sec-fetch-dest", "document") == "document"
        else:
            assert wants_html(headers)
    elif found is Intent.FRAME:
        assert method in {"GET", "HEAD"}
        assert headers["Sec-Fetch-Dest"] in {"iframe", "frame"}
    elif found is Intent.CALL and method in {"GET", "HEAD"} and "x-requested-with" not in names:
        assert "sec-fetch-mode" in names or not wants_html(headers)
    accept = headers.get("ACCEPT", "")
    assert wants_html({"Accept": accept}) == _prefers_html(accept[:1024])


def _prefers_html(accept: str) -> bool:
    """Tell whether no named type weighs more than the HTML types, which weigh something."""
    weights: dict[bool, list[int]] = {True: [0], False: [0]}
    for element in accept.split(","):
        kind, *parameters = [part.strip() for part in element.split(";")]
        is_html = kind.lower() in _HTML
        if is_html or "*" not in kind:
            weights[is_html].append(_thousandths(parameters))
    return max(weights[True]) > 0 and max(weights[True]) >= max(weights[False])


def _thousandths(parameters: list[str]) -> int:
    """Return the weight among the parameters of a type, a thousand for none that is in order."""
    for name, _, value in (parameter.partition("=") for parameter in parameters):
        if name.strip().lower() == "q":
            whole, dot, rest = value.strip().partition(".")
            digits = len(rest) <= 3 and set(rest) <= set("0123456789" if whole == "0" else "0")
            if whole in {"0", "1"} and digits and (dot or not rest):
                return 1000 if whole == "1" else int((rest + "000")[:3])
    return 1000


TARGET = Target(
    check,
    parsers=("request.intent", "request.fields"),
    seeds=(
        b"GET\nAccept: text/html,*/*;q=0.8\r\n",
        b"GET\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n",
        b"HEAD\nsec-fetch-mode: navigate\r\nSec-Fetch-Dest: iframe\r\n",
        b"POST\nAccept: text/html\r\n",
        b"GET\nAccept: text/html;q=0, application/xhtml+xml ; Q=0.5\r\nUpgrade: x\r\n",
        b"GET\nX-Requested-With: XMLHttpRequest\r\nAccept: text/html\r\n",
        b"GET\nAccept: application/json, text/html;q=0.01\r\n",
        b"GET\nAccept: text/html;q=0.5;q=1, image/*, text/plain;q=0.500\r\n",
    ),
    words=(
        *(b"Accept: ", b"text/html", b"application/xhtml+xml", b"*/*", b";q=0", b";Q=0.5", b", "),
        *(
            b"Sec-Fetch-Mode: navigate\r\n",
            b"Sec-Fetch-Dest: document\r\n",
            b"Upgrade: x\r\n",
            b"\n",
        ),
        *(b"X-Requested-With: x\r\n", b"\r\n", b"GET\n", b"0.000", b"TEXT/HTML"),
    ),
)
