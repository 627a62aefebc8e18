"""A call that was reported and could not be charged, as the record that waits for being mended."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

import msgspec

from tollkeeper.core.trunks import Trace
from tollkeeper.core.usage import MICROSECONDS, Usage
from tollkeeper.servers.radius.names import delay_of, is_address
from tollkeeper.services.peer_book import PeerBook
from tollkeeper.store.peers import Peer
from tollkeeper.wire.radius.messages import Report


def name_of(peer: Peer, report: Report, call_id: str, used_ms: int) -> str:
    """What tells a report from others: the same one again has the same name.

    The legs of one call are one. Elsewhere the usage belongs to it, for a switch may use an id again.
    """
    usage = "" if report.conference else str(used_ms)
    parts = f"{call_id}\n{report.called}\n{usage}"
    return f"{peer.code}/stop/{hashlib.blake2b(parts.encode(), digest_size=16).hexdigest()}"


def usage_of(
    book: PeerBook, peer: Peer, report: Report, call_id: str, used_ms: int, now: datetime
) -> Usage:
    """A report as the record of a file: by our clock, and with what its trunk is recognised by."""
    ended = now - timedelta(seconds=delay_of(report))
    end = int(ended.timestamp()) * MICROSECONDS
    start = end - used_ms * 1000
    trunk, address, account = report.nas_identifier, report.remote_address, report.user
    if is_address(account):
        address, account = address or account, ""
    own = book.trunk_of(peer, Trace()) if peer.trunk else None
    if own is not None:
        trunk = own.names[0] if own.names else own.code
        address = own.addresses[0].partition("/")[0] if own.addresses else address
        account = own.account or account
    return Usage(
        line=1,
        call_id=call_id,
        start=start,
        duration_ms=used_ms,
        leg=report.session_id if report.session_id != call_id else "",
        caller=report.calling,
        called=report.called,
        answer=start,
        end=end,
        trunk_in=trunk,
        ip_in=address or report.nas_address,
        account=account,
        q850=report.q850,
        service=peer.text("service", "voice"),
    )


def written(report: Report) -> str:
    """A report as text: what was said, a line each."""
    said = msgspec.to_builtins(report, builtin_types=(bytes, datetime))
    return "\n".join(f"{name} = {value}" for name, value in said.items() if value not in (None, ""))
