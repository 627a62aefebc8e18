"""Telling a switch to end a call: a signed HTTP request (Standard Webhooks), or nothing."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Protocol

import httpx
from standardwebhooks.webhooks import Webhook

TIMEOUT_SECONDS = 3.0


class KillFailed(Exception):
    """The switch did not take the request; it is tried again."""


class KillGateway(Protocol):
    """Sends one kill request to a switch."""

    async def kill(
        self, *, url: str, secret: str, message_id: str, at: datetime, session_id: str, reason: str
    ) -> None:
        """Deliver; raises KillFailed where the switch does not answer with 2xx or 404."""

    async def close(self) -> None:
        """Give back what is held."""


class HttpKill:
    """The real one. ``secret`` is base64, as ``whsec_`` secrets of Standard Webhooks are."""

    def __init__(self) -> None:
        self._client = httpx.AsyncClient(timeout=TIMEOUT_SECONDS, follow_redirects=False)

    async def kill(
        self, *, url: str, secret: str, message_id: str, at: datetime, session_id: str, reason: str
    ) -> None:
        """POST the request; 404 means that the switch knows no such call, which is as good as ended."""
        body = json.dumps({"type": "session.kill", "session_id": session_id, "reason": reason})
        headers = {
            "content-type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": Webhook(secret).sign(message_id, at, body),
        }
        try:
            answer = await self._client.post(url, content=body, headers=headers)
        except httpx.HTTPError as error:
            raise KillFailed(f"{type(error).__name__}: {error}") from error
        if not answer.is_success and answer.status_code != 404:
            raise KillFailed(f"the switch answered {answer.status_code}")

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


class NullKill:
    """Remembers instead of sending; for set-ups and tests without a switch."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []

    async def kill(
        self, *, url: str, secret: str, message_id: str, at: datetime, session_id: str, reason: str
    ) -> None:
        """Remember the session and the reason."""
        self.sent.append((session_id, reason))

    async def close(self) -> None:
        """Nothing is held."""
