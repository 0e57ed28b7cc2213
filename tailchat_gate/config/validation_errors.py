"""Says in an admin's words what a model refused, and keeps secrets out of it."""

from collections.abc import Mapping
from types import MappingProxyType

from pydantic import BaseModel, SecretStr
from pydantic_core import ErrorDetails

from tailchat_gate.config.keys import env_name, names_in
from tailchat_gate.config.problems import did_you_mean, kind, shown

Location = tuple[str | int, ...]

_EXPECTED: Mapping[str, str] = MappingProxyType(
    {
        "string_type": "text in quotes",
        "string_unicode": "text in UTF-8",
        "int_type": "a whole number",
        "bool_type": "true or false",
        "tuple_type": "a list",
        "dict_type": "a table",
        "mapping_type": "a table",
        "model_type": "a table",
        "too_short": "at least one entry",
    }
)
_WHOLE = frozenset({"model_type", "dict_type", "mapping_type", "tuple_type"})
#: In place of its hash stands a token itself where somebody mistook the two.
_CONFIDENTIAL = frozenset({"headers", "secrets", "client_secret", "hash"})
_LISTED = frozenset({"route", "token"})


def describe_error(
    error: ErrorDetails, at: Location, model: type[BaseModel] | None
) -> tuple[str, str]:
    """Turn one error of pydantic into what was found and what was expected.

    `at` is the full place in the file, `model` the table it lies in, None for [groups].
    """
    if error["type"] == "missing":
        return "nothing", _wanted(at, model)
    if error["type"] == "extra_forbidden":
        table = f"[[{at[0]}]]" if at[0] in _LISTED else f"[{at[0]}]"
        near = did_you_mean(str(at[-1]), names_in(str(at[0])))
        return "an unknown key", f"a key that {table} has{near}"
    return _found(error, at), _expected(error)


def _found(error: ErrorDetails, at: Location) -> str:
    value = error["input"]
    if isinstance(value, SecretStr):
        return f"a secret of {len(value.get_secret_value())} characters"
    if "[key]" in at:
        return shown(value)
    if error["type"] in _WHOLE or not _CONFIDENTIAL.isdisjoint(map(str, at)):
        return kind(value)
    return shown(value)


def _expected(error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    if error["type"] == "value_error":
        return str(context["error"])
    if error["type"] == "literal_error":
        near = ""
        words = str(context["expected"]).replace("'", '"')
        if isinstance(error["input"], str):
            near = did_you_mean(
                error["input"], words.replace(" or ", ", ").strip('"').split('", "')
            )
        return words + near
    return _EXPECTED.get(error["type"], error["msg"])


def _wanted(at: Location, model: type[BaseModel] | None) -> str:
    examples = model.model_fields[str(at[-1])].examples if model else None
    such = f"a value such as {shown(examples[0])}" if examples else "a value"
    if at[0] in _LISTED:
        return such
    return f"{such} (or {env_name((str(at[0]), str(at[-1])))} in the environment)"
