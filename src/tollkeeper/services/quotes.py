"""What a use would cost and how far the money goes, at every level; nothing is held by asking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from tollkeeper.core.affordable import affordable, units_max
from tollkeeper.core.batch import meters_of
from tollkeeper.core.parts import settle
from tollkeeper.core.rating import price
from tollkeeper.core.records import Leg, Limits, Offer, Pin, Policy, Unit, Wallet
from tollkeeper.core.view import View
from tollkeeper.store.db import Connection
from tollkeeper.store.meters import read_meters
from tollkeeper.store.wallets import read_wallet


@dataclass(frozen=True, slots=True)
class Quote:
    """What a use would cost the payer, and how long the money lasts.

    ``amount`` and ``available`` (balance + limit - held) are in the currency of the pin, the payer's
    wallet's; ``affordable_units`` is what the money of every level of the tree covers.
    """

    called: str
    unit: Unit
    units: int
    amount: Decimal
    affordable_units: int
    available: Decimal
    pin: Pin


async def make_quote(
    connection: Connection,
    offers: tuple[Offer, ...],
    *,
    called: str,
    unit: Unit,
    units: int,
    caller: int,
    limits: Mapping[int, Limits],
    now: datetime,
) -> Quote:
    """Price ``units`` for the legs of a use as meters and wallets stand now; the first is the payer's.

    ``caller`` is the party that asks, whose ``limits`` (of every party concerned) count like in a call.
    """
    wallets = {offer.wallet_id: await _wallet(connection, offer.wallet_id) for offer in offers}
    wanted = {id_ for offer in offers if offer.terms for id_ in meters_of(offer.terms)}
    meters = await read_meters(connection, wanted) if wanted else {}
    legs = tuple(
        Leg(one.role, one.party_id, one.wallet_id, one.pin, terms=one.terms) for one in offers
    )
    payer = legs[0]
    most = min(units_max(unit, limits[id_]) for id_ in (caller, payer.party_id))
    view = View(wallets, limits, Policy(), meters)
    return Quote(
        called=called,
        unit=unit,
        units=units,
        amount=price(payer.pin.tariff, units)
        if payer.terms is None
        else settle(payer, units, meters)[1],
        affordable_units=affordable(legs, view, most, most, caller, None, now).units,
        available=wallets[payer.wallet_id].available,
        pin=payer.pin,
    )


async def _wallet(connection: Connection, wallet_id: int) -> Wallet:
    found = await read_wallet(connection, wallet_id)
    return found if found is not None else Wallet(wallet_id, 0, "")
