"""The text of an SMPP message: its coding, its header, its parts, and the segments it is charged in.

Codings: SMPP 3.4 section 5.2.19 for 0 to 15, 3GPP TS 23.038 section 4 for the groups above. Coding 0 is
the SMSC's default alphabet: GSM 03.38, an octet to a septet, unless the peer says Latin-1. Header (UDH):
3GPP TS 23.040 section 9.2.3.24.
"""

from __future__ import annotations

from typing import Final

import msgspec

from tollkeeper.core.messages import CONCATENATION, GSM7, OCTETS, UCS2, coded_segments
from tollkeeper.core.messages import segments as segments_of
from tollkeeper.errors import InvalidInput
from tollkeeper.wire.smpp.pdu import (
    INVALID_ESM_CLASS,
    INVALID_MESSAGE_LENGTH,
    INVALID_TLV_STREAM,
    TLV_PAYLOAD,
    TLV_SAR_NUMBER,
    TLV_SAR_REFERENCE,
    TLV_SAR_TOTAL,
    UDHI,
    MalformedPdu,
    Message,
)

GSM: Final = (
    "@\u00a3$\u00a5\u00e8\u00e9\u00f9\u00ec\u00f2\u00c7\n\u00d8\u00f8\r\u00c5\u00e5"
    "\u0394_\u03a6\u0393\u039b\u03a9\u03a0\u03a8\u03a3\u0398\u039e\x1b\u00c6\u00e6\u00df\u00c9"
    " !\"#\u00a4%&'()*+,-./0123456789:;<=>?"
    "\u00a1ABCDEFGHIJKLMNOPQRSTUVWXYZ\u00c4\u00d6\u00d1\u00dc\u00a7"
    "\u00bfabcdefghijklmnopqrstuvwxyz\u00e4\u00f6\u00f1\u00fc\u00e0"
)
"""The default alphabet in the order of its codes; 0x1B escapes to the extension table."""
ESCAPE: Final = 0x1B
EXTENSION: Final = {
    0x0A: "\f", 0x14: "^", 0x28: "{", 0x29: "}", 0x2F: "\\",
    0x3C: "[", 0x3D: "~", 0x3E: "]", 0x40: "|", 0x65: "\u20ac",
}  # fmt: skip
_CODES: Final = {char: bytes((code,)) for code, char in enumerate(GSM) if code != ESCAPE} | {
    char: bytes((ESCAPE, code)) for code, char in EXTENSION.items()
}
_CHARSETS: Final = {1: "ascii", 3: "latin-1", 6: "iso8859-5", 7: "iso8859-8"}
"""Codings of one octet a character that the SMSC turns into GSM or UCS-2 itself."""
_CONCAT_8: Final = 0x00
_CONCAT_16: Final = 0x08


class Part(msgspec.Struct, frozen=True, gc=False):
    """Which part of a concatenated message this is, from 1; parts of one have the same reference."""

    reference: int
    total: int
    number: int


class Content(msgspec.Struct, frozen=True, gc=False):
    """The user data of a message: its header with the length octet, and the coded text behind it."""

    header: bytes
    text: bytes
    elements: tuple[tuple[int, bytes], ...] = ()


def content_of(message: Message) -> Content:
    """Take the text from short_message, or from message_payload where that is empty.

    Raises:
        MalformedPdu: both are there, or two payloads, or the user data header is longer than the data.
    """
    data = message.short_message
    payload = message.tlv(TLV_PAYLOAD)
    if payload is not None:
        if data:
            raise MalformedPdu(
                "short_message and message_payload together; send one", INVALID_MESSAGE_LENGTH
            )
        if sum(tag == TLV_PAYLOAD for tag, _ in message.tlvs) > 1:
            # The one that we count need not be the one that the SMSC sends.
            raise MalformedPdu("two message_payloads; send one", INVALID_TLV_STREAM)
        data = payload
    if not message.esm_class & UDHI:
        return Content(b"", data)
    if not data or data[0] + 1 > len(data):
        raise MalformedPdu("the user data header is longer than the text", INVALID_ESM_CLASS)
    size = data[0] + 1
    return Content(data[:size], data[size:], _elements(data[1:size]))


def part_of(message: Message, content: Content) -> Part | None:
    """Tell which part of a longer message this is, by its header or its SAR parameters; None: it is whole.

    Numbers that make no sense (part 3 of 2) make it no part, as TS 23.040 has the receiver do.
    """
    part: Part | None = None
    for tag, value in content.elements:
        if tag == _CONCAT_8 and len(value) == 3:
            part = Part(value[0], value[1], value[2])
        elif tag == _CONCAT_16 and len(value) == 4:
            part = Part(int.from_bytes(value[:2], "big"), value[2], value[3])
    if part is None and message.tlvs:
        reference = message.tlv(TLV_SAR_REFERENCE)
        total, number = message.tlv(TLV_SAR_TOTAL), message.tlv(TLV_SAR_NUMBER)
        if reference and total and number:
            part = Part(int.from_bytes(reference[:2], "big"), total[0], number[0])
    return part if part is not None and 1 <= part.number <= part.total else None


