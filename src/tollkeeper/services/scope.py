"""What is shown to a party and what it may do: nothing above itself, and no change of itself.

The database shows a scope only the rows of its subtree. What lies within a row is left out here: a
session has the legs of all levels, a refusal the level that it comes from, a rate the card it is of.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from msgspec.structs import replace

from tollkeeper.core.reasons import Reason
from tollkeeper.core.records import Leg, Pin, Reply, Role, Session
from tollkeeper.errors import Forbidden, NotFound
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.parties import read_party
from tollkeeper.store.scope import seen_actors, seen_cards, seen_parties

__all__ = [
    "SOMEBODY_ABOVE",
    "check_below",
    "operator_only",
    "payer_of",
    "shown_actors",
    "shown_pin",
    "shown_reply",
    "shown_session",
    "shown_sessions",
    "unknown_party",
]

SOMEBODY_ABOVE = "operator"
"""Who did it, where whoever looks may not know the name."""

PUBLIC_ACTORS = frozenset(("", "charging"))
"""Names of the audit trail that tell nothing of anybody."""

SELLER_STEPS = frozenset(("markup", "cost"))
"""Steps of a price that tell what it cost the one who sells at it."""


def unknown_party(code: str) -> NotFound:
    """The error for a party that does not exist, or that whoever asks must not know of."""
    return NotFound(f'there is no party "{code}"', code="unknown_party")


def operator_only(what: str) -> Forbidden:
    """The error for what no party's key may do: ``what`` is "rates are verified" or the like."""
    return Forbidden(f"{what} by the operator only", code="operator_only")


async def check_below(connection: Connection, scope: int | None, code: str) -> None:
    """Let a scope change only parties below itself; the operator (None) may change all.

    Raises:
        NotFound: it sees no such party. Forbidden: it is that party itself.
    """
    if scope is None:
        return
    party = await read_party(connection, code)
    if party is None:
        raise unknown_party(code)
    if party.id == scope:
        raise Forbidden(
            f"{code} cannot change itself; this is up to whoever stands above it", code="own_party"
        )


# --- sessions ------------------------------------------------------------------------------------


def shown_session(
    session: Session, visible: Collection[int], cards: Collection[int] = ()
) -> Session:
    """A session as somebody sees it who sees these parties and these rate cards.

    Legs of others are not there. A refusal that comes from another is "upstream". The rate of a card
    of another says what it costs and not which row of which card it is, nor how that price was made.
    """
    shown = replace(
        session,
        legs=tuple(_shown_leg(leg, cards) for leg in session.legs if leg.party_id in visible),
    )
    if session.refused_by and session.refused_by not in visible:
        shown = replace(shown, reason=Reason.UPSTREAM, refused_by=0)
    return shown


def _shown_leg(leg: Leg, cards: Collection[int]) -> Leg:
    return leg if leg.pin.card_id in cards else replace(leg, pin=_bare(leg.pin))


def _bare(pin: Pin) -> Pin:
    steps = tuple(step for step in pin.steps if step.kind not in SELLER_STEPS)
    return replace(pin, card_id=0, card="", version=0, row_id=0, steps=steps)


async def shown_pin(database: Database, pin: Pin, scope: int | None) -> Pin:
    """A rate as a scope sees it: see :func:`shown_session`."""
    if scope is None:
        return pin
    async with database.read(scope=scope) as connection:
        return pin if await seen_cards(connection, [pin.card_id]) else _bare(pin)


def shown_reply(reply: Reply, visible: Collection[int], *, payer: int = 0) -> Reply:
    """An answer as somebody sees it who sees these parties.

    ``payer`` is the party of the customer's leg: what it was charged is shown to those who see it.
    """
    if reply.refused_by and reply.refused_by not in visible:
        reply = replace(reply, reason=Reason.UPSTREAM, refused_by=0)
    if payer and payer not in visible and reply.charge is not None:
        reply = replace(reply, charge=None, currency="")
    return reply


def payer_of(session: Session) -> int:
    """The party of the customer's leg; 0 where there is none."""
    return next((leg.party_id for leg in session.legs if leg.role is Role.CUSTOMER), 0)


async def shown_sessions(connection: Connection, sessions: Iterable[Session]) -> list[Session]:
    """These sessions as the scope of the connection sees them."""
    found = list(sessions)
    legs = [leg for session in found for leg in session.legs]
    ids = {leg.party_id for leg in legs} | {session.refused_by for session in found}
    visible = await seen_parties(connection, ids)
    cards = await seen_cards(connection, {leg.pin.card_id for leg in legs})
    return [shown_session(session, visible, cards) for session in found]


# --- who did it ----------------------------------------------------------------------------------


async def shown_actors(connection: Connection, actors: Iterable[str]) -> dict[str, str]:
    """How names of the audit trail are shown to the scope of the connection: its own keys as they are."""
    names = set(actors)
    known = PUBLIC_ACTORS | await seen_actors(connection, names)
    return {name: name if name in known else SOMEBODY_ABOVE for name in names}
