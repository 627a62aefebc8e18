"""What mod_xml_curl asks and is answered: a form of a channel's headers, a document of FreeSWITCH's XML.

Source: FreeSWITCH's documentation of mod_xml_curl and of the XML dialplan.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree as ET

from tollkeeper.wire.esl.codec import MalformedEsl
from tollkeeper.wire.form import unquoted

FORM_MAX = 256 * 1024
"""Bytes of a form; a channel with very many variables has 100 KB."""
FIELDS_MAX = 8192
_FIELD = re.compile(rb"[^&]+")
Actions = Sequence[tuple[str, str]]
"""Applications of the dialplan, each with its data."""


def parse_form(body: bytes) -> Mapping[str, str]:
    """Read a form (application/x-www-form-urlencoded); of a field that is there twice the first counts.

    Raises:
        MalformedEsl: too long, too many fields.
    """
    if len(body) > FORM_MAX:
        raise MalformedEsl(f"The form is over {FORM_MAX // 1024} KiB.")
    if body.count(b"&") >= FIELDS_MAX:
        raise MalformedEsl(f"The form has over {FIELDS_MAX} fields.")
    found: dict[str, str] = {}
    for field in _FIELD.finditer(body):
        name, _, value = field[0].partition(b"=")
        found.setdefault(_text(name), _text(value))
    return found


def _text(data: bytes) -> str:
    return unquoted(data).decode("utf-8", errors="replace")


def not_found() -> bytes:
    """The answer that leaves a question to the switch's own files."""
    root = _document("result")
    ET.SubElement(root[0], "result", status="not found")
    return _written(root)


def dialplan(context: str, actions: Actions) -> bytes:
    """A dialplan of one extension that carries out these applications."""
    root = _document("dialplan")
    place = ET.SubElement(root[0], "context", name=_legal(context))
    extension = ET.SubElement(place, "extension", name="tollkeeper")
    condition = ET.SubElement(extension, "condition")
    for application, data in actions:
        ET.SubElement(condition, "action", application=application, data=_legal(data))
    return _written(root)


def _document(section: str) -> ET.Element:
    root = ET.Element("document", type="freeswitch/xml")
    ET.SubElement(root, "section", name=section)
    return root


def _written(root: ET.Element) -> bytes:
    written: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return written


def _legal(text: str) -> str:
    """Without the characters that no XML may have (XML 1.0 section 2.2)."""
    return "".join(c for c in text if c >= " " and c not in "\x7f\ufffe\uffff" and not _half(c))


def _half(character: str) -> bool:
    return "\ud800" <= character <= "\udfff"
