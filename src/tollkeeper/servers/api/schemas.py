"""What all management routes have in common of what they take and give: money, codes, pages, times.

Money is a string in both directions. What comes in is read strictly: no unknown fields, no number
where a text is meant. Limits of size and form are those of the services, repeated here so that
they are documented; the services check them again.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

from fastapi import Path, Query
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from tollkeeper.core.money import parse_amount, plain
from tollkeeper.errors import InvalidInput
from tollkeeper.servers.api.problems import OWN_ERROR
from tollkeeper.services.fields import (
    CODE_PATTERN,
    INTEGER_MAX,
    NAME_MAX,
    REASON_MAX,
    TEXT_PATTERN,
)

PAGE_MAX = 1000
ID_MAX = 2**63 - 1


def own_error(error: InvalidInput) -> PydanticCustomError:
    """Our sentence as an error of a field."""
    # Braces would be read as a template.
    return PydanticCustomError(OWN_ERROR, "{sentence}", {"sentence": error.detail})


def _read_money(value: object, info: ValidationInfo) -> Decimal:
    # A default is a Decimal already; JSON has none.
    if isinstance(value, Decimal):
        return value
    try:
        return parse_amount(value, field=info.field_name or "amount")
    except InvalidInput as error:
        raise own_error(error) from error


def _money(*, pattern: str, description: str) -> WithJsonSchema:
    return WithJsonSchema(
        {
            "type": "string",
            "pattern": pattern,
            "description": description,
            "examples": ["12.50"],
        }
    )


_DIGITS = r"[0-9]{1,15}(\.[0-9]{1,8})?"
Positive = Annotated[
    Decimal,
    BeforeValidator(_read_money),
    Field(gt=0),
    _money(pattern=rf"^(?=.*[1-9]){_DIGITS}$", description="Money above zero, at most 8 decimals."),
]
NotNegative = Annotated[
    Decimal,
    BeforeValidator(_read_money),
    Field(ge=0),
    _money(pattern=rf"^{_DIGITS}$", description="Money, zero or more, at most 8 decimals."),
]
Money = Annotated[
    Decimal,
    PlainSerializer(plain, return_type=str),
    WithJsonSchema(
        {"type": "string", "pattern": r"^-?[0-9]+\.[0-9]{2,8}$", "examples": ["12.50"]},
        mode="serialization",
    ),
]
Code = Annotated[str, StringConstraints(pattern=CODE_PATTERN)]
Name = Annotated[str, StringConstraints(pattern=TEXT_PATTERN, min_length=1, max_length=NAME_MAX)]
Why = Annotated[
    str,
    StringConstraints(pattern=TEXT_PATTERN, min_length=1, max_length=REASON_MAX),
    Field(description="Why, for the audit trail."),
]
Currency = Annotated[str, StringConstraints(pattern="^[A-Z]{3}$"), Field(examples=["USD"])]
Limit = Annotated[int, Field(ge=0, le=INTEGER_MAX)]
Seconds = Annotated[int, Field(ge=1, le=86_400)]

CodePath = Annotated[Code, Path(description="Code of the party or plan.")]
CurrencyPath = Annotated[Currency, Path()]
PageLimit = Annotated[int, Query(ge=1, le=PAGE_MAX, description="Items at most.")]
AfterCode = Annotated[
    str,
    Query(
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,62})?$", description="`next` of the page before."
    ),
]
AfterNumber = Annotated[int, Query(ge=0, le=ID_MAX, description="`next` of the page before.")]


def _read_moment(value: object) -> datetime | None:
    """RFC 3339, or a day, which is its beginning in UTC."""
    if value is None or isinstance(value, datetime):
        return value
    try:
        moment = datetime.fromisoformat(str(value).strip().replace(" ", "+"))
    except ValueError as error:
        raise PydanticCustomError(
            "moment", "give a time such as 2026-03-01T00:00:00Z, or a day such as 2026-03-01"
        ) from error
    is_day = len(str(value).strip()) == 10
    return moment.replace(tzinfo=UTC) if is_day else moment


Moment = Annotated[
    datetime | None,
    BeforeValidator(_read_moment),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]


class In(BaseModel):
    """What comes in is read to the letter."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _whole_numbers(cls, given: Any) -> Any:
        """In JSON 5.0 is the whole number 5; no field of ours is a fraction."""
        if not isinstance(given, dict):
            return given
        return {
            name: int(value) if isinstance(value, float) and value.is_integer() else value
            for name, value in given.items()
        }


class Out(BaseModel):
    """What goes out is complete: every field is always there."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)


class Problem(BaseModel):
    """An error by RFC 9457. `code` is stable and for programs, `detail` one sentence for people."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    field: str | None = None
