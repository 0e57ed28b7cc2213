"""The further methods that a tool may take a request for, whatever its request line says."""

import re
from typing import Final
from urllib.parse import unquote_plus

from tailchat_gate.field_names import fold
from tailchat_gate.request.fields import FieldSection

#: Fields by which frameworks let a POST stand for another method.
_FIELDS: Final = frozenset((b"x-http-method", b"x-http-method-override", b"x-method-override"))
#: The parameter that does the same, each of its letters plain or escaped. PHP drops spaces before
#: a name, takes a dot or a space in it for "_" and ends it at a NUL.
_PARAMETER: Final = re.compile(
    r"(?i)[?&;](?:\+|%20)*(?:[_.]|%5f|%2e)"
    + "".join(f"(?:{one}|%{ord(one):02x}|%{ord(one.upper()):02x})" for one in "method")
    # What is taken for a name is passed over even where no "=" follows: looked at again from each
    # ";" in it, a query of such names would take time that grows with its square.
    + "(?:%00[^=&]*+)?(?:=([^&;]*+))?"
)


def claimed_methods(fields: FieldSection, query: str) -> frozenset[str]:
    """Return the methods, in capitals, that a request claims beside the one of its request line.

    `query` begins with "?" or is "". Some tools take a method from a form's field as well, which
    nobody sees without reading bodies.
    """
    claimed = fields.claimed
    if claimed is None:
        claimed = fields.claimed = _in_fields(fields)
    found = [match[1] for match in _PARAMETER.finditer(query) if match[1] is not None]
    return claimed.union(unquote_plus(value).upper() for value in found) if found else claimed


def _in_fields(fields: FieldSection) -> frozenset[str]:
    values = [value.decode("latin-1") for name, value in fields.pairs if fold(name) in _FIELDS]
    methods = (method.strip().upper() for value in values for method in value.split(","))
    return frozenset(filter(None, methods))
