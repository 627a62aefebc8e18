"""Switches: where each one takes the request to end a call, and the secret that signs it."""

from __future__ import annotations

import base64
import binascii
import secrets
from urllib.parse import urlsplit

from tollkeeper.errors import InvalidInput, NotFound
from tollkeeper.services.fields import check_code
from tollkeeper.store import outbox as store
from tollkeeper.store.changes import record
from tollkeeper.store.db import Database

SECRET_PREFIX = "whsec_"  # noqa: S105 (the mark of a secret, as Standard Webhooks has it)
SECRET_BYTES = 32
SECRET_BYTES_MIN, SECRET_BYTES_MAX = 24, 64
"""As Standard Webhooks demands."""


def new_secret() -> str:
    """A fresh secret in the form of Standard Webhooks."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


async def set_switch(
    database: Database, *, code: str, kill_url: str, secret: str, actor: str
) -> None:
    """Note where a switch takes kill requests; replaces what was noted before.

    Raises:
        InvalidInput: no http or https address, or a secret that is not ``whsec_`` and base64.
    """
    check_code(code)
    _check_url(kill_url)
    check_secret(secret)
    async with database.write() as connection:
        await store.set_switch(connection, code, kill_url, secret)
        await record(
            connection,
            actor=actor,
            action="switch.set",
            subject=f"switch {code}",
            detail={"kill_url": kill_url},
            notice=f"switch:{code}",
        )


async def get_kill_url(database: Database, code: str) -> str:
    """Return where a switch takes kill requests; its secret is never shown again.

    Raises:
        NotFound: it was never said.
    """
    async with database.read() as connection:
        row = await store.read_switch(connection, code)
    if row is None:
        raise _unknown(code)
    return row.kill_url


async def delete_switch(database: Database, *, code: str, actor: str) -> None:
    """Forget where a switch takes kill requests: from now on it is not asked to end calls.

    Raises:
        NotFound: it was never said.
    """
    async with database.write() as connection:
        if not await store.delete_switch(connection, code):
            raise _unknown(code)
        await record(
            connection,
            actor=actor,
            action="switch.delete",
            subject=f"switch {code}",
            detail={},
            notice=f"switch:{code}",
        )


def _unknown(code: str) -> NotFound:
    return NotFound(f'of a switch "{code}" nothing is set', code="unknown_switch", field="code")


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or len(url) > 2000 or not url.isprintable() or " " in url:
        raise InvalidInput(
            "kill_url: give an address such as https://switch.example/kill", field="kill_url"
        )


def check_secret(secret: str) -> str:
    """Return a secret in the form of Standard Webhooks.

    Raises:
        InvalidInput: it is not ``whsec_`` and 24 to 64 bytes in base64.
    """
    try:
        size = len(base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True))
    except (binascii.Error, ValueError):
        size = 0
    if not secret.startswith(SECRET_PREFIX) or not SECRET_BYTES_MIN <= size <= SECRET_BYTES_MAX:
        raise InvalidInput(
            f"secret: {SECRET_PREFIX} and {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes in base64; "
            "leave it out to have one made",
            field="secret",
        )
    return secret
