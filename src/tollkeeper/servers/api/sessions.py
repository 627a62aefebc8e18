"""Routes that look at sessions: those that are live, any single one, and why it cost what it cost.

The messages of a session are taken by the lean routes of ``charging.py``.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import APIRouter, Path, Query
from pydantic import Field

from tollkeeper.core.money import plain
from tollkeeper.core.rating import Tariff
from tollkeeper.core.reasons import MEANINGS
from tollkeeper.core.records import Leg, Session
from tollkeeper.errors import NotFound
from tollkeeper.servers.api import schemas
from tollkeeper.servers.api.auth import DOCUMENTED, ReadKey
from tollkeeper.servers.api.charging import SESSION_ID
from tollkeeper.servers.api.context import Context
from tollkeeper.servers.problem import PROBLEM_TYPE
from tollkeeper.services import explain as explaining
from tollkeeper.services.explain import Explanation, LegLine, MessageLine
from tollkeeper.services.keys import ApiKey
from tollkeeper.store.sessions import StoredEntry

router = APIRouter(prefix="/v1", tags=["sessions"], dependencies=DOCUMENTED)

_SWITCH = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
_uuid = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

SessionName = Annotated[
    str,
    Path(
        pattern=f"^{SESSION_ID}$",
        description="The switch's own id of the call, or the id that Tollkeeper answered with.",
    ),
]
SwitchName = Annotated[
    str | None,
    Query(pattern=f"^{_SWITCH}$", description="Whose session id it is; else the API key's switch."),
]
PartyFilter = Annotated[
    str | None,
    Query(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", description="Only its sessions."),
]
AfterKey = Annotated[
    str,
    Query(pattern=f"^({_SWITCH}/{SESSION_ID})?$", description="`next` of the page before."),
]


_NO_PARTY: dict[int | str, dict[str, Any]] = {
    404: {
        "description": "There is no such party.",
        "content": {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
}


# --- what is shown -------------------------------------------------------------------------------


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
    """A session as it stands. `used_ms` is the highest usage reported, `assumed_ms` what an expired
    session was charged for without a report; `ending` is empty while it is open."""  # noqa: D205, D209

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
    used_ms: int
    assumed_ms: int
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
            used_ms=session.used_ms,
            assumed_ms=session.assumed_ms,
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


class TariffOut(schemas.Out):
    """Prices per minute, intervals in seconds, fees per call."""

    first_price: schemas.Money
    next_price: schemas.Money
    first_interval: int
    next_interval: int
    connect_fee: schemas.Money
    attempt_fee: schemas.Money
    minimum: schemas.Money
    free_below: int
    surcharge: schemas.Money
    cap: schemas.Money | None
    decimals: int
    rounding: str

    @classmethod
    def of(cls, tariff: Tariff) -> Self:
        """Show a tariff."""
        return cls(**{name: getattr(tariff, name) for name in tariff.__struct_fields__})


class MessageOut(schemas.Out):
    """A message that changed the session, and what it was answered."""

    version: int
    time: datetime
    message_id: str
    request: dict[str, str | int | bool]
    outcome: str
    granted_seconds: int
    final: bool
    terminate: bool
    reason: str
    reason_text: str
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


class HoldOut(schemas.Out):
    """What became of the money set aside: taken = settled + released + still_held."""

    taken: schemas.Money
    settled: schemas.Money
    released: schemas.Money
    still_held: schemas.Money
    overrun: schemas.Money = Field(description="Usage above the hold.")
    late: schemas.Money = Field(description="Usage reported after the end.")
    corrected: schemas.Money = Field(description="Given back after the end.")


class LegExplained(schemas.Out):
    """A leg with its rate row, the arithmetic and the entries.

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
    tariff: TariffOut
    seconds: int
    billed_seconds: int
    arithmetic: str
    exact: str
    rounding: str
    amount: schemas.Money
    charged: schemas.Money
    agrees: bool
    hold: HoldOut
    entries: list[SessionEntryOut]

    @classmethod
    def of_line(cls, leg: LegLine) -> Self:
        """Show a leg."""
        rate, worked, hold = leg.rate, leg.price, leg.hold
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
            tariff=TariffOut.of(rate.tariff),
            seconds=worked.seconds,
            billed_seconds=worked.billed_seconds,
            arithmetic=worked.note,
            exact=plain(worked.exact),
            rounding=leg.rounding,
            amount=worked.amount,
            charged=leg.charged,
            agrees=leg.agrees,
            hold=HoldOut(**{name: getattr(hold, name) for name in HoldOut.model_fields}),
            entries=[SessionEntryOut.of(entry) for entry in leg.entries],
        )


class ExplanationOut(schemas.Out):
    """Why a session cost what it cost; `billed_from_ms` is the usage that was priced."""

    session: SessionOut
    story: str
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
            billed_from_ms=found.billed_from_ms,
            messages=[MessageOut.of(line) for line in found.messages],
            legs=[LegExplained.of_line(leg) for leg in found.legs],
            notes=list(found.marks),
        )


# --- routes --------------------------------------------------------------------------------------


@router.get("/sessions", responses=_NO_PARTY)
async def list_sessions(
    context: Context,
    _: ReadKey,
    party: PartyFilter = None,
    limit: schemas.PageLimit = 100,
    after: AfterKey = "",
) -> SessionList:
    """List the sessions that are live now, of all switches."""
    found = await context.charging.live_sessions(party=party, after=after, limit=limit + 1)
    page = found[:limit]
    codes = await explaining.party_codes(context.database, page)
    return SessionList(
        items=[SessionOut.of(session, codes) for session in page],
        next=page[-1].key if len(found) > limit else None,
    )


@router.get("/sessions/{session_id}")
async def get_session(
    session_id: SessionName, context: Context, key: ReadKey, switch: SwitchName = None
) -> SessionOut:
    """Show a session, live or closed."""
    session = await _find(context, session_id, key, switch)
    codes = await explaining.party_codes(context.database, [session])
    return SessionOut.of(session, codes)


@router.get("/sessions/{session_id}/explain")
async def explain_session(
    session_id: SessionName, context: Context, key: ReadKey, switch: SwitchName = None
) -> ExplanationOut:
    """Explain a session: messages, rate row, arithmetic, rounding, hold and entries."""
    session = await _find(context, session_id, key, switch)
    return ExplanationOut.of(await explaining.explain(context.database, session.id))


async def _find(context: Context, session_id: str, key: ApiKey, switch: str | None) -> Session:
    """Our own id first, unless a switch is named: a switch may choose ids that look like it."""
    if switch is None and _uuid.fullmatch(session_id) is not None:
        try:
            return await context.charging.session(session_id)
        except NotFound:
            pass
    try:
        return await context.charging.session(f"{switch or key.switch}/{session_id}")
    except NotFound:
        raise NotFound(
            f'there is no session "{session_id}" of switch {switch or key.switch}',
            code="unknown_session",
        ) from None
