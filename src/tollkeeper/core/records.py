"""The records of a session: what is stored, what is asked, what is answered.

These are plain frozen values. Durations that switches report are whole milliseconds (``_ms``),
grants are whole seconds, times are UTC, money is Decimal in the currency of the leg's wallet.
They hold no cycles, so the garbage collector need not follow them (``gc=False``): a process keeps
very many of them, and following them all would make it pause.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import StrEnum

import msgspec

from tollkeeper.core.ledger import LEGAL, Account, Posting
from tollkeeper.core.money import ZERO
from tollkeeper.core.rating import Tariff
from tollkeeper.core.reasons import Reason
from tollkeeper.core.terms import Count, Part, Reserve, Terms


class State(StrEnum):
    """Where a session stands. Closed is final; how it closed is its :class:`Ending`."""

    AUTHORISED = "authorised"
    ACTIVE = "active"
    CLOSED = "closed"


class Ending(StrEnum):
    """How a session closed; empty while it is open."""

    NONE = ""
    REFUSED = "refused"
    SETTLED = "settled"
    RELEASED = "released"
    EXPIRED = "expired"


class SilentTail(StrEnum):
    """What an expired session pays for the time after the switch's last word."""

    LAST_USAGE = "last_usage"
    GRANT_END = "grant_end"


class Role(StrEnum):
    """Whose share of a session a leg is."""

    CUSTOMER = "customer"
    RESELLER = "reseller"
    VENDOR = "vendor"


class Unit(StrEnum):
    """What a service's usage is counted in."""

    SECOND = "second"
    BYTE = "byte"
    MESSAGE = "message"
    ITEM = "item"


class Step(msgspec.Struct, frozen=True, gc=False):
    """One step from a card's row to the price that is pinned: what was done and by how much."""

    kind: str
    name: str
    detail: str


