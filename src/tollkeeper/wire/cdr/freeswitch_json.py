"""FreeSWITCH mod_json_cdr: one JSON document a call, alone in a file or one after the other.

Values may be percent-coded (``encode-values``), and the whole may be the body of its HTTP POST
("cdr=" and the coded document). Records are numbered from 1 in the order of the stream.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import BinaryIO, cast

from tollkeeper.core.usage import Item
from tollkeeper.errors import InvalidInput
from tollkeeper.wire.cdr.format import Format, ReadOptions
from tollkeeper.wire.cdr.freeswitch import plain_value, usage_of
from tollkeeper.wire.cdr.json_documents import documents
from tollkeeper.wire.cdr.lines import LINE_MAX, TooLong, decode
from tollkeeper.wire.cdr.problem import FieldProblem, refused
from tollkeeper.wire.form import unquoted

_FORM = b"cdr="
_FORM_MAX = 4 * LINE_MAX
_NO_JSON = "These bytes are no JSON document; the file may be damaged here."


def read(stream: BinaryIO, options: ReadOptions) -> Iterator[Item]:
    """Read the documents of a stream.

    Raises:
        InvalidInput: not one JSON object is in the stream.
    """
    found = enumerate(documents(_unwrapped(stream)), 1)
    before: list[bytes] = []
    for record, document in found:
        if isinstance(document, bytes) and not document.startswith(b"{") and record == 1:
            before.append(document)
            continue
        if record == 2 and before:
            yield refused(1, "record", "", _NO_JSON, before.pop())
        if isinstance(document, TooLong):
            yield document.refused(record)
        elif document.startswith(b"{"):
            yield _read_document(record, document, options)
        else:
            yield refused(record, "record", "", _NO_JSON, document)
    if before:
        raise InvalidInput(
            "The file holds no JSON documents, so it is not of mod_json_cdr.", code="wrong_format"
        )


def _unwrapped(stream: BinaryIO) -> BinaryIO:
    """Return the documents of a POST body, or the stream as it is."""
    first = stream.read(len(_FORM))
    while len(first) < len(_FORM) and (more := stream.read(len(_FORM) - len(first))):
        first += more
    if first == _FORM:
        body = stream.read(_FORM_MAX + 1)
        if len(body) > _FORM_MAX:
            raise InvalidInput("The body of the POST is over 4 MiB.", code="file_too_large")
        return io.BytesIO(unquoted(body))
    return cast(BinaryIO, _Joined(first.removeprefix(b"\xef\xbb\xbf"), stream))


class _Joined(io.RawIOBase):
    """A stream with the bytes in front that were read from it to look at."""

    def __init__(self, first: bytes, rest: BinaryIO) -> None:
        super().__init__()
        self._first = first
        self._rest = rest

    def read(self, size: int = -1, /) -> bytes:
        first, self._first = self._first, b""
        return first + self._rest.read(size)


def _read_document(record: int, document: bytes, options: ReadOptions) -> Item:
    text = decode(document, options.encoding)
    try:
        found = json.loads(text, parse_float=str, parse_int=str, parse_constant=str, strict=False)
    except (ValueError, RecursionError):
        return refused(
            record,
            "record",
            "",
            "The JSON document is not whole: it was cut off while it was written or copied.",
            document,
        )
    try:
        return _usage(found, record, options)
    except FieldProblem as problem:
        return problem.refused(record, document)


def _usage(found: dict[str, object], record: int, options: ReadOptions) -> Item:
    variables = found.get("variables")
    if not isinstance(variables, dict):
        raise FieldProblem(
            "variables", "", 'The document has no "variables", so it is not of mod_json_cdr.'
        )
    profile = _profile(found)

    def look(name: str) -> str:
        value = variables.get(name)
        if not isinstance(value, str):
            value = profile.get(name)
        return plain_value(value).strip() if isinstance(value, str) else ""

    def number(name: str, other: str) -> str:
        value = profile.get(name)
        return plain_value(value) if isinstance(value, str) and value else look(other)

    return usage_of(
        look,
        caller=number("caller_id_number", "sip_from_user"),
        called=number("destination_number", "sip_req_user"),
        mos=_mos(found),
        record=record,
        options=options,
    )


def _profile(found: dict[str, object]) -> dict[str, object]:
    """Return the caller profile: of the last stretch of the call flow, which comes first."""
    flow = found.get("callflow")
    if isinstance(flow, list):
        flow = flow[0] if flow else None
    profile = flow.get("caller_profile") if isinstance(flow, dict) else None
    return profile if isinstance(profile, dict) else {}


def _mos(found: dict[str, object]) -> str:
    value: object = found
    for step in ("callStats", "audio", "inbound", "mos"):
        value = value.get(step) if isinstance(value, dict) else None
    return value if isinstance(value, str) else ""


def recognise(head: bytes) -> int:
    """Say how sure it is that a file is of mod_json_cdr."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith((b"cdr=%7B", b"cdr={")):
        return 90
    if not start.startswith((b"{", b"[")):
        return 0
    if b'"core-uuid"' in head[:4_096]:
        return 99
    known = (b'"channel_data"', b'"callflow"', b'"start_uepoch"', b'"billsec"', b'"variables"')
    return 20 * sum(name in head for name in known)


FORMAT = Format(
    "freeswitch-json", "FreeSWITCH mod_json_cdr", read, recognise, (".json", ".cdr.json")
)
