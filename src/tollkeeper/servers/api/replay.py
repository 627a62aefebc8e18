"""The Idempotency-Key header: what a request is known by, and how a stored answer is given again."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header, Response
from pydantic import BaseModel

from tollkeeper.services.idempotency import KEY_PATTERN, Answer, digest_of

HEADER = "Idempotency-Key"

OptionalKey = Annotated[
    str | None,
    Header(
        alias=HEADER,
        pattern=KEY_PATTERN,
        description="Sent again with the same content, the request is not done again.",
    ),
]
"""The type of a route's argument that takes the header where there is one."""

RequiredKey = Annotated[
    str,
    Header(
        alias=HEADER,
        pattern=KEY_PATTERN,
        description="A new one for each request, such as a UUID. Sent again with the same content, "
        "the request is not done again: its first answer comes with `Idempotent-Replayed: true`.",
    ),
]
"""As :data:`OptionalKey`, where a request without it is refused."""


def digest_of_body(route: str, body: BaseModel) -> str:
    """Return a digest of a request: spaces, order and left-out defaults make no difference."""
    return digest_of(route, body.model_dump_json())


def response(answer: Answer) -> Response:
    """Return an answer as it was stored, marked when it was given before."""
    headers = {"Idempotent-Replayed": "true"} if answer.replayed else None
    return Response(answer.body, answer.status, headers, "application/json")
