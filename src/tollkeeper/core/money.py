"""Exact money: parsing, bounds, the one rounding and its named modes.

Amounts are :class:`decimal.Decimal` with at most :data:`SCALE` decimals. No float ever
touches money: floats are refused, not converted.
"""

from __future__ import annotations

import decimal
import re
from decimal import Decimal
from enum import StrEnum

from tollkeeper.errors import InvalidInput

SCALE = 8
"""Decimals kept in wallets and entries: 10^-8 of the currency unit."""

LIMIT = Decimal(10) ** 15
"""No single amount reaches this; NUMERIC(28,8) holds sums of very many of them."""

ZERO = Decimal(0)
ULP = Decimal(1).scaleb(-SCALE)

EXACT = decimal.Context(prec=80, rounding=decimal.ROUND_HALF_EVEN)
"""Arithmetic context with far more digits than any price needs.

Prices divide by 60, or by a power of 10 or of 2 up to 2^31. A division by 60 that does not end
repeats 3s or 6s: at 80 digits it can never look like a tie, and the one later rounding is right in
every mode. The others end, after 31 more digits at most: prices of 22 digits times 10^13 units
need 66.
"""

_QUANTA = tuple(Decimal(1).scaleb(-n) for n in range(SCALE + 1))
_AMOUNT = re.compile(r"[+-]?[0-9]{1,16}(\.[0-9]{1,8})?")
_CURRENCY = re.compile(r"[A-Z]{3}")


class Rounding(StrEnum):
    """How a leg's price is rounded, once, at the end."""

    HALF_UP = "half_up"
    HALF_EVEN = "half_even"
    UP = "up"
    DOWN = "down"


_MODES = {
    Rounding.HALF_UP: decimal.ROUND_HALF_UP,
    Rounding.HALF_EVEN: decimal.ROUND_HALF_EVEN,
    Rounding.UP: decimal.ROUND_UP,
    Rounding.DOWN: decimal.ROUND_DOWN,
}


def quantum(decimals: int) -> Decimal:
    """Return the smallest step at ``decimals`` places (0 to :data:`SCALE`)."""
    return _QUANTA[decimals]


def round_money(amount: Decimal, decimals: int, mode: Rounding) -> Decimal:
    """Round ``amount`` to ``decimals`` places by ``mode``: the only rounding of a leg."""
    return amount.quantize(_QUANTA[decimals], rounding=_MODES[mode], context=EXACT)


def parse_amount(text: object, *, field: str = "amount") -> Decimal:
    """Read a plain decimal string such as ``"12.50"``.

    Raises:
        InvalidInput: not a string, not plain digits (no exponent, NaN, infinity), more than
            8 decimals, or not below 10^15.
    """
    if not isinstance(text, str):
        raise InvalidInput(
            f'{field}: money is a decimal string such as "12.50", not a {type(text).__name__}',
            code="invalid_amount",
            field=field,
        )
    if len(text) > 40 or _AMOUNT.fullmatch(text) is None:
        raise InvalidInput(
            f'{field}: "{text[:40]}" is not an amount; write digits with at most 8 decimals, such as "12.50"',
            code="invalid_amount",
            field=field,
        )
    amount = Decimal(text)
    if abs(amount) >= LIMIT:
        raise InvalidInput(
            f"{field}: the amount is out of bounds; it must be below 10^15",
            code="invalid_amount",
            field=field,
        )
    return amount


def parse_currency(text: str, *, field: str = "currency") -> str:
    """Check an ISO 4217 style code: three capital letters."""
    if _CURRENCY.fullmatch(text) is None:
        raise InvalidInput(
            f'{field}: "{text[:10]}" is not a currency code such as "USD"',
            code="invalid_currency",
            field=field,
        )
    return text


def plain(amount: Decimal) -> str:
    """Write an amount without exponent and without trailing zeros beyond two decimals."""
    text = f"{amount:f}"
    if "." not in text:
        return text + ".00"
    whole, _, fraction = text.partition(".")
    fraction = fraction.rstrip("0")
    return f"{whole}.{fraction.ljust(2, '0')}"
