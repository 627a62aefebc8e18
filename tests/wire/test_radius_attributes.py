"""What switches write into attributes, in all its spellings."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.wire.radius.attributes import (
    AUDIOCODES,
    Attributes,
    Type,
    Voice,
    address,
    conference,
    gateway_time,
    integer,
    number,
    plain,
    text,
    voice,
)
from tollkeeper.wire.radius.messages import Origin, Report, Status, read_question, read_report
from tollkeeper.wire.radius.orders import Target, disconnect, error_cause, prolong
from tollkeeper.wire.radius.packet import Attribute, Code, Packet, decode, encode_request
from tollkeeper.wire.radius.passwords import Digest, digest_matches, read_digest, secret_hash

SECRET = b"testing123"
NOW = datetime(2026, 11, 21, 18, 0, tzinfo=UTC)


def packet(*attributes: Attribute, code: Code = Code.ACCOUNTING_REQUEST) -> Packet:
    return decode(encode_request(code, 1, attributes, SECRET, random=bytes(16)))


def report(*attributes: Attribute) -> Report:
    return read_report(packet(*attributes))


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("vendor", [9, AUDIOCODES])
def test_a_vendor_attribute_is_read_with_and_without_its_name(named: bool, vendor: int) -> None:
    seen = Attributes([voice(Voice.CREDIT_TIME, "360", named=named, vendor=vendor)])
    assert seen.voice(Voice.CREDIT_TIME) == "360"


def test_another_vendors_attribute_is_not_ciscos() -> None:
    assert Attributes([voice(Voice.CREDIT_TIME, "360", vendor=311)]).voice(Voice.CREDIT_TIME) == ""


def test_a_value_that_has_an_equals_sign_of_its_own_is_kept_whole() -> None:
    seen = Attributes([voice(Voice.GATEWAY_ID, "gw=1", named=False)])
    assert seen.voice(Voice.GATEWAY_ID) == "gw=1"


def test_several_vendor_attributes_in_one_are_all_read() -> None:
    """RFC 2865 section 5.26 allows it."""
    parts = b"".join(
        struct.pack("!BB", number_, len(value) + 2) + value
        for number_, value in (
            (24, b"h323-conf-id=16000 1 2 3"),
            (26, b"originate"),
            (1, b"call-id=abc@h"),
        )
    )
    seen = report((Type.VENDOR_SPECIFIC, struct.pack("!I", 9) + parts))
    assert seen.conference == "00016000000000010000000200000003"
    assert seen.origin is Origin.ORIGINATE
    assert seen.call_id == "abc@h"


def test_an_attribute_wrapped_in_h323_ivr_out_is_found() -> None:
    """As AudioCodes writes the id of the incoming leg."""
    pair = voice(
        Voice.AVPAIR, "h323-ivr-out=h323-incoming-conf-id:02102944 600a1899 3fd61009 0e2f3cc5"
    )
    assert report(pair).incoming_conference == "02102944600a18993fd610090e2f3cc5"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("16000 1 2 3", "00016000000000010000000200000003"),
        ("00016000 00000001 00000002 00000003", "00016000000000010000000200000003"),
        ("02102944 600A1899 3FD61009  0E2F3CC5 ", "02102944600a18993fd610090e2f3cc5"),
        ("02102944-600a-1899-3fd6-10090e2f3cc5", "02102944600a18993fd610090e2f3cc5"),
        ("1 2 3", "1 2 3"),
        ("call@host", "call@host"),
        ("", ""),
    ],
)
def test_one_conference_has_one_writing(written: str, meant: str) -> None:
    assert conference(written) == meant


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("23:24:19.810 UTC Sun Sep 26 2001", "2001-09-26T23:24:19.810000"),
        ("*23:24:19.810 UTC Sun Sep 26 2001", "2001-09-26T23:24:19.810000"),
        (".03:04:05 GMT+2 Sun Sep  6 2001", "2001-09-06T03:04:05"),
        ("25:24:19.810 UTC Sun Sep 26 2001", None),
        ("23:24:19 UTC Sun Foo 26 2001", None),
        ("2001-09-26T23:24:19Z", None),
        ("", None),
    ],
)
def test_the_time_of_a_gateway_is_read(written: str, meant: str | None) -> None:
    found = gateway_time(written)
    assert (found.isoformat() if found else None) == meant


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("4930123", "4930123"),
        ("sip:4930123@10.0.0.1:5060", "4930123"),
        ("<sips:+4930123;user=phone@host>", "+4930123"),
        ("tel:+4930123;phone-context=x", "+4930123"),
        (" 1#4930 ", "1#4930"),
    ],
)
def test_the_number_is_taken_out_of_an_address(written: str, meant: str) -> None:
    assert number(written) == meant


@given(st.binary(max_size=253))
def test_any_octets_become_text_that_can_be_kept_and_logged(data: bytes) -> None:
    found = plain(data)
    assert found.isprintable()
    assert found.encode().decode() == found


def test_zero_octets_at_the_end_are_padding() -> None:
    assert plain(b"acme\0\0") == "acme"
    assert plain(b"a\0b\nc") == "a\\x00b\\nc"


def test_gigawords_count_what_the_octets_have_run_over() -> None:
    seen = report(
        integer(Type.ACCT_INPUT_OCTETS, 5),
        integer(Type.ACCT_INPUT_GIGAWORDS, 2),
        integer(Type.ACCT_OUTPUT_OCTETS, 7),
    )
    assert seen.octets == 2 * 2**32 + 12
    assert report().octets is None


def test_a_number_of_the_wrong_size_counts_as_absent() -> None:
    seen = report((Type.ACCT_SESSION_TIME, b"\0\0\1"), (Type.ACCT_STATUS_TYPE, b"\2"))
    assert (seen.seconds, seen.status) == (None, 0)


def test_the_accounting_of_a_gateway_is_read_whole() -> None:
    seen = report(
        integer(Type.ACCT_STATUS_TYPE, Status.STOP),
        text(Type.ACCT_SESSION_ID, "8d000004"),
        text(Type.USER_NAME, "acme"),
        address(Type.NAS_IP_ADDRESS, ip_address("192.0.2.7")),
        integer(Type.ACCT_DELAY_TIME, 3),
        integer(Type.ACCT_SESSION_TIME, 61),
        integer(Type.EVENT_TIMESTAMP, 1_000_000_000),
        integer(Type.ACCT_TERMINATE_CAUSE, 1),
        (Type.CLASS, b"tk:1"),
        voice(Voice.CALL_ORIGIN, "answer"),
        voice(Voice.CONNECT_TIME, "*23:24:19.810 UTC Sun Sep 26 2001"),
        voice(Voice.DISCONNECT_TIME, "*23:25:20.310 UTC Sun Sep 26 2001"),
        voice(Voice.DISCONNECT_CAUSE, "1F"),
        voice(Voice.REMOTE_ADDRESS, "198.51.100.9"),
    )
    assert (seen.status, seen.session_id, seen.user) == (Status.STOP, "8d000004", "acme")
    assert (seen.nas_address, seen.remote_address) == ("192.0.2.7", "198.51.100.9")
    assert (seen.seconds, seen.delay, seen.connected_ms) == (61, 3, 60_500)
    assert (seen.terminate_cause, seen.q850, seen.classes) == (1, 31, (b"tk:1",))
    assert seen.happened_at == datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC)
    assert seen.origin is Origin.ANSWER
    assert not seen.sip


def test_the_codes_of_sip_accounting_are_sip_only_in_a_sip_session() -> None:
    """Kamailio's 102 is a response code; elsewhere it is EAP-Key-Name."""
    codes = (integer(102, 200), text(104, "to"), text(105, "from"))
    seen = report(integer(Type.SERVICE_TYPE, 15), *codes)
    assert (seen.sip, seen.sip_code, seen.sip_tags) == (True, 200, ("from", "to"))
    other = report(*codes)
    assert (other.sip, other.sip_code, other.sip_tags) == (False, None, ("", ""))


