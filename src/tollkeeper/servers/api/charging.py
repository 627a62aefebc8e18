"""The charging routes: a lean ASGI application, because they are asked for every call.

No framework between the socket and the lane: the path is split, the body is decoded by msgspec
into a typed record, the use case is called, the answer encoded. The same records make their part
of the OpenAPI document (``charging_openapi``).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from decimal import Decimal
from time import perf_counter
from typing import Any

import msgspec
import structlog

from tollkeeper.core.rating import Tariff
from tollkeeper.core.reasons import MEANINGS
from tollkeeper.core.records import Reply
from tollkeeper.errors import Forbidden, InvalidInput, NotFound, TollkeeperError, Unauthorised
from tollkeeper.servers.api.charging_records import (
    SESSION_ID,
    AuthoriseRequest,
    EventAnswer,
    EventRequest,
    KillRequest,
    QuoteAnswer,
    QuoteRequest,
    RefundRequest,
    SessionAnswer,
    StartRequest,
    StopRequest,
    UpdateRequest,
)
from tollkeeper.servers.problem import PROBLEM_TYPE, problem, problem_of
from tollkeeper.services.charging import WRAP_32, Charging
from tollkeeper.services.directory import Directory
from tollkeeper.services.quotes import Quote
from tollkeeper.services.refunds import check_reason
from tollkeeper.services.uses import Use
from tollkeeper.store.directory import ApiKey
from tollkeeper.telemetry import observe_charging

Scope = MutableMapping[str, Any]  # ASGI's own type
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

BODY_MAX = 16 * 1024
EVENT_BODY_MAX = 256 * 1024
"""The longest text of a message, each character written as an escape, fits into this."""
_CHARGERS = frozenset({"charge", "manage"})
_QUOTERS = _CHARGERS | {"read"}
"""Scopes that may ask for a price: who may charge a call, and who may look."""
_SESSION_ACTIONS = frozenset({"start", "update", "stop", "kill"})

_session_id = re.compile(SESSION_ID)
_uuid = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_log = structlog.get_logger()

_encoder = msgspec.json.Encoder()
_decoders: dict[str, msgspec.json.Decoder[Any]] = {
    "authorise": msgspec.json.Decoder(AuthoriseRequest),
    "start": msgspec.json.Decoder(StartRequest),
    "update": msgspec.json.Decoder(UpdateRequest),
    "stop": msgspec.json.Decoder(StopRequest),
    "kill": msgspec.json.Decoder(KillRequest),
    "quote": msgspec.json.Decoder(QuoteRequest),
    "event": msgspec.json.Decoder(EventRequest),
    "refund": msgspec.json.Decoder(RefundRequest),
}


class ChargingApp:
    """ASGI application of POST /v1/sessions..., /v1/events..., /v1/quote; ``handles`` tells which requests are its own."""

    def __init__(self, charging: Charging, directory: Directory) -> None:
        self._charging = charging
        self._directory = directory

    @staticmethod
    def route(method: str, path: str) -> tuple[str, str] | None:
        """The action and session id of a request, or None where it is not a charging route."""
        if method != "POST" or not path.startswith("/v1/"):
            return None
        if path == "/v1/sessions":
            return "authorise", ""
        if path == "/v1/events":
            return "event", ""
        if path == "/v1/quote":
            return "quote", ""
        parts = path.split("/")
        if len(parts) != 5:
            return None
        if parts[2] == "sessions" and parts[4] in _SESSION_ACTIONS:
            return parts[4], parts[3]
        if parts[2] == "events" and parts[4] == "refund":
            return "refund", parts[3]
        return None

    @classmethod
    def allowed(cls, path: str) -> str | None:
        """The methods of a charging path, as Allow lists them; None where it is no such path."""
        if cls.route("POST", path) is None:
            return None
        return "GET, POST" if path in {"/v1/sessions", "/v1/events"} else "POST"

    async def handle(
        self, action: str, session_id: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Carry out one request and answer it; every failure becomes a problem document."""
        began = perf_counter()
        retry = False
        try:
            key = self._authenticate(scope["headers"], _QUOTERS if action == "quote" else _CHARGERS)
            body = await _read_body(receive, EVENT_BODY_MAX if action == "event" else BODY_MAX)
            request = _decode(action, body)
            status, content = 200, await self._act(action, session_id, key, request)
            kind = b"application/json"
        except TollkeeperError as error:
            status, content = problem_of(error)
            kind, retry = PROBLEM_TYPE.encode(), status == 503
        except Exception:  # noqa: BLE001 - a caller gets an answer whatever happens here
            _log.exception("charging.failed", action=action)
            status, kind = 500, PROBLEM_TYPE.encode()
            content = problem(
                500, "internal", "something went wrong here; the request may be sent again as it is"
            )
        headers = [(b"content-type", kind), (b"content-length", str(len(content)).encode())]
        if status == 401:
            headers.append((b"www-authenticate", b'Bearer realm="tollkeeper"'))
        if retry:
            headers.append((b"retry-after", b"1"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})
        observe_charging(action, status, perf_counter() - began)

    def _authenticate(
        self, headers: Iterable[tuple[bytes, bytes]], scopes: frozenset[str]
    ) -> ApiKey:
        for name, value in headers:
            if name == b"authorization":
                kind, _, token = value.partition(b" ")
                key = (
                    self._directory.key(hashlib.sha256(token.strip()).digest())
                    if kind.lower() == b"bearer"
                    else None
                )
                if key is None:
                    break
                if scopes.isdisjoint(key.scopes):
                    raise Forbidden(
                        f'the key "{key.name}" does not have the scope "charge"',
                        code="scope_missing",
                    )
                return key
        raise Unauthorised(
            'give a valid API key as "Authorization: Bearer tk_..."', code="unauthorised"
        )

    async def _act(self, action: str, id_: str, key: ApiKey, request: Any) -> bytes:
        charging, scope = self._charging, key.party_id
        if action == "authorise":
            reply, repeated = await charging.authorise(
                switch=key.switch,
                session_id=request.session_id,
                party=request.party,
                called=request.called,
                caller=request.caller,
                service=request.service,
                requested_seconds=_requested(request),
                start_expected=request.start_expected,
                lrn=request.lrn,
                network=request.network,
                scope=scope,
            )
            return self._answer(reply, request.session_id, key, repeated=repeated)
        if action == "event":
            return await self._charge_event(key, request)
        if action == "quote":
            return await self._quote(key, request)
        if _session_id.fullmatch(id_) is None:
            raise NotFound("no session has such an id", code="unknown_session")
        if action == "update":
            reply, repeated = await charging.update(
                switch=key.switch,
                session_id=id_,
                used_ms=_used(request),
                request_id=request.request_id,
                extend=request.extend,
                wraps_at=_wraps_at(request),
                scope=scope,
            )
        elif action == "stop":
            reply, repeated = await charging.stop(
                switch=key.switch,
                session_id=id_,
                used_ms=_used(request),
                request_id=request.request_id,
                cause=request.cause,
                wraps_at=_wraps_at(request),
                scope=scope,
            )
        elif action == "start":
            reply, repeated = await charging.start(switch=key.switch, session_id=id_, scope=scope)
        elif action == "refund":
            return await self._refund(key, id_, request)
        else:
            switch, id_ = await self._to_kill(key, id_)
            reply, repeated = await charging.kill(
                switch=switch, session_id=id_, why=request.reason, scope=scope
            )
        return self._answer(reply, id_, key, repeated=repeated)

    async def _charge_event(self, key: ApiKey, request: EventRequest) -> bytes:
        reply, repeated = await self._charging.charge_event(
            switch=key.switch,
            event_id=request.event_id,
            party=request.party,
            called=request.called,
            service=request.service,
            units=request.units,
            segments=request.segments,
            text=request.text,
            caller=request.caller,
            lrn=request.lrn,
            network=request.network,
            scope=key.party_id,
        )
        outcome = reply.outcome.value
        return self._event_answer(outcome, reply, request.event_id, key, repeated=repeated)

    async def _refund(self, key: ApiKey, event_id: str, request: RefundRequest) -> bytes:
        check_reason(key, request.reason)
        reply, repeated = await self._charging.refund(
            switch=key.switch,
            event_id=event_id,
            units=request.units,
            why=request.reason,
            scope=key.party_id,
        )
        return self._event_answer("refunded", reply, event_id, key, repeated=repeated)

    async def _quote(self, key: ApiKey, request: QuoteRequest) -> bytes:
        if request.seconds is not None and request.units is not None:
            raise InvalidInput("give seconds or units, one of them", field="units")
        quote = await self._charging.quote(
            Use(
                request.party,
                request.called,
                request.service,
                request.caller,
                request.lrn,
                request.network,
            ),
            units=request.seconds if request.units is None else request.units,
            scope=key.party_id,
        )
        return _encoder.encode(_quote_answer(quote))

    def _answer(self, reply: Reply, session_id: str, key: ApiKey, *, repeated: bool) -> bytes:
        reason, refused_by = self._charging.shown_reason(reply, key.party_id)
        hidden = self._charging.hides_money(key.party_id)
        meaning = MEANINGS[reason]
        return _encoder.encode(
            SessionAnswer(
                outcome=reply.outcome.value,
                session_id=session_id,
                id=reply.id,
                unit=reply.unit.value,
                granted_units=reply.granted_seconds,
                granted_seconds=reply.granted_seconds,
                expires_at=reply.expires_at,
                final=reply.final,
                terminate=reply.terminate,
                reason=reason.value,
                reason_text=meaning.text,
                sip_code=meaning.sip,
                q850=meaning.q850,
                stop_hunting=meaning.stop_hunting,
                currency="" if hidden else reply.currency,
                used_ms=reply.used_ms,
                charge=None if hidden else _money(reply.charge),
                repeated=repeated,
                refused_by=refused_by,
            )
        )

    def _event_answer(
        self, outcome: str, reply: Reply, event_id: str, key: ApiKey, *, repeated: bool
    ) -> bytes:
        reason, refused_by = self._charging.shown_reason(reply, key.party_id)
        hidden = self._charging.hides_money(key.party_id)
        return _encoder.encode(
            EventAnswer(
                outcome=outcome,
                event_id=event_id,
                id=reply.id,
                unit=reply.unit.value,
                units=reply.used_ms // 1000,
                reason=reason.value,
                reason_text=MEANINGS[reason].text,
                currency="" if hidden else reply.currency,
                charge=None if hidden else _money(reply.charge),
                repeated=repeated,
                refused_by=refused_by,
            )
        )

    async def _to_kill(self, key: ApiKey, session_id: str) -> tuple[str, str]:
        """An operator (scope manage) names a session of any switch by its own id; a switch only its own."""
        if "manage" in key.scopes and _uuid.fullmatch(session_id) is not None:
            found = await self._charging.session(session_id, scope=key.party_id)
            switch, _, session_id = found.key.partition("/")
            return switch, session_id
        return key.switch, session_id


