"""The charging routes' part of the OpenAPI document, made of the very records that decode them."""

from __future__ import annotations

from typing import Any

import msgspec

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
from tollkeeper.servers.problem import PROBLEM_TYPE

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
    "/v1/events": (
        "charge_event",
        EventRequest,
        EventAnswer,
        "Charge a message, a lookup or another one-shot use",
    ),
    "/v1/events/{event_id}/refund": (
        "refund_event",
        RefundRequest,
        EventAnswer,
        "Give back what an event was charged",
    ),
    "/v1/quote": ("quote", QuoteRequest, QuoteAnswer, "Price a use; holds nothing"),
}
_ERRORS = {
    "400": "Not JSON",
    "401": "No valid key",
    "403": "The key lacks the scope",
    "404": "Unknown party, session, event or rate",
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
                "required": action not in ("start", "refund_event"),
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
        for name in ("session_id", "event_id"):
            if f"{{{name}}}" in path:
                schema = {"type": "string", "pattern": f"^{SESSION_ID}$"}
                operation["parameters"] = [
                    {"name": name, "in": "path", "required": True, "schema": schema}
                ]
        paths[path] = {"post": operation}
    return paths, schemas
