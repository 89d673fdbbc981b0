"""What all configs share: frozen, strict, and errors that name the field."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

_LISTED, _SHOWN = 6, 200  # errors that are told, and characters of a value

Width = Annotated[PositiveInt, Field(le=1024)]  # channels of a network to compare with
Count = Annotated[PositiveInt, Field(le=1024)]  # of its blocks


class Config(BaseModel):
    """Base of all configs: frozen, strict about types, no unknown fields, JSON in and out."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True)


def explain(error: ValidationError) -> str:
    """One line for what pydantic found: `field: what is wrong (value)`, joined by semicolons; of much, the first."""
    found = error.errors(include_url=False, include_context=False)
    listed = [
        f"{'.'.join(str(part) for part in one['loc'])[:_SHOWN] or 'config'}: {one['msg']} (got {_shown(one['input'])})"
        for one in found[:_LISTED]
    ]
    return "; ".join(listed) + (f"; and {len(found) - _LISTED} more" if len(found) > _LISTED else "")


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of thousands of digits
        return "a number of too many digits"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
