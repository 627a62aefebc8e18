"""The commands ``price`` and ``charge``: what a use costs, with the arithmetic; and one charged by hand."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from tollkeeper.cli.common import console, run, run_charging, utc
from tollkeeper.cli.explained import describe
from tollkeeper.core.money import plain
from tollkeeper.core.plans import Priced, price_question
from tollkeeper.core.rating import SECONDS_MAX, UNITS_MAX, Tariff, explain_price
from tollkeeper.core.reasons import MEANINGS, Reason
from tollkeeper.core.records import Outcome, Unit
from tollkeeper.core.services import service_of
from tollkeeper.core.words import Words, words_of
from tollkeeper.errors import Conflict, InvalidInput, NotFound
from tollkeeper.services.directory import Directory
from tollkeeper.services.explain import CardRow, row_on_card
from tollkeeper.services.explain_parts import exact
from tollkeeper.services.rates import Lookup, lookup
from tollkeeper.services.uses import Use, question_of
from tollkeeper.store.db import Database

BY_HAND = "cli"
"""In whose name the command charges; the ids of its events are its own."""


def price(
    number: str,
    *,
    party: str | None = None,
    card: str | None = None,
    seconds: int = 60,
    at: datetime | None = None,
    service: str = "voice",
    units: int | None = None,
    caller: str = "",
    network: str = "",
    lrn: str = "",
) -> None:
    """Price a use by a party's plan, with every step that leads to the price, or by one card.

    Args:
        number: The number called, or what else is used.
        party: Code of a party: its dialling rules and its plan are used.
        card: Code of a rate card, instead of a party.
        seconds: How long the call is.
        at: When it is, in UTC unless a zone is given; now if left out.
        service: What is used.
        units: How many bytes, messages or pieces, of a service that is not counted in seconds.
        caller: The caller's number, for prices by origin.
        network: MCC and MNC of the network used.
        lrn: Location routing number of a ported number.
    """
    timed = service_of(service).unit is Unit.SECOND
    most = SECONDS_MAX if timed else UNITS_MAX
    size = units if units is not None else seconds if timed else 1
    if not 0 <= size <= most:
        name = "seconds" if timed else "units"
        raise InvalidInput(f"{name}: from 0 to {most}", field=name)
    moment = datetime.now(UTC) if at is None else utc(at)
    if (party is None) == (card is None):
        raise InvalidInput("say either a card or a party", field="card")
    if party is not None:
        use = Use(party, number, service, caller, lrn, network)
        _print_priced(run(lambda database: _by_plan(database, use, moment)), service, size)
        return
    of = card or ""
    _print(run(lambda database: lookup(database, number, now=moment, card=of)), service, size)


@dataclass(frozen=True, slots=True)
class _Found:
    """A number as it is called, its price, and the row of the card that it stands on."""

    called: str
    priced: Priced | Reason
    row: CardRow | None


async def _by_plan(database: Database, use: Use, at: datetime) -> _Found:
    """Price a use by the plan of whoever pays for a party."""
    directory = Directory(database)
    await directory.load()
    entry = directory.party(use.party)
    question = question_of(entry, use)
    payer = next(iter(directory.chain_of(entry.id)), entry)
    plan = directory.plan_of(payer.plan_id or 0, use.service)
    if plan is None:
        raise NotFound(f"{payer.code} is sold no {use.service}", code=Reason.NO_PLAN.value)
    # Without a wallet the price is told in the currency of the card.
    wallets = payer.wallets or {placed.card.currency: 0 for placed in plan.cards}
    priced = price_question(
        plan,
        question,
        at,
        party_id=payer.id,
        wallets=wallets,
        exchange=directory.exchange(at.date()),
        places=directory.places,
    )
    row = None if isinstance(priced, Reason) else await row_on_card(database, priced.pin)
    return _Found(question.called, priced, row)


def _print_priced(found: _Found, service: str, size: int) -> None:
    out, called, priced, row = console(), found.called, found.priced, found.row
    if isinstance(priced, Reason):
        if priced is not Reason.DESTINATION_BLOCKED:
            raise NotFound(f"{called}: {MEANINGS[priced].text}", code=priced.value)
        out.print(f"{called}: blocked: calls to this destination are refused", markup=False)
        return
    pin = priced.pin
    words = _words(service, pin.tariff)
    out.print(f"{called}: {pin.destination}, prefix {pin.prefix}", markup=False)
    on_card = "" if row is None else f": {describe(row.tariff, row.currency, words)}"
    of = f" of the cost card {row.cost_card}" if row is not None and row.cost_card else ""
    out.print(f"card {pin.card} version {pin.version}, row {pin.row_id}{of}{on_card}", markup=False)
    for step in pin.steps:
        out.print(f"{step.kind} {step.name}: {step.detail}", markup=False)
    if pin.steps:
        out.print(f"price: {describe(pin.tariff, pin.currency, words)}", markup=False)
    _print_amount(pin.tariff, pin.currency, words, size)
    if priced.packages:
        codes = ", ".join(package.code for package in priced.packages)
        out.print(f"units left in these packages come first: {codes}", markup=False)
    if priced.tier is not None:
        steps = ", ".join(
            f"{plain(step.price) if step.price is not None else f'{step.percent} %'} "
            f"from {words.count(step.start)}"
            for step in priced.tier.steps
        )
        tier = f"{priced.tier.code}, by the volume of the {priced.tier.period}: {steps}"
        out.print(f"volume prices: {tier}", markup=False)


def _print(found: Lookup, service: str, size: int) -> None:
    out = console()
    row, used = found.chosen.row, found.chosen.card
    out.print(f"{found.number}: {row.destination}, prefix {row.prefix}", markup=False)
    out.print(f"card {used.code} version {used.version}", markup=False)
    if row.blocked:
        out.print("blocked: calls to this destination are refused")
        return
    _print_amount(row.tariff, used.currency, _words(service, row.tariff), size)


def _words(service: str, tariff: Tariff) -> Words:
    return words_of(service_of(service).unit.value, tariff.per, service)


def _print_amount(tariff: Tariff, currency: str, words: Words, size: int) -> None:
    out, priced = console(), explain_price(tariff, size, words)
    counted = f"{words.count(size)}, billed {words.count(priced.billed_seconds)}"
    out.print(f"{counted}: {priced.note} = {exact(priced.exact)}", markup=False)
    rule = f"rounded once, {tariff.rounding.value}, to {tariff.decimals} decimals"
    out.print(f"[bold]{priced.amount} {currency}[/bold] ({rule})")


def charge(
    party: str,
    called: str,
    *,
    name: str,
    service: str = "sms",
    units: int | None = None,
    text: str | None = None,
    caller: str = "",
    network: str = "",
) -> None:
    """Charge a one-off use to a party and everybody above it: a message, a lookup, a fee.

    Args:
        party: Code of the party.
        called: The number it is for, or the name of what is charged.
        name: A name for this charge: given again, nothing is charged twice.
        service: What is used.
        units: How many messages, queries or pieces; 1 if left out.
        text: The text of a message: its segments are counted.
        caller: The sender's number, for prices by origin.
        network: MCC and MNC of the network used.
    """
    reply, repeated = run_charging(
        lambda parts: parts.charging.charge_event(
            switch=BY_HAND,
            event_id=name,
            party=party,
            called=called,
            service=service,
            units=units,
            text=text,
            caller=caller,
            network=network,
            once=True,
        )
    )
    if reply.outcome is Outcome.REFUSED:
        raise Conflict(f"refused: {MEANINGS[reply.reason].text}", code=reply.reason.value)
    amount = plain(reply.charge) if reply.charge is not None else "nothing"
    said = "charged before" if repeated else "charged"
    console().print(f"{said}: {amount} {reply.currency} for {reply.used_ms // 1000} {reply.unit}")
