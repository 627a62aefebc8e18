"""Errors on the wire: RFC 9457 problem documents with a stable ``code``."""

from __future__ import annotations

import json
from http import HTTPStatus

from tollkeeper.errors import TollkeeperError

PROBLEM_TYPE = "application/problem+json"


def problem(status: int, code: str, detail: str, field: str | None = None) -> bytes:
    """A problem document; ``code`` is for programs, ``detail`` one sentence for people."""
    document = {
        "type": f"urn:tollkeeper:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
    }
    if field is not None:
        document["field"] = field
    # ASCII escapes: a lone surrogate from a request must not make the answer fail.
    return json.dumps(document, ensure_ascii=True).encode()


def problem_of(error: TollkeeperError) -> tuple[int, bytes]:
    """Status and document for an error of ours."""
    return error.http_status, problem(error.http_status, error.code, error.detail, error.field)
