"""One party's share of a session explained: its rate, the arithmetic done again, hold and entries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from tollkeeper.core.ledger import Code, wallet_effect
from tollkeeper.core.money import EXACT, ZERO, Rounding, plain
from tollkeeper.core.parts import charge_of, settle
from tollkeeper.core.pieces import PACKAGE, REBATE, billed_units
from tollkeeper.core.rating import Price, Tariff, explain_price, price, seconds_of
from tollkeeper.core.records import Ending, Leg, Session, Step, Unit
from tollkeeper.core.terms import Part
from tollkeeper.core.words import Words, words_of
from tollkeeper.services.explain_parts import PartLine, part_lines, period_of_meter
from tollkeeper.store.explain import CardRow, NamedMeter, RowKey
from tollkeeper.store.sessions import StoredEntry

ROUNDINGS = {
    Rounding.HALF_UP: "to the nearest, halves up",
    Rounding.HALF_EVEN: "to the nearest, halves to the even digit",
    Rounding.UP: "up",
    Rounding.DOWN: "down",
}


@dataclass(frozen=True, slots=True)
class RateUsed:
    """The row of the rate card that priced a leg, as it was when the use was authorised.

    ``on_card`` is the row as it stands there, in the card's currency, before the ``steps`` were done to it;
    None where it has none or may not be seen. ``tariff`` is what came of it, in the wallet's currency.
    """

    card: str
    version: int
    row: int
    prefix: str
    destination: str
    tariff: Tariff
    on_card: CardRow | None
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class HoldLine:
    """What became of the money that was set aside; ``still_held`` is 0 once the session is closed.

    ``taken`` = ``settled`` + ``released`` + ``still_held``. ``overrun`` is usage above the hold,
    ``late`` usage reported after the end, ``corrected`` money given back after the end, ``refunded``
    for what was not delivered, ``rebated`` by a volume. ``reserved`` are units of packages by code.
    """

    taken: Decimal
    settled: Decimal
    released: Decimal
    still_held: Decimal
    overrun: Decimal
    late: Decimal
    corrected: Decimal
    refunded: Decimal
    rebated: Decimal
    reserved: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class SpendLine:
    """A count of a wallet's spending, as it stands now; ``cap`` None: nothing bounds it."""

    name: str
    period: str
    used: Decimal
    held: Decimal
    cap: Decimal | None


@dataclass(frozen=True, slots=True)
class LegLine:
    """One party's share: its rate, the arithmetic, the hold, and the lines of the journal.

    ``price`` is the arithmetic done again from the rate and the usage; ``rounding`` says how it was
    rounded. ``charged`` is what was posted; ``agrees`` tells whether the two are the same. Of a
    session that is still open ``price`` is what it would cost if it ended now. ``parts`` and ``fees`` are
    there where meters decided the price; then they make the sum. ``words`` are those of the units.
    """

    number: int
    role: str
    party: str
    wallet_id: int
    currency: str
    rate: RateUsed
    price: Price
    rounding: str
    parts: tuple[PartLine, ...]
    fees: tuple[str, ...]
    hold: HoldLine
    spending: tuple[SpendLine, ...]
    charged: Decimal
    agrees: bool
    entries: tuple[StoredEntry, ...]
    words: Words


def net_ms(session: Session) -> int:
    """The usage that is charged, in thousandths: the highest known, less what was given back."""
    return max(session.used_ms, session.assumed_ms) - session.refunded_ms


def leg_line(
    session: Session,
    number: int,
    leg: Leg,
    party: str,
    entries: Iterable[StoredEntry],
    rows: Mapping[RowKey, CardRow],
    meters: Mapping[int, NamedMeter],
) -> LegLine:
    """Explain a leg from what is stored of it; ``entries`` are its own."""
    pin, entries = leg.pin, tuple(entries)
    words = words_of(session.unit.value, pin.tariff.per, session.service)
    parts: tuple[PartLine, ...] = ()
    fees: tuple[str, ...] = ()
    whole = True
    if session.ending is Ending.REFUSED:
        worked = Price(0, 0, ZERO, ZERO, "the use was refused: nothing is charged")
        if session.unit is Unit.SECOND:
            worked = Price(0, 0, ZERO, ZERO, "the call was refused: nothing is charged")
    elif leg.terms is None:
        worked = _by_tariff(session, pin.tariff, words)
    else:
        worked, parts, fees, whole = _by_parts(session, leg, words, meters)
    posted = -sum([wallet_effect(Code(entry.code), entry.amount) for entry in entries], ZERO)
    key = (pin.card_id, pin.version, pin.row_id)
    return LegLine(
        number=number,
        role=leg.role.value,
        party=party,
        wallet_id=leg.wallet_id,
        currency=pin.currency,
        rate=RateUsed(
            pin.card, pin.version, pin.row_id, pin.prefix, pin.destination, pin.tariff,
            rows.get(key), pin.steps,
        ),
        price=worked,
        rounding=describe_rounding(pin.tariff),
        parts=parts,
        fees=fees,
        hold=_hold(session, leg, entries),
        spending=tuple(_spending(leg, meters)),
        charged=leg.charged,
        agrees=session.open or (whole and worked.amount == leg.charged == posted),
        entries=entries,
        words=words,
    )  # fmt: skip


