"""What is promised, by number, and how a broken promise is told."""

from __future__ import annotations

from dataclasses import dataclass

GUARANTEES: dict[str, str] = {
    "I1": "Every entry balances in its currency; money is neither made nor lost.",
    "I2": "Entries are never changed and never removed.",
    "I3": "A wallet's counters are the sums of its entries, whose versions have no gap.",
    "I4": "Counters only grow; a correction is a new entry.",
    "I5": "Only the legal pairs of accounts are posted, each with its code.",
    "I7": "Held and spent never exceed funds and limit, but for usage charged after the fact.",
    "I8": "A hold ends once; what a wallet holds is the sum of its open sessions' holds.",
    "I9": "A grant is never longer than its hold buys.",
    "I10": "A refused session stays refused; a granted one keeps its grant.",
    "I11": "No session is open without a hold, unless its price is zero.",
    "I12": "Every session closes in time without the help of who opened it.",
    "I14": "Each message is applied once; its place in the session's history is its own.",
    "I15": "A charge is the price of the highest usage at the pinned rate, whatever the messages.",
    "I16": "A call is one session and is charged once.",
    "I17": "Times are UTC and in order.",
    "I19": "Each charge is made of its entries and can be derived again.",
    "I20": "A parked wallet takes no new holds.",
    "I21": "Every file balances: each record was rated, matched, a duplicate or quarantined.",
    "I22": "What a batch posted to a wallet is the sum of its records' legs.",
    "I23": "The hourly sums are the sums of the records.",
    "I24": "A meter stands at what its sessions used, hold and count.",
    "I25": "What is transferred from a wallet reaches another: nothing stays on the way.",
}
"""What is promised, by number. A finding's code begins with the number that it breaks."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not hold: ``code`` such as ``I3.credited``, of what, and the figures."""

    code: str
    subject: str
    detail: str

    @property
    def guarantee(self) -> str:
        """The sentence of :data:`GUARANTEES` that is broken."""
        return GUARANTEES[self.code.partition(".")[0]]
