"""An independent reader of our packets: a conversation as a capture file, and what tshark says of it.

::

    assert malformed([("client", request), ("server", answer)], protocol="radius", port=1812) == []

Where tshark is not installed, the test that asks is skipped.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

OVER = {
    "radius": "udp",
    "sip": "udp",
    "diameter": "tcp",
    "smpp": "tcp",
}
"""What each protocol runs over; ``over`` of :func:`malformed` says otherwise."""

CLIENT, SERVER = "client", "server"
CLIENT_PORT = 40_000
BETWEEN = "\x1f"
ADDRESSES = {CLIENT: bytes([192, 0, 2, 1]), SERVER: bytes([192, 0, 2, 2])}
LINKTYPE_RAW = 101
SEGMENT = 60_000
SYN, FIN, PSH, ACK = 2, 1, 8, 16
TSHARK_SECONDS = 60

WARNING, ERROR = 0x600000, 0x800000
"""Severities of tshark's expert system (epan/proto.h)."""
FIELDS = (
    "frame.number",
    "frame.protocols",
    "_ws.malformed",
    "_ws.unreassembled",
    "radius.authenticator.invalid",
    "_ws.expert.severity",
    "_ws.expert.message",
    "_ws.col.Info",
)


def malformed(
    frames: Sequence[tuple[str, bytes]],
    *,
    protocol: str,
    port: int,
    secret: str = "",
    over: str = "",
    strict: bool = False,
) -> list[str]:
    """Say what tshark holds against a conversation: one line for each fault, none where all is well.

    Each frame is who sends it (``"client"`` or ``"server"``; the server has ``port``) and the
    bytes: a datagram where the protocol runs over UDP, else any piece of the TCP stream. Frames
    that tshark does not read as the protocol at all are faults too, and so is a stream that ends
    in the middle of a message. ``secret`` lets RADIUS authenticators be checked; ``strict`` counts
    tshark's warnings (unknown attributes, odd values) as faults as well.
    """
    tshark = shutil.which("tshark", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin")
    if tshark is None:
        pytest.skip("tshark is not installed, so nobody reads our packets")
    transport = over or OVER[protocol]
    with TemporaryDirectory(prefix="tollkeeper-packets-") as folder:
        capture = Path(folder) / "conversation.pcap"
        capture.write_bytes(pcap(frames, transport=transport, port=port))
        options = ["-d", f"{transport}.port=={port},{protocol}"]
        if secret:
            options += ["-o", f"radius.shared_secret:{secret}"]
            options += ["-o", "radius.validate_authenticator:TRUE"]
        command = [tshark, "-n", "-r", str(capture), *options]
        rows = _read(command, folder)
    least = WARNING if strict else ERROR
    lines = [line for row in rows for line in _faults(row, least)]
    names = {int(row[0]): row[1].split(":") for row in rows}
    return lines + [
        f"frame {number} was not read as {protocol}, but as {':'.join(names[number])}"
        for number in _must_read(frames, transport)
        if protocol not in names[number]
    ]


def _read(command: list[str], home: str) -> list[list[str]]:
    """The ``FIELDS`` of each frame."""
    ask = [part for field in FIELDS for part in ("-e", field)]
    done = subprocess.run(
        [*command, "-T", "fields", "-E", f"aggregator={BETWEEN}", *ask],
        capture_output=True,
        text=True,
        timeout=TSHARK_SECONDS,
        check=False,
        # The developer's own preferences of tshark do not reach the tests.
        env={**os.environ, "HOME": home, "XDG_CONFIG_HOME": home},
    )
    if done.returncode != 0:
        raise RuntimeError(f"tshark failed: {done.stderr.strip()}")
    return [line.split("\t") for line in done.stdout.splitlines()]


def _faults(row: list[str], least: int) -> list[str]:
    """What one frame is held against: expert messages of that severity, and the marks."""
    number, _, broken, cut, authenticator, severities, messages, info = row
    told = [
        message
        for severity, message in zip(
            severities.split(BETWEEN) if severities else (), messages.split(BETWEEN), strict=False
        )
        if int(severity, 0) >= least
    ]
    if authenticator in {"1", "True"}:
        told.append("the authenticator is wrong")
    if not told and (broken or cut):
        told.append(f"malformed: {info}")
    return [f"frame {number}: {message}" for message in told]


def _must_read(frames: Sequence[tuple[str, bytes]], transport: str) -> list[int]:
    """The frame numbers that must show the protocol: every datagram, each direction's last piece."""
    if transport == "udp":
        return list(range(1, len(frames) + 1))
    last: dict[str, int] = {}
    number = HANDSHAKE
    for who, payload in frames:
        number += len(_pieces(payload))
        last[who] = number
    return sorted(last.values())


HANDSHAKE = 3


def pcap(frames: Sequence[tuple[str, bytes]], *, transport: str, port: int) -> bytes:
    """The conversation as the bytes of a capture file, one millisecond between the packets."""
    packets = _datagrams(frames, port) if transport == "udp" else _stream(frames, port)
    head = struct.pack("!IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, LINKTYPE_RAW)
    records = (
        struct.pack("!IIII", 1_700_000_000, at * 1000, len(packet), len(packet)) + packet
        for at, packet in enumerate(packets)
    )
    return head + b"".join(records)


def _datagrams(frames: Sequence[tuple[str, bytes]], port: int) -> Iterable[bytes]:
    for who, payload in frames:
        source, target = _ports(who, port)
        length = 8 + len(payload)
        bare = struct.pack("!HHHH", source, target, length, 0) + payload
        check = _checksum(_pseudo(who, 17, length) + bare) or 0xFFFF
        yield _ip(who, 17, bare[:6] + struct.pack("!H", check) + payload)


def _stream(frames: Sequence[tuple[str, bytes]], port: int) -> Iterable[bytes]:
    """One TCP connection: handshake, the pieces, and both ends closing."""
    sent = {CLIENT: 1000, SERVER: 5000}

    def segment(who: str, flags: int, payload: bytes = b"") -> bytes:
        source, target = _ports(who, port)
        acked = sent[_other(who)] if flags & ACK else 0
        head = struct.pack(
            "!HHIIBBHHH", source, target, sent[who], acked, 5 << 4, flags, 65_535, 0, 0
        )
        check = _checksum(_pseudo(who, 6, 20 + len(payload)) + head + payload)
        sent[who] += len(payload) + (1 if flags & (SYN | FIN) else 0)
        return _ip(who, 6, head[:16] + struct.pack("!H", check) + head[18:] + payload)

    yield segment(CLIENT, SYN)
    yield segment(SERVER, SYN | ACK)
    yield segment(CLIENT, ACK)
    for who, payload in frames:
        for piece in _pieces(payload):
            yield segment(who, PSH | ACK, piece)
    yield segment(CLIENT, FIN | ACK)
    yield segment(SERVER, FIN | ACK)
    yield segment(CLIENT, ACK)


def _pieces(payload: bytes) -> list[bytes]:
    return [payload[at : at + SEGMENT] for at in range(0, len(payload), SEGMENT)]


def _other(who: str) -> str:
    return SERVER if who == CLIENT else CLIENT


def _ports(who: str, port: int) -> tuple[int, int]:
    return (CLIENT_PORT, port) if who == CLIENT else (port, CLIENT_PORT)


def _pseudo(who: str, protocol: int, length: int) -> bytes:
    return ADDRESSES[who] + ADDRESSES[_other(who)] + struct.pack("!BBH", 0, protocol, length)


def _ip(who: str, protocol: int, payload: bytes) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0x4000, 64, protocol, 0)
    addresses = ADDRESSES[who] + ADDRESSES[_other(who)]
    check = struct.pack("!H", _checksum(head + addresses))
    return head[:10] + check + addresses + payload


def _checksum(data: bytes) -> int:
    """The Internet checksum of RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
