"""A number of processes, or the word that leaves it to the gate."""

from dataclasses import dataclass
from typing import Final

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

AUTO: Final = "auto"


@dataclass(frozen=True, slots=True)
class WholeOrAuto:
    """Marks a whole number from 1 to `high`, or "auto"."""

    high: int

    def read(self, value: object) -> int | str:
        """Check the bounds of a number; raises ValueError."""
        if value != AUTO and (type(value) is not int or not 1 <= value <= self.high):
            raise ValueError(f'a whole number from 1 to {self.high}, or "{AUTO}"')
        return value

    def __get_pydantic_core_schema__(
        self, _source: object, _handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(
        self, _schema: CoreSchema, _handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        number = {"type": "integer", "minimum": 1, "maximum": self.high}
        return {"anyOf": [number, {"const": AUTO}]}
