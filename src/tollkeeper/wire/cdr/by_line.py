"""What the codecs share that read one record a line, by the position of its fields."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

from tollkeeper.core.usage import Item
from tollkeeper.wire.cdr.format import ReadOptions
from tollkeeper.wire.cdr.lines import TooLong, decode, lines
from tollkeeper.wire.cdr.problem import FieldProblem
from tollkeeper.wire.cdr.values import plain_text


def items_of_lines(
    stream: BinaryIO, options: ReadOptions, read: Callable[[int, str], Item | None]
) -> Iterator[Item]:
    """Yield what ``read`` makes of each line that is not blank (None: nothing to say of it).

    A ``FieldProblem`` of ``read`` becomes the refusal of the line; so does a line too long to hold.
    """
    for number, raw in lines(stream, options.encoding):
        if isinstance(raw, TooLong):
            yield raw.refused(number)
            continue
        text = decode(raw, options.encoding)
        if not text.strip():
            continue
        try:
            item = read(number, text)
        except FieldProblem as problem:
            item = problem.refused(number, text)
        if item is not None:
            yield item


def split(text: str, delimiter: str = ",") -> list[str]:
    """Return the fields of a line by the rules of CSV (RFC 4180), without blanks around them.

    Raises:
        FieldProblem: a quote that is not closed, or a field of more than 128 KiB.
    """
    try:
        # The reader takes an iterable of lines, and a lone CR in one ends it in a field's middle.
        rows = list(csv.reader([text.replace("\r", " ")], delimiter=delimiter, strict=True))
    except csv.Error as error:
        reason = f"The quotes of the line do not match ({error}); the line may be cut."
        raise FieldProblem("line", "", reason) from None
    return [field.strip() for field in rows[0]] if rows else []


def call_id_of(text: str) -> str:
    """Return what names a call.

    Raises:
        FieldProblem: nothing does: without it, two calls of one moment would count as one.
    """
    text = plain_text(text, "call_id")
    if not text:
        raise FieldProblem("call_id", "", "The record does not say which call it is of.")
    return text


def at(fields: Sequence[str], position: int) -> str:
    """Return the field at ``position`` (from 1, as manuals count); "" when the line ends before."""
    return fields[position - 1] if 0 < position <= len(fields) else ""


def first_lines(head: bytes, count: int = 20) -> list[str]:
    """Return up to ``count`` lines with text of the first bytes of a file, to recognise it by."""
    text = decode(head).removeprefix("\ufeff")
    found = [line.strip() for line in text.split("\n", 4 * count)]
    return [line for line in found if line][:count]
