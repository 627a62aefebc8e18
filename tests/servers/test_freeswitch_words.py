"""What FreeSWITCH says of a channel, read as the switchboard asks for it; where it is connected."""

from __future__ import annotations

import pytest

from tests.protocols.freeswitch_events import Call, channel_headers
from tollkeeper.core.reasons import MEANINGS, Reason
from tollkeeper.servers.freeswitch.agent import address_of
from tollkeeper.servers.freeswitch.words import (
    ask_of_event,
    cause_of,
    cause_of_end,
    elapsed_of,
    is_ours,
    is_parked,
    used_ms_of,
)
from tollkeeper.store.peers import Peer
from tollkeeper.wire.cdr.causes import of_freeswitch
from tollkeeper.wire.esl.codec import Event

UUID = "0f1b3a52-2b0d-4a8e-9d53-5ff0a3c7f1d2"


def event(*pairs: tuple[str, str]) -> Event:
    """An event with these headers."""
    return Event(tuple(pairs))


def test_a_call_is_asked_for_as_the_switch_knows_it() -> None:
    """Numbers, address, account and gateway as the record of the call will have them."""
    call = Call(UUID, "4420\x07718", "442079460000", "acme", {"sip_gateway": "peer-7"}, 10**15)
    ask = ask_of_event(Event(tuple(channel_headers("CHANNEL_PARK", call, []))))
    assert (ask.call_id, ask.called, ask.caller) == (UUID, "442079460000", "4420718")
    assert (ask.trunk, ask.address, ask.account, ask.party) == ("peer-7", "127.0.0.1", "acme", "")
    call.variables = {"tollkeeper_party": "beta", "tollkeeper_trunk": "t1", "sip_gateway": "x"}
    ask = ask_of_event(Event(tuple(channel_headers("CHANNEL_PARK", call, []))))
    assert (ask.party, ask.trunk) == ("beta", "t1")


def test_usage_is_the_switchs_own_count() -> None:
    """Microseconds before milliseconds before seconds; without them the times; 0 if never answered."""
    times = (
        ("Caller-Channel-Answered-Time", "1700000000000000"),
        ("Caller-Channel-Hangup-Time", "1700000002500000"),
    )
    assert used_ms_of(event(("variable_billusec", "1500499"), ("variable_billsec", "9"))) == 1_500
    assert used_ms_of(event(("variable_billmsec", "1234"), *times)) == 1_234
    assert used_ms_of(event(("variable_billusec", "-5"), ("variable_billsec", "9"))) == 9_000
    assert used_ms_of(event(("variable_billsec", "nonsense"), *times)) == 2_500
    assert used_ms_of(event(*times)) == 2_500
    assert used_ms_of(event(("Caller-Channel-Answered-Time", "0"), times[1])) == 0
    assert used_ms_of(event(times[0], ("Caller-Channel-Hangup-Time", "1600000000000000"))) == 0


def test_the_time_since_the_answer_is_a_difference_of_one_clock() -> None:
    """None while it rings; never negative."""
    answered = ("Caller-Channel-Answered-Time", "1700000000000000")
    assert elapsed_of(event()) is None
    assert elapsed_of(event(("Caller-Channel-Answered-Time", "0"))) is None
    assert elapsed_of(event(answered, ("Event-Date-Timestamp", "1700000001500000"))) == 1.5
    assert elapsed_of(event(answered, ("Event-Date-Timestamp", "1600000000000000"))) == 0
    assert elapsed_of(event(answered)) == 0


def test_marks_and_park_are_seen() -> None:
    """By the variable that the dialplan sets, and by the application or the state."""
    assert is_ours(event(("variable_tollkeeper", "park")))
    assert is_ours(event(("variable_tollkeeper", "curl")))
    assert not is_ours(event(("variable_tollkeeper", "")))
    assert is_parked(event(("variable_current_application", "park")))
    assert is_parked(event(("Channel-State", "CS_PARK")))
    assert not is_parked(event(("variable_current_application", "bridge")))


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_a_cause_of_its_q850(reason: Reason) -> None:
    """What the switch writes into its record is read back as the same cause."""
    assert of_freeswitch(cause_of(reason)).q850 == MEANINGS[reason].q850


def test_calls_that_ran_out_of_money_end_as_such() -> None:
    """All others were ended by somebody."""
    assert cause_of_end("no_more_credit") == cause_of_end("spend_limit") == "ALLOTTED_TIMEOUT"
    assert cause_of_end("suspended") == cause_of_end("") == "MANAGER_REQUEST"


@pytest.mark.parametrize(
    ("connect", "addresses", "found"),
    [
        ("192.0.2.1:8022", (), ("192.0.2.1", 8022)),
        ("switch.example", (), ("switch.example", 8021)),
        ("[2001:db8::1]:8022", (), ("2001:db8::1", 8022)),
        ("[2001:db8::1]", (), ("2001:db8::1", 8021)),
        ("", ("192.0.2.7/32", "192.0.2.8"), ("192.0.2.7", 8021)),
        ("", ("2001:db8::2",), ("2001:db8::2", 8021)),
    ],
)
def test_where_a_peer_is_connected(
    connect: str, addresses: tuple[str, ...], found: tuple[str, int]
) -> None:
    """The option wins over the first address; the port is 8021 unless it is said."""
    peer = Peer(1, "fs", "freeswitch", "fs", addresses, options={"connect": connect})
    assert address_of(peer) == found


@pytest.mark.parametrize("connect", ["", "host:", "host:x", "host:70000", ":8021"])
def test_an_address_that_is_none_is_refused(connect: str) -> None:
    """With one sentence that says where to set it."""
    if connect == "host:":
        assert address_of(Peer(1, "fs", "f", "fs", options={"connect": connect})) == ("host", 8021)
        return
    with pytest.raises(ConnectionError, match="event socket"):
        address_of(Peer(1, "fs", "freeswitch", "fs", options={"connect": connect}))