@pytest.mark.parametrize(
    ("written", "cause"),
    [("10", 16), ("0x15", 21), ("7f", 127), ("80", None), ("-1", None), ("zz", None), ("", None)],
)
def test_the_cause_is_hexadecimal(written: str, cause: int | None) -> None:
    assert report(voice(Voice.DISCONNECT_CAUSE, written)).q850 == cause


def test_text_too_long_is_cut_at_a_character() -> None:
    kind, value = text(Type.REPLY_MESSAGE, "ä" * 200)
    assert (kind, len(value)) == (18, 252)
    assert value.decode() == "ä" * 126


def test_a_vendor_attribute_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="247 are the most"):
        voice(Voice.AVPAIR, "x" * 248)


# --- digest --------------------------------------------------------------------------------------

# RFC 2617 section 3.5.
MUFASA = {
    "username": "Mufasa",
    "realm": "testrealm@host.com",
    "nonce": "dcd98b7102dd2f0e8b11d0f600bfb0c093",
    "method": "GET",
    "uri": "/dir/index.html",
    "qop": "auth",
    "nonce_count": "00000001",
    "cnonce": "0a4f113b",
    "response": "6629fae49393a05397450978507c4ef1",
}
HA1 = secret_hash("Mufasa", "testrealm@host.com", "Circle Of Life")


