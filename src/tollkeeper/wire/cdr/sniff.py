"""What kind of CDR file this is, and a mapping to read it by when no codec knows it."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from tollkeeper.core.usage import Item, Refused, Skipped, Usage
from tollkeeper.errors import InvalidInput
from tollkeeper.wire.cdr.format import Format, ReadOptions
from tollkeeper.wire.cdr.guess import guess_columns, time_layout
from tollkeeper.wire.cdr.lines import TooLong, decode, lines
from tollkeeper.wire.cdr.mapping import Mapping as FieldMapping
from tollkeeper.wire.cdr.mapping import load_mapping
from tollkeeper.wire.cdr.problem import FieldProblem
from tollkeeper.wire.cdr.rows import COLUMNS_MAX, split_row

SURE = 50
"""From this confidence on a format is taken as recognised."""
_SHOWN = 5
_SAMPLE = 50
_DELIMITERS = (",", ";", "\t", "|")
_OTHERS = (
    (b"PK\x03\x04", "a zip archive or an Excel workbook (.xlsx); unpack it, or save it as CSV"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook (.xls); save it as CSV"),
    (b"%PDF", "a PDF document; ask for CSV"),
    (b"\x1f\x8b", "a gzip file; unpack it first"),
)


@dataclass(frozen=True, slots=True)
class Guess:
    """What a file seems to be.

    ``format`` is the code of the format, "" when nothing is known; ``confidence`` 0 to 100;
    ``mapping`` is proposed for the formats csv and jsonl, ready to be edited; ``rows`` are the
    first records as they would be read, ``notes`` sentences for people.
    """

    format: str
    confidence: int
    mapping: FieldMapping | None
    rows: tuple[Item, ...]
    notes: tuple[str, ...]


def sniff(head: bytes, name: str, formats: Mapping[str, Format]) -> Guess:
    """Recognise a file by its first bytes (unpacked) and its name. Raises nothing."""
    if not head.strip(b"\0 \t\r\n\xef\xbb\xbf"):
        return Guess("", 0, None, (), ("The file is empty.",))
    for magic, what in _OTHERS:
        if head.startswith(magic):
            return Guess("", 0, None, (), (f"The file is {what}.",))
    best, confidence = _best(head, name, formats)
    if best is not None and confidence >= SURE:
        return Guess(best.code, confidence, None, _first(best, head, ReadOptions()), ())
    guess = _json_lines(head, formats) or _table(head, formats)
    if guess is not None:
        return guess
    if best is not None and confidence > 0:
        notes = (f"The file may be {best.title}, but little of it can be read.",)
        return Guess(best.code, confidence, None, _first(best, head, ReadOptions()), notes)
    return Guess("", 0, None, (), ("The file is neither a known format nor a table of text.",))


def _best(head: bytes, name: str, formats: Mapping[str, Format]) -> tuple[Format | None, int]:
    """Return the surest format; of two that are as sure, the one whose suffix the file has."""
    found: list[tuple[int, bool, Format]] = []
    for one in formats.values():
        sure = one.recognise(head)
        if sure > 0:
            found.append((sure, name.lower().endswith(one.suffixes or ("\0",)), one))
    if not found:
        return None, 0
    sure, _, best = max(found, key=lambda hit: hit[:2])
    return best, sure


def _first(format_: Format, head: bytes, options: ReadOptions) -> tuple[Item, ...]:
    """Read the first records; of a head that ends within a line, that line does not count."""
    cut = head.rfind(b"\n") + 1
    whole = head[:cut] if cut and len(head) >= 65_536 else head
    return tuple(islice(_records(format_.read(io.BytesIO(whole), options)), _SHOWN))


def _records(items: Iterable[Item]) -> Iterator[Item]:
    try:
        for item in items:
            if not isinstance(item, Skipped):
                yield item
    except InvalidInput:
        return


def _sample(head: bytes) -> list[str]:
    """Return the first lines with text, without a last one that may be cut off."""
    cut = head.rfind(b"\n") + 1
    whole = head[:cut] if cut and len(head) >= 65_536 else head
    found: list[str] = []
    for _number, raw in lines(io.BytesIO(whole)):
        if isinstance(raw, TooLong) or len(found) >= _SAMPLE:
            break
        text = decode(raw)
        if text.strip() and "\0" not in text:
            found.append(text)
    return found


def _json_lines(head: bytes, formats: Mapping[str, Format]) -> Guess | None:
    objects: list[dict[str, str]] = []
    for text in _sample(head):
        try:
            found = json.loads(text, parse_float=str, parse_int=str, parse_constant=str)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            objects.append(dict(_flat(found, "")))
    if not objects or "jsonl" not in formats:
        return None
    names = list(dict.fromkeys(name for one in objects for name in one))[:COLUMNS_MAX]
    if not names:
        return None
    rows = [[one.get(name, "") for name in names] for one in objects]
    header = [name.rpartition(".")[2] for name in names]
    return _proposal(formats["jsonl"], {"format": "jsonl"}, header, rows, names, head, [])


def _flat(found: dict[str, object], prefix: str, depth: int = 0) -> Iterator[tuple[str, str]]:
    for key, value in found.items():
        if isinstance(value, dict) and depth < 4:
            yield from _flat(value, f"{prefix}{key}.", depth + 1)
        elif isinstance(value, str):
            yield f"{prefix}{key}", value


def _table(head: bytes, formats: Mapping[str, Format]) -> Guess | None:
    sample = _sample(head)
    notes: list[str] = []
    settings: dict[str, object] = {"format": "csv"}
    if sample and sample[0].lower().startswith("sep="):
        settings["comment"] = sample.pop(0)[:4]
    delimiter, rows = _split(sample)
    if not delimiter or "csv" not in formats:
        return None
    encoding = _encoding(head, notes)
    if encoding:
        settings["encoding"] = encoding
    width = Counter(len(row) for row in rows).most_common(1)[0][0]
    uneven = sum(len(row) != width for row in rows)
    if uneven:
        notes.append(f"{uneven} of the first {len(rows)} rows do not have {width} columns.")
    header = _is_header(rows)
    settings |= {"delimiter": delimiter, "header": header}
    names = [f"c{number}" for number in range(1, width + 1)]
    titles = [""] * width
    if header and len(rows[0]) == width:
        titles = [title.strip() for title in rows[0]]
        counts = Counter(titles)
        doubled = [title for title, count in counts.items() if count > 1]
        if doubled:
            notes.append(
                f'The header has "{doubled[0][:40]}" more than once; the first is proposed.'
            )
        names = [
            title if title and counts[title] == 1 else name
            for title, name in zip(titles, names, strict=True)
        ]
    elif not header:
        settings["columns"] = width
    body = [row for row in rows[1 if header else 0 :] if len(row) == width]
    return _proposal(formats["csv"], settings, titles, body, names, head, notes)


def _split(sample: Sequence[str]) -> tuple[str, list[list[str]]]:
    """Return the delimiter by which most rows have as many columns as each other, and the rows."""
    best: tuple[int, int, str, list[list[str]]] = (0, 0, "", [])
    for delimiter in _DELIMITERS:
        rows: list[list[str]] = []
        for text in sample:
            try:
                rows.append(split_row(text, delimiter, '"'))
            except FieldProblem:
                continue
        if not rows:
            continue
        width, count = Counter(len(row) for row in rows).most_common(1)[0]
        if width > 1 and (count, width) > best[:2]:
            best = (count, width, delimiter, rows)
    return best[2], best[3]


def _encoding(head: bytes, notes: list[str]) -> str:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    try:
        head[:-4].decode("utf-8")
    except UnicodeDecodeError as error:
        if error.end < len(head) - 8:
            notes.append("The file is not UTF-8; it is read as Windows-1252, so check its names.")
            return "cp1252"
    return ""


def _is_header(rows: Sequence[Sequence[str]]) -> bool:
    """Say whether the first row names the columns: it has no digits where others have them."""
    first = [cell.strip() for cell in rows[0]]
    if time_layout([cell for cell in first if time_layout([cell])][:1]):
        return False
    if len(rows) == 1:
        return not any(cell.isdigit() for cell in first)
    numeric = [
        index
        for index in range(len(first))
        if any(len(row) > index and row[index].strip().isdigit() for row in rows[1:])
    ]
    return bool(numeric) and not any(first[index].isdigit() for index in numeric)


def _proposal(
    format_: Format,
    settings: dict[str, object],
    titles: Sequence[str],
    body: Sequence[Sequence[str]],
    names: Sequence[str],
    head: bytes,
    notes: list[str],
) -> Guess:
    found = guess_columns(titles, body, names)
    notes = [*notes, *found.notes]
    fields = dict(found.fields)
    try:
        mapping, rows = _tried(format_, settings, fields, head)
        while (
            wrong := _refused_everywhere(rows) or _addressed(rows)
        ) in fields and wrong not in _NEEDED:
            fields, note = _otherwise(fields, wrong)
            notes.append(note)
            mapping, rows = _tried(format_, settings, fields, head)
    except InvalidInput as error:
        missing = (f"No whole mapping can be proposed. {error.detail}",)
        return Guess(format_.code, 10, None, (), (*notes, *missing))
    good = sum(isinstance(item, Usage) for item in rows)
    # A proposal is never sure: only a person knows what the columns of a table mean.
    confidence = 10 + 35 * good // max(1, len(rows))
    notes.append("The mapping is a proposal: check every field of it against the rows shown.")
    return Guess(format_.code, confidence, mapping, rows, tuple(notes))


_ADDRESS = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){3}")
_NEEDED = frozenset({"call_id", "start"})
_INSTEAD = {"caller": "ip_in", "called": "ip_out", "q850": "sip"}
"""What a column may be that has the name of a field, and values that this field cannot have."""


def _tried(
    format_: Format, settings: dict[str, object], fields: dict[str, object], head: bytes
) -> tuple[FieldMapping, tuple[Item, ...]]:
    mapping = load_mapping({**settings, "fields": fields})
    return mapping, _first(format_, head, ReadOptions(mapping=mapping))


def _refused_everywhere(rows: Sequence[Item]) -> str:
    """The field for which every record is refused; "" where some can be read."""
    fields = {one.field if isinstance(one, Refused) else "" for one in rows}
    return fields.pop() if len(fields) == 1 else ""


def _otherwise(fields: dict[str, object], wrong: str) -> tuple[dict[str, object], str]:
    """The proposal without a field whose column has other values, or with another for it."""
    rest = {name: rule for name, rule in fields.items() if name != wrong}
    other = _INSTEAD.get(wrong, "")
    if other and other not in rest and isinstance(fields[wrong], str):
        return rest | {other: fields[wrong]}, f"{fields[wrong]} is no {wrong}; tried as {other}."
    return rest, f"The column taken for {wrong} has no values of it, so {wrong} is left out."


def _addressed(rows: Sequence[Item]) -> str:
    """The number that is an IP address in every record; "" where none is."""
    usages = [one for one in rows if isinstance(one, Usage)]
    for name in ("caller", "called"):
        values = [getattr(one, name) for one in usages]
        if values and all(_ADDRESS.fullmatch(value) for value in values):
            return name
    return ""
