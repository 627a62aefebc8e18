"""What is given back of a use, and by whose word.

That something was not delivered is said by a machine, and the plans decide: that of the payer and those
of everybody above that was charged too, as they are now, for one refund takes from all of them. All
other reasons are a human's, of the operator.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from tollkeeper.core.records import Ending, Session
from tollkeeper.errors import Conflict, Forbidden
from tollkeeper.services.directory import Directory
from tollkeeper.services.scope import operator_only
from tollkeeper.store.directory import ApiKey

UNDELIVERED = "undelivered"
"""The word that makes the plans decide."""
FAILED = "failed"
"""It never left the operator's own systems: given back whatever a plan says."""


def check_reason(key: ApiKey, reason: str) -> None:
    """Let a key refund for a reason.

    Whoever may charge may say that something was not delivered; a key of the operator that it
    failed; any other reason needs the scope ``manage``, too.

    Raises:
        Forbidden: it may not.
    """
    if reason == UNDELIVERED:
        return
    if key.party_id is not None:
        raise operator_only(f'what is not "{UNDELIVERED}" is given back')
    if reason != FAILED and "manage" not in key.scopes:
        raise Forbidden(
            f'the key "{key.name}" does not have the scope "manage": without it the reason is '
            f'"{UNDELIVERED}" or "{FAILED}"',
            code="scope_missing",
        )


def check_undelivered(
    session: Session,
    units: int | None,
    directory: Directory,
    sees: Callable[[int], bool],
    now: datetime,
) -> None:
    """Let an undelivered use be given back, ``units`` in all (None: everything).

    What was given back already may be asked for again at any time. ``sees`` tells whose plan may be
    spoken of.

    Raises:
        Conflict: a plan gives nothing back, or not any more.
    """
    if session.open or session.ending is Ending.REFUSED:
        return  # this has an answer of its own
    used = max(session.used_ms, session.assumed_ms)
    if session.refunded_ms >= (used if units is None else min(units * 1000, used)):
        return
    for leg in session.legs:
        entry = directory.entry(leg.party_id)
        plan = None if entry is None else directory.plan_of(entry.plan_id or 0, session.service)
        if entry is None or plan is None:
            continue
        seen = sees(entry.id)
        whose = f"the plan of {entry.code}" if seen else "a plan above"
        if not plan.refund.undelivered:
            raise Conflict(
                f"{whose} gives nothing back for undelivered {session.service}",
                code="not_refundable",
            )
        hours = plan.refund.within_hours
        if hours is not None and now > session.opened_at + timedelta(hours=hours):
            within = f"within {hours} hours" if seen else "for a time"
            raise Conflict(
                f"{whose} gives undelivered {session.service} back {within} only, and it is of "
                f"{session.opened_at:%Y-%m-%d %H:%M} UTC",
                code="refund_too_late",
            )
