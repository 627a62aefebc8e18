"""What a switch is told in Access-Accept and Access-Reject."""

from __future__ import annotations

from decimal import Decimal

from tollkeeper.core.reasons import Reason
from tollkeeper.core.routes import routes_for
from tollkeeper.servers.asks import Verdict
from tollkeeper.servers.radius.names import mark_of, state_of
from tollkeeper.store.peers import Peer
from tollkeeper.wire.radius.attributes import (
    AUDIOCODES,
    CISCO,
    Type,
    Voice,
    integer,
    text,
    voice,
)
from tollkeeper.wire.radius.packet import Attribute

INTERIM_SECONDS = 60
"""Acct-Interim-Interval (option ``interim``): the least that RFC 2869 section 5.16 allows."""
ROUTES_MAX = 8
RETURN_CODES: dict[Reason, int] = {
    Reason.NONE: 0,
    Reason.UNKNOWN_CUSTOMER: 1,
    Reason.WRONG_PASSWORD: 2,
    Reason.CONCURRENCY_LIMIT: 3,
    Reason.CPS_LIMIT: 3,
    Reason.INSUFFICIENT_FUNDS: 4,
    Reason.CARD_EXPIRED: 5,
    Reason.SPEND_LIMIT: 6,
    Reason.COST_LIMIT: 6,
    Reason.PARTY_SUSPENDED: 7,
    Reason.WALLET_PARKED: 7,
    Reason.DESTINATION_BLOCKED: 9,
    Reason.NO_RATE: 9,
    Reason.INVALID_NUMBER: 9,
}
"""h323-return-code as Cisco's IVR scripts know it, in what all vendors agree on; all else is 8."""
NOT_AVAILABLE = 8


def accept(peer: Peer, verdict: Verdict, called: str, *, already: int = 0) -> list[Attribute]:
    """A call may proceed. ``already`` seconds of its grant were used, when it asks for more.

    A data session is not told seconds: it ends when its volume does, by our order.
    """
    found: list[Attribute] = []
    if peer.text("service", "voice") != "data":
        seconds = max(0, verdict.granted - already)
        found += [
            integer(Type.SESSION_TIMEOUT, seconds),
            _voice(peer, Voice.CREDIT_TIME, str(seconds)),
            _voice(peer, Voice.RETURN_CODE, "0"),
            _voice(peer, Voice.BILLING_MODEL, "1"),
        ]
        if verdict.reply is not None and verdict.reply.currency:
            found.append(_voice(peer, Voice.CURRENCY, verdict.reply.currency))
        if not already:
            found += _routes(peer, called)
    if peer.text("extend") == "reauthorise":
        # The switch asks again when the time is over (RFC 2865 section 5.29), and sends the State.
        found += [
            integer(Type.TERMINATION_ACTION, 1),
            (Type.STATE, state_of(verdict.call_id, verdict.granted)),
        ]
    interval = peer.whole("interim", INTERIM_SECONDS)
    if interval:
        found.append(integer(Type.ACCT_INTERIM_INTERVAL, interval))
    return [*found, (Type.CLASS, mark_of(verdict.call_id))]


def welcome(peer: Peer) -> list[Attribute]:
    """Somebody is known, and has not said yet whom to call."""
    return [_voice(peer, Voice.RETURN_CODE, "0")]


def reject(peer: Peer, verdict: Verdict) -> list[Attribute]:
    """A call may not proceed: why, for people and for the switch."""
    code = RETURN_CODES.get(verdict.reason, NOT_AVAILABLE)
    return [
        text(Type.REPLY_MESSAGE, verdict.meaning.text),
        _voice(peer, Voice.RETURN_CODE, str(code)),
    ]


def _routes(peer: Peer, called: str) -> list[Attribute]:
    """The static routes, the best first: ``h323-ivr-in=Routing:number@host`` (Sippy's form)."""
    digits = called.lstrip("+")
    found = []
    for route in routes_for(digits, peer.rows("routes"))[:ROUTES_MAX]:
        value = f"h323-ivr-in=Routing:{route.to.removeprefix('sip:')}"
        if route.q != Decimal(1):
            value += f";q={route.q}"
        if len(value) <= 240:
            found.append(_voice(peer, Voice.AVPAIR, value))
    return found


def _voice(peer: Peer, number: Voice, value: str) -> Attribute:
    vendor = AUDIOCODES if peer.dialect == "audiocodes" else CISCO
    return voice(number, value, named=peer.flag("vsa_names", default=True), vendor=vendor)
