"""Text messages: how many segments a text is sent, and so charged, in.

A text of the GSM default alphabet has 160 septets in one message and 153 in each of several; any other
text is UCS-2, with 70 and 67 code units of 16 bits. Characters of the extension table take two
septets (escape and character), characters beyond the basic plane two code units (a surrogate pair);
neither is ever cut in two. Alphabets: 3GPP TS 23.038 section 6.2.1; segments: 3GPP TS 23.040 section
9.2.3.24.1. National language tables are not used: their characters make a text UCS-2.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tollkeeper.errors import InvalidInput

SEGMENTS_MAX = 255
"""The header of a concatenated message counts its parts in one octet."""

TEXT_MAX = SEGMENTS_MAX * 153
"""No text is longer than this: 255 segments of 153 septets."""

GSM7 = "gsm7"
UCS2 = "ucs2"
OCTETS = "octets"
"""Binary text: octets as they are."""

MESSAGE_OCTETS = 140
"""User data of one message, header and text (3GPP TS 23.040 section 9.2.3.16)."""

CONCATENATION = 5
"""Octets of the header's element that joins parts, with a reference of 8 bits."""

_BASIC = frozenset(
    "@\u00a3$\u00a5\u00e8\u00e9\u00f9\u00ec\u00f2\u00c7\n\u00d8\u00f8\r\u00c5\u00e5"
    "\u0394_\u03a6\u0393\u039b\u03a9\u03a0\u03a8\u03a3\u0398\u039e\u00c6\u00e6\u00df\u00c9"
    " !\"#\u00a4%&'()*+,-./0123456789:;<=>?"
    "\u00a1ABCDEFGHIJKLMNOPQRSTUVWXYZ\u00c4\u00d6\u00d1\u00dc\u00a7"
    "\u00bfabcdefghijklmnopqrstuvwxyz\u00e4\u00f6\u00f1\u00fc\u00e0"
)
"""The default alphabet: 127 characters; the 128th code is the escape to the extension table."""

_EXTENDED = frozenset("\f^{}\\[~]|\u20ac")
_GSM = _BASIC | _EXTENDED


class Segments(msgspec.Struct, frozen=True, gc=False):
    """How a text is sent: ``encoding`` gsm7 or ucs2, ``characters`` septets or UTF-16 code units."""

    encoding: str
    characters: int
    segments: int


def segments(text: str, *, field: str = "text") -> Segments:
    """Count the segments of a text; an empty one is one segment.

    Raises:
        InvalidInput: longer than 39,015 characters or more than 255 segments.
    """
    if len(text) > TEXT_MAX:
        raise _too_long(field, f"has {len(text):,} characters and {TEXT_MAX:,} are the most")
    if _BASIC.issuperset(text):
        found = Segments(GSM7, len(text), _parts(len(text), 160, 153))
    elif _GSM.issuperset(text):
        found = _filled(GSM7, [2 if one in _EXTENDED else 1 for one in text], 160, 153)
    else:
        found = _filled(UCS2, [2 if one > "\uffff" else 1 for one in text], 70, 67)
    if found.segments > SEGMENTS_MAX:
        raise _too_long(
            field,
            f"would be {found.segments} segments in {found.encoding} and {SEGMENTS_MAX} are the most",
        )
    return found


def coded_segments(encoding: str, sizes: Sequence[int] | int, header: int = 0) -> int:
    """Count the segments of a text that is already coded, so that its encoding is not ours to choose.

    ``sizes`` are the units (septets of gsm7, code units of ucs2, octets of octets) of each character,
    or their sum where none takes more than one. ``header`` are the octets of a user data header that
    goes before the text; where the text is to be cut, each part has one for concatenation as well.

    Raises:
        InvalidInput: the header leaves no room, or more than 255 segments.
    """
    single = _room(encoding, header)
    each = _room(encoding, (header or 1) + CONCATENATION)
    if isinstance(sizes, int):
        count = _parts(sizes, single, each) if each > 0 or sizes <= single else SEGMENTS_MAX + 1
    elif each > 1 or sum(sizes) <= single:
        count = _filled(encoding, sizes, single, each).segments
    else:
        count = SEGMENTS_MAX + 1
    if single < 0 or count > SEGMENTS_MAX:
        raise _too_long("text", f"does not fit into {SEGMENTS_MAX} segments")
    return count


def _room(encoding: str, header: int) -> int:
    """Units of text in the 140 octets of a message, beside a header."""
    octets = MESSAGE_OCTETS - header
    return octets * 8 // 7 if encoding == GSM7 else octets // 2 if encoding == UCS2 else octets


def _parts(size: int, single: int, each: int) -> int:
    return 1 if size <= single else -(-size // each)


def _filled(encoding: str, sizes: Sequence[int], single: int, each: int) -> Segments:
    """Fill segment after segment; a pair that no longer fits begins the next one."""
    size = sum(sizes)
    if size <= single or size == len(sizes):
        return Segments(encoding, size, _parts(size, single, each))
    count, left = 1, each
    for one in sizes:
        if one > left:
            count, left = count + 1, each
        left -= one
    return Segments(encoding, size, count)


def _too_long(field: str, why: str) -> InvalidInput:
    return InvalidInput(
        f"{field}: the text {why}; send it in several messages", code="text_too_long", field=field
    )
