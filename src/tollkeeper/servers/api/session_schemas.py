"""What is shown of sessions: as they stand, and explained leg by leg."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Self
from uuid import UUID

from pydantic import Field, PlainSerializer, WithJsonSchema

from tollkeeper.core.money import plain
from tollkeeper.core.rating import Tariff
from tollkeeper.core.reasons import MEANINGS
from tollkeeper.core.records import Leg, Session
from tollkeeper.servers.api import schemas
from tollkeeper.services.explain import Explanation, LegLine, MessageLine, PartLine, RateUsed
from tollkeeper.services.explain_legs import SpendLine
from tollkeeper.store.sessions import StoredEntry


class LegOut(schemas.Out):
    """One party's share of a session: the rate that it is charged by, what is held and charged."""

    role: str
    party: str
    card: str
    card_version: int
    prefix: str
    destination: str
    currency: str
    held: schemas.Money
    charged: schemas.Money

    @classmethod
    def of(cls, leg: Leg, codes: dict[int, str]) -> Self:
        """Show a leg."""
        return cls(
            role=leg.role.value,
            party=codes.get(leg.party_id, str(leg.party_id)),
            card=leg.pin.card,
            card_version=leg.pin.version,
            prefix=leg.pin.prefix,
            destination=leg.pin.destination,
            currency=leg.pin.currency,
            held=leg.held,
            charged=leg.charged,
        )


class SessionOut(schemas.Out):
    """A session as it stands. `used_ms` is the highest usage reported, in thousandths of `unit`, `assumed_ms`
    what an expired session was charged for without a report, `refunded_ms` what was given back since; grants
    are in whole units. `ending` is empty while it is open."""  # noqa: D205, D209

    id: UUID
    switch: str
    session_id: str
    party: str
    service: str
    caller: str
    called: str
    state: str
    ending: str
    reason: str
    opened_at: datetime
    answered_at: datetime | None
    expires_at: datetime
    closed_at: datetime | None
    unit: str
    used_ms: int
    assumed_ms: int
    refunded_ms: int
    granted_seconds: int
    kill: str
    cause: str
    marks: list[str]
    legs: list[LegOut]

    @classmethod
    def of(cls, session: Session, codes: dict[int, str]) -> Self:
        """Show a session."""
        switch, _, session_id = session.key.partition("/")
        return cls(
            id=UUID(session.id),
            switch=switch,
            session_id=session_id,
            party=codes.get(session.party_id, str(session.party_id)),
            service=session.service,
            caller=session.caller,
            called=session.called,
            state=session.state.value,
            ending=session.ending.value,
            reason=session.reason.value,
            opened_at=session.opened_at,
            answered_at=session.answered_at,
            expires_at=session.expires_at,
            closed_at=session.closed_at,
            unit=session.unit.value,
            used_ms=session.used_ms,
            assumed_ms=session.assumed_ms,
            refunded_ms=session.refunded_ms,
            granted_seconds=session.granted_seconds,
            kill=session.kill,
            cause=session.cause,
            marks=list(session.marks),
            legs=[LegOut.of(leg, codes) for leg in session.legs],
        )


class SessionList(schemas.Out):
    """A page of live sessions in the order of switch and session id; `next` is null on the last one."""

    items: list[SessionOut]
    next: str | None


Price = Annotated[
    Decimal,
    PlainSerializer(plain, return_type=str),
    WithJsonSchema(
        {"type": "string", "pattern": r"^[0-9]+\.[0-9]{2,12}$", "examples": ["0.0125"]},
        mode="serialization",
    ),
]
"""A price or fee that may have been worked out: it is kept to 12 decimals, and not yet money."""


class TariffOut(schemas.Out):
    """Prices for `per` units (60: per minute), intervals in units (seconds), fees per use."""

    first_price: Price
    next_price: Price
    first_interval: int
    next_interval: int
    connect_fee: Price
    attempt_fee: Price
    minimum: Price
    free_below: int
    surcharge: Price
    cap: Price | None
    decimals: int
    rounding: str
    per: int

    @classmethod
    def of(cls, tariff: Tariff) -> Self:
        """Show a tariff."""
        return cls(**{name: getattr(tariff, name) for name in tariff.__struct_fields__})


