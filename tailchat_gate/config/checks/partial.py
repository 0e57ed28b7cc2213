"""Tables with problems, as far as they can be read: checks between keys do not wait for them."""

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError, create_model

_Model = TypeVar("_Model", bound=BaseModel)
_Item = TypeVar("_Item")


class UnreadKeyError(Exception):
    """A check asks for a key that has a problem of its own, so it cannot judge."""


class _Partial(BaseModel):
    """A table whose wrong keys were taken away: to ask for one raises UnreadKeyError."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - of a key that is there
        if name in type(self).model_fields:
            raise UnreadKeyError(name)
        raise AttributeError(name)


def partial(model: type[_Model], value: object, refused: ValidationError) -> _Model | None:
    """Return a refused table without the keys that are wrong; None where it is no table.

    It is for checks alone, never for use.
    """
    if not isinstance(value, dict):
        return None
    fields = model.model_fields
    wrong: set[str] = set()
    #: Keys for which no value is needed: not even their default, which may be wrong beside others.
    free: set[str] = set()
    while True:
        found = _keys_of(refused)
        free |= (found & wrong) | {
            key for key in found & fields.keys() if fields[key].is_required()
        }
        wrong |= found
        try:
            made = _freed(model, free).model_validate(
                {key: kept for key, kept in value.items() if key not in wrong}
            )
        except ValidationError as again:
            if _keys_of(again) <= free:
                return None
            # Only beside the default of a key that is wrong, so it is not listed.
            refused = again
            continue
        for key in wrong & made.__dict__.keys():
            del made.__dict__[key]
        return cast("_Model", made)


def _keys_of(refused: ValidationError) -> set[str]:
    return {str(error["loc"][0]) for error in refused.errors() if error["loc"]}


def _freed(model: type[BaseModel], keys: Iterable[str]) -> type[BaseModel]:
    """Return a model that does not ask for some keys."""
    free: dict[str, Any] = dict.fromkeys(keys, (Any, None))
    return create_model(f"Partial{model.__name__}", __base__=(_Partial, model), **free)


def judged(found: Iterable[_Item]) -> Iterator[_Item]:
    """Yield what a check finds, until it asks for a key that cannot be read."""
    try:
        yield from found
    except UnreadKeyError:
        return


def readable(table: BaseModel | None, key: str, default: object = None) -> Any:  # noqa: ANN401
    """Return the value of a key, `default` where it cannot be read."""
    try:
        return default if table is None else getattr(table, key)
    except UnreadKeyError:
        return default
