"""Messages of others: captures of real networks, and an independent implementation."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tollkeeper.wire.diameter import codes
from tollkeeper.wire.diameter.base import decode_capabilities
from tollkeeper.wire.diameter.codec import decode, decode_header, encode_message, walk
from tollkeeper.wire.diameter.codes import Kind
from tollkeeper.wire.diameter.credit import (
    Control,
    CreditAnswer,
    CreditRequest,
    Units,
    decode_credit_answer,
    decode_request,
)
from tollkeeper.wire.diameter.credit_encode import encode_credit_answer, encode_request
from tollkeeper.wire.diameter.service import ServiceInformation

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("TOLLKEEPER_SHARED_DATA", ROOT.parent / "shared" / "data"))
VECTORS = SHARED / "protocol" / "diameter" / "hex_vectors.json"
needs_captures = pytest.mark.skipif(
    not VECTORS.is_file(), reason="no captures here; TOLLKEEPER_SHARED_DATA names their folder"
)


def captures() -> dict[str, bytes]:
    return {name: bytes.fromhex(text) for name, text in json.loads(VECTORS.read_text()).items()}


@needs_captures
def test_messages_of_real_networks_are_written_as_they_came() -> None:
    """With vendors and flags; only the padding, which one fills with anything, comes out as zeros."""
    for name, data in captures().items():
        again = encode_message(decode(data))
        assert decode(again) == decode(data), name
        assert again == data or name == "go-diameter:testMessageWithVendorID"


@needs_captures
def test_a_real_update_location_opens_to_its_leaves() -> None:
    groups = frozenset(codes.TGPP << 32 | code for code in (628, 1401))
    leaves = list(walk(captures()["test_message:ulr"], groups, 20))
    assert leaves[0].key == codes.SESSION_ID
    assert any(one.key == codes.USER_NAME and one.data.isdigit() for one in leaves)


@needs_captures
def test_capabilities_of_real_networks_are_read() -> None:
    found = captures()
    asked = decode_capabilities(found["test_message:cer"])
    assert asked.addresses == ("172.20.39.7",)
    assert asked.auth_applications == (4,)
    assert asked.credit_control
    answered = decode_capabilities(found["test_message:cea"])
    assert answered.result == 5012
    assert answered.error.startswith("Invalid state to receive")
    assert len(answered.vendors) >= 5


def test_an_independent_implementation_reads_what_we_write() -> None:
    """The request's and the answer's fields arrive in the library's own names."""
    library = pytest.importorskip("diameter.message", reason="python-diameter is not installed")
    request = CreditRequest(
        session_id="gw;1;2",
        origin_host="gw.example",
        origin_realm="example",
        destination_realm="ocs.example",
        context="32251@3gpp.org",
        kind=Kind.INITIAL,
        number=0,
        subscribers=((0, "4912345"),),
        multiple=True,
        controls=(Control(rating_group=9, requested=Units(total=1000), used=(Units(time=5),)),),
        information=ServiceInformation(calling="sip:1@x", called="tel:+442071838750"),
    )
    read = library.Message.from_bytes(encode_request(request, 11, 22))
    assert (read.header.hop_by_hop_identifier, read.header.end_to_end_identifier) == (11, 22)
    assert (read.session_id, read.cc_request_type, read.cc_request_number) == ("gw;1;2", 1, 0)
    (control,) = read.multiple_services_credit_control
    assert control.rating_group == 9
    assert control.requested_service_unit.cc_total_octets == 1000
    assert control.used_service_unit[0].cc_time == 5
    assert read.subscription_id[0].subscription_id_data == "4912345"
    information = read.service_information.ims_information
    assert information.called_party_address == "tel:+442071838750"
    answer = CreditAnswer(
        session_id="gw;1;2",
        result=2001,
        origin_host="ocs",
        origin_realm="example",
        kind=1,
        number=0,
        controls=(
            Control(rating_group=9, granted=Units(total=900), validity=60, result=2001, final=True),
        ),
    )
    data = encode_credit_answer(answer, decode_header(encode_request(request, 11, 22)))
    told = library.Message.from_bytes(data)
    (granted,) = told.multiple_services_credit_control
    assert told.result_code == 2001
    assert granted.granted_service_unit.cc_total_octets == 900
    assert granted.final_unit_indication.final_unit_action == 0
    assert decode_credit_answer(data) == answer


def test_we_read_what_an_independent_implementation_writes() -> None:
    commands = pytest.importorskip(
        "diameter.message.commands", reason="python-diameter is not installed"
    )
    from diameter.message.avp.grouped import (
        MultipleServicesCreditControl,
        SubscriptionId,
        UsedServiceUnit,
    )

    message = commands.CreditControlRequest()
    message.session_id = "lib;1;2"
    message.origin_host = b"lib.example"
    message.origin_realm = b"example"
    message.destination_realm = b"ocs.example"
    message.auth_application_id = 4
    message.service_context_id = "32260@3gpp.org"
    message.cc_request_type = 2
    message.cc_request_number = 5
    message.user_name = "acme"
    message.subscription_id = [SubscriptionId(2, "sip:1@x")]
    message.multiple_services_credit_control = [
        MultipleServicesCreditControl(
            rating_group=3, used_service_unit=[UsedServiceUnit(cc_time=12, cc_total_octets=2**33)]
        )
    ]
    read = decode_request(message.as_bytes())
    assert (read.session_id, read.kind, read.number) == ("lib;1;2", Kind.UPDATE, 5)
    assert read.subscribers == ((2, "sip:1@x"),)
    assert read.user_name == "acme"
    assert read.controls == (Control(rating_group=3, used=(Units(time=12, total=2**33),)),)