class MessageOut(schemas.Out):
    """A message that changed the session, and what it was answered.

    `refused_by` is the party whose money or limit stood against it, for those who may know of it.
    """

    version: int
    time: datetime
    message_id: str
    request: dict[str, str | int | bool | None]
    outcome: str
    granted_seconds: int
    final: bool
    terminate: bool
    reason: str
    reason_text: str
    refused_by: str | None
    charge: schemas.Money | None

    @classmethod
    def of(cls, line: MessageLine) -> Self:
        """Show a message."""
        reply = line.reply
        return cls(
            version=line.version,
            time=line.at,
            message_id=line.message_id,
            request=line.request,
            outcome=reply.outcome.value,
            granted_seconds=reply.granted_seconds,
            final=reply.final,
            terminate=reply.terminate,
            reason=reply.reason.value,
            reason_text=MEANINGS[reply.reason].text,
            refused_by=line.refused_by or None,
            charge=reply.charge,
        )


class SessionEntryOut(schemas.Out):
    """A line of the journal that the session made; the amount goes from `debit` to `credit`."""

    id: int
    time: datetime
    code: str
    amount: schemas.Money
    debit: str
    credit: str
    balance_after: schemas.Money

    @classmethod
    def of(cls, entry: StoredEntry) -> Self:
        """Show an entry."""
        return cls(
            id=entry.id,
            time=entry.at,
            code=entry.code,
            amount=entry.amount,
            debit=entry.debit,
            credit=entry.credit,
            balance_after=entry.balance_after,
        )


class ReservedOut(schemas.Out):
    """Units of a package that an open session has set aside."""

    package: str
    units: int


class HoldOut(schemas.Out):
    """What became of the money set aside: taken = settled + released + still_held."""

    taken: schemas.Money
    settled: schemas.Money
    released: schemas.Money
    still_held: schemas.Money
    overrun: schemas.Money = Field(description="Usage above the hold.")
    late: schemas.Money = Field(description="Usage reported after the end.")
    corrected: schemas.Money = Field(description="Given back after the end.")
    refunded: schemas.Money = Field(description="Given back for what was not delivered.")
    rebated: schemas.Money = Field(description="Given back because a volume was reached.")
    reserved: list[ReservedOut] = Field(description="Units of packages that are set aside.")


class StepOut(schemas.Out):
    """What was done to a price on its way from the card to the pinned rate: its figures are in `detail`."""

    kind: str
    name: str
    detail: str


class CardRowOut(schemas.Out):
    """The row as it stands on the card, before the steps, in the card's `currency`."""

    currency: str
    cost_card: str | None = Field(description="Where the row is, if the card is cost-plus.")
    tariff: TariffOut

    @classmethod
    def of(cls, rate: RateUsed) -> Self | None:
        """Show the row; None where there is none, or it is somebody else's."""
        row = rate.on_card
        if row is None:
            return None
        return cls(
            currency=row.currency, cost_card=row.cost_card or None, tariff=TariffOut.of(row.tariff)
        )


class PartOut(schemas.Out):
    """Units at one price, or a rebate: what a charge is made of where meters decide the price.

    `before` and `after` are the units counted on the package or tier `name` in its `period`; `left` is what a
    package had left before the part, `crossed` where the step of the tier begins that was reached.
    """

    kind: str
    units: int
    price: str
    amount: str = Field(description="Exact; a quotient that does not end has 60 digits.")
    name: str
    period: str
    before: str | None
    after: str | None
    left: str | None
    crossed: int | None
    offset: int
    text: str = Field(description="The product, with what it makes.")
    place: str = Field(description="Where it comes from: the volume or what was left, in words.")

    @classmethod
    def of(cls, line: PartLine) -> Self:
        """Show a part."""
        return cls(
            kind=line.kind,
            units=line.units,
            price=plain(line.price),
            amount=plain(line.amount),
            name=line.name,
            period=line.period,
            before=_count(line.before),
            after=_count(line.after),
            left=_count(line.left),
            crossed=line.crossed,
            offset=line.offset,
            text=line.text,
            place=line.place,
        )