class Pin(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The rate that a leg is priced by, frozen at authorisation.

    ``tariff`` is in ``currency``, the wallet's: where the card is in another one, or a promotion,
    surcharge or markup applies, it is the row's tariff with all ``steps`` done, in their order.
    """

    card_id: int
    card: str
    version: int
    row_id: int
    prefix: str
    destination: str
    currency: str
    tariff: Tariff
    steps: tuple[Step, ...] = ()


class Leg(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One party's share: its wallet, its rate, the money held and the money charged so far.

    Only a leg with ``terms`` has the rest: ``reserved`` units of packages while it is open, the
    ``parts`` that its charge is made of once it is settled, and ``taken``, the most that was held.
    """

    role: Role
    party_id: int
    wallet_id: int
    pin: Pin
    held: Decimal = ZERO
    charged: Decimal = ZERO
    terms: Terms | None = None
    reserved: tuple[Reserve, ...] = ()
    parts: tuple[Part, ...] = ()
    taken: Decimal = ZERO


class Session(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One call from authorise to settle.

    ``key`` is the switch and its own session id; ``used_ms`` the highest cumulative usage
    reported; ``assumed_ms`` usage charged at expiry without a report; ``granted_seconds`` the
    total that the holds buy; ``version`` counts the messages applied.

    Usage is counted in thousandths of ``unit`` (of a second: milliseconds), grants in whole units.
    ``counts`` are the meters of calls that this one is counted on while it is open. ``refused_by`` is
    the party whose money or limit stood against it; ``refunded_ms`` usage that was given back.
    """

    id: str
    key: str
    party_id: int
    service: str
    caller: str
    called: str
    opened_at: datetime
    expires_at: datetime
    state: State
    legs: tuple[Leg, ...]
    slice_seconds: int
    max_seconds: int
    ending: Ending = Ending.NONE
    reason: Reason = Reason.NONE
    answered_at: datetime | None = None
    closed_at: datetime | None = None
    used_ms: int = 0
    assumed_ms: int = 0
    granted_seconds: int = 0
    kill: str = ""
    cause: str = ""
    marks: tuple[str, ...] = ()
    version: int = 1
    unit: Unit = Unit.SECOND
    counts: tuple[int, ...] = ()
    refused_by: int = 0
    refunded_ms: int = 0

    @property
    def open(self) -> bool:
        """True until the session is closed."""
        return self.state is not State.CLOSED


class Offer(msgspec.Struct, frozen=True, gc=False):
    """A leg as it would be: found by the service before the decision."""

    role: Role
    party_id: int
    wallet_id: int
    pin: Pin
    terms: Terms | None = None


class CallCount(msgspec.Struct, frozen=True, gc=False):
    """A meter that counts the open calls of a party without a wallet, and how many it may have."""

    meter_id: int
    party_id: int
    most: int | None = None


class Authorise(msgspec.Struct, frozen=True, gc=False):
    """May this call proceed, and for how long?

    ``refusal`` is set when the service already knows that it may not (no rate, suspended ...), and
    ``refused_by`` then says at whom. ``requested_seconds`` is the slice asked for at a time, in units.
    """

    key: str
    party_id: int
    called: str
    caller: str = ""
    service: str = "voice"
    requested_seconds: int = 300
    offers: tuple[Offer, ...] = ()
    refusal: Reason = Reason.NONE
    start_expected: bool = True
    unit: Unit = Unit.SECOND
    refused_by: int = 0
    counts: tuple[CallCount, ...] = ()


class Charge(msgspec.Struct, frozen=True, gc=False):
    """Charge ``units`` at once, before the service is given: a message, a lookup, a fee."""

    key: str
    party_id: int
    called: str
    units: int
    caller: str = ""
    service: str = "sms"
    unit: Unit = Unit.MESSAGE
    offers: tuple[Offer, ...] = ()
    refusal: Reason = Reason.NONE
    refused_by: int = 0
    counts: tuple[CallCount, ...] = ()


class Refund(msgspec.Struct, frozen=True, gc=False):
    """Give back a closed session's charge for ``units`` in all (None: for everything), once."""

    key: str
    units: int | None = None
    why: str = ""


class Start(msgspec.Struct, frozen=True, gc=False):
    """The call was answered. ``only_open``, here and below: it is not for a session that has closed."""

    key: str
    only_open: bool = False


class Update(msgspec.Struct, frozen=True, gc=False):
    """Interim report: cumulative usage so far, and a wish for more.

    ``wraps_at`` is where the reporter's counter begins again at 0 (2^32 bytes x 1000 for an octet
    counter without gigawords); 0 means never.
    """

    key: str
    used_ms: int
    extend: bool = True
    wraps_at: int = 0
    only_open: bool = False


class Stop(msgspec.Struct, frozen=True, gc=False):
    """The call has ended with this cumulative usage; 0 = it was never answered."""

    key: str
    used_ms: int
    cause: str = ""
    wraps_at: int = 0
    only_open: bool = False


class Kill(msgspec.Struct, frozen=True, gc=False):
    """The operator wants the session ended."""

    key: str
    why: str


class Expire(msgspec.Struct, frozen=True, gc=False):
    """The session's time is over and nobody closed it."""

    key: str


Command = Authorise | Charge | Start | Update | Stop | Kill | Expire | Refund


class Wallet(msgspec.Struct, frozen=True, gc=False):
    """A wallet as last read; ``stamp`` changes with every change of the row.

    ``live`` counts the open sessions that have a leg on it; ``cps_count`` those opened in the
    second ``cps_second`` (Unix time).
    """

    id: int
    party_id: int
    currency: str
    credited: Decimal = ZERO
    debited: Decimal = ZERO
    held: Decimal = ZERO
    credit_limit: Decimal = ZERO
    live: int = 0
    cps_second: int = 0
    cps_count: int = 0
    parked: bool = False
    version: int = 0
    stamp: int = 0

    @property
    def balance(self) -> Decimal:
        """The customer's money: positive is owed to the customer."""
        return self.credited - self.debited

    @property
    def available(self) -> Decimal:
        """Balance + credit limit - held: what new holds can take."""
        return self.credited - self.debited + self.credit_limit - self.held


class Limits(msgspec.Struct, frozen=True, gc=False):
    """A party's limits beside money; None is unlimited. Seconds and amounts are per session.

    While less than ``low_balance`` is available, at most ``low_sessions`` calls may be up at once.
    """

    suspended: bool = False
    kill_on_suspend: bool = False
    max_sessions: int | None = None
    max_cps: int | None = None
    max_cost: Decimal | None = None
    max_seconds: int = 14_400
    low_balance: Decimal | None = None
    low_sessions: int | None = None


class Policy(msgspec.Struct, frozen=True, gc=False):
    """Timers of the credit control, in seconds.

    ``answer_window`` bounds ringing, ``grace`` is added to the end of a grant before the
    session is closed without the switch's word (the Tcc of RFC 8506 section 13). ``data_validity``
    is how long a grant that is not time may be used (the Validity-Time of RFC 8506 section 8.33).
    """

    answer_window: int = 120
    grace: int = 60
    silent_tail: SilentTail = SilentTail.LAST_USAGE
    clock_tolerance_ms: int = 60_000
    data_validity: int = 3600


class Outcome(StrEnum):
    """What a reply says."""

    GRANTED = "granted"
    REFUSED = "refused"
    ACTIVE = "active"
    CLOSED = "closed"
    CHARGED = "charged"


class Reply(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The stored answer to a message; a repeat of the message gets exactly this again.

    ``granted_seconds`` is the total since answer that is paid for; ``final`` means that no
    further extension will come; ``terminate`` asks the switch to end the call now.
    ``charge`` is the customer's leg so far (only when closed). What is granted and used is counted in
    ``unit`` and in thousandths of it.
    """

    outcome: Outcome
    id: str
    granted_seconds: int = 0
    expires_at: datetime | None = None
    final: bool = False
    terminate: bool = False
    reason: Reason = Reason.NONE
    currency: str = ""
    used_ms: int = 0
    charge: Decimal | None = None
    refused_by: int = 0
    unit: Unit = Unit.SECOND


class Event(msgspec.Struct, frozen=True, gc=False):
    """Something to tell the outside world; leaves through the outbox of the same transaction."""

    kind: str
    session_id: str
    detail: str = ""


class Hold(msgspec.Struct, frozen=True, gc=False):
    """Change of a wallet's held money by one leg; ``live`` is +1, 0 or -1 sessions."""

    wallet_id: int
    amount: Decimal
    live: int = 0


class Decision(msgspec.Struct, frozen=True, gc=False):
    """What is to be written and answered.

    ``session`` is the state after; None only where nothing is to be stored. ``guarded`` means
    that the holds may only be taken if available money covers them.
    """

    session: Session
    reply: Reply
    holds: tuple[Hold, ...] = ()
    postings: tuple[Posting, ...] = ()
    events: tuple[Event, ...] = ()
    guarded: bool = False
    counts: tuple[Count, ...] = ()


def enrol(wallet: Wallet, decision: Decision, *, second: int, opens: bool) -> Wallet:
    """Return the wallet as it will be after the decision (amounts, live sessions, calls per second)."""
    credited, debited, held, live = wallet.credited, wallet.debited, wallet.held, wallet.live
    version, cps_second, cps_count = wallet.version, wallet.cps_second, wallet.cps_count
    for hold in decision.holds:
        if hold.wallet_id == wallet.id:
            held += hold.amount
            live += hold.live
            if opens and hold.live > 0:
                cps_count = cps_count + 1 if cps_second == second else 1
                cps_second = second
    for posting in decision.postings:
        if posting.wallet_id == wallet.id:
            version += 1
            if LEGAL[posting.code][0] is Account.WALLET:
                debited += posting.amount
            else:
                credited += posting.amount
    return Wallet(
        wallet.id, wallet.party_id, wallet.currency, credited, debited, held, wallet.credit_limit,
        live, cps_second, cps_count, wallet.parked, version, wallet.stamp,
    )  # fmt: skip
