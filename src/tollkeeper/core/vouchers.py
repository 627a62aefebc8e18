"""Voucher codes: sixteen digits, of which the last one finds errors of typing."""

from __future__ import annotations

DIGITS = 16
"""Fifteen random digits and a check digit."""


def check_digit(digits: str) -> str:
    """The digit that makes ``digits`` complete (ISO/IEC 7812-1 annex B, the Luhn formula).

    It finds every single wrong digit, and nearly every pair of neighbours changed round.
    """
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return str(-total % 10)


def make_code(number: int) -> str:
    """The code of a random number below 10^15."""
    digits = f"{number:0{DIGITS - 1}d}"
    return digits + check_digit(digits)


def read_code(text: str) -> str | None:
    """A code as it was typed, without blanks and hyphens; None if it cannot be one."""
    code = "".join(text.split()).replace("-", "")
    if len(code) != DIGITS or not (code.isascii() and code.isdigit()):
        return None
    return code if check_digit(code[:-1]) == code[-1] else None


def show_code(code: str) -> str:
    """A code in groups of four, as people read it."""
    return "-".join(code[start : start + 4] for start in range(0, DIGITS, 4))
