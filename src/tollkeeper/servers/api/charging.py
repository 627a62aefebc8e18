"""The charging routes: a lean ASGI application, because they are asked for every call.

No framework between the socket and the lane: the path is split, the body is decoded by msgspec
into a typed record, the use case is called, the answer encoded. The same records make their part
of the OpenAPI document (``openapi_part``).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from datetime import datetime
from decimal import Decimal
from time import perf_counter
from typing import Annotated, Any

import msgspec
import structlog
from msgspec import Meta

from tollkeeper.core.reasons import MEANINGS
from tollkeeper.core.records import Reply
from tollkeeper.errors import Forbidden, InvalidInput, NotFound, TollkeeperError, Unauthorised
from tollkeeper.servers.problem import PROBLEM_TYPE, problem, problem_of
from tollkeeper.services.charging import USED_MS_MAX, Charging, Quote, describe_tariff
from tollkeeper.services.directory import Directory
from tollkeeper.store.directory import ApiKey
from tollkeeper.telemetry import observe_charging

Scope = MutableMapping[str, Any]  # ASGI's own type
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

BODY_MAX = 16 * 1024
_CHARGERS = frozenset({"charge", "manage"})
_QUOTERS = _CHARGERS | {"read"}
"""Scopes that may ask for a price: who may charge a call, and who may look."""
SESSION_ID = r"[A-Za-z0-9][A-Za-z0-9._:@+=-]{0,127}"
TEXT = r"^[ -~]*$"

_session_id = re.compile(SESSION_ID)
_uuid = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_log = structlog.get_logger()

SessionId = Annotated[
    str, Meta(pattern=f"^{SESSION_ID}$", description="The switch's own id of the call.")
]
PartyCode = Annotated[str, Meta(min_length=1, max_length=63, pattern=TEXT)]
Seconds = Annotated[int, Meta(ge=1, le=86_400)]
UsedMs = Annotated[
    int, Meta(ge=0, le=USED_MS_MAX, description="Cumulative usage since answer, in milliseconds.")
]
UsedSeconds = Annotated[
    int, Meta(ge=0, le=USED_MS_MAX // 1000, description="Cumulative usage since answer, seconds.")
]
RequestId = Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9._:-]*$")]
Word = Annotated[str, Meta(max_length=64, pattern=TEXT)]


class AuthoriseRequest(msgspec.Struct, forbid_unknown_fields=True):
    """May this call proceed, and for how long?"""

    session_id: SessionId
    party: PartyCode
    called: Annotated[str, Meta(min_length=1, max_length=64, pattern=TEXT)]
    caller: Word = ""
    service: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,31}$")] = "voice"
    requested_seconds: Annotated[
        Seconds, Meta(description="Length of a slice: what is held at a time.")
    ] = 300
    start_expected: Annotated[
        bool, Meta(description="False where the switch sends no /start when answered.")
    ] = True


class StartRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The call was answered."""


class UpdateRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Cumulative usage so far, and a wish for more time. Give used_seconds or used_ms."""

    used_seconds: UsedSeconds | None = None
    used_ms: UsedMs | None = None
    request_id: RequestId = ""
    extend: bool = True


class StopRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The call has ended. Give used_seconds or used_ms; 0 means that it was never answered."""

    used_seconds: UsedSeconds | None = None
    used_ms: UsedMs | None = None
    request_id: RequestId = ""
    cause: Word = ""


class KillRequest(msgspec.Struct, forbid_unknown_fields=True):
    """End a live session."""

    reason: Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[ -~]*[!-~][ -~]*$")]


class QuoteRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What would this call cost, and how long would the money last?"""

    party: PartyCode
    called: Annotated[str, Meta(min_length=1, max_length=64, pattern=TEXT)]
    seconds: Seconds = 60
    service: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,31}$")] = "voice"


class SessionAnswer(msgspec.Struct):
    """The answer to every message of a session; a repeated message gets the same answer, ``repeated``."""

    outcome: str
    session_id: str
    id: str
    granted_seconds: int
    expires_at: datetime | None
    final: bool
    terminate: bool
    reason: str
    reason_text: str
    sip_code: int
    q850: int
    stop_hunting: bool
    currency: str
    used_ms: int
    charge: str | None
    repeated: bool


class QuoteAnswer(msgspec.Struct):
    """A price, with the rate it comes from; money as strings in ``currency``."""

    called: str
    destination: str
    prefix: str
    card: str
    version: int
    currency: str
    seconds: int
    price: str
    affordable_seconds: int
    available: str
    rate: dict[str, Any]


_encoder = msgspec.json.Encoder()
_decoders: dict[str, msgspec.json.Decoder[Any]] = {
    "authorise": msgspec.json.Decoder(AuthoriseRequest),
    "start": msgspec.json.Decoder(StartRequest),
    "update": msgspec.json.Decoder(UpdateRequest),
    "stop": msgspec.json.Decoder(StopRequest),
    "kill": msgspec.json.Decoder(KillRequest),
    "quote": msgspec.json.Decoder(QuoteRequest),
}


class ChargingApp:
    """ASGI application of POST /v1/sessions..., /v1/quote; ``handles`` tells which requests are its own."""

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
        if path == "/v1/quote":
            return "quote", ""
        parts = path.split("/")
        if (
            len(parts) == 5
            and parts[2] == "sessions"
            and parts[4] in ("start", "update", "stop", "kill")
        ):
            return parts[4], parts[3]
        return None

    @classmethod
    def allowed(cls, path: str) -> str | None:
        """The methods of a charging path, as Allow lists them; None where it is no such path."""
        if cls.route("POST", path) is None:
            return None
        return "GET, POST" if path == "/v1/sessions" else "POST"

    async def handle(
        self, action: str, session_id: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Carry out one request and answer it; every failure becomes a problem document."""
        began = perf_counter()
        retry = False
        try:
            key = self._authenticate(scope["headers"], _QUOTERS if action == "quote" else _CHARGERS)
            body = await _read_body(receive)
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

    async def _act(self, action: str, session_id: str, key: ApiKey, request: Any) -> bytes:
        charging = self._charging
        if action == "quote":
            quote = await charging.quote(
                party=request.party,
                called=request.called,
                seconds=request.seconds,
                service=request.service,
            )
            return _encoder.encode(_quote_answer(quote))
        if action == "authorise":
            session_id = request.session_id
            reply, repeated = await charging.authorise(
                switch=key.switch,
                session_id=session_id,
                party=request.party,
                called=request.called,
                caller=request.caller,
                service=request.service,
                requested_seconds=request.requested_seconds,
                start_expected=request.start_expected,
            )
            return _encoder.encode(_answer(reply, session_id, repeated=repeated))
        if _session_id.fullmatch(session_id) is None:
            raise NotFound("no session has such an id", code="unknown_session")
        if action == "kill":
            switch, session_id = await self._to_kill(key, session_id)
            reply, repeated = await charging.kill(
                switch=switch, session_id=session_id, why=request.reason
            )
        elif action == "start":
            reply, repeated = await charging.start(switch=key.switch, session_id=session_id)
        elif action == "update":
            reply, repeated = await charging.update(
                switch=key.switch,
                session_id=session_id,
                used_ms=_used(request),
                request_id=request.request_id,
                extend=request.extend,
            )
        else:
            reply, repeated = await charging.stop(
                switch=key.switch,
                session_id=session_id,
                used_ms=_used(request),
                request_id=request.request_id,
                cause=request.cause,
            )
        return _encoder.encode(_answer(reply, session_id, repeated=repeated))

    async def _to_kill(self, key: ApiKey, session_id: str) -> tuple[str, str]:
        """An operator (scope manage) names a session of any switch by its own id; a switch only its own."""
        if "manage" in key.scopes and _uuid.fullmatch(session_id) is not None:
            switch, _, session_id = (await self._charging.session(session_id)).key.partition("/")
            return switch, session_id
        return key.switch, session_id


