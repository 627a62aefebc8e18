"""The charging use cases: authorise, start, update, stop, kill, quote, and looking at sessions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import msgspec

from tollkeeper.core.money import ZERO
from tollkeeper.core.numbering import normalise
from tollkeeper.core.rating import SECONDS_MAX, Tariff, bought, price
from tollkeeper.core.reasons import Reason
from tollkeeper.core.records import (
    Authorise,
    Kill,
    Offer,
    Outcome,
    Pin,
    Reply,
    Role,
    Session,
    Start,
    Stop,
    Update,
)
from tollkeeper.core.tariff import Match, find_rate
from tollkeeper.errors import InvalidInput, NotFound
from tollkeeper.services.directory import Directory
from tollkeeper.services.lane import Lane
from tollkeeper.store.db import Database
from tollkeeper.store.directory import PartyEntry
from tollkeeper.store.sessions import read_live, read_session
from tollkeeper.store.wallets import read_wallet
from tollkeeper.telemetry import count_refusal

USED_MS_MAX = SECONDS_MAX * 1000
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Quote:
    """What a call would cost, and how long the money lasts; nothing is held by asking.

    Amounts are in ``currency``; ``available`` is the wallet's balance + limit - held.
    """

    called: str
    seconds: int
    amount: Decimal
    affordable_seconds: int
    available: Decimal
    pin: Pin


class Charging:
    """The use cases of a call, for every protocol."""

    def __init__(
        self, lane: Lane, directory: Directory, database: Database, clock: Callable[[], datetime]
    ) -> None:
        self._lane = lane
        self._directory = directory
        self._database = database
        self._clock = clock

    async def authorise(
        self,
        *,
        switch: str,
        session_id: str,
        party: str,
        called: str,
        caller: str = "",
        service: str = "voice",
        requested_seconds: int = 300,
        start_expected: bool = True,
    ) -> tuple[Reply, bool]:
        """Decide whether a call may proceed and hold the money for its first slice.

        Returns the answer and whether it is a stored one. A refusal is an answer, not an error.

        Raises:
            NotFound: unknown party. InvalidInput: a number that cannot be called.
            Conflict: the id was authorised before with other content. Busy: overload.
        """
        entry = self._directory.party(party)
        number = normalise(called, entry.dial_rules)
        offers, refusal = self._offers(entry, number, service)
        command = Authorise(
            key=f"{switch}/{session_id}",
            party_id=entry.id,
            called=number,
            caller=caller,
            service=service,
            requested_seconds=requested_seconds,
            offers=offers,
            refusal=refusal,
            start_expected=start_expected,
        )
        request = {
            "type": "authorise",
            "party": party,
            "called": called,
            "caller": caller,
            "service": service,
            "requested_seconds": requested_seconds,
            "start_expected": start_expected,
        }
        reply, repeated = await self._lane.submit(command, "authorise", _encode(request))
        if reply.outcome is Outcome.REFUSED and not repeated:
            count_refusal(reply.reason.value)
        return reply, repeated

    def _offers(
        self, entry: PartyEntry, number: str, service: str
    ) -> tuple[tuple[Offer, ...], Reason]:
        """The legs of a call as they would be priced now, or why there are none."""
        if entry.plan_id is None:
            return (), Reason.NO_PLAN
        match = find_rate(self._directory.cards_of(entry.plan_id, service), number, self._clock())
        if match is None:
            return (), Reason.NO_RATE
        if match.row.blocked:
            return (), Reason.DESTINATION_BLOCKED
        wallet = entry.wallets.get(match.card.currency)
        if wallet is None:
            return (), Reason.NO_WALLET
        return (Offer(Role.CUSTOMER, entry.id, wallet, _pin(match)),), Reason.NONE

    async def start(self, *, switch: str, session_id: str) -> tuple[Reply, bool]:
        """Note that the call was answered."""
        return await self._lane.submit(
            Start(f"{switch}/{session_id}"), "start", b'{"type":"start"}'
        )

    async def update(
        self,
        *,
        switch: str,
        session_id: str,
        used_ms: int,
        request_id: str = "",
        extend: bool = True,
    ) -> tuple[Reply, bool]:
        """Report cumulative usage and ask for more time.

        Without ``request_id`` the usage itself names the message: the same usage again is a repeat
        and gets the stored answer.
        """
        _check_usage(used_ms)
        command = Update(f"{switch}/{session_id}", used_ms, extend)
        message_id = f"update:{request_id}" if request_id else f"update={used_ms}:{int(extend)}"
        request = {"type": "update", "used_ms": used_ms, "extend": extend}
        return await self._lane.submit(command, message_id, _encode(request))

    async def stop(
        self, *, switch: str, session_id: str, used_ms: int, request_id: str = "", cause: str = ""
    ) -> tuple[Reply, bool]:
        """Settle the call at its final cumulative usage and release what was not used."""
        _check_usage(used_ms)
        command = Stop(f"{switch}/{session_id}", used_ms, cause)
        message_id = f"stop:{request_id}" if request_id else f"stop={used_ms}:{cause}"
        request = {"type": "stop", "used_ms": used_ms, "cause": cause}
        return await self._lane.submit(command, message_id, _encode(request))

    async def kill(self, *, switch: str, session_id: str, why: str) -> tuple[Reply, bool]:
        """Ask for the end of a live session; its switch is told through the outbox."""
        return await self._lane.submit(
            Kill(f"{switch}/{session_id}", why),
            f"kill={why}",
            _encode({"type": "kill", "why": why}),
        )

    async def quote(
        self, *, party: str, called: str, seconds: int = 60, service: str = "voice"
    ) -> Quote:
        """Price a call and tell how long the available money would last.

        Raises:
            NotFound: unknown party, or nothing is sold to this number (code = the reason).
        """
        if not 1 <= seconds <= 86_400:
            raise InvalidInput("seconds must be from 1 to 86400", field="seconds")
        entry = self._directory.party(party)
        number = normalise(called, entry.dial_rules)
        offers, refusal = self._offers(entry, number, service)
        if refusal is not Reason.NONE:
            raise NotFound(
                f"no price for {number}: {refusal.value.replace('_', ' ')}", code=refusal.value
            )
        pin = offers[0].pin
        async with self._database.read() as connection:
            wallet = await read_wallet(connection, offers[0].wallet_id)
        available = wallet.available if wallet is not None else ZERO
        lasts = bought(pin.tariff, available, entry.limits.max_seconds)
        return Quote(number, seconds, price(pin.tariff, seconds), lasts, available, pin)

    async def live_sessions(
        self, *, party: str | None = None, after: str = "", limit: int = 100
    ) -> list[Session]:
        """Open sessions in the order of their keys."""
        party_id = self._directory.party(party).id if party is not None else None
        async with self._database.read() as connection:
            return await read_live(connection, party_id=party_id, after=after, limit=limit)

    async def session(self, name: str) -> Session:
        """One session, live or closed, by ``switch/session_id`` or id.

        Raises:
            NotFound: there is none.
        """
        async with self._database.read() as connection:
            found = await read_session(connection, name)
        if found is None:
            raise NotFound(f'there is no session "{name}"', code="unknown_session")
        return found


def _pin(match: Match) -> Pin:
    card, row = match.card, match.row
    return Pin(
        card_id=card.card_id,
        card=card.code,
        version=card.version,
        row_id=row.row_id,
        prefix=row.prefix,
        destination=row.destination,
        currency=card.currency,
        tariff=row.tariff,
    )


def _check_usage(used_ms: int) -> None:
    if not 0 <= used_ms <= USED_MS_MAX:
        raise InvalidInput(
            f"the usage must be from 0 to {SECONDS_MAX} seconds",
            code="invalid_usage",
            field="used_seconds",
        )


def describe_tariff(tariff: Tariff) -> dict[str, object]:
    """A tariff for the wire: prices per minute as strings, intervals in seconds."""
    return {
        "first_price": str(tariff.first_price),
        "next_price": str(tariff.next_price),
        "first_interval": tariff.first_interval,
        "next_interval": tariff.next_interval,
        "connect_fee": str(tariff.connect_fee),
        "attempt_fee": str(tariff.attempt_fee),
        "minimum": str(tariff.minimum),
        "free_below": tariff.free_below,
        "surcharge": str(tariff.surcharge),
        "cap": None if tariff.cap is None else str(tariff.cap),
        "decimals": tariff.decimals,
        "rounding": tariff.rounding.value,
    }
