"""Numbers in what Diameter clients write as addresses, and groups that hold them."""

from __future__ import annotations

import pytest

from tollkeeper.wire.diameter import codes
from tollkeeper.wire.diameter.codec import avp, avp_text, group
from tollkeeper.wire.diameter.service import (
    ServiceInformation,
    number_of,
    read_service_information,
    user_of,
)


@pytest.mark.parametrize(
    ("address", "number"),
    [
        ("sip:+442071838750@ims.example;user=phone", "+442071838750"),
        ("sips:442071838750@10.0.0.1:5061", "442071838750"),
        ("tel:+44-20-7183-8750;phone-context=x", "+442071838750"),
        ("<SIP:4912345@h>", "4912345"),
        ("+44 (20) 7183 8750", "+442071838750"),
        ("sip:alice@example", ""),
        ("", ""),
        ("+", ""),
        ("\u0664\u0669", ""),
    ],
)
def test_the_number_of_an_address(address: str, number: str) -> None:
    assert number_of(address) == number


def test_the_user_of_an_address() -> None:
    assert user_of("sip:alice@example") == "alice"
    assert user_of("alice@example") == "alice@example"


def test_what_is_not_looked_for_is_passed_over_wherever_it_stands() -> None:
    """Networks fill Service-Information with mandatory AVPs of all kinds; the first address counts."""
    other = avp(codes.TGPP << 32 | 9999, b"whatever")
    ims = group(
        codes.IMS_INFORMATION,
        (
            other,
            avp_text(codes.CALLING_PARTY_ADDRESS, "sip:+1@x"),
            avp_text(codes.CALLING_PARTY_ADDRESS, "tel:+2"),
            group(codes.TRUNK_GROUP_ID, (avp_text(codes.INCOMING_TRUNK_GROUP_ID, "in-9"), other)),
        ),
    )
    packets = group(
        codes.PS_INFORMATION,
        (avp_text(codes.CALLED_STATION_ID, "internet"), avp_text(codes.SGSN_MCC_MNC, "310260")),
    )
    assert read_service_information(other + ims + packets) == ServiceInformation(
        calling="sip:+1@x", trunk="in-9", access_point="internet", network="310260"
    )
