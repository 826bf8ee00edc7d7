"""What every section of the configuration is made of: typed, frozen fields with their meaning, unit and source."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

_AS_DEFAULT: Any = object()


def option(
    default: Any, meaning: str, unit: str = "", source: str = "", before: Any = _AS_DEFAULT, **limits: Any
) -> Any:
    """A field with its meaning, unit and source in the paper (or "code", "ours").

    `before`: for a key added after version 0.1.0, or one whose default has changed, the value of what the program did until
    then, as JSON has it. Runs with that value keep their hash (`remctl.config.hashing`).
    """
    extra = {"unit": unit, "source": source} | ({} if before is _AS_DEFAULT else {"before": before})
    return Field(default, description=meaning, json_schema_extra=extra, **limits)


def required(meaning: str, unit: str = "", source: str = "", **limits: Any) -> Any:
    """As `option`, without a default of its own: the section that holds it gives one."""
    return option(..., meaning, unit, source, **limits)


class Section(BaseModel):
    """Frozen, unknown keys refused, numbers finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __hash__(self) -> int:
        """Without mappings, which have none: equal sections have equal ones."""
        return hash(tuple(value for value in self.__dict__.values() if not isinstance(value, dict)))

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        expected = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and expected in (int, float, int | None):
            raise PydanticCustomError("number_type", "Input should be a number")
        return value
