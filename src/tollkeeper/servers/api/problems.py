"""Every failure of a management route becomes a problem document with one clear sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from tollkeeper.errors import TollkeeperError
from tollkeeper.servers.problem import PROBLEM_TYPE, problem

RETRY_AFTER_SECONDS = 1
REALM = 'Bearer realm="tollkeeper"'
OWN_ERROR = "tollkeeper"
"""Type of the validation errors whose text is already a whole sentence of ours."""

_INTERNAL = "something went wrong here; the request may or may not have been carried out"
_CODES = {
    400: "invalid_body",
    404: "no_such_route",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "wrong_content_type",
}
_SENTENCES = {
    404: "there is nothing at this address",
    405: "this address does not take this method",
}
_log = structlog.get_logger()


def response_of(error: TollkeeperError) -> Response:
    """Return the answer to an error of ours; of a fault inside only that it happened."""
    status = error.http_status
    if status >= 500 and status != 503:
        _log.error("api.fault", code=error.code, detail=error.detail)
        return _response(status, problem(status, error.code, _INTERNAL))
    document = problem(status, error.code, error.detail, error.field)
    return _response(status, document, **_headers(status, error.code))


def _headers(status: int, code: str) -> dict[str, str]:
    """How to log in (RFC 6750 section 3), and when to try again."""
    if status == 401:
        fault = ', error="invalid_token"' if code == "invalid_key" else ""
        return {"WWW-Authenticate": REALM + fault}
    if status == 403:
        return {"WWW-Authenticate": f'{REALM}, error="insufficient_scope"'}
    if status == 503:
        return {"Retry-After": str(RETRY_AFTER_SECONDS)}
    return {}


def _response(status: int, document: bytes, **headers: str) -> Response:
    return Response(document, status, headers, PROBLEM_TYPE)


def install(app: FastAPI) -> None:
    """Make the app answer all errors with problem documents."""

    @app.exception_handler(TollkeeperError)
    async def ours(_: Request, error: TollkeeperError) -> Response:
        return response_of(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        errors = error.errors()
        if errors[0]["type"] == "missing" and errors[0]["loc"][0] == "header":
            name = str(errors[0]["loc"][1])
            text = f"{name}: this header must be given; a new value for each request"
            return _response(400, problem(400, "header_missing", text, name))
        field, sentence = describe(errors)
        return _response(422, problem(422, "invalid_input", sentence, field))

    @app.exception_handler(HTTPException)
    async def framework(request: Request, error: HTTPException) -> Response:
        status = error.status_code
        sentence = _SENTENCES.get(status) or str(error.detail)
        document = problem(status, _CODES.get(status, "error"), sentence)
        headers = dict(error.headers or {})
        if status == 405:
            headers["Allow"] = ", ".join(_methods(app, request.scope["path"]))
        return _response(status, document, **headers)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        _log.exception(
            "api.failed", method=request.method, path=request.scope["path"], exc_info=error
        )
        return _response(500, problem(500, "internal", _INTERNAL))


def _methods(app: FastAPI, path: str) -> list[str]:
    """The methods of an address, over all routes of it: the framework names those of one only."""
    paths = app.openapi()["paths"]
    # An address that stands there by name is none of those with a placeholder.
    meant = (
        [paths[path]]
        if path in paths
        else [
            operations
            for template, operations in paths.items()
            if compile_path(template)[0].match(path)
        ]
    )
    return sorted({method.upper() for operations in meant for method in operations})


def describe(errors: Sequence[Any]) -> tuple[str | None, str]:
    """Return the field and the sentence of the first of some validation errors."""
    first = errors[0]
    # The first part only says where the field stands: body, query, path or header.
    field = _printable(".".join(str(part) for part in first["loc"][1:])) or None
    kind, text = first["type"], str(first["msg"])
    if kind == OWN_ERROR:
        return field, text
    if kind == "missing":
        text = "it must be given"
    elif kind == "extra_forbidden":
        text = "there is no such field"
    else:
        text = text[:1].lower() + text[1:]
    more = f" ({len(errors) - 1} more)" if len(errors) > 1 else ""
    return field, f"{field or 'body'}: {text}{more}"


def _printable(text: str) -> str:
    """A name that came from outside, short and without what a terminal would obey."""
    return "".join(character for character in text if character.isprintable())[:100]
