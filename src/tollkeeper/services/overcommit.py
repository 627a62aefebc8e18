"""The overcommit guard: a reseller's children are not given more than a share of what it has itself.

A call of a child holds money of the reseller too, so that nobody overspends even without the guard. It
keeps promises: what the children see as available is there, or the operator has agreed to the risk.
"""

from __future__ import annotations

from decimal import Decimal

from tollkeeper.core.money import ZERO, plain
from tollkeeper.errors import Conflict
from tollkeeper.store.db import Connection
from tollkeeper.store.parties import bounding_parent, read_given

__all__ = ["check_overcommit"]

_CENT = Decimal("0.00000001")


async def check_overcommit(connection: Connection, party_id: int, currency: str) -> None:
    """Refuse what was just given to a party if its parent's children have too much by it.

    Called in the transaction that raised the party's credit limit or money, after it did so: the sum
    over the parent's children of what is available (at least 0) in the currency must not exceed the
    parent's ``overcommit`` times what it has available itself. A parent without one is not looked at.

    Raises:
        Conflict: it does (``overcommitted``).
    """
    parent = await bounding_parent(connection, party_id)
    if parent is None:
        return
    parent_id, code = parent
    found = await read_given(connection, parent_id, currency)
    most = (found.share * max(found.own, ZERO)).quantize(_CENT)
    if found.given > most:
        raise Conflict(
            f"the children of {code} would have {plain(found.given)} {currency} together, and may have "
            f"{plain(most)}: {found.share.normalize():f} times the {plain(max(found.own, ZERO))} that {code} "
            "has available itself",
            code="overcommitted",
        )
