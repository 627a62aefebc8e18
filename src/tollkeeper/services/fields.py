"""What texts, codes, numbers and amounts may look like, whoever gives them: API or command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from tollkeeper.core.money import LIMIT, ULP, ZERO
from tollkeeper.errors import InvalidInput

CODE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
"""Codes stand in addresses, file names and log lines: plain letters, digits and three marks."""

TEXT_PATTERN = r"^[^\x00-\x1f\x7f-\x9f]*[^\x00-\x20\x7f-\xa0][^\x00-\x1f\x7f-\x9f]*$"
"""One line with something to read in it; control characters break logs, and PostgreSQL refuses NUL."""

ZONE_PATTERN = r"^[A-Za-z][A-Za-z0-9_+-]{0,31}(/[A-Za-z0-9_+-]{1,31}){0,2}$"

NAME_MAX = 200
REASON_MAX = 500
INTEGER_MAX = 2**31 - 1

_CODE = re.compile(CODE_PATTERN[1:-1])
_TEXT = re.compile(TEXT_PATTERN[1:-1])
_ZONE = re.compile(ZONE_PATTERN[1:-1])


def check_code(value: str, *, field: str = "code") -> str:
    """Return a code that is well formed.

    Raises:
        InvalidInput: empty, longer than 63, or other characters than letters, digits, . _ -
    """
    if _CODE.fullmatch(value) is None:
        raise InvalidInput(
            f"{field}: a code has 1 to 63 letters, digits, dots, underscores or hyphens and "
            "begins with a letter or digit",
            code="invalid_code",
            field=field,
        )
    return value


def check_text(value: str, *, field: str, longest: int = NAME_MAX) -> str:
    """Return a line of text that is not blank.

    Raises:
        InvalidInput: blank, longer than ``longest`` characters, with control characters, or not
            encodable (half of a surrogate pair).
    """
    if not value or len(value) > longest or _TEXT.fullmatch(value) is None:
        raise InvalidInput(
            f"{field}: give 1 to {longest} characters on one line, not only spaces", field=field
        )
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidInput(f"{field}: this is not valid Unicode text", field=field) from None
    return value


def check_amount(value: Decimal, *, field: str = "amount", zero: bool = False) -> Decimal:
    """Return an amount that wallets can keep: positive, or zero where that is allowed.

    Raises:
        InvalidInput: negative, not finite, 10^15 or more, or with more than 8 decimals.
    """
    if not value.is_finite() or abs(value) >= LIMIT or value != value.quantize(ULP):
        raise InvalidInput(
            f"{field}: an amount is below 10^15 and has at most 8 decimals",
            code="invalid_amount",
            field=field,
        )
    if value < ZERO or (value == ZERO and not zero):
        least = "zero or more" if zero else "more than zero"
        raise InvalidInput(f"{field}: it must be {least}", code="invalid_amount", field=field)
    return value


def check_integer(
    value: int | None, *, field: str, least: int = 0, most: int = INTEGER_MAX
) -> int | None:
    """Return a whole number within bounds; None passes.

    Raises:
        InvalidInput: outside of the bounds.
    """
    if value is not None and not least <= value <= most:
        raise InvalidInput(f"{field}: it must be from {least} to {most}", field=field)
    return value


def check_choice(value: str, choices: tuple[str, ...], *, field: str) -> str:
    """Return one of the choices.

    Raises:
        InvalidInput: anything else.
    """
    if value not in choices:
        raise InvalidInput(f"{field}: choose one of {', '.join(choices)}", field=field)
    return value


def check_timezone(value: str, *, field: str = "timezone") -> str:
    """Return the name of a time zone that this machine knows.

    Raises:
        InvalidInput: no such zone.
    """
    if value == "UTC":
        return value
    try:
        if _ZONE.fullmatch(value) is not None:
            ZoneInfo(value)
            return value
    except (LookupError, ValueError, OSError):
        pass
    raise InvalidInput(
        f'{field}: give a time zone such as "Europe/London"', code="unknown_timezone", field=field
    )


def check_moment(value: datetime, *, field: str) -> datetime:
    """Return a moment in UTC, in a year that records can have.

    Raises:
        InvalidInput: without a time zone, before 2000 or after 2199.
    """
    if value.tzinfo is None:
        raise InvalidInput(f"{field}: give the time zone too, such as Z for UTC", field=field)
    # The year is looked at first: at the ends of the calendar no conversion is possible.
    if 1999 < value.year < 2200 and 1999 < (moment := value.astimezone(UTC)).year < 2200:
        return moment
    raise InvalidInput(f"{field}: it must be between the years 2000 and 2199", field=field)
