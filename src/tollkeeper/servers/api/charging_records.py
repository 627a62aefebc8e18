"""What the charging routes take and answer: typed records, decoded and encoded by msgspec."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from tollkeeper.core.messages import TEXT_MAX
from tollkeeper.core.rating import UNITS_MAX
from tollkeeper.services.charging import USED_MS_MAX

SESSION_ID = r"[A-Za-z0-9][A-Za-z0-9._:@+=-]{0,127}"
TEXT = r"^[ -~]*$"
SERVICE = r"^[a-z][a-z0-9_]{0,31}$"

SessionId = Annotated[
    str, Meta(pattern=f"^{SESSION_ID}$", description="The switch's own id of the call.")
]
EventId = Annotated[
    str, Meta(pattern=f"^{SESSION_ID}$", description="The sender's own id of the event.")
]
PartyCode = Annotated[str, Meta(min_length=1, max_length=63, pattern=TEXT)]
Called = Annotated[str, Meta(min_length=1, max_length=64, pattern=TEXT)]
ServiceName = Annotated[str, Meta(pattern=SERVICE)]
Seconds = Annotated[int, Meta(ge=1, le=86_400)]
Units = Annotated[int, Meta(ge=1, le=UNITS_MAX)]
UsedMs = Annotated[
    int, Meta(ge=0, le=USED_MS_MAX, description="Cumulative usage since answer, in milliseconds.")
]
UsedSeconds = Annotated[
    int, Meta(ge=0, le=USED_MS_MAX // 1000, description="Cumulative usage since answer, seconds.")
]
UsedUnits = Annotated[
    int, Meta(ge=0, le=UNITS_MAX, description="Cumulative usage in the session's unit.")
]
UsedBytes = Annotated[
    int, Meta(ge=0, le=UNITS_MAX, description="Cumulative usage of a data session, both ways.")
]
CounterBits = Annotated[
    Literal[0, 32],
    Meta(description="32: the counter begins again at 2^32, and that is taken account of."),
]
RequestId = Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9._:-]*$")]
Word = Annotated[str, Meta(max_length=64, pattern=TEXT)]
Lrn = Annotated[
    str, Meta(pattern=r"^(\+?1?[0-9]{10})?$", description="Location routing number (ported).")
]
Network = Annotated[
    str, Meta(pattern=r"^([0-9]{5,6})?$", description="MCC and MNC of the network used.")
]


class AuthoriseRequest(msgspec.Struct, forbid_unknown_fields=True):
    """May this call proceed, and for how long? A data session: for how many bytes?"""

    session_id: SessionId
    party: PartyCode
    called: Called
    caller: Word = ""
    service: ServiceName = "voice"
    requested_seconds: Annotated[
        Seconds | None,
        Meta(description="Length of a slice, what is held at a time; 300 if left out."),
    ] = None
    requested_units: Annotated[
        Units | None,
        Meta(description="As requested_seconds, in the service's unit: bytes of data."),
    ] = None
    start_expected: Annotated[
        bool | None,
        Meta(
            description="False where no /start is sent when answered; by the service if left out."
        ),
    ] = None
    lrn: Lrn = ""
    network: Network = ""


class StartRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The call was answered."""


class UpdateRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Cumulative usage so far, and a wish for more. Give one of the used_ fields."""

    used_seconds: UsedSeconds | None = None
    used_ms: UsedMs | None = None
    used_units: UsedUnits | None = None
    used_bytes: UsedBytes | None = None
    counter_bits: CounterBits = 0
    request_id: RequestId = ""
    extend: bool = True


class StopRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The session has ended. Give one of the used_ fields; 0 means that nothing was used."""

    used_seconds: UsedSeconds | None = None
    used_ms: UsedMs | None = None
    used_units: UsedUnits | None = None
    used_bytes: UsedBytes | None = None
    counter_bits: CounterBits = 0
    request_id: RequestId = ""
    cause: Word = ""


class KillRequest(msgspec.Struct, forbid_unknown_fields=True):
    """End a live session."""

    reason: Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[ -~]*[!-~][ -~]*$")]


class EventRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Charge a message, a lookup or another one-shot use, before it is done.

    A message's segments are counted from ``text``, or given as ``segments``; of everything else give
    ``units``.
    """

    event_id: EventId
    party: PartyCode
    called: Called
    service: ServiceName = "sms"
    caller: Word = ""
    text: Annotated[str, Meta(max_length=TEXT_MAX)] | None = None
    segments: Annotated[int, Meta(ge=1, le=255)] | None = None
    units: Units | None = None
    lrn: Lrn = ""
    network: Network = ""


class RefundRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Give back the charge of ``units`` in all, counted from the event on; null: all of it.

    ``reason``: "undelivered" (the plans decide) for every key that may charge; "failed" for the operator's;
    any other for those with the scope "manage" among them.
    """

    units: Units | None = None
    reason: Word = ""


class QuoteRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What would this cost, and how long would the money last? Give seconds or units."""

    party: PartyCode
    called: Called
    seconds: Seconds | None = None
    service: ServiceName = "voice"
    units: Units | None = None
    caller: Word = ""
    lrn: Lrn = ""
    network: Network = ""


class SessionAnswer(msgspec.Struct):
    """The answer to every message of a session; a repeated message gets the same answer, ``repeated``.

    ``granted_units`` and ``used_ms`` count in ``unit``: bytes, messages, items or seconds, ``used_ms``
    in thousandths of it. ``refused_by`` is the party whose money or limit refused; only the operator
    is told.
    """

    outcome: str
    session_id: str
    id: str
    unit: str
    granted_units: int
    granted_seconds: int
    expires_at: datetime | None
    final: bool
    terminate: bool
    reason: str
    reason_text: str
    sip_code: int
    q850: int
    stop_hunting: bool
    currency: str
    used_ms: int
    charge: str | None
    repeated: bool
    refused_by: str | None = None


class EventAnswer(msgspec.Struct):
    """What became of an event: ``charged`` or ``refused``; of a refund: ``refunded``.

    ``units`` (of ``unit``) are those of the event; ``charge`` is what stands charged now. A repeat gets the same answer, ``repeated``.
    """

    outcome: str
    event_id: str
    id: str
    unit: str
    units: int
    reason: str
    reason_text: str
    currency: str
    charge: str | None
    repeated: bool
    refused_by: str | None = None


class QuoteAnswer(msgspec.Struct):
    """A price, with the rate it comes from; money as strings in ``currency``.

    ``affordable_units`` is what the money of every level lasts for; nothing is held by asking.
    """

    called: str
    destination: str
    prefix: str
    card: str
    version: int
    currency: str
    unit: str
    units: int
    seconds: int
    price: str
    affordable_units: int
    affordable_seconds: int
    available: str
    rate: dict[str, Any]
    steps: list[dict[str, str]]
