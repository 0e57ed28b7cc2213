"""The readable keys of tables with problems, so that checks between keys can run at once."""

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError, create_model

_Model = TypeVar("_Model", bound=BaseModel)
_Item = TypeVar("_Item")


class UnreadKeyError(Exception):
    """A check reads a key that has a problem of its own, so the check cannot decide."""


class _Partial(BaseModel):
    """A table without its invalid keys: reading one of them raises UnreadKeyError."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - of a key of the model
        if name in type(self).model_fields:
            raise UnreadKeyError(name)
        raise AttributeError(name)


def partial(model: type[_Model], value: object, refused: ValidationError) -> _Model | None:
    """Return a refused table without its invalid keys; None if the value is not a table.

    Only for checks, never for serving.
    """
    if not isinstance(value, dict):
        return None
    fields = model.model_fields
    wrong: set[str] = set()
    #: Keys that need no value, not even their default, which may conflict with other keys.
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
            # It conflicts only with the default of an invalid key, so it is not listed.
            refused = again
            continue
        for key in wrong & made.__dict__.keys():
            del made.__dict__[key]
        return cast("_Model", made)


def _keys_of(refused: ValidationError) -> set[str]:
    return {str(error["loc"][0]) for error in refused.errors() if error["loc"]}


def _freed(model: type[BaseModel], keys: Iterable[str]) -> type[BaseModel]:
    """Return a model that does not require some keys."""
    free: dict[str, Any] = dict.fromkeys(keys, (Any, None))
    return create_model(f"Partial{model.__name__}", __base__=(_Partial, model), **free)


def judged(found: Iterable[_Item]) -> Iterator[_Item]:
    """Yield what a check finds, until it reads a key that has a problem."""
    try:
        yield from found
    except UnreadKeyError:
        return


def readable(table: BaseModel | None, key: str, default: object = None) -> Any:  # noqa: ANN401
    """Return the value of a key, or `default` if it cannot be read."""
    try:
        return default if table is None else getattr(table, key)
    except UnreadKeyError:
        return default
