"""What all configs share: frozen, strict, and errors that name the field."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

Width = Annotated[PositiveInt, Field(le=1024)]  # channels of a network to compare with
Count = Annotated[PositiveInt, Field(le=1024)]  # of its blocks


class Config(BaseModel):
    """Base of all configs: frozen, strict about types, no unknown fields, JSON in and out."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True)


def explain(error: ValidationError) -> str:
    """One line for all that pydantic found: `field: what is wrong (value)`, joined by semicolons."""
    return "; ".join(
        f"{'.'.join(str(part) for part in found['loc']) or 'config'}: {found['msg']} (got {found['input']!r})"
        for found in error.errors(include_url=False, include_context=False)
    )
