"""Usage records: what a switch says about a call, before anybody has paid for it.

A codec of ``wire.cdr`` reads a switch's file into these; mediation finds out whose call it was;
the bulk kernel prices it. Times are microseconds since 1970 in UTC, durations whole milliseconds.
"""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum

import msgspec

MICROSECONDS = 1_000_000
DAY_MICROSECONDS = 86_400 * MICROSECONDS
DURATION_MAX_MS = 10_000_000 * 1000
"""As ``core.rating.SECONDS_MAX``: nothing lasts longer, so a longer duration is an error."""
TEXT_MAX = 255
"""Characters of an identifying text (call id, trunk, account) that are looked at."""


EFFECTIVE_Q850 = frozenset({16, 17, 18, 19, 21})
"""Release causes of calls that reached the other side, answered or not: normal clearing, user busy,
no user responding, no answer, call rejected. They count as effective for the NER (ITU-T E.425)."""
EFFECTIVE_SIP = frozenset({200, 480, 486, 487, 600, 603})
"""The same as final SIP responses, by the mapping of RFC 3398 section 7.2.6.1."""


class Usage(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One leg of one call as a switch reported it.

    ``line`` is the line (or the number of the record, from 1) in its file. ``start`` is the setup,
    ``answer`` None when nobody answered. ``duration_ms`` is conversation time from the most
    precise field there is. ``leg`` tells records of one call apart ("" where there is one only).
    ``trunk_in``, ``ip_in`` and ``account`` say who sent the call, ``trunk_out`` and ``ip_out`` to
    whom it went; numbers are as they were written. ``sip`` and ``q850`` are the final status and
    the release cause (ITU-T Q.850). ``mos`` is in hundredths. ``price`` is what the sender of the
    file says the call costs, ``sequence`` its running number: both only for reconciling.
    """

    line: int
    call_id: str
    start: int
    duration_ms: int
    leg: str = ""
    caller: str = ""
    called: str = ""
    answer: int | None = None
    end: int | None = None
    trunk_in: str = ""
    ip_in: str = ""
    account: str = ""
    trunk_out: str = ""
    ip_out: str = ""
    sip: int | None = None
    q850: int | None = None
    pdd_ms: int | None = None
    mos: int | None = None
    service: str = "voice"
    price: Decimal | None = None
    currency: str = ""
    sequence: int | None = None


class Refused(msgspec.Struct, frozen=True, gc=False):
    """A record that could not be read: where, which field, its value, why, and the record itself.

    ``raw`` is cut at 4,000 characters. ``reason`` is one clear sentence for people.
    """

    line: int
    field: str
    value: str
    reason: str
    raw: str


class Skipped(msgspec.Struct, frozen=True, gc=False):
    """A line that is no record of a call by the format's or the mapping's own rules (header, filter)."""

    line: int
    why: str


class Half(msgspec.Struct, frozen=True, gc=False):
    """One of the two transactions that make a call: its begin (INVITE) or its end (BYE).

    ``key`` joins the two. ``at`` is in microseconds. A begin carries what is known of the call in
    ``usage`` (with duration 0); ``raw`` is the line as it was.
    """

    line: int
    key: str
    begins: bool
    at: int
    raw: str
    usage: Usage | None = None


Item = Usage | Refused | Skipped | Half
"""What a codec yields, in the order of the file."""


class Quarantine(StrEnum):
    """Why a record is not in the books; each can be mended and played again."""

    MALFORMED = "malformed"
    """It could not be read."""
    BAD_NUMBER = "bad_number"
    BAD_TIME = "bad_time"
    """In the future, or before 2000."""
    BAD_DURATION = "bad_duration"
    """Negative, or beyond 115 days."""
    UNKNOWN_CUSTOMER = "unknown_customer"
    AMBIGUOUS_CUSTOMER = "ambiguous_customer"
    NO_WALLET = "no_wallet"
    """A leg's party has no wallet in the currency of its rate card."""
    NO_RATE = "no_rate"
    """No prefix of the called number is on the customer's plan."""
    BLOCKED = "blocked"
    """The destination is not sold to the customer, and yet the call took place."""
    LIVE_TERMS = "live_terms"
    """The plan has terms that depend on what only live charging knows."""
    SESSION_OPEN = "session_open"
    """The call is still being charged live; it is looked at again when its session has closed."""
    NOT_CHARGED = "not_charged"
    """A switch reported the call by a protocol, and live charging had refused it or did not know it."""


class Mismatch(StrEnum):
    """What is worth a look although the record is in the books."""

    UNKNOWN_VENDOR = "unknown_vendor"
    NO_BUY_RATE = "no_buy_rate"
    CLOCK_DRIFT = "clock_drift"
    """The times of the record contradict each other or lie ahead of our clock."""
    LONG_CALL = "long_call"
    ZERO_ANSWER = "zero_answer"
    """Answered, and not a millisecond long."""
    DURATION_DIFFERS = "duration_differs"
    """The record and the live session disagree about the usage."""
    CHARGE_DIFFERS = "charge_differs"
    CONFLICTING_DUPLICATE = "conflicting_duplicate"
    """The same call again with another duration or number; the first one counts."""
    NO_RECORD = "no_record"
    """A session was charged live and no file has named its call."""
    NEGATIVE_MARGIN = "negative_margin"


class State(StrEnum):
    """What became of a record that is in the books."""

    RATED = "rated"
    """Priced here (a call that was not answered costs its attempt fee, or nothing)."""
    MATCHED = "matched"
    """Its customer's leg was charged live, by the session it names."""
