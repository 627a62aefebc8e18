"""What FreeSWITCH says of a channel, as the switchboard asks for it, and what its causes are called.

The channel is that of the caller. Variables that the dialplan sets for us:

=====================  ==================================================================
tollkeeper             "park" (an agent decides) or "curl" (the dialplan was asked over HTTP)
tollkeeper_party       the code of the party, where the switch itself knows whose call it is
tollkeeper_trunk       the switch's name of the trunk; else the gateway that the call came by
=====================  ==================================================================

Variables that we set: ``tollkeeper_granted`` (seconds since the answer that are paid for) and, on a
call that was refused, ``tollkeeper_reason`` and ``tollkeeper_sip``.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from tollkeeper.core.reasons import MEANINGS, Reason
from tollkeeper.servers.asks import Ask
from tollkeeper.wire.cdr.causes import freeswitch_of_q850
from tollkeeper.wire.cdr.problem import FieldProblem
from tollkeeper.wire.cdr.values import duration_ms
from tollkeeper.wire.esl.codec import Event

MARK = "tollkeeper"
PARKED, ASKED = "park", "curl"
GRANTED, REASON, SIP = "tollkeeper_granted", "tollkeeper_reason", "tollkeeper_sip"
ON_ANSWER = "execute_on_answer_tollkeeper"
"""FreeSWITCH carries out every variable whose name begins with execute_on_answer."""
RAN_OUT = "ALLOTTED_TIMEOUT"
ENDED = "MANAGER_REQUEST"
ROUTING_CONTEXT = "tollkeeper-route"
ENTRY_CONTEXT = "tollkeeper"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_OUT_OF_MONEY = frozenset(
    (
        "no_more_credit",
        "expired",
        *(one.value for one in Reason if "limit" in one or "funds" in one),
    )
)
Look = Callable[[str], str]


def is_channel(text: str) -> bool:
    """Tell whether an id is one that FreeSWITCH gives its channels."""
    return _UUID.fullmatch(text) is not None


def is_ours(event: Event) -> bool:
    """Tell whether the dialplan marked the channel as one whose call is charged here."""
    return event.variable(MARK) in {PARKED, ASKED}


def is_parked(event: Event) -> bool:
    """Tell whether a channel waits in park, by what is known of it now."""
    return (
        event.variable("current_application") == "park" or event.get("Channel-State") == "CS_PARK"
    )


def ask_of(look: Look, *, call_id: str, called: str, caller: str, address: str) -> Ask:
    """Make the question from a channel; ``look`` gives a variable of it, "" where it is not set."""
    return Ask(
        call_id=call_id,
        called=clean(called),
        caller=clean(caller or look("sip_from_user")),
        party=clean(look("tollkeeper_party")),
        trunk=clean(look("tollkeeper_trunk") or look("sip_gateway")),
        address=clean(look("sip_network_ip") or address),
        account=clean(look("accountcode")),
        lrn=clean(look("tollkeeper_lrn")),
    )


def ask_of_event(event: Event) -> Ask:
    """Make the question from an event of the channel."""
    return ask_of(
        event.variable,
        call_id=event.uuid,
        called=event.get("Caller-Destination-Number"),
        caller=event.get("Caller-Caller-ID-Number"),
        address=event.get("Caller-Network-Addr"),
    )


def used_ms_of(event: Event) -> int:
    """Milliseconds from answer to hangup as the switch counted them; 0 if it was not answered."""
    for name, unit in (("billusec", "us"), ("billmsec", "ms"), ("billsec", "s")):
        text = event.variable(name)
        if text:
            try:
                return duration_ms(text, unit)
            except FieldProblem:
                continue
    answered = event.number("Caller-Channel-Answered-Time")
    ended = event.number("Caller-Channel-Hangup-Time")
    return max(0, ended - answered) // 1000 if answered and ended else 0


def elapsed_of(event: Event) -> float | None:
    """Seconds since the answer, both by the switch's own clock; None if it was not answered."""
    answered = event.number("Caller-Channel-Answered-Time")
    if not answered:
        return None
    now = event.number("Event-Date-Timestamp")
    return max(0, now - answered) / 10**6 if now else 0.0


def cause_of(reason: Reason) -> str:
    """The cause with which a call is refused."""
    return freeswitch_of_q850(MEANINGS[reason].q850)


def cause_of_end(reason: str) -> str:
    """The cause with which a call that was up is ended."""
    return RAN_OUT if reason in _OUT_OF_MONEY else ENDED


def clean(text: str) -> str:
    """A text without characters that no number, name or address has, and not too long."""
    return "".join(c for c in text[:255] if c.isprintable()).strip()
