"""One-shot requests (RFC 8506 section 6): debit at once, give back, is there enough, what does it cost."""

from __future__ import annotations

import dataclasses
from decimal import Decimal

from msgspec.structs import replace

from tollkeeper.core.reasons import MEANINGS, Reason
from tollkeeper.errors import Busy, Conflict, Forbidden, InvalidInput, NotFound, TollkeeperError
from tollkeeper.servers.diameter.use import Use, ask_of, call_id_of, name_of, units_of, uses_of
from tollkeeper.servers.switchboard import Switchboard
from tollkeeper.services.quotes import Quote
from tollkeeper.services.uses import Use as ChargedUse
from tollkeeper.store.peers import Peer
from tollkeeper.wire.diameter import codes
from tollkeeper.wire.diameter.codec import avp_text
from tollkeeper.wire.diameter.codes import Action, Result
from tollkeeper.wire.diameter.credit import Control, CreditAnswer, CreditRequest, Money
from tollkeeper.wire.diameter.currency import NUMBERS


class Events:
    """Answers the events of all Diameter peers of one process."""

    def __init__(self, board: Switchboard) -> None:
        self._board = board

    async def answer(
        self, peer: Peer, request: CreditRequest, empty: CreditAnswer
    ) -> CreditAnswer | None:
        """The answer to an event; ``empty`` is one that says only yes. None where nothing was done."""
        uses = uses_of(peer, request)
        if len(uses) != 1:
            # Several services are several events: each has its own answer.
            return replace(
                empty,
                result=Result.UNABLE_TO_COMPLY,
                error="an event is about one service; send one for each",
            )
        use = uses[0]
        if not use.fits:
            return self._not_rated(empty, request)
        try:
            if request.action is Action.DIRECT_DEBITING:
                return await self._debit(peer, request, use, empty)
            if request.action is Action.REFUND_ACCOUNT:
                return await self._refund(peer, request, use, empty)
            return await self._ask(peer, request, use, empty)
        except Busy:
            return None
        except (NotFound, InvalidInput, Forbidden) as error:
            return self._refused(empty, request, error)

    async def is_free(self, use: ChargedUse) -> bool:
        """Whether it is sold and every price of it is zero."""
        try:
            found = await self._board.charging.find_offers(use)
        except TollkeeperError:
            return False
        return bool(found.offers) and all(
            not any(
                (
                    offer.pin.tariff.first_price,
                    offer.pin.tariff.next_price,
                    offer.pin.tariff.connect_fee,
                    offer.pin.tariff.attempt_fee,
                    offer.pin.tariff.minimum,
                    offer.pin.tariff.surcharge,
                )
            )
            for offer in found.offers
        )

    # --- what is done ----------------------------------------------------------------------------

    async def _debit(
        self, peer: Peer, request: CreditRequest, use: Use, empty: CreditAnswer
    ) -> CreditAnswer | None:
        ask = ask_of(peer, request, use)
        if request.number:
            # Each number of a session is another event; the first is the usual one (RFC 8506 section 8.2).
            ask = dataclasses.replace(ask, call_id=f"{ask.call_id}!{request.number}")
        verdict = await self._board.charge(peer, ask, units=use.wanted or 1)
        if verdict.busy:
            return None
        if not verdict.allowed:
            return self._told(empty, request, use, verdict.meaning.diameter)
        return self._told(empty, request, use, Result.SUCCESS, granted=use.wanted or 1)

    async def _refund(
        self, peer: Peer, request: CreditRequest, use: Use, empty: CreditAnswer
    ) -> CreditAnswer:
        """Give back a debit: that of the session named by CC-Correlation-Id, else of this session."""
        named = request.correlation.decode("utf-8", "replace")
        event_id = call_id_of(
            named or request.session_id, name_of(use.line) if request.controls else ""
        )
        try:
            await self._board.charging.refund(
                switch=peer.switch, event_id=event_id, units=use.wanted, why="diameter"
            )
        except NotFound:
            return self._told(empty, request, use, Result.UNKNOWN_SESSION_ID)
        except Conflict:
            return self._told(empty, request, use, Result.END_USER_SERVICE_DENIED)
        return self._told(empty, request, use, Result.SUCCESS)

    async def _ask(
        self, peer: Peer, request: CreditRequest, use: Use, empty: CreditAnswer
    ) -> CreditAnswer:
        ask = ask_of(peer, request, use)
        party, _ = self._board.whose(peer, ask)
        if not party:
            return replace(empty, result=Result.USER_UNKNOWN)
        quote: Quote = await self._board.charging.quote(
            ChargedUse(party, ask.called, ask.service, ask.caller, ask.lrn, ask.network),
            units=use.wanted,
        )
        if request.action is Action.CHECK_BALANCE:
            return replace(empty, balance_enough=quote.affordable_units >= quote.units)
        cost = Money(Decimal(quote.amount), NUMBERS.get(quote.pin.currency, 0))
        return replace(empty, cost=cost)

    # --- what is told ----------------------------------------------------------------------------

    def _told(
        self,
        empty: CreditAnswer,
        request: CreditRequest,
        use: Use,
        result: int,
        *,
        granted: int | None = None,
    ) -> CreditAnswer:
        if result == Result.RATING_FAILED:
            return self._not_rated(empty, request)
        units = None if granted is None else units_of(granted, use.unit)
        if not request.controls:
            return replace(empty, result=result, granted=units)
        line = Control(
            rating_group=use.line.rating_group,
            services=use.line.services,
            granted=units,
            result=result,
        )
        return replace(empty, result=result, controls=(line,))

    def _not_rated(self, empty: CreditAnswer, request: CreditRequest) -> CreditAnswer:
        return replace(
            empty,
            result=Result.RATING_FAILED,
            failed=(avp_text(codes.SERVICE_CONTEXT_ID, request.context),),
        )

    def _refused(
        self, empty: CreditAnswer, request: CreditRequest, error: TollkeeperError
    ) -> CreditAnswer:
        """What stands against an enquiry, by the code of the error."""
        if error.code == "unknown_party":
            return replace(empty, result=Result.USER_UNKNOWN, error=error.detail)
        known = {reason.value: reason for reason in Reason}
        reason = known.get(error.code, Reason.INVALID_NUMBER)
        result = MEANINGS[reason].diameter
        if result == Result.RATING_FAILED:
            return replace(self._not_rated(empty, request), error=error.detail)
        return replace(empty, result=result, error=error.detail)