def test_the_digest_of_the_rfc_matches_its_password_alone() -> None:
    assert digest_matches(Digest(**MUFASA), HA1)
    assert not digest_matches(
        Digest(**MUFASA), secret_hash("Mufasa", "testrealm@host.com", "circle of life")
    )


@pytest.mark.parametrize("part", ["nonce", "method", "uri", "nonce_count", "cnonce", "response"])
def test_no_part_of_a_digest_can_be_changed(part: str) -> None:
    assert not digest_matches(Digest(**(MUFASA | {part: MUFASA[part] + "0"})), HA1)


@pytest.mark.parametrize("change", [{"algorithm": "MD4"}, {"qop": "auth-foo"}, {"response": ""}])
def test_what_is_not_known_matches_nothing(change: dict[str, str]) -> None:
    assert not digest_matches(Digest(**(MUFASA | change)), HA1)


def test_the_two_forms_of_digest_say_the_same() -> None:
    """RFC 5090, and the older attributes 206 and 207: several, or several parts in one."""
    names = {"realm": 104, "nonce": 105, "method": 108, "uri": 109, "qop": 110, "cnonce": 113,
             "nonce_count": 114, "username": 115, "response": 103}  # fmt: skip
    newer = [text(names[name], f'"{value}"') for name, value in MUFASA.items()]
    kinds = {"realm": 1, "nonce": 2, "method": 3, "uri": 4, "qop": 5, "cnonce": 8,
             "nonce_count": 9, "username": 10}  # fmt: skip
    parts = [
        bytes((kind, len(MUFASA[name]) + 2)) + MUFASA[name].encode() for name, kind in kinds.items()
    ]
    response = text(206, MUFASA["response"])
    for form in (
        newer,
        [response, *((207, part) for part in parts)],
        [response, (207, b"".join(parts))],
    ):
        found = read_question(packet(*form, code=Code.ACCESS_REQUEST)).digest
        assert found is not None
        assert digest_matches(found, HA1)


def test_a_digest_without_its_own_name_is_the_users() -> None:
    found = read_digest(Attributes([text(Type.USER_NAME, "alice"), text(103, "00")]))
    assert found is not None
    assert found.username == "alice"


# --- orders --------------------------------------------------------------------------------------


def test_an_order_names_the_nas_and_the_session_and_nothing_else() -> None:
    target = Target("8d000004", "acme", "192.0.2.7", "gw-1", "44123", "49301", "16000 1 2 3")
    kinds = [kind for kind, _ in disconnect(target, NOW)]
    assert kinds == [4, 32, 1, 44, 30, 31, 26, 55]
    prolonged = prolong(target, 3600, NOW)
    assert prolonged[:-1] == disconnect(target, NOW)
    assert prolonged[-1] == (27, struct.pack("!I", 3600))


def test_an_order_without_a_session_is_not_made() -> None:
    """RFC 5176 section 3: it would apply to every session that matches the rest."""
    for order in (lambda t: disconnect(t, NOW), lambda t: prolong(t, 1, NOW)):
        with pytest.raises(ValueError, match="could end other calls"):
            order(Target("", "acme", "192.0.2.7"))


def test_why_an_order_was_not_obeyed_is_read() -> None:
    assert error_cause(packet(integer(Type.ERROR_CAUSE, 503))) == 503
    assert error_cause(packet()) == 0