async def _read_body(receive: Receive, longest: int) -> bytes:
    body: bytes = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise InvalidInput("the request was not sent to its end", code="incomplete_request")
        body += message.get("body", b"")
        if len(body) > longest:
            raise TooLarge(f"the body is larger than {longest} bytes")
        if not message.get("more_body"):
            return body


class TooLarge(TollkeeperError):
    """The body is larger than any request of this kind."""

    code = "body_too_large"
    http_status = 413


class BadJson(TollkeeperError):
    """The body is not JSON."""

    code = "invalid_json"
    http_status = 400


def _decode(action: str, body: bytes) -> Any:
    try:
        return _decoders[action].decode(body or b"{}")
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `$")
        field = path.strip("`. ") or None
        raise InvalidInput(
            f"{field or 'body'}: {text}", code="invalid_field", field=field
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadJson(f"the body is not valid JSON: {error}") from None


def _used(request: Any) -> int:
    """Thousandths of the unit used, of an update or stop: exactly one of the fields must be there."""
    given = [
        used
        for used in (request.used_seconds, request.used_units, request.used_bytes)
        if used is not None
    ]
    if len(given) + (request.used_ms is not None) != 1:
        raise InvalidInput(
            "give used_seconds, used_ms, used_units or used_bytes, one of them",
            code="invalid_usage",
            field="used_seconds",
        )
    used: int = given[0] * 1000 if given else request.used_ms
    return used


def _wraps_at(request: Any) -> int:
    """Where the counter of a report begins again, in thousandths of the unit; 0: nowhere."""
    if not request.counter_bits:
        return 0
    if request.used_ms is not None or _used(request) >= WRAP_32:
        raise InvalidInput(
            "counter_bits 32 goes with a counter of whole units below 4294967296",
            code="invalid_usage",
            field="counter_bits",
        )
    return WRAP_32


def _requested(request: AuthoriseRequest) -> int | None:
    """The slice asked for, in units, from whichever field is there."""
    if request.requested_seconds is not None and request.requested_units is not None:
        raise InvalidInput(
            "give requested_seconds or requested_units, one of them", field="requested_units"
        )
    if request.requested_units is not None:
        return request.requested_units
    return request.requested_seconds


def _money(amount: Decimal | None) -> str | None:
    return None if amount is None else f"{amount:f}"


def _quote_answer(quote: Quote) -> QuoteAnswer:
    pin = quote.pin
    return QuoteAnswer(
        called=quote.called,
        destination=pin.destination,
        prefix=pin.prefix,
        card=pin.card,
        version=pin.version,
        currency=pin.currency,
        unit=quote.unit.value,
        units=quote.units,
        seconds=quote.units,
        price=f"{quote.amount:f}",
        affordable_units=quote.affordable_units,
        affordable_seconds=quote.affordable_units,
        available=f"{quote.available:f}",
        rate=_tariff(pin.tariff),
        steps=[{"kind": step.kind, "name": step.name, "detail": step.detail} for step in pin.steps],
    )


def _tariff(tariff: Tariff) -> dict[str, object]:
    """A tariff for the wire: prices for ``per`` units as strings, intervals in units."""
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
        "per": tariff.per,
    }
