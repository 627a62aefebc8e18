"""Telling that a wallet's limit or cap is used up to a percent: beside the calls, never in their way.

One look reads what every watched limit and cap stands at and goes on only with those that have changed
since. The event is written with the note that it was told, so that of many processes one tells.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from tollkeeper.core.alerts import crossed, fallen
from tollkeeper.core.money import ZERO, plain
from tollkeeper.store import alerts as store
from tollkeeper.store.alerts import Watched
from tollkeeper.store.db import Database

KEEP = timedelta(days=100)
"""Longer than any period of a cap."""

LIMIT = "limit"


class Alerts:
    """What one process has seen; ``look`` is called again and again."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._seen: dict[tuple[int, str, datetime], tuple[object, ...]] = {}

    async def look(self, now: datetime) -> int:
        """Tell what has been crossed since the last look; returns how many events were written.

        Raises:
            Busy: the database does not answer; nothing is forgotten.
        """
        async with self._database.read() as connection:
            found = await store.read_watched(connection, now)
        keys = {(one.wallet_id, one.kind, one.begins_at) for one in found}
        self._seen = {key: state for key, state in self._seen.items() if key in keys}
        changed = [one for one in found if self._seen.get(_key(one)) != _state(one)]
        if not changed:
            return 0
        events = 0
        async with self._database.write() as connection:
            told = await store.read_told(connection, {one.wallet_id for one in changed})
            for one in changed:
                known = told.get(_key(one), set())
                if one.kind == LIMIT:
                    for percent in fallen(one.used, one.bound, known):
                        await store.forget(connection, one, percent)
                        known.discard(percent)
                for percent in crossed(one.used, one.bound, one.alert_at, known):
                    detail, payload = _event(one, percent)
                    events += await store.tell(
                        connection, one, percent, at=now, detail=detail, payload=payload
                    )
        self._seen |= {_key(one): _state(one) for one in changed}
        return events

    async def keep_house(self, now: datetime) -> None:
        """Forget what was told of periods that are long over."""
        async with self._database.write() as connection:
            await store.purge(connection, now - KEEP)


def _key(one: Watched) -> tuple[int, str, datetime]:
    return one.wallet_id, one.kind, one.begins_at


def _state(one: Watched) -> tuple[object, ...]:
    return one.stamp, one.bound, one.alert_at


def _event(one: Watched, percent: int) -> tuple[str, dict[str, object]]:
    what = "credit limit" if one.kind == LIMIT else f"cap of the {one.kind.rpartition('/')[2]}"
    used = plain(max(one.used, ZERO))
    detail = f"{one.party} has used {percent} % of its {what}: {used} of {plain(one.bound)} {one.currency}"
    return detail, {
        "key": f"{one.party}/{one.currency}",
        "party": one.party,
        "currency": one.currency,
        "of": one.kind,
        "percent": percent,
        "used": used,
        "bound": plain(one.bound),
        "period_begins_at": one.begins_at.isoformat(),
    }
