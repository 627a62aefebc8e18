"""Why a session is refused or ended: one stable code, with what each protocol is told.

SIP codes follow RFC 3261, causes ITU-T Q.850, Diameter result codes RFC 8506 section 9.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Stable codes; the empty one means that nothing stands against the session."""

    NONE = ""
    INSUFFICIENT_FUNDS = "insufficient_funds"
    NO_RATE = "no_rate"
    DESTINATION_BLOCKED = "destination_blocked"
    PARTY_SUSPENDED = "party_suspended"
    NO_PLAN = "no_plan"
    NO_WALLET = "no_wallet"
    WALLET_PARKED = "wallet_parked"
    CONCURRENCY_LIMIT = "concurrency_limit"
    CPS_LIMIT = "cps_limit"
    COST_LIMIT = "cost_limit"
    KILLED = "killed"
    EXPIRED = "expired"
    DURATION_LIMIT = "duration_limit"
    SPEND_LIMIT = "spend_limit"
    NO_FX_RATE = "no_fx_rate"
    UPSTREAM = "upstream_refused"
    CARD_EXPIRED = "card_expired"
    SUPPLIER_REFUSED = "supplier_refused"
    UNKNOWN_CUSTOMER = "unknown_customer"
    WRONG_PASSWORD = "wrong_password"  # noqa: S105 (a reason, no password)
    INVALID_NUMBER = "invalid_number"
    BUSY = "busy"
    UNKNOWN_SESSION = "unknown_session"
    NO_ROUTE = "no_route"
    ID_REUSED = "id_reused"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a reason says to people and to each protocol; ``stop_hunting`` = no other route helps."""

    text: str
    sip: int
    q850: int
    diameter: int
    stop_hunting: bool = True


MEANINGS: dict[Reason, Meaning] = {
    Reason.NONE: Meaning("Allowed.", 200, 16, 2001, stop_hunting=False),
    Reason.INSUFFICIENT_FUNDS: Meaning(
        "The money available does not cover the call, or no more of it.", 402, 21, 4012
    ),
    Reason.NO_RATE: Meaning("No rate for this destination in the customer's plan.", 404, 3, 5031),
    Reason.DESTINATION_BLOCKED: Meaning(
        "This destination is blocked on the customer's rate card.", 403, 21, 4010
    ),
    Reason.PARTY_SUSPENDED: Meaning("The customer is suspended.", 403, 21, 4010),
    Reason.NO_PLAN: Meaning("The customer has no rate plan.", 403, 21, 5031),
    Reason.NO_WALLET: Meaning(
        "The customer has no wallet in the currency of the rate.", 403, 21, 5031
    ),
    Reason.WALLET_PARKED: Meaning(
        "The wallet is parked until its books are checked.", 403, 21, 4010
    ),
    Reason.CONCURRENCY_LIMIT: Meaning("All of the customer's channels are in use.", 480, 34, 4010),
    Reason.CPS_LIMIT: Meaning("The customer's calls per second are used up.", 503, 42, 4010),
    Reason.COST_LIMIT: Meaning(
        "The call would cost more than the customer allows per call.", 403, 21, 4012
    ),
    Reason.KILLED: Meaning("The operator ended the session.", 403, 21, 4010),
    Reason.EXPIRED: Meaning("Nothing was heard of the session in time.", 408, 102, 4010),
    Reason.DURATION_LIMIT: Meaning(
        "The session reached the longest duration allowed.", 403, 31, 4010
    ),
    Reason.SPEND_LIMIT: Meaning(
        "The spending limit of the day or month is reached.", 402, 21, 4012
    ),
    Reason.NO_FX_RATE: Meaning(
        "No exchange rate from the card's currency to the wallet's is known for this day.",
        403,
        21,
        5031,
    ),
    Reason.UPSTREAM: Meaning("The call cannot be carried at the moment.", 403, 21, 4010),
    Reason.CARD_EXPIRED: Meaning("The calling card is no longer valid.", 403, 21, 4010),
    Reason.SUPPLIER_REFUSED: Meaning("The supplier refused the order.", 503, 38, 4010),
    Reason.UNKNOWN_CUSTOMER: Meaning("Nobody is known by what the switch says.", 403, 21, 5030),
    Reason.WRONG_PASSWORD: Meaning("The user name or its password is wrong.", 403, 21, 5030),
    Reason.INVALID_NUMBER: Meaning("This number cannot be called as it is written.", 484, 28, 5031),
    Reason.BUSY: Meaning(
        "Nothing can be charged at the moment; another server may help.",
        503,
        42,
        3004,
        stop_hunting=False,
    ),
    Reason.UNKNOWN_SESSION: Meaning(
        "No such session is known.", 481, 102, 5002, stop_hunting=False
    ),
    Reason.ID_REUSED: Meaning("Another call that is up has this id.", 482, 25, 5012),
    Reason.NO_ROUTE: Meaning("Nobody carries calls to this destination.", 404, 3, 4010),
}
