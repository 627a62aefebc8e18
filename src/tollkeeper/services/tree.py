"""The tree of parties: who may stand below whom, whose plan sells to whom, and moves with their history.

A move is written by the operator's rights after its checks: it changes places that whoever asks for it
need not see. Calls that are up keep the legs they were authorised with.
"""

from __future__ import annotations

import psycopg

from tollkeeper.errors import Conflict, Forbidden, InvalidInput
from tollkeeper.services.fields import REASON_MAX, check_text
from tollkeeper.services.scope import shown_actors, unknown_party
from tollkeeper.store import parties as store
from tollkeeper.store.changes import record
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.parties import Move, Party

__all__ = ["KINDS", "PARENTS", "Move", "list_moves", "move_party", "parent_id_of", "plan_id_of"]

KINDS = ("operator", "reseller", "customer", "vendor", "user", "card")
PARENTS = {
    "operator": frozenset[str](),
    "reseller": frozenset(("operator", "reseller")),
    "customer": frozenset(("operator", "reseller")),
    "vendor": frozenset(("operator", "reseller")),
    "user": frozenset(("customer",)),
    "card": frozenset(("operator", "reseller", "customer")),
}
"""Below which kinds a party of each kind may stand."""

CYCLE = "TK020"

# --- where a party may stand ---------------------------------------------------------------------


async def parent_id_of(connection: Connection, kind: str, parent: str | None) -> int | None:
    """Return the id of a parent that a party of this kind may stand below; None at the top.

    Raises:
        InvalidInput: there is no such party, or its kind cannot have such children.
    """
    if parent is None:
        if kind == "user":
            raise InvalidInput(
                "parent: a user spends its customer's money: say which customer", field="parent"
            )
        return None
    if kind == "operator":
        raise InvalidInput("parent: an operator has no parent", field="parent")
    found = await store.read_parent(connection, parent)
    if found is None:
        raise InvalidInput(
            f'parent: there is no party "{parent}"', code="unknown_parent", field="parent"
        )
    parent_id, its_kind = found
    if its_kind not in PARENTS[kind]:
        allowed = " or ".join(name for name in KINDS if name in PARENTS[kind])
        raise InvalidInput(
            f"parent: a {kind} can stand below {allowed}, and {parent} is a {its_kind}",
            code="invalid_parent",
            field="parent",
        )
    return parent_id


async def plan_id_of(
    connection: Connection,
    plan: str | None,
    party: str,
    below_id: int | None,
    *,
    itself: bool = False,
) -> int | None:
    """The id of a plan that a party may be sold by: the operator's, or of somebody above it.

    ``below_id`` is its parent, or the party ``itself``. A scope does not even see the operator's.

    Raises:
        InvalidInput: there is no such plan, or its owner does not stand above the party.
    """
    if plan is None:
        return None
    found = await store.read_plan_id(connection, plan)
    if found is None:
        raise InvalidInput(f'plan: there is no plan "{plan}"', code="unknown_plan", field="plan")
    plan_id, owner_id = found
    if owner_id is None:
        return plan_id
    above = below_id is not None and await store.stands_below(connection, below_id, owner_id)
    if not above or (itself and owner_id == below_id):
        raise InvalidInput(
            f"plan: {plan} belongs to a party that does not stand above {party}",
            code="foreign_plan",
            field="plan",
        )
    return plan_id


# --- moves ---------------------------------------------------------------------------------------


async def move_party(
    database: Database,
    code: str,
    *,
    parent: str | None,
    reason: str,
    actor: str,
    plan: str | None = None,
    scope: int | None = None,
) -> Party:
    """Put a party, and with it all below it, under another parent; returns it as it stands then.

    ``plan`` is the plan that it is sold by there; None leaves it the one it has. A ``parent`` of None is
    the top. A scope moves parties within its own subtree.

    Raises:
        NotFound: no such party. InvalidInput: a parent or plan that does not fit.
        Conflict: it would stand below itself, or it or somebody below it would be sold by the plan of
            a party that does not stand above any more. Forbidden: the scope itself, or to the top.
    """
    check_text(reason, field="reason", longest=REASON_MAX)
    try:
        async with database.write() as connection:
            return await _move(connection, code, parent, plan, reason, actor, scope)
    except psycopg.Error as error:
        if error.sqlstate != CYCLE:
            raise
        raise _cycle(code, parent or "") from error


