"""One option of a peer: what it is, and which values it takes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tollkeeper.core.routes import read_routes
from tollkeeper.errors import InvalidInput

TEXT_MAX = 1000
ROWS_MAX = 5000
WHOLE_MAX = 2**53 - 1


@dataclass(frozen=True, slots=True)
class Option:
    """One option. ``type`` is text, whole (a number), flag (on or off) or rows (a list of records).

    ``least`` and ``most`` bound a number; ``choices`` are all that a text may be; ``columns`` are the
    names that a record may have, their values texts, the first of them never empty. ``pattern`` is what
    a text that is not empty looks like; a ``secret`` is never shown.
    """

    name: str
    type: str
    default: object
    meaning: str
    least: int | None = None
    most: int | None = None
    choices: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    pattern: str = ""
    secret: bool = False


HEADER = r"[A-Za-z][A-Za-z0-9-]{0,63}"
HOST_PORT = r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253}):[0-9]{1,5}"

EXAMPLES = {HEADER: '"X-Account"', HOST_PORT: '"192.0.2.7:8021"'}
"""What the patterns mean, for people."""

ROUTES = Option(
    "routes",
    "rows",
    [],
    "Where calls go, the most preferred first: prefix of the number, URI in which {number} is replaced, "
    "preference q from 0 to 1. Of all prefixes that fit, the longest one's rows are used.",
    columns=("to", "prefix", "q"),
)

CONNECT = Option(
    "connect",
    "text",
    "",
    'Where the switch is connected to: "host:port" of its control port.',
    pattern=HOST_PORT,
)


def check_value(option: Option, value: object) -> None:
    """Let pass only what an option takes.

    Raises:
        InvalidInput: it does not take this value.
    """
    problem = ""
    if option.type == "flag":
        problem = "" if isinstance(value, bool) else "true or false"
    elif option.type == "whole":
        problem = _number_problem(option, value)
    elif option.type == "text":
        problem = _text_problem(option, value)
    elif option is ROUTES:
        read_routes(value)
    else:
        problem = _rows_problem(option, value)
    if problem:
        raise InvalidInput(f"options: {option.name} must be {problem}", field="options")


def _number_problem(option: Option, value: object) -> str:
    least, most = option.least or 0, option.most if option.most is not None else WHOLE_MAX
    fits = isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
    return "" if fits else f"a whole number from {least} to {most}"


def _text_problem(option: Option, value: object) -> str:
    if option.choices:
        return "" if value in option.choices else f"one of {', '.join(map(repr, option.choices))}"
    fits = isinstance(value, str) and len(value) <= TEXT_MAX and (value.isprintable() or not value)
    if not fits:
        return f"a text of at most {TEXT_MAX} printable characters"
    if option.pattern and value and not re.fullmatch(option.pattern, str(value)):
        return f"a text such as {EXAMPLES[option.pattern]}"
    return ""


def _rows_problem(option: Option, value: object) -> str:
    if not isinstance(value, list) or len(value) > ROWS_MAX:
        return f"a list of at most {ROWS_MAX} records"
    for row in value:
        if (
            not isinstance(row, dict)
            or not set(row) <= set(option.columns)
            or not row.get(option.columns[0])
            or any(_text_problem(_PLAIN, cell) for cell in row.values())
        ):
            return f"a list of records with the texts {', '.join(option.columns)}"
    return ""


_PLAIN = Option("", "text", "", "")