def _given_back(session: Session) -> bool:
    return session.refunded_ms > 0 and net_ms(session) == 0


def _by_tariff(session: Session, tariff: Tariff, words: Words) -> Price:
    if _given_back(session):
        return Price(0, 0, ZERO, ZERO, "all of it was given back: nothing is charged")
    return explain_price(tariff, seconds_of(net_ms(session)), words)


# --- with terms ----------------------------------------------------------------------------------


def _by_parts(
    session: Session, leg: Leg, words: Words, meters: Mapping[int, NamedMeter]
) -> tuple[Price, tuple[PartLine, ...], tuple[str, ...], bool]:
    """The charge that the parts of a leg make, by the functions that charged it; and whether they are all."""
    used, back = seconds_of(net_ms(session)), _given_back(session)
    began, parts = _began(session), leg.parts
    if session.open:
        # As if it ended now.
        states = {id_: named.meter for id_, named in meters.items()}
        parts = settle(leg, used, states, began)[0]
    amount = charge_of(leg, parts, used, given_back=back)
    billed = billed_units(leg, used)
    lines = tuple(part_lines(leg, parts, meters, words, began))
    total, fees = _summed(leg.pin.tariff, parts, lines, used, given_back=back)
    note = " + ".join([line.sum for line in lines] + list(fees))
    if not note:
        note = "all of it was given back: nothing is charged" if back else "nothing used"
    complete = sum([part.units for part in parts]) == billed
    return Price(used, billed, total, amount, note), lines, fees, complete


def _summed(
    tariff: Tariff, parts: Iterable[Part], lines: Iterable[PartLine], used: int, *, given_back: bool
) -> tuple[Decimal, tuple[str, ...]]:
    """The exact sum of parts and fees, before the one rounding, and the fees in words."""
    parts, fees = tuple(parts), []
    usage, rebate = ZERO, ZERO
    for line in lines:
        if line.kind == REBATE:
            rebate = EXACT.add(rebate, line.amount)
        else:
            usage = EXACT.add(usage, EXACT.multiply(line.price, line.units))
    usage = EXACT.divide(usage, Decimal(tariff.per))
    paid = sum([part.units for part in parts if part.kind not in (PACKAGE, REBATE)])
    if paid and used >= tariff.free_below:
        if tariff.connect_fee:
            usage = EXACT.add(usage, tariff.connect_fee)
            fees.append(f"connect fee {plain(tariff.connect_fee)}")
        if usage < tariff.minimum:
            fees.append(f"raised to the minimum charge {plain(tariff.minimum)}")
            usage = tariff.minimum
        if tariff.cap is not None and usage > tariff.cap:
            fees.append(f"capped at {plain(tariff.cap)}")
            usage = tariff.cap
    if tariff.attempt_fee and not given_back:
        usage = EXACT.add(usage, tariff.attempt_fee)
        fees.append(f"attempt fee {plain(tariff.attempt_fee)}")
    return EXACT.add(usage, rebate), tuple(fees)


def _began(session: Session) -> datetime | None:
    """When the usage began; None where it is not time."""
    if session.unit is not Unit.SECOND:
        return None
    if session.answered_at is not None or session.closed_at is None:
        return session.answered_at
    highest = max(session.used_ms, session.assumed_ms)
    return session.closed_at - timedelta(milliseconds=highest)


# --- money ---------------------------------------------------------------------------------------


def _hold(session: Session, leg: Leg, entries: Iterable[StoredEntry]) -> HoldLine:
    """What was held is the price of what was granted; with terms the most of it is stored."""
    sums = dict.fromkeys(Code, ZERO)
    for entry in entries:
        sums[Code(entry.code)] += entry.amount
    taken = ZERO
    if session.open:
        taken = leg.held
    elif session.ending is not Ending.REFUSED:
        without = price(leg.pin.tariff, session.granted_seconds)
        taken = without if leg.terms is None else leg.taken
    settled = sums[Code.USAGE]
    packages = leg.terms.packages if leg.terms is not None else ()
    codes = {package.meter_id: package.code for package in packages}
    return HoldLine(
        taken=taken,
        settled=settled,
        released=ZERO if session.open else taken - settled,
        still_held=leg.held,
        overrun=sums[Code.OVERRUN],
        late=sums[Code.LATE],
        corrected=sums[Code.CORRECTION],
        refunded=sums[Code.REFUND],
        rebated=sums[Code.REBATE],
        reserved=tuple((codes.get(one.meter_id, ""), one.units) for one in leg.reserved),
    )


def _spending(leg: Leg, meters: Mapping[int, NamedMeter]) -> Iterable[SpendLine]:
    for spend in leg.terms.spend if leg.terms is not None else ():
        named = meters.get(spend.meter_id)
        if named is not None:
            meter = named.meter
            yield SpendLine(spend.code, period_of_meter(named), meter.used, meter.held, meter.cap)


def describe_rounding(tariff: Tariff) -> str:
    """How the exact price becomes the amount: once, with the card's mode and decimals."""
    return f"{ROUNDINGS[tariff.rounding]}, to {tariff.decimals} decimals ({tariff.rounding.value})"