def _count(units: Decimal | None) -> str | None:
    return None if units is None else f"{units.to_integral_value():f}"


class SpendOut(schemas.Out):
    """A count of the wallet's spending in a day or month, as it stands now; `cap` null: unbounded."""

    name: str
    period: str
    used: schemas.Money
    held: schemas.Money
    cap: schemas.Money | None

    @classmethod
    def of(cls, line: SpendLine) -> Self:
        """Show a count."""
        return cls(**{name: getattr(line, name) for name in cls.model_fields})


class LegExplained(schemas.Out):
    """A leg with its rate row, the arithmetic and the entries.

    `card_row` is the row as it stands on the card, `steps` what was done to it, `tariff` what came of it.
    `exact` is the sum before the one rounding; a quotient that does not end has 60 digits. `amount`
    is the arithmetic done again, `charged` what was posted, `agrees` whether they are the same.
    """

    number: int
    role: str
    party: str
    currency: str
    card: str
    card_version: int
    row: int
    prefix: str
    destination: str
    card_row: CardRowOut | None
    steps: list[StepOut]
    tariff: TariffOut
    seconds: int = Field(description="Units used, less those given back.")
    billed_seconds: int = Field(description="Units billed.")
    parts: list[PartOut]
    fees: list[str]
    arithmetic: str
    exact: str
    rounding: str
    amount: schemas.Money
    charged: schemas.Money
    agrees: bool
    hold: HoldOut
    spending: list[SpendOut]
    entries: list[SessionEntryOut]

    @classmethod
    def of_line(cls, leg: LegLine) -> Self:
        """Show a leg."""
        rate, worked, hold = leg.rate, leg.price, leg.hold
        held = {name: getattr(hold, name) for name in HoldOut.model_fields if name != "reserved"}
        reserved = [ReservedOut(package=code, units=units) for code, units in hold.reserved]
        return cls(
            number=leg.number,
            role=leg.role,
            party=leg.party,
            currency=leg.currency,
            card=rate.card,
            card_version=rate.version,
            row=rate.row,
            prefix=rate.prefix,
            destination=rate.destination,
            card_row=CardRowOut.of(rate),
            steps=[StepOut(kind=s.kind, name=s.name, detail=s.detail) for s in rate.steps],
            tariff=TariffOut.of(rate.tariff),
            seconds=worked.seconds,
            billed_seconds=worked.billed_seconds,
            parts=[PartOut.of(part) for part in leg.parts],
            fees=list(leg.fees),
            arithmetic=worked.note,
            exact=plain(worked.exact),
            rounding=leg.rounding,
            amount=worked.amount,
            charged=leg.charged,
            agrees=leg.agrees,
            hold=HoldOut(**held, reserved=reserved),
            spending=[SpendOut.of(line) for line in leg.spending],
            entries=[SessionEntryOut.of(entry) for entry in leg.entries],
        )


class ExplanationOut(schemas.Out):
    """Why a session cost what it cost; `billed_from_ms` is the usage that was priced.

    `refused_by` is the party at which it was refused; null where it was not, or that is not to be known.
    """

    session: SessionOut
    story: str
    refused_by: str | None
    billed_from_ms: int
    messages: list[MessageOut]
    legs: list[LegExplained]
    notes: list[str]

    @classmethod
    def of(cls, found: Explanation) -> Self:
        """Show an explanation."""
        codes = {found.session.party_id: found.party}
        for leg, line in zip(found.session.legs, found.legs, strict=True):
            codes[leg.party_id] = line.party
        return cls(
            session=SessionOut.of(found.session, codes),
            story=found.story,
            refused_by=found.refused_by or None,
            billed_from_ms=found.billed_from_ms,
            messages=[MessageOut.of(line) for line in found.messages],
            legs=[LegExplained.of_line(leg) for leg in found.legs],
            notes=list(found.marks),
        )
