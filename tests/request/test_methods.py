"""Which further methods a request claims, in its fields and its query."""

import pytest

from tailchat_gate.request.claims import claimed_methods
from tailchat_gate.request.fields import FieldSection

HOST = (b"Host", b"gate.test")


@pytest.mark.parametrize(
    ("name", "value", "claimed"),
    [
        (b"X-HTTP-Method-Override", b"DELETE", {"DELETE"}),
        (b"x-http-method-override", b"delete", {"DELETE"}),
        (b"X_HTTP_METHOD_OVERRIDE", b"PUT", {"PUT"}),
        (b"X.Http.Method-Override", b" PATCH ", {"PATCH"}),
        (b"X-HTTP-Method", b"MERGE", {"MERGE"}),
        (b"X-Method-Override", b"PUT, DELETE", {"PUT", "DELETE"}),
        (b"X-HTTP-Method-Override", b"", set()),
        (b"X-HTTP-Method-Override", b" , ", set()),
        (b"X-HTTP-Methods", b"PUT", set()),
        (b"Method", b"PUT", set()),
    ],
)
def test_methods_in_fields(name: bytes, value: bytes, claimed: set[str]) -> None:
    """A method is claimed by each of three fields, in any spelling of its name and value."""
    section = FieldSection([HOST, (name, value)])

    assert claimed_methods(section, "") == claimed
    assert claimed_methods(section, "") is claimed_methods(section, "")


def test_methods_in_several_fields() -> None:
    """Every field counts, not only the first."""
    pairs = [HOST, (b"X-HTTP-Method", b"GET"), (b"X-HTTP-Method-Override", b"PUT")]

    assert claimed_methods(FieldSection(pairs), "") == {"GET", "PUT"}


@pytest.mark.parametrize(
    ("query", "claimed"),
    [
        ("?_method=delete", {"DELETE"}),
        ("?a=b&_method=PUT&_method=PATCH", {"PUT", "PATCH"}),
        ("?%5Fmetho%64=%50UT", {"PUT"}),
        ("?a;_METHOD=PUT", {"PUT"}),
        ("?" + "a&" * 5000 + "_method=PUT", {"PUT"}),
        ("?_%4DE%54hod=PUT", {"PUT"}),
        ("?.method=PUT&%2Emethod=PATCH", {"PUT", "PATCH"}),
        ("?+%20_method=PUT", {"PUT"}),
        ("?_method%00x=PUT", {"PUT"}),
        ("?_method%00;_method=PUT", {"PUT"}),
        ("?_method%00;a=b;_method=PUT", {"B", "PUT"}),
        ("?_method%00&_method=PUT", {"PUT"}),
        ("?_method%00;_method", set()),
        ("?_method", set()),
        ("?_method%01=PUT", set()),
        ("?-method=PUT", set()),
        ("?a_method=PUT", set()),
        ("?_methods=PUT", set()),
        ("?x=_method=PUT", set()),
        ("", set()),
    ],
)
def test_methods_in_a_query(query: str, claimed: set[str]) -> None:
    """A method is claimed by the parameter _method, in any spelling and wherever it stands."""
    assert claimed_methods(FieldSection([HOST]), query) == claimed


def test_a_query_is_not_remembered_with_the_fields() -> None:
    """Fields are repeated from request to request, queries are not."""
    section = FieldSection([HOST, (b"X-HTTP-Method", b"PUT")])

    assert claimed_methods(section, "?_method=GET") == {"GET", "PUT"}
    assert claimed_methods(section, "") == {"PUT"}