async def _read_body(receive: Receive) -> bytes:
    body: bytes = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise InvalidInput("the request was not sent to its end", code="incomplete_request")
        body += message.get("body", b"")
        if len(body) > BODY_MAX:
            raise TooLarge(f"the body is larger than {BODY_MAX} bytes")
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
    """Milliseconds of an update or stop: exactly one of the two fields must be there."""
    if (request.used_seconds is None) == (request.used_ms is None):
        raise InvalidInput(
            "give used_seconds or used_ms, one of them", code="invalid_usage", field="used_seconds"
        )
    used: int = request.used_ms if request.used_ms is not None else request.used_seconds * 1000
    return used


def _answer(reply: Reply, session_id: str, *, repeated: bool) -> SessionAnswer:
    meaning = MEANINGS[reply.reason]
    return SessionAnswer(
        outcome=reply.outcome.value,
        session_id=session_id,
        id=reply.id,
        granted_seconds=reply.granted_seconds,
        expires_at=reply.expires_at,
        final=reply.final,
        terminate=reply.terminate,
        reason=reply.reason.value,
        reason_text=meaning.text,
        sip_code=meaning.sip,
        q850=meaning.q850,
        stop_hunting=meaning.stop_hunting,
        currency=reply.currency,
        used_ms=reply.used_ms,
        charge=_money(reply.charge),
        repeated=repeated,
    )


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
        seconds=quote.seconds,
        price=f"{quote.amount:f}",
        affordable_seconds=quote.affordable_seconds,
        available=f"{quote.available:f}",
        rate=describe_tariff(pin.tariff),
    )


_ROUTES: dict[str, tuple[str, type[msgspec.Struct], type[msgspec.Struct], str]] = {
    "/v1/sessions": (
        "authorise",
        AuthoriseRequest,
        SessionAnswer,
        "Authorise a call and hold money for it",
    ),
    "/v1/sessions/{session_id}/start": (
        "start",
        StartRequest,
        SessionAnswer,
        "The call was answered",
    ),
    "/v1/sessions/{session_id}/update": (
        "update",
        UpdateRequest,
        SessionAnswer,
        "Report usage, ask for more time",
    ),
    "/v1/sessions/{session_id}/stop": (
        "stop",
        StopRequest,
        SessionAnswer,
        "The call has ended: settle it",
    ),
    "/v1/sessions/{session_id}/kill": ("kill", KillRequest, SessionAnswer, "End a live call"),
    "/v1/quote": ("quote", QuoteRequest, QuoteAnswer, "Price a call; holds nothing"),
}
_ERRORS = {
    "400": "Not JSON",
    "401": "No valid key",
    "403": "The key lacks the scope",
    "404": "Unknown party, session or rate",
    "409": "The id was used with other content, or the session cannot take this",
    "413": "Body too large",
    "422": "A field is wrong",
    "503": "Overloaded, or the database is away: try again",
}


def openapi_part() -> tuple[dict[str, Any], dict[str, Any]]:
    """Paths and schemas of these routes for the OpenAPI document, from the very records that decode them."""
    types = [model for _, request, answer, _ in _ROUTES.values() for model in (request, answer)]
    _, schemas = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    content = {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    errors = {status: {"description": text, "content": content} for status, text in _ERRORS.items()}
    paths: dict[str, Any] = {}
    for path, (action, request, answer, summary) in _ROUTES.items():
        operation: dict[str, Any] = {
            "operationId": action,
            "tags": ["charging"],
            "summary": summary,
            "security": [{"apiKey": []}],
            "requestBody": {
                "required": action != "start",
                "content": {
                    "application/json": {
                        "schema": {"$ref": f"#/components/schemas/{request.__name__}"}
                    }
                },
            },
            "responses": {
                "200": {
                    "description": "The decision",
                    "content": {
                        "application/json": {
                            "schema": {"$ref": f"#/components/schemas/{answer.__name__}"}
                        }
                    },
                },
                **errors,
            },
        }
        if "{session_id}" in path:
            schema = {"type": "string", "pattern": f"^{SESSION_ID}$"}
            operation["parameters"] = [
                {"name": "session_id", "in": "path", "required": True, "schema": schema}
            ]
        paths[path] = {"post": operation}
    return paths, schemas
