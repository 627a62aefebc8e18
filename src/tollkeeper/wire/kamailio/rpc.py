"""Kamailio's JSON-RPC (modules jsonrpcs and dialog): what is asked, and the dialogs that it lists.

Decoding is total: any bytes give records or :class:`MalformedRpc`. Source: the RPC commands ``dlg.list`` and
``dlg.end_dlg`` of Kamailio's dialog module; JSON-RPC 2.0.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tollkeeper.errors import InvalidInput

RINGING = (1, 2)
"""States of a dialog before its answer: unconfirmed, early."""
UP = (3, 4)
"""States of a dialog that was answered: not acknowledged yet, confirmed."""


class MalformedRpc(InvalidInput):
    """Bytes that are no answer of a JSON-RPC server, or an answer that is an error."""

    code = "malformed_rpc"


class Side(msgspec.Struct, frozen=True):
    """One side of a dialog."""

    tag: str = ""


class Dialog(msgspec.Struct, frozen=True, rename={"call_id": "call-id"}):
    """A dialog as Kamailio lists it; ``state`` is one of ``RINGING``, ``UP``, or 5 when it has ended."""

    h_entry: int
    h_id: int
    call_id: str = ""
    state: int = 0
    caller: Side = Side()
    variables: list[dict[str, str]] = []

    def variable(self, name: str) -> str:
        """A variable of the dialog; "" if it is not set."""
        return next((pair[name] for pair in self.variables if name in pair), "")


class _Error(msgspec.Struct, frozen=True):
    message: str = ""


class _Listed(msgspec.Struct, frozen=True):
    result: list[Dialog] | None = None
    error: _Error | None = None


class _Other(msgspec.Struct, frozen=True):
    error: _Error | None = None


_listed = msgspec.json.Decoder(_Listed)
_other = msgspec.json.Decoder(_Other)


def request(method: str, parameters: Sequence[object] = ()) -> bytes:
    """The body of a request."""
    return msgspec.json.encode(
        {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(parameters)}
    )


def dialogs(body: bytes) -> list[Dialog]:
    """Read the answer to ``dlg.list``.

    Raises:
        MalformedRpc: it is none, or an error.
    """
    try:
        answer = _listed.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise MalformedRpc(f"an answer of {len(body)} bytes cannot be read: {error}") from error
    if answer.result is None:
        raise MalformedRpc(answer.error.message if answer.error else "no dialogs are listed")
    return answer.result


def done(body: bytes) -> bool:
    """Read the answer to a command without a result: whether it was carried out.

    Raises:
        MalformedRpc: it is no answer.
    """
    try:
        return _other.decode(body).error is None
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise MalformedRpc(f"an answer of {len(body)} bytes cannot be read: {error}") from error