async def _move(
    connection: Connection,
    code: str,
    parent: str | None,
    plan: str | None,
    reason: str,
    actor: str,
    scope: int | None,
) -> Party:
    party = await _locked(connection, code)
    if scope is not None:
        await _check_scope(connection, party, parent, scope)
    parent_id = await parent_id_of(connection, party.kind, parent)
    if parent_id is not None and await store.stands_below(connection, parent_id, party.id):
        raise _cycle(code, parent or "")
    if parent == party.parent:
        raise Conflict(f"{code} stands there already", code="same_parent", field="parent")
    await store.move_party(connection, party.id, parent_id)
    if plan is not None:
        await _replan(connection, party, plan, scope)
    foreign = await store.find_foreign_plan(connection, party.id)
    if foreign is not None:
        raise Conflict(
            f"{foreign.party} is sold by the plan {foreign.plan} of {foreign.owner}, who would not stand "
            "above it any more: give it another plan",
            code="foreign_plan",
            field="plan",
        )
    await store.add_move(connection, party.id, parent_id=parent_id, actor=actor, reason=reason)
    await record(
        connection,
        actor=actor,
        action="party.move",
        subject=f"party {code}",
        detail={"parent": [party.parent, parent], "plan": plan, "reason": reason},
        notice=f"party:{party.id}",
    )
    return await _locked(connection, code)


async def _locked(connection: Connection, code: str) -> Party:
    await store.lock_party(connection, code)
    party = await store.read_party(connection, code)
    if party is None:
        raise unknown_party(code)
    return party


async def _check_scope(
    connection: Connection, party: Party, parent: str | None, scope: int
) -> None:
    """Both places must be below the scope; what is not is as if it did not exist."""
    if not await store.stands_below(connection, party.id, scope):
        raise unknown_party(party.code)
    if party.id == scope:
        raise Forbidden(
            f"{party.code} cannot move itself; this is up to whoever stands above it",
            code="own_party",
        )
    if parent is None:
        raise InvalidInput("parent: say below whom it shall stand", field="parent")
    found = await store.read_parent(connection, parent)
    if found is None or not await store.stands_below(connection, found[0], scope):
        raise InvalidInput(
            f'parent: there is no party "{parent}"', code="unknown_parent", field="parent"
        )


async def _replan(connection: Connection, party: Party, plan: str, scope: int | None) -> None:
    if party.kind == "user":
        raise InvalidInput(
            f"plan: {party.code} is a user, and a user's calls are priced by the plan of its customer",
            code="user_has_no_plan",
            field="plan",
        )
    if scope is not None:
        _, owner_id = await store.read_plan_id(connection, plan) or (0, None)
        if owner_id is None or not await store.stands_below(connection, owner_id, scope):
            raise InvalidInput(
                f'plan: there is no plan "{plan}"', code="unknown_plan", field="plan"
            )
    plan_id = await plan_id_of(connection, plan, party.code, party.id, itself=True)
    await store.write_party(connection, party, plan_id=plan_id)


def _cycle(code: str, parent: str) -> Conflict:
    where = "itself" if parent == code else f"{parent}, which stands below it"
    return Conflict(f"{code} cannot be moved below {where}", code="cycle", field="parent")


async def list_moves(
    database: Database,
    code: str,
    *,
    after: int = 0,
    limit: int = 100,
    scope: int | None = None,
) -> list[Move]:
    """Where a party stood, and since when, the first place first.

    Of a place that a scope does not see it learns the time only, and no reason of those above it.

    Raises:
        NotFound: no such party.
    """
    async with database.read(scope=scope) as connection:
        party = await store.read_party(connection, code)
        if party is None:
            raise unknown_party(code)
        moves = await store.read_moves(connection, party.id, after=after, limit=limit)
        if scope is None:
            return moves
        actors = await shown_actors(connection, [move.actor for move in moves])
    return [
        Move(
            id=move.id,
            parent=move.parent,
            at=move.at,
            actor=actors[move.actor],
            # Whoever stands above may have said there where it came from.
            reason=move.reason if actors[move.actor] == move.actor else "",
        )
        for move in moves
    ]
