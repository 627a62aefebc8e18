"""The mapping file: how the columns of any CSV or JSON lines become usage records, without code.

::

    format = "csv"            # or "jsonl": one JSON object a line, columns are its keys ("a.b" goes in)
    delimiter = ","           # one character
    header = true             # the first line names the columns; false: they are c1, c2 ... (or 1, 2)
    columns = 0               # without header: how many each line has; 0 does not check
    quote = '"'               # "" for none
    encoding = "utf-8"
    comment = "#"             # lines that begin so are skipped
    [fields]                  # a column (name or number), or a table of the keys of ``FieldRule``
    call_id = "uniqueid"
    start = { column = "calldate", time = "%Y-%m-%d %H:%M:%S", zone = "Europe/Rome" }
    duration = { column = "billsec", unit = "s" }
    caller = { column = "src", strip = "+", prefix = "39" }
    trunk_in = { constant = "main" }
    sip = { column = "disposition", values = { ANSWERED = "200", BUSY = "486" } }
    [[filters]]               # only rows that pass all of them are records
    column = "disposition"
    in = ["ANSWERED", "NO ANSWER"]

``wire.cdr.rows`` reads rows by it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping as AnyMapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import msgspec

from tollkeeper.errors import InvalidInput
from tollkeeper.wire.cdr.lines import known_encoding
from tollkeeper.wire.cdr.times import time_reader
from tollkeeper.wire.cdr.values import UNITS

TIMES = ("start", "answer", "end")
NUMBERS = ("caller", "called")
ADDRESSES = ("ip_in", "ip_out")
TEXTS = ("call_id", "leg", "trunk_in", "account", "trunk_out", "service", "currency")
INTEGERS = ("sip", "q850", "sequence")
DURATIONS = ("duration", "pdd")
OTHERS = ("mos", "price")
FIELDS = (*TEXTS, *NUMBERS, *ADDRESSES, *TIMES, *DURATIONS, *INTEGERS, *OTHERS)
"""Fields a mapping can fill. ``duration`` is duration_ms and ``pdd`` pdd_ms of ``Usage``."""
_REQUIRED = ("call_id", "start")
_DEFAULT_UNIT = {"duration": "s", "pdd": "ms"}
_TEXT_LIKE = frozenset((*TEXTS, *NUMBERS, *ADDRESSES))
_MAX_VALUES = 10_000
_FIELD_KEYS = frozenset(
    {
        "column", "columns", "join", "else", "constant", "time", "zone",
        "unit", "values", "extract", "strip", "cut", "prefix",
    }
)  # fmt: skip
_TOP_KEYS = frozenset(
    {
        "format", "delimiter", "header", "columns", "quote", "encoding", "comment",
        "fields", "filters",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FieldRule:
    """How one field is had from a row.

    Either ``constant``, or the text of ``column`` (where that is empty, of ``otherwise``, written
    "else"), or the texts of ``columns`` put together with ``join``. Blanks around it are taken
    off; then ``values`` replaces a whole text by another; then, where text is left, ``extract``
    takes the one group of a regular expression (searched for anywhere), ``strip`` takes off a
    leading text, ``cut`` takes off so many characters in front, and ``prefix`` adds some. Then it
    is read as a time in ``layout`` (written "time"), a duration in ``unit``, or what the field is.
    """

    field: str
    column: str = ""
    columns: tuple[str, ...] = ()
    join: str = "-"
    otherwise: str = ""
    constant: str | None = None
    layout: str = ""
    zone: str = ""
    unit: str = ""
    values: tuple[tuple[str, str], ...] = ()
    extract: str = ""
    strip: str = ""
    cut: int = 0
    prefix: str = ""

    @property
    def sources(self) -> tuple[str, ...]:
        """Return the columns it looks at."""
        return tuple(name for name in (self.column, self.otherwise, *self.columns) if name)

    def to_dict(self) -> dict[str, object]:
        """Return the rule as it is written in a mapping file."""
        plain = {
            "column": self.column,
            "columns": list(self.columns),
            "else": self.otherwise,
            "constant": self.constant,
            "time": self.layout,
            "zone": self.zone,
            "values": dict(self.values),
            "extract": self.extract,
            "strip": self.strip,
            "cut": self.cut,
            "prefix": self.prefix,
        }
        found: dict[str, object] = {key: value for key, value in plain.items() if value}
        if self.columns:
            found["join"] = self.join
        if self.constant is not None:
            found["constant"] = self.constant
        if self.unit and self.constant is None:
            found["unit"] = self.unit
        return found


@dataclass(frozen=True, slots=True)
class Filter:
    """A condition on the text of a column, without the blanks around it; exactly one is set."""

    column: str
    among: tuple[str, ...] | None = None
    not_among: tuple[str, ...] | None = None
    matches: str | None = None

    def passes(self, text: str) -> bool:
        """Say whether a row with this text is a record."""
        if self.among is not None:
            return text in self.among
        if self.not_among is not None:
            return text not in self.not_among
        return self.matches is not None and _pattern(self.matches).search(text) is not None

    def to_dict(self) -> dict[str, object]:
        """Return the filter as it is written in a mapping file."""
        if self.among is not None:
            return {"column": self.column, "in": list(self.among)}
        if self.not_among is not None:
            return {"column": self.column, "not_in": list(self.not_among)}
        return {"column": self.column, "matches": self.matches}


@dataclass(frozen=True, slots=True)
class Mapping:
    """A checked mapping. ``columns`` is the width of a row without header, 0 for any."""

    format: Literal["csv", "jsonl"]
    fields: tuple[FieldRule, ...]
    filters: tuple[Filter, ...] = ()
    delimiter: str = ","
    header: bool = True
    columns: int = 0
    quote: str = '"'
    encoding: str = "utf-8"
    comment: str = ""

    def rule(self, field: str) -> FieldRule | None:
        """Return the rule of a field, or None."""
        return next((rule for rule in self.fields if rule.field == field), None)

    def to_dict(self) -> dict[str, object]:
        """Return the mapping as ``load_mapping`` reads it; nothing that is as by default."""
        found: dict[str, object] = {"format": self.format}
        if self.format == "csv":
            found |= {"delimiter": self.delimiter, "header": self.header, "quote": self.quote}
            if self.columns:
                found["columns"] = self.columns
        found["encoding"] = self.encoding
        if self.comment:
            found["comment"] = self.comment
        fields: dict[str, object] = {}
        for rule in self.fields:
            keys = rule.to_dict()
            fields[rule.field] = keys["column"] if set(keys) == {"column"} else keys
        found["fields"] = fields
        if self.filters:
            found["filters"] = [one.to_dict() for one in self.filters]
        return found


@lru_cache(maxsize=256)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text)


def load_mapping(source: str | AnyMapping[str, object]) -> Mapping:
    """Read a mapping from TOML or JSON text, or from a dictionary.

    Raises:
        InvalidInput: with the key that is wrong and what to write instead.
    """
    data = _parse(source) if isinstance(source, str) else source
    _only(data, _TOP_KEYS, "")
    format_ = data.get("format", "csv")
    if format_ not in {"csv", "jsonl"}:
        raise _bad("format", 'write "csv" or "jsonl"')
    rules = data.get("fields")
    if not isinstance(rules, AnyMapping) or not rules:
        raise _bad("fields", "write a table that says for each field which column it is")
    fields = tuple(_field_rule(str(name), value) for name, value in rules.items())
    mapping = Mapping(
        format="csv" if format_ == "csv" else "jsonl",
        fields=fields,
        filters=_filters(data.get("filters", [])),
        delimiter=_one_character(data, "delimiter", ","),
        header=_header(data),
        columns=_whole(data, "columns", 0, 4_096),
        quote=_quote(data),
        encoding=known_encoding(_text(data, "encoding", "utf-8")),
        comment=_text(data, "comment", ""),
    )
    _check_whole(mapping)
    return mapping


def _parse(text: str) -> AnyMapping[str, object]:
    try:
        if text.lstrip("\ufeff \t\r\n").startswith("{"):
            found: object = msgspec.json.decode(text.lstrip("\ufeff"))
        else:
            found = tomllib.loads(text.lstrip("\ufeff"))
    except (msgspec.DecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidInput(
            f"The mapping is neither TOML nor JSON: {str(error)[:200]}.", field="mapping"
        ) from None
    if not isinstance(found, dict):
        raise _bad("mapping", "write a table with format and fields")
    return found


def _check_whole(mapping: Mapping) -> None:
    """Check what concerns more than one key."""
    names = {rule.field for rule in mapping.fields}
    for name in _REQUIRED:
        if name not in names:
            raise _bad(f"fields.{name}", "it is required: say which column it is")
    if "duration" not in names and not {"answer", "end"} <= names:
        raise _bad("fields.duration", "it is required where answer and end are not both given")
    if mapping.delimiter == mapping.quote:
        raise _bad("quote", "it cannot be the delimiter")
    wide = mapping.encoding.startswith(("utf-16", "utf-32"))
    if mapping.format == "csv" and not wide and not mapping.delimiter.isascii():
        raise _bad("delimiter", "it must be an ASCII character")
    if mapping.format == "csv" and not mapping.header:
        sources = [name for rule in mapping.fields for name in rule.sources]
        for name in (*sources, *(one.column for one in mapping.filters)):
            if column_number(name) is None:
                raise _bad(
                    "fields", f'without a header columns are c1, c2 and so on, not "{name[:40]}"'
                )


def column_number(name: str) -> int | None:
    """Return the index from 0 of "c3" or "3"; None where the text is another name."""
    digits = name.removeprefix("c")
    if digits.isascii() and digits.isdigit() and 1 <= len(digits) <= 4 and int(digits):
        return int(digits) - 1
    return None


def _field_rule(name: str, value: object) -> FieldRule:
    where = f"fields.{name}"
    if name not in FIELDS:
        hint = {"duration_ms": "duration", "pdd_ms": "pdd", "src": "caller", "dst": "called"}
        said = f'write "{hint[name]}"' if name in hint else f"the fields are {', '.join(FIELDS)}"
        raise _bad(where, f"there is no such field; {said}")
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        value = {"column": value}
    if not isinstance(value, AnyMapping):
        raise _bad(where, "write a column, or a table such as { column = 3 }")
    _only(value, _FIELD_KEYS, f"{where}.")
    rule = FieldRule(
        field=name,
        column=_column(value, "column", where),
        columns=tuple(_strings(value.get("columns", []), f"{where}.columns", numbers=True)),
        join=_text(value, "join", "-", where),
        otherwise=_column(value, "else", where),
        constant=_text(value, "constant", "", where) if "constant" in value else None,
        layout=_layout(name, value, where),
        zone=_text(value, "zone", "", where),
        unit=_unit(name, value, where),
        values=_values(value.get("values", {}), where),
        extract=_regex(_text(value, "extract", "", where), f"{where}.extract", groups=1),
        strip=_text(value, "strip", "", where),
        cut=_whole(value, "cut", 0, 255, where),
        prefix=_text(value, "prefix", "", where),
    )
    if sum((bool(rule.column), bool(rule.columns), rule.constant is not None)) != 1:
        raise _bad(where, "give exactly one of column, columns and constant")
    if rule.otherwise and not rule.column:
        raise _bad(f"{where}.else", "it goes with column")
    if name not in _TEXT_LIKE and (rule.strip or rule.cut or rule.prefix):
        raise _bad(where, "strip, cut and prefix are for texts and numbers of parties only")
    if rule.zone and (not rule.layout or rule.layout.startswith("epoch")):
        raise _bad(f"{where}.zone", "it goes with a time that is not an epoch")
    if rule.layout:
        time_reader(rule.layout, rule.zone or "UTC")
    return rule


def _layout(name: str, value: AnyMapping[str, object], where: str) -> str:
    layout = _text(value, "time", "", where)
    if name in TIMES:
        return layout or "iso"
    if layout:
        raise _bad(f"{where}.time", f"it is for {', '.join(TIMES)} only")
    return ""


def _unit(name: str, value: AnyMapping[str, object], where: str) -> str:
    unit = _text(value, "unit", _DEFAULT_UNIT.get(name, ""), where)
    if unit and name not in DURATIONS:
        raise _bad(f"{where}.unit", f"it is for {' and '.join(DURATIONS)} only")
    if unit and unit not in UNITS:
        raise _bad(f"{where}.unit", f"write one of {', '.join(UNITS)}")
    return unit


def _values(value: object, where: str) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, AnyMapping) or len(value) > _MAX_VALUES:
        raise _bad(f"{where}.values", 'write a table such as { BUSY = "486" }')
    found: list[tuple[str, str]] = []
    for key, text in value.items():
        if isinstance(text, bool) or not isinstance(text, (str, int)):
            raise _bad(f"{where}.values.{key}", "write a text")
        found.append((str(key).strip(), str(text)))
    return tuple(found)


def _filters(value: object) -> tuple[Filter, ...]:
    if not isinstance(value, list | tuple):
        raise _bad("filters", "write [[filters]] tables")
    return tuple(_filter(one, f"filters[{number}]") for number, one in enumerate(value))


def _filter(value: object, where: str) -> Filter:
    if not isinstance(value, AnyMapping):
        raise _bad(where, "write a table with column and one of in, not_in, matches")
    _only(value, frozenset({"column", "in", "not_in", "matches"}), f"{where}.")
    column = _column(value, "column", where)
    given = [key for key in ("in", "not_in", "matches") if key in value]
    if not column or len(given) != 1:
        raise _bad(where, "give a column and exactly one of in, not_in and matches")
    if given == ["matches"]:
        return Filter(
            column, matches=_regex(_text(value, "matches", "", where), where, groups=None)
        )
    texts = tuple(_strings(value[given[0]], f"{where}.{given[0]}", numbers=True))
    return Filter(column, among=texts) if given == ["in"] else Filter(column, not_among=texts)


def _only(data: AnyMapping[str, object], known: frozenset[str], where: str) -> None:
    for key in data:
        if key not in known:
            raise _bad(
                f"{where}{str(key)[:40]}", f"there is no such key; use {', '.join(sorted(known))}"
            )


def _text(data: AnyMapping[str, object], key: str, default: str, where: str = "") -> str:
    value = data.get(key, default)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or len(value) > 255:
        raise _bad(f"{where}.{key}".lstrip("."), "write a text of at most 255 characters")
    return value


def _column(data: AnyMapping[str, object], key: str, where: str) -> str:
    text = _text(data, key, "", where).strip()
    if key in data and not text:
        raise _bad(f"{where}.{key}", "write the name or the number of a column")
    return text


def _strings(value: object, where: str, *, numbers: bool) -> list[str]:
    kinds = (str, int) if numbers else (str,)
    if not isinstance(value, list | tuple) or not all(
        isinstance(one, kinds) and not isinstance(one, bool) for one in value
    ):
        raise _bad(where, "write a list of texts")
    return [str(one).strip() for one in value]


def _whole(data: AnyMapping[str, object], key: str, low: int, high: int, where: str = "") -> int:
    value = data.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _bad(f"{where}.{key}".lstrip("."), f"write a whole number from {low} to {high}")
    return value


def _header(data: AnyMapping[str, object]) -> bool:
    value = data.get("header", True)
    if not isinstance(value, bool):
        raise _bad("header", "write true or false")
    return value


def _one_character(data: AnyMapping[str, object], key: str, default: str) -> str:
    text = _text(data, key, default)
    text = {"\\t": "\t", "tab": "\t"}.get(text, text)
    if len(text) != 1 or text in "\r\n\0":
        raise _bad(key, 'write one character, such as ",", ";", "|" or "\\t"')
    return text


def _quote(data: AnyMapping[str, object]) -> str:
    text = _text(data, "quote", '"')
    if len(text) > 1 or text in {"\r", "\n", "\0", " "} or not text.isascii():
        raise _bad("quote", "write one character, or none for a file without quotes")
    return text


def _regex(text: str, where: str, *, groups: int | None) -> str:
    if text:
        try:
            pattern = re.compile(text)
        except re.error as error:
            raise _bad(where, f"it is not a regular expression: {error}") from None
        if groups is not None and pattern.groups != groups:
            raise _bad(where, "it must have exactly one group, which is the text to take")
    return text


def _bad(field: str, advice: str) -> InvalidInput:
    return InvalidInput(f"The mapping's {field}: {advice}.", field=field)
