"""Once only: a request repeated with the same Idempotency-Key is done once and answered twice."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tollkeeper.errors import Breach, Conflict, InvalidInput
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.idempotency import claim, read_answer, write_answer

KEY_PATTERN = r"^[\x21-\x7e]{1,255}$"
_KEY = re.compile(KEY_PATTERN[1:-1])


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP status and a JSON body; ``replayed`` tells that it was given before."""

    status: int
    body: str
    replayed: bool = False


def check_key(key: str) -> str:
    """Return an Idempotency-Key that is well formed.

    Raises:
        InvalidInput: empty, longer than 255, or other than visible ASCII characters.
    """
    if _KEY.fullmatch(key) is None:
        raise InvalidInput(
            "Idempotency-Key: give 1 to 255 visible ASCII characters, such as a UUID",
            code="invalid_idempotency_key",
            field="Idempotency-Key",
        )
    return key


def digest_of(*parts: str) -> str:
    """Return a digest of what is asked for; the same request gives the same digest."""
    # The lengths keep ("ab", "c") and ("a", "bc") apart.
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()


async def run_once(
    database: Database,
    *,
    api_key_id: int,
    key: str,
    digest: str,
    work: Callable[[Connection], Awaitable[Answer]],
    scope: int | None = None,
) -> Answer:
    """Do ``work`` in a transaction of the scope unless it was done before under this key; return its answer.

    The key is taken first, in the same transaction: of requests that race, one works and the
    others wait for it. If the work raises, nothing is stored and the key is free again.

    Raises:
        Conflict: the key was used for another request. InvalidInput: the key is not well formed.
    """
    check_key(key)
    async with database.write(scope=scope) as connection:
        if await claim(connection, api_key_id=api_key_id, key=key, digest=digest):
            answer = await work(connection)
            await write_answer(
                connection, api_key_id=api_key_id, key=key, status=answer.status, body=answer.body
            )
            return answer
        stored = await read_answer(connection, api_key_id=api_key_id, key=key)
        if stored is None:
            raise Breach("an Idempotency-Key was taken away while it was read")
    if stored.digest != digest:
        raise Conflict(
            "this Idempotency-Key was used for another request; nothing was done",
            code="idempotency_key_reused",
            field="Idempotency-Key",
        )
    return Answer(stored.status, stored.body, replayed=True)
