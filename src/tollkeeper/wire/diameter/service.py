"""Who calls whom, out of 3GPP's Service-Information (TS 32.299 section 7.2.192) and Subscription-Id.

Its groups are opened only where an address may stand; everything else in them is passed over, also
what is marked mandatory: networks fill them with dozens of AVPs that decide nothing here.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from tollkeeper.wire.diameter import codes
from tollkeeper.wire.diameter.codec import Group, read_text, split

_AT_MOST: Final = 16
"""Addresses that are kept of one message to many."""
_uri: Final = re.compile(r"(?:sips?|tel):([^@;?>]*)", re.IGNORECASE)
_quiet: Final = str.maketrans("", "", " -.()")


class ServiceInformation(msgspec.Struct, frozen=True, gc=False):
    """What stood in it: addresses as they were written, "" where there was none.

    ``access_point`` is the Called-Station-Id of a data session, ``network`` the MCC and MNC that serve it;
    ``trunk`` the group of trunks that a call came in by.
    """

    calling: str = ""
    called: str = ""
    requested: str = ""
    recipients: tuple[str, ...] = ()
    access_point: str = ""
    network: str = ""
    trunk: str = ""


NOTHING: Final = ServiceInformation()


def read_service_information(data: bytes) -> ServiceInformation:
    """Read the data of a Service-Information.

    Raises:
        MalformedDiameter: a lying length, or an address that is no text.
    """
    found: dict[int, str] = {}
    recipients: list[str] = []
    for part in split(data):
        if part.key == codes.IMS_INFORMATION:
            _note(found, part.data, (
                codes.CALLING_PARTY_ADDRESS,
                codes.CALLED_PARTY_ADDRESS,
                codes.REQUESTED_PARTY_ADDRESS,
            ))  # fmt: skip
            for inner in split(part.data):
                if inner.key == codes.TRUNK_GROUP_ID:
                    _note(found, inner.data, (codes.INCOMING_TRUNK_GROUP_ID,))
        elif part.key == codes.PS_INFORMATION:
            _note(found, part.data, (codes.CALLED_STATION_ID, codes.SGSN_MCC_MNC))
        elif part.key == codes.SMS_INFORMATION:
            _messages(found, recipients, part.data)
    return ServiceInformation(
        calling=found.get(codes.CALLING_PARTY_ADDRESS, ""),
        called=found.get(codes.CALLED_PARTY_ADDRESS, ""),
        requested=found.get(codes.REQUESTED_PARTY_ADDRESS, ""),
        recipients=tuple(recipients),
        access_point=found.get(codes.CALLED_STATION_ID, ""),
        network=found.get(codes.SGSN_MCC_MNC, ""),
        trunk=found.get(codes.INCOMING_TRUNK_GROUP_ID, ""),
    )


def _note(found: dict[int, str], data: bytes, keys: tuple[int, ...]) -> None:
    """Keep the first value of each of the keys: a caller's SIP URI comes before its tel URI."""
    group: Group = {}
    for one in split(data):
        if one.key in keys and one.key not in group:
            group[one.key] = [one.data]
            found.setdefault(one.key, read_text(group, one.key))


def _messages(found: dict[int, str], recipients: list[str], data: bytes) -> None:
    """The addresses of SMS-Information: who sent, and everybody who gets it."""
    for part in split(data):
        if part.key == codes.ORIGINATOR_RECEIVED_ADDRESS:
            found.setdefault(codes.CALLING_PARTY_ADDRESS, _address(part.data))
        elif part.key == codes.RECIPIENT_INFO:
            for inner in split(part.data):
                if inner.key == codes.RECIPIENT_ADDRESS and len(recipients) < _AT_MOST:
                    recipients.append(_address(inner.data))


def _address(data: bytes) -> str:
    for one in split(data):
        if one.key == codes.ADDRESS_DATA:
            return read_text({one.key: [one.data]}, one.key)
    return ""


def number_of(address: str) -> str:
    """Return the number in a SIP URI, a tel URI or a plain writing; "" where there is none.

    ``sip:+49123@ims.example;user=phone`` is +49123; ``sip:alice@example`` has none.
    """
    match = _uri.match(address.strip().lstrip("<"))
    text = (match.group(1) if match else address).translate(_quiet)
    digits = text.removeprefix("+")
    return text if digits.isascii() and digits.isdigit() else ""


def user_of(address: str) -> str:
    """Return the user part of a SIP or tel URI, or the whole where it is none."""
    match = _uri.match(address.strip().lstrip("<"))
    return match.group(1) if match else address
