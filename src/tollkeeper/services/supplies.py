"""All that is bought from outside suppliers, put together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from tollkeeper.gateways.supplier import SupplierGateway
from tollkeeper.services.charging import Charging
from tollkeeper.services.dids import Dids
from tollkeeper.services.esims import Esims
from tollkeeper.services.fees import Fees
from tollkeeper.services.lookups import Lookups
from tollkeeper.services.purchases import Purchases
from tollkeeper.store.db import Database


@dataclass(frozen=True, slots=True)
class Supplies:
    """The use cases of one process."""

    gateway: SupplierGateway
    purchases: Purchases
    lookups: Lookups
    esims: Esims
    fees: Fees
    dids: Dids


def make_supplies(
    *,
    database: Database,
    charging: Charging,
    gateway: SupplierGateway,
    clock: Callable[[], datetime],
    new_id: Callable[[], str],
) -> Supplies:
    """Return the use cases that ask these suppliers."""
    purchases = Purchases(
        database=database, charging=charging, gateway=gateway, clock=clock, new_id=new_id
    )
    fees = Fees(database, charging, clock)
    return Supplies(
        gateway,
        purchases,
        Lookups(database=database, charging=charging, gateway=gateway, clock=clock, new_id=new_id),
        Esims(database=database, purchases=purchases, clock=clock),
        fees,
        Dids(database=database, charging=charging, fees=fees, clock=clock, purchases=purchases),
    )
