"""Routes that look at sessions: those that are live, any single one, and why it cost what it cost.

The messages of a session are taken by the lean routes of ``charging.py``.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from tollkeeper.core.records import Session
from tollkeeper.errors import NotFound
from tollkeeper.servers.api import schemas
from tollkeeper.servers.api.auth import DOCUMENTED, ReadKey, scope_of
from tollkeeper.servers.api.charging_records import SESSION_ID
from tollkeeper.servers.api.context import Context
from tollkeeper.servers.api.session_schemas import ExplanationOut, SessionList, SessionOut
from tollkeeper.servers.problem import PROBLEM_TYPE
from tollkeeper.services import explain as explaining
from tollkeeper.services.keys import ApiKey

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


# --- routes --------------------------------------------------------------------------------------


@router.get("/sessions", responses=_NO_PARTY)
async def list_sessions(
    context: Context,
    key: ReadKey,
    party: PartyFilter = None,
    limit: schemas.PageLimit = 100,
    after: AfterKey = "",
) -> SessionList:
    """List the sessions that are live now, of all switches."""
    scope = scope_of(key)
    found = await context.charging.live_sessions(
        party=party, after=after, limit=limit + 1, scope=scope
    )
    page = await explaining.shown(context.database, found[:limit], scope=scope)
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
    (session,) = await explaining.shown(context.database, [session], scope=scope_of(key))
    codes = await explaining.party_codes(context.database, [session])
    return SessionOut.of(session, codes)


@router.get("/sessions/{session_id}/explain")
async def explain_session(
    session_id: SessionName, context: Context, key: ReadKey, switch: SwitchName = None
) -> ExplanationOut:
    """Explain a session at every level: messages, card row and steps, parts, rounding, hold and entries."""
    session = await _find(context, session_id, key, switch)
    found = await explaining.explain(context.database, session.id, scope=scope_of(key))
    return ExplanationOut.of(found)


async def _find(context: Context, session_id: str, key: ApiKey, switch: str | None) -> Session:
    """Our own id first, unless a switch is named: a switch may choose ids that look like it."""
    if switch is None and _uuid.fullmatch(session_id) is not None:
        try:
            return await context.charging.session(session_id, scope=scope_of(key))
        except NotFound:
            pass
    try:
        name = f"{switch or key.switch}/{session_id}"
        return await context.charging.session(name, scope=scope_of(key))
    except NotFound:
        raise NotFound(
            f'there is no session "{session_id}" of switch {switch or key.switch}',
            code="unknown_session",
        ) from None
