"""PINs of calling cards: ten to sixteen digits, of which the last one finds errors of typing."""

from __future__ import annotations

from tollkeeper.core.vouchers import check_digit

DIGITS_MIN, DIGITS_MAX = 10, 16
SPARSE = 10_000_000
"""For one PIN of a batch there are so many that are none: guessing hits one in so many tries."""


def digits_for(cards: int) -> int:
    """The fewest digits that PINs of so many cards may have."""
    digits = DIGITS_MIN
    while 10 ** (digits - 1) < cards * SPARSE:
        digits += 1
    return digits


def make_pin(number: int, digits: int) -> str:
    """The PIN of ``digits`` digits for a random number below 10^(digits - 1)."""
    text = f"{number:0{digits - 1}d}"
    return text + check_digit(text)


def read_pin(text: str) -> str | None:
    """A PIN as it was keyed in, without blanks and hyphens; None if it cannot be one."""
    pin = "".join(text.split()).replace("-", "")
    if not DIGITS_MIN <= len(pin) <= DIGITS_MAX or not (pin.isascii() and pin.isdigit()):
        return None
    return pin if check_digit(pin[:-1]) == pin[-1] else None