def count_segments(message: Message, *, latin_default: bool = False) -> int:
    """Count the segments that a submit_sm is sent, and so charged, in.

    One that says it is a part is one segment if it fits into one, and what it takes where it does not:
    whoever calls 60 kilobytes a part is charged for all of them.

    Raises:
        MalformedPdu: the text is malformed, or longer than 255 segments.
    """
    content = content_of(message)
    text = content.text
    header = len(content.header)
    if not header and message.tlvs and part_of(message, content) is not None:
        # The SMSC makes the header of a part out of the SAR parameters.
        header = 1 + CONCATENATION
    encoding, charset = coding_of(message.data_coding, latin_default=latin_default)
    try:
        if charset:
            return _transcoded(text, charset, header)
        if encoding == UCS2:
            if len(text) % 2:
                raise MalformedPdu(
                    f"a UCS-2 text of {len(text)} octets, an odd number", INVALID_MESSAGE_LENGTH
                )
            units = text.decode("utf-16-be", "surrogatepass")
            flat = len(units) * 2 == len(text)
            sizes = len(units) if flat else [2 if one > "\uffff" else 1 for one in units]
            return coded_segments(UCS2, sizes, header)
        if encoding == GSM7:
            return coded_segments(GSM7, _septets(text), header)
        return coded_segments(OCTETS, len(text), header)
    except InvalidInput as refused:
        if isinstance(refused, MalformedPdu):
            raise
        raise MalformedPdu(refused.detail, INVALID_MESSAGE_LENGTH) from refused


def coding_of(data_coding: int, *, latin_default: bool = False) -> tuple[str, str]:
    """Return the encoding on the air (gsm7, ucs2, octets) and, where the SMSC chooses it, the charset.

    Codings that are reserved or of Asian charsets count as octets: never fewer segments than there are.
    """
    default = (GSM7, "latin-1" if latin_default else "")
    if data_coding < 0x10:
        if data_coding == 0:
            return default
        if data_coding == 8:
            return UCS2, ""
        charset = _CHARSETS.get(data_coding, "")
        return (GSM7, charset) if charset else (OCTETS, "")
    group = data_coding >> 4
    if group < 8:
        alphabet = (data_coding >> 2) & 3
        if data_coding & 0x20:  # compressed
            return OCTETS, ""
        return default if alphabet == 0 else ((GSM7, OCTETS, UCS2, OCTETS)[alphabet], "")
    if group in {0xC, 0xD}:
        return default
    if group == 0xE:
        return UCS2, ""
    if group == 0xF:
        return (OCTETS, "") if data_coding & 0x04 else default
    return OCTETS, ""


def text_of(message: Message, *, latin_default: bool = False) -> str:
    """Decode the text for people; what cannot be decoded becomes U+FFFD, binary text its hex digits.

    Raises:
        MalformedPdu: see :func:`content_of`.
    """
    text = content_of(message).text
    encoding, charset = coding_of(message.data_coding, latin_default=latin_default)
    if charset:
        return text.decode(charset, "replace")
    if encoding == GSM7:
        return gsm_text(text)
    return text.decode("utf-16-be", "replace") if encoding == UCS2 else text.hex()


def gsm_text(coded: bytes) -> str:
    """Decode GSM 03.38, an octet to a septet; an unknown extension is shown as its plain character."""
    found: list[str] = []
    escaped = False
    for code in coded:
        if escaped:
            found.append(EXTENSION.get(code) or (GSM[code] if code < 128 else "\ufffd"))
            escaped = False
        elif code == ESCAPE:
            escaped = True
        else:
            found.append(GSM[code] if code < 128 else "\ufffd")
    return "".join(found)


def gsm_bytes(text: str) -> bytes | None:
    """Code a text in GSM 03.38, an octet to a septet; None if a character is not in it."""
    try:
        return b"".join([_CODES[char] for char in text])
    except KeyError:
        return None


def _elements(data: bytes) -> tuple[tuple[int, bytes], ...]:
    """The information elements of a header; one that is cut off ends them."""
    found: list[tuple[int, bytes]] = []
    at = 0
    while at + 2 <= len(data):
        end = at + 2 + data[at + 1]
        if end > len(data):
            break
        found.append((data[at], data[at + 2 : end]))
        at = end
    return tuple(found)


def _septets(text: bytes) -> list[int] | int:
    """Units of each character: an escape and what it escapes are cut in no part."""
    if ESCAPE not in text:
        return len(text)
    sizes: list[int] = []
    escaped = False
    for code in text:
        if escaped:
            sizes[-1] = 2
            escaped = False
        else:
            sizes.append(1)
            escaped = code == ESCAPE
    return sizes


def _transcoded(text: bytes, charset: str, header: int) -> int:
    """Segments of a text that the SMSC codes itself: GSM if all of it is in that, else UCS-2."""
    plain = text.decode(charset, "replace")
    if not header:
        return segments_of(plain).segments
    coded = gsm_bytes(plain)
    if coded is None:
        return coded_segments(UCS2, len(plain), header)
    return coded_segments(GSM7, _septets(coded), header)
