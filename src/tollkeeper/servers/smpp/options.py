"""What is set of an ESME or an SMSC, read from its peer: names and defaults in one place.

ESME: ``system_id`` (else the peer's code), ``upstream`` (codes of SMSCs, the first one that is up is
used), ``party``, ``window``, ``rate`` (submits per second, 0: any), ``connections``, ``tls`` (only
encrypted), ``no_money_status``, ``duplicate_seconds``, ``duplicates_by_text``, ``default_alphabet``,
``enquire_seconds``. SMSC: ``connect``, ``system_id``, ``system_type``, ``bind``, ``window``, ``tls``, ``tls_ca``,
``enquire_seconds``, ``response_seconds``, ``message_ids``, ``receipts``, ``unheard_hours``.
"""

from __future__ import annotations

from dataclasses import dataclass

from tollkeeper.settings import listen_address
from tollkeeper.store.peers import Peer
from tollkeeper.wire.smpp import pdu as smpp

PORT = 2775
WINDOW = 100
CONNECTIONS = 4
DUPLICATE_SECONDS = 120
ID_BASES = {"as_is": (0, 0), "hex_decimal": (16, 10), "decimal_hex": (10, 16)}
"""``message_ids``: how an SMSC writes ids in its responses and in its receipts."""


@dataclass(frozen=True, slots=True)
class EsmeOptions:
    """One ESME, as it is set."""

    peer: Peer
    system_id: str
    upstreams: tuple[str, ...]
    party: str
    window: int
    rate: int
    connections: int
    tls_only: bool
    no_money_status: int
    duplicate_seconds: int
    duplicates_by_text: bool
    latin_default: bool
    enquire_seconds: int


@dataclass(frozen=True, slots=True)
class SmscOptions:
    """One upstream SMSC, as it is set."""

    peer: Peer
    host: str
    port: int
    system_id: str
    system_type: str
    separate: bool
    window: int
    tls: bool
    tls_ca: str
    enquire_seconds: int
    response_seconds: int
    response_base: int
    receipt_base: int
    receipts: bool
    unheard_hours: int


def esme_options(peer: Peer) -> EsmeOptions:
    """Read the options of an ESME; what is out of bounds is brought within."""
    return EsmeOptions(
        peer=peer,
        system_id=peer.text("system_id") or peer.code,
        upstreams=tuple(one.strip() for one in peer.text("upstream").split(",") if one.strip()),
        party=peer.text("party"),
        window=max(peer.whole("window", WINDOW), 1),
        rate=max(peer.whole("rate"), 0),
        connections=max(peer.whole("connections", CONNECTIONS), 1),
        tls_only=peer.flag("tls"),
        no_money_status=peer.whole("no_money_status", smpp.SUBMIT_FAILED) or smpp.SUBMIT_FAILED,
        duplicate_seconds=max(peer.whole("duplicate_seconds", DUPLICATE_SECONDS), 0),
        duplicates_by_text=peer.flag("duplicates_by_text"),
        latin_default=peer.text("default_alphabet") == "latin1",
        enquire_seconds=max(peer.whole("enquire_seconds", 30), 1),
    )


def smsc_options(peer: Peer) -> SmscOptions:
    """Read the options of an SMSC; it is where ``connect`` says, else at the peer's first address."""
    place = peer.text("connect") or f"{peer.addresses[0] if peer.addresses else ''}:{PORT}"
    try:
        host, port = listen_address(place)
    except ValueError:
        host, port = "", 0
    response, receipt = ID_BASES.get(peer.text("message_ids", "as_is"), (0, 0))
    return SmscOptions(
        peer=peer,
        host=host,
        port=port,
        system_id=peer.text("system_id") or peer.code,
        system_type=peer.text("system_type"),
        separate=peer.text("bind") == "separate",
        window=max(peer.whole("window", WINDOW), 1),
        tls=peer.flag("tls"),
        tls_ca=peer.text("tls_ca"),
        enquire_seconds=max(peer.whole("enquire_seconds", 30), 1),
        response_seconds=max(peer.whole("response_seconds", 10), 1),
        response_base=response,
        receipt_base=receipt,
        receipts=peer.flag("receipts", default=True),
        unheard_hours=max(peer.whole("unheard_hours"), 0),
    )
