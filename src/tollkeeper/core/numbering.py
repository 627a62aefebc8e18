"""Numbers: from what a switch sends to E.164 digits (ITU-T E.164: at most 15 digits)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tollkeeper.errors import InvalidInput

DIGITS_MAX = 15
_SEPARATORS = str.maketrans("", "", " -.()/\t")
_DIGITS = re.compile(r"[0-9]+")


@dataclass(frozen=True, slots=True)
class DialRules:
    """How a party writes numbers.

    ``tech_prefix`` is removed first when present (required when ``tech_prefix_required``);
    then ``+`` or one of ``international`` marks an international number; a number with
    ``national`` in front is local to ``country_code``. Without any mark the digits are taken
    as international already, as wholesale switches send them.
    """

    tech_prefix: str = ""
    tech_prefix_required: bool = False
    international: tuple[str, ...] = ("00", "011")
    national: str = ""
    country_code: str = ""


DEFAULT_RULES = DialRules()


def normalise(raw: str, rules: DialRules = DEFAULT_RULES, *, field: str = "called") -> str:
    """Return the E.164 digits of ``raw``.

    Raises:
        InvalidInput: empty, other characters than digits, longer than 15 digits, or without
            the tech prefix that the party must send.
    """
    # The usual case first: plain international digits, nothing to undo.
    if (
        raw.isascii()
        and raw.isdigit()
        and raw[0] != "0"
        and len(raw) <= DIGITS_MAX
        and rules is DEFAULT_RULES
    ):
        return raw
    text = (
        raw.strip()
        .removeprefix("tel:")
        .removeprefix("sip:")
        .partition("@")[0]
        .translate(_SEPARATORS)
    )
    if rules.tech_prefix:
        if text.startswith(rules.tech_prefix):
            text = text[len(rules.tech_prefix) :]
        elif rules.tech_prefix_required:
            raise _invalid(field, raw, f"it must begin with the tech prefix {rules.tech_prefix}")
    digits = _strip_marks(text, rules)
    if _DIGITS.fullmatch(digits) is None:
        raise _invalid(field, raw, "it must be digits, with +, 00 or 011 in front if international")
    if len(digits) > DIGITS_MAX:
        raise _invalid(field, raw, f"it has {len(digits)} digits and E.164 allows 15")
    return digits


def _strip_marks(text: str, rules: DialRules) -> str:
    """Remove the international or national mark and put the country code in front."""
    if text.startswith("+"):
        return text[1:]
    for mark in rules.international:
        if text.startswith(mark):
            return text[len(mark) :]
    if rules.national and rules.country_code and text.startswith(rules.national):
        return rules.country_code + text[len(rules.national) :]
    return text


def _invalid(field: str, raw: str, why: str) -> InvalidInput:
    shown = raw[:32]
    return InvalidInput(
        f'{field}: "{shown}" is not a number that can be called: {why}',
        code="invalid_number",
        field=field,
    )
