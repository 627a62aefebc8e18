"""Lookups of numbers (HLR, number portability): charged before they are asked, refunded if they fail.

A question is a row with the asker's own id before anything else happens, and its charge an event
``lookups/<charge_id>``: the same request again is charged once and gets the same answer. A question
that its process left in the middle is brought to its end by a job.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import structlog

from tollkeeper.core.numbering import normalise
from tollkeeper.core.records import Outcome as ReplyOutcome
from tollkeeper.errors import Busy, Conflict, InvalidInput, NotFound, TollkeeperError
from tollkeeper.gateways.supplier import Outcome, Refused, SupplierGateway, Unknown
from tollkeeper.gateways.supplier_settings import SupplierConfig
from tollkeeper.services.charging import Charging
from tollkeeper.services.fields import check_code
from tollkeeper.services.ordering import LEASE, seen_reason
from tollkeeper.services.suppliers import config_of, read_config
from tollkeeper.store import lookups as store
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.lookups import NewQuery, Query
from tollkeeper.store.suppliers import Supplier, party_in_scope, read_suppliers

__all__ = ["Lookups", "Query"]

SWITCH = "lookups"
"""In front of the ids of the events that charge lookups."""
SERVICE, SERVICE_CACHED = "lookup", "lookup_cached"
"""What a fresh answer is charged as, and one that was kept where it has a price of its own."""
BATCH = 20
FAILED = "supplier_failed"

_log = structlog.get_logger()


class Lookups:
    """Asks suppliers about numbers, for money."""

    def __init__(
        self,
        *,
        database: Database,
        charging: Charging,
        gateway: SupplierGateway,
        clock: Callable[[], datetime],
        new_id: Callable[[], str],
    ) -> None:
        self._database = database
        self._charging = charging
        self._gateway = gateway
        self._clock = clock
        self._new_id = new_id

    async def lookup(
        self, *, party: str, number: str, kind: str, request_id: str, scope: int | None = None
    ) -> Query:
        """Ask what is known of a number. That there is no money, or no answer, is a state of the question.

        Raises:
            NotFound: no such party (or not in ``scope``). InvalidInput: no number, or nobody answers
            such questions. Conflict: the request id names another question.
            Busy: the same question is being asked at this moment, or the database is away.
        """
        check_code(request_id, field="request_id")
        digits = normalise(number, field="number")
        now = self._clock()
        async with self._database.write() as connection:
            party_id = await party_in_scope(connection, party, scope)
            if party_id is None:
                raise NotFound(f'there is no party "{party}"', code="unknown_party", field="party")
            known = await store.find_query(connection, party_id, request_id)
            added = None
            if known is None:
                new = await self._new(connection, party_id, request_id, kind, digits)
                added = await store.add_query(connection, new, now, now + LEASE)
        if added is not None:
            self._passed("written", added)
            return await self._go_on(added)
        return await self._again(party_id, request_id, kind, digits)

    async def _new(
        self, connection: Connection, party_id: int, request_id: str, kind: str, number: str
    ) -> NewQuery:
        """The question with what it will cost: decided once, so that a repeat costs the same."""
        supplier, config = await _answerer(connection, kind)
        rules = config.settings.lookup
        answer: Mapping[str, Any] | None = None
        if rules.ttl_seconds:
            answer = await store.read_cached(connection, kind, number, self._clock())
        service = SERVICE
        if answer is not None and rules.charge_cached == "no":
            service = ""
        elif answer is not None and rules.charge_cached == "separately":
            service = SERVICE_CACHED
        return NewQuery(
            party_id,
            request_id,
            self._new_id(),
            kind,
            number,
            service,
            answer is not None,
            answer or {},
            supplier.id,
        )

    async def _again(self, party_id: int, request_id: str, kind: str, number: str) -> Query:
        now = self._clock()
        async with self._database.read() as connection:
            known = await store.find_query(connection, party_id, request_id)
            if known is None:
                raise Busy("the question is just being written; try again", code="contended")
            if (known.kind, known.number) != (kind, number):
                raise Conflict(
                    f'request_id: "{request_id}" is the name of another question; nothing was done',
                    code="request_id_reused",
                    field="request_id",
                )
            ours = await store.take(connection, known.id, now, now + LEASE)
        if ours:
            return await self._go_on(known.id)
        if known.open:
            raise Busy("this question is being asked; try again in a moment", code="in_progress")
        return known

    async def advance(self) -> bool:
        """Bring questions to their end that somebody left; True when there may be more."""
        now = self._clock()
        async with self._database.write() as connection:
            ids = await store.take_due(connection, now, now + LEASE, BATCH)
        results = await asyncio.gather(*(self._go_on(id_) for id_ in ids), return_exceptions=True)
        for id_, result in zip(ids, results, strict=True):
            if isinstance(result, BaseException):
                _log.warning("lookup.waits", query=id_, error=f"{type(result).__name__}: {result}")
        return len(ids) == BATCH

    async def purge(self) -> bool:
        """Delete kept answers that are too old."""
        async with self._database.write() as connection:
            await store.purge_cache(connection, self._clock())
        return False

    # --- the steps -------------------------------------------------------------------------------

    def _passed(self, step: str, id_: int) -> None:
        """Each durable step passes here."""
        _log.debug("lookup.step", step=step, query=id_)

    async def _go_on(self, id_: int) -> Query:
        while True:
            async with self._database.read() as connection:
                row = await store.read_query(connection, id_)
                if row is None:
                    raise NotFound(f"there is no lookup {id_}", code="unknown_lookup")
                config = await read_config(connection, row.supplier_id)
            if row.status == "new" and row.service:
                await self._charge(row)
            elif row.open and row.cached:
                await self._decide(row, "done", "", row.answer)
            elif row.open:
                await self._ask(row, config)
            elif row.refund:
                await self._refund(row)
            else:
                return row

    async def _charge(self, row: Query) -> None:
        """Charge one query, before it is asked; a repeat gets the stored answer."""
        try:
            reply, _ = await self._charging.charge_event(
                switch=SWITCH,
                event_id=row.charge_id,
                party=row.party,
                called=row.number,
                service=row.service,
                units=1,
                # Who goes on with it may do so days later.
                once=True,
            )
        except Busy:
            raise
        except TollkeeperError as error:
            await self._decide(row, "refused", error.code, {})
            return
        self._passed("paid", row.id)
        if reply.outcome is ReplyOutcome.REFUSED:
            await self._decide(row, "refused", seen_reason(reply, row.party_id), {})
            return
        async with self._database.write() as connection:
            await store.mark_charged(connection, row.id, reply.charge, reply.currency)
        self._passed("charged", row.id)

    async def _ask(self, row: Query, config: SupplierConfig) -> None:
        values = {
            "number": row.number,
            "called": row.number,
            "kind": row.kind,
            "order_id": row.charge_id,
            "party": row.party,
            "query": row.number,
        }
        try:
            answer = await self._gateway.call(config, "lookup", values, key=row.charge_id)
        except Refused as error:
            _log.warning("lookup.refused", supplier=config.code, why=error.reason)
            await self._decide(row, "failed", "supplier_refused", {}, refund=True)
            return
        except Unknown as error:
            _log.warning("lookup.failed", supplier=config.code, why=error.detail)
            await self._decide(row, "failed", FAILED, {}, refund=True)
            return
        self._passed("answered", row.id)
        if answer.outcome is Outcome.ABSENT:
            refund = config.settings.lookup.refund_not_found
            await self._decide(row, "not_found", "", {}, refund=refund)
        elif answer.outcome is Outcome.PENDING:
            # A lookup has its answer at once or not at all.
            await self._decide(row, "failed", FAILED, {}, refund=True)
        else:
            keep = timedelta(seconds=config.settings.lookup.ttl_seconds)
            await self._decide(row, "done", "", answer.fields, keep=keep)

    async def _decide(
        self,
        row: Query,
        status: str,
        reason: str,
        answer: Mapping[str, Any],
        *,
        refund: bool = False,
        keep: timedelta = timedelta(0),
    ) -> None:
        now = self._clock()
        async with self._database.write() as connection:
            decided = await store.mark_decided(
                connection,
                row.id,
                status=status,
                reason=str(reason),
                answer=answer,
                refund=refund and row.status == "charged",
                now=now,
            )
            if decided and keep:
                await store.keep_answer(
                    connection, row.kind, row.number, answer, now=now, until=now + keep
                )
        self._passed(status, row.id)

    async def _refund(self, row: Query) -> None:
        """Give back the charge of a question without an answer; a repeat changes nothing."""
        await self._charging.refund(switch=SWITCH, event_id=row.charge_id, why=row.status)
        self._passed("given back", row.id)
        async with self._database.write() as connection:
            await store.mark_refunded(connection, row.id)
        self._passed("refunded", row.id)


async def _answerer(connection: Connection, kind: str) -> tuple[Supplier, SupplierConfig]:
    """The first supplier, in the order of their codes, that answers questions of a kind."""
    for supplier in await read_suppliers(connection, kind="lookup"):
        if supplier.enabled:
            config = config_of(supplier)
            if kind in config.settings.lookup.kinds:
                return supplier, config
    raise InvalidInput(
        f'kind: nobody answers lookups of the kind "{kind[:40]}" at the moment', field="kind"
    )
