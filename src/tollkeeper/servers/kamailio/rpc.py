"""Kamailio's JSON-RPC over HTTP: which calls are up, and the end of one."""

from __future__ import annotations

import httpx

from tollkeeper.wire.kamailio.rpc import Dialog, MalformedRpc, dialogs, done, request

TIMEOUT_SECONDS = 5.0
ANSWER_MAX = 64 * 2**20
"""Bytes of an answer: room for some 50,000 dialogs."""


class RpcFailed(Exception):
    """Nothing is known: the question did not get there, or the answer did not come back whole."""


class KamailioRpc:
    """A client of one Kamailio; ``url`` such as ``http://10.0.0.5:5060/RPC``."""

    def __init__(self, url: str) -> None:
        self._url = url
        # Kamailio closes as it likes: a connection of its own for each question.
        limits = httpx.Limits(max_keepalive_connections=0)
        self._client = httpx.AsyncClient(timeout=TIMEOUT_SECONDS, limits=limits, trust_env=False)

    async def dialogs(self) -> list[Dialog]:
        """All dialogs that Kamailio knows.

        Raises:
            RpcFailed: which there are is not known.
        """
        try:
            return dialogs(await self._ask(request("dlg.list")))
        except MalformedRpc as error:
            raise RpcFailed(error.detail) from error

    async def end(self, h_entry: int, h_id: int) -> bool:
        """End a call with a BYE to both ends; False: there is none.

        Raises:
            RpcFailed: whether it was ended is not known.
        """
        try:
            return done(await self._ask(request("dlg.end_dlg", [h_entry, h_id])))
        except MalformedRpc as error:
            raise RpcFailed(error.detail) from error

    async def close(self) -> None:
        """Give back what is held."""
        await self._client.aclose()

    async def _ask(self, body: bytes) -> bytes:
        answer = bytearray()
        headers = {"content-type": "application/json"}
        try:
            async with self._client.stream(
                "POST", self._url, content=body, headers=headers
            ) as response:
                async for chunk in response.aiter_bytes():
                    answer += chunk
                    if len(answer) > ANSWER_MAX:
                        raise RpcFailed(f"an answer of over {ANSWER_MAX} bytes")
        except httpx.HTTPError as error:
            raise RpcFailed(f"{type(error).__name__}: {error}") from error
        return bytes(answer)
