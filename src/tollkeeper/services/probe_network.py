"""What the doctor sees of the network from outside: does each listener answer, is each switch reached?

Nothing is charged and no call is made: a listener is asked for a sign of life in its own protocol, and a
switch is connected to and left again at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

from tollkeeper.errors import InvalidInput, SetupError
from tollkeeper.services.doctor import Check, Level
from tollkeeper.services.peer_book import PeerBook
from tollkeeper.settings import Settings, listen_address
from tollkeeper.store import doctor as store
from tollkeeper.store.peers import Peer, read_peers
from tollkeeper.wire import sip
from tollkeeper.wire.diameter import base as diameter
from tollkeeper.wire.diameter import codes as diameter_codes
from tollkeeper.wire.diameter.codec import HEADER, decode_header, frame_length
from tollkeeper.wire.radius import packet as radius
from tollkeeper.wire.smpp import pdu as smpp

SECONDS = 2.0
"""How long anything may take; listeners answer within milliseconds."""
AT_ONCE = 20
DIAMETER_HOST = "doctor.invalid"
"""Who asks a Diameter listener: a name that is nobody's, so that the answer is a refusal."""
ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what is listened on, not bound here
"""Where to ask whoever listens on all addresses."""
CONNECTED = frozenset(("freeswitch", "kamailio", "asterisk", "vos3000", "smsc"))
"""Kinds of peers that we connect to, at the address of their option ``connect``."""
_NOT_RUNNING = 'start "tollkeeper serve", and run the doctor again while it runs'
_NO_ANSWER = "see the log of the server: it names what keeps it from listening there"
_UNREACHED = "see that it runs, that the option connect is right, and that no firewall is between"
_UNTRUSTED = (
    "see that it runs, that it speaks TLS there, and that tls_ca holds who signed its certificate"
)
Place = tuple[str, int]


async def check_network(url: str, settings: Settings) -> list[Check]:
    """Ask every listener that is set, and connect to every switch that agents talk to."""
    try:
        async with store.connect(url) as connection:
            peers = await read_peers(connection)
    except SetupError as error:
        return [Check(Level.FAIL, "peers", error.detail, "see the check of the database above")]
    return await check_places(settings, peers)


async def check_places(settings: Settings, peers: list[Peer]) -> list[Check]:
    """The same for peers that were read already."""
    http = (ANY.get(settings.host, settings.host), settings.port)
    serving = await _tried(
        "HTTP", http, lambda: ask_http(http), mend=_NOT_RUNNING, absent=Level.WARN
    )
    tries: list[Awaitable[Check]] = []
    if serving.level is Level.OK:
        tries += _listeners(settings, PeerBook(peers))
    elif _wanted(settings):
        tries.append(_not_tried(", ".join(name for name, _ in _wanted(settings))))
    tries += [
        _reached(peer)
        for peer in peers
        if peer.enabled and peer.kind in CONNECTED and peer.text("connect")
    ]
    room = asyncio.Semaphore(AT_ONCE)

    async def one(attempt: Awaitable[Check]) -> Check:
        async with room:
            return await attempt

    return [serving, *await asyncio.gather(*(one(each) for each in tries))]


async def _not_tried(names: str) -> Check:
    return Check(Level.WARN, "listeners", f"not tried: {names}", _NOT_RUNNING)


def _wanted(settings: Settings) -> list[tuple[str, str]]:
    """The listeners that are set, and where."""
    every = (
        ("RADIUS authentication", settings.radius_auth_listen),
        ("RADIUS accounting", settings.radius_acct_listen),
        ("Diameter", settings.diameter_listen),
        ("Diameter over TLS", settings.diameter_tls_listen),
        ("SMPP", settings.smpp_listen),
        ("SMPP over TLS", settings.smpp_tls_listen),
        ("SIP redirect", settings.sip_listen),
        ("FastAGI", settings.agi_listen),
    )
    return [(name, text) for name, text in every if text]


def _listeners(settings: Settings, book: PeerBook) -> list[Awaitable[Check]]:
    tries: list[Awaitable[Check]] = []
    for name, text in _wanted(settings):
        host, port = listen_address(text)
        place = (ANY.get(host, host), port)
        tries.append(_tried(name, place, _question(name, place, book), mend=_NO_ANSWER))
    return tries


def _question(name: str, place: Place, book: PeerBook) -> Callable[[], Awaitable[str]]:
    """How a listener is asked."""
    if name.startswith("RADIUS"):
        return lambda: ask_radius(place, book)
    if name == "SIP redirect":
        return lambda: ask_sip(place)
    if name.startswith("SMPP"):
        return lambda: ask_smpp(place, tls="TLS" in name)
    if name.startswith("Diameter"):
        return lambda: ask_diameter(place, tls="TLS" in name)
    return lambda: ask_tcp(place, tls="TLS" in name)


async def _tried(
    name: str,
    place: Place,
    ask: Callable[[], Awaitable[str]],
    *,
    mend: str,
    absent: Level = Level.FAIL,
) -> Check:
    """Ask; whatever goes wrong is a finding."""
    shown = f"[{place[0]}]:{place[1]}" if ":" in place[0] else f"{place[0]}:{place[1]}"
    try:
        async with asyncio.timeout(SECONDS):
            return Check(Level.OK, name, f"{shown} {await ask()}")
    except TimeoutError:
        found = f"{shown}: no answer within {SECONDS:g} s"
    except (OSError, ValueError, InvalidInput, asyncio.IncompleteReadError) as error:
        # The number of an error of TLS means something else to the system.
        tls = isinstance(error, ssl.SSLError)
        code = error.errno if isinstance(error, OSError) and not tls else None
        found = f"{shown}: {os.strerror(code) if code and code in errno.errorcode else error}"
    return Check(absent, name, found, mend)


async def _reached(peer: Peer) -> Check:
    text = peer.text("connect")
    name = f"{peer.kind} {peer.code}"
    try:
        place = listen_address(text)
    except ValueError as error:
        return Check(Level.FAIL, name, f"its option connect: {error}", _UNREACHED)
    if peer.kind == "smsc" and peer.flag("tls"):
        return await _tried(name, place, lambda: ask_trusted(place, peer), mend=_UNTRUSTED)
    return await _tried(name, place, lambda: ask_tcp(place), mend=_UNREACHED)


# --- each protocol's sign of life ----------------------------------------------------------------


async def ask_http(place: Place) -> str:
    """Ask whether the server reaches its database. Raises OSError or ValueError where it does not."""
    async with _connected(place) as (reader, writer):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: doctor\r\nConnection: close\r\n\r\n")
        status = (await reader.readline()).split(b" ")
        if status[1:2] != [b"200"]:
            raise ValueError("something else answers there, or the server lacks its database")
        return "is well"


async def ask_tcp(place: Place, *, tls: bool = False) -> str:
    """Connect, and leave at once."""
    async with _connected(place, tls=tls):
        return "takes connections" + (" with TLS" if tls else "")


async def ask_diameter(place: Place, *, tls: bool = False) -> str:
    """Say hello (CER): any CEA is a sign of life, also one that does not let us in.

    Over TLS where a client certificate is wanted, that it is asked for is all that can be seen.
    """
    hello = diameter.Capabilities(
        DIAMETER_HOST,
        "invalid",
        addresses=("::1" if ":" in place[0] else "127.0.0.1",),
        auth_applications=(diameter_codes.CREDIT_CONTROL,),
    )
    try:
        async with _connected(place, tls=tls) as (reader, writer):
            writer.write(diameter.encode_capabilities(hello, 1, secrets.randbits(32)))
            head = await reader.readexactly(HEADER)
            answer = head + await reader.readexactly(frame_length(head) - HEADER)
    except ssl.SSLError as error:
        if "CERTIFICATE_REQUIRED" not in str(error.reason):
            raise
        return "asks for a certificate, which the doctor has not"
    header = decode_header(answer)
    if header.request or header.command != diameter_codes.Command.CAPABILITIES:
        raise ValueError("the answer to a CER is no CEA")
    told = diameter.decode_capabilities(answer)
    meaning = "lets us in" if told.result == diameter_codes.Result.SUCCESS else "knows no such peer"
    if told.result not in {diameter_codes.Result.SUCCESS, diameter_codes.Result.UNKNOWN_PEER}:
        meaning = "does not let us in"
    return f"answers CER as {told.origin_host} with {told.result}: {meaning}"


async def ask_trusted(place: Place, peer: Peer) -> str:
    """Connect by TLS and judge the certificate as the gateway does that binds there."""
    context = ssl.create_default_context(cafile=peer.text("tls_ca") or None)
    async with _connected(place, tls=context):
        return "takes connections with TLS, and is trusted"


async def ask_smpp(place: Place, *, tls: bool = False) -> str:
    """Ask for a sign of life without a bind: any SMPP answer is one."""
    async with _connected(place, tls=tls) as (reader, writer):
        writer.write(smpp.frame(smpp.ENQUIRE_LINK, 0, 1))
        framer = smpp.Framer()
        while not (answers := framer.feed(data := await reader.read(4096))):
            if not data or framer.broken:
                raise ValueError("the connection is closed, or no SMPP is spoken there")
        name = smpp.status_name(answers[0].status)
        return f"answers enquire_link with {smpp.command_name(answers[0].command)}, {name}"


async def ask_sip(place: Place) -> str:
    """Ask with OPTIONS what it can do."""
    branch = secrets.token_hex(8)
    host = f"[{place[0]}]" if ":" in place[0] else place[0]
    question = (
        f"OPTIONS sip:{host}:{place[1]} SIP/2.0\r\n"
        f"Via: SIP/2.0/UDP {host};branch={sip.MAGIC}{branch};rport\r\n"
        f"From: <sip:doctor@{host}>;tag={branch}\r\nTo: <sip:{host}>\r\n"
        f"Call-ID: {branch}\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 1\r\nContent-Length: 0\r\n\r\n"
    )
    answer = sip.decode(await _datagram(place, question.encode()))
    if not isinstance(answer, sip.Response) or answer.status != 200:
        raise ValueError("no 200 to OPTIONS")
    return "answers OPTIONS"


async def ask_radius(place: Place, book: PeerBook) -> str:
    """Send Status-Server (RFC 5997) as the peer that this machine is; else only look for a refusal."""
    peer = book.at("radius", place[0])
    secret = peer.secret.encode() if peer is not None else secrets.token_bytes(16)
    authenticator = secrets.token_bytes(16)
    question = radius.encode_request(radius.Code.STATUS_SERVER, 1, (), secret, random=authenticator)
    try:
        answer = radius.decode(await _datagram(place, question, seconds=SECONDS / 2))
    except TimeoutError:
        if peer is not None:
            raise
        return "is not refused; it answers peers only, and this machine is none of kind radius"
    if radius.check_answer(answer, authenticator, secret):
        raise ValueError("the answer was made with another secret")
    return "answers Status-Server"


class _Answer(asyncio.DatagramProtocol):
    """The first datagram that comes back, or the refusal of the other machine."""

    def __init__(self) -> None:
        self.first: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, _: object) -> None:
        """Note the answer."""
        if not self.first.done():
            self.first.set_result(data)

    def error_received(self, exc: Exception) -> None:
        """Nobody listens there."""
        if not self.first.done():
            self.first.set_exception(exc)


async def _datagram(place: Place, question: bytes, *, seconds: float = SECONDS) -> bytes:
    loop = asyncio.get_running_loop()
    transport, answer = await loop.create_datagram_endpoint(_Answer, remote_addr=place)
    try:
        transport.sendto(question)
        async with asyncio.timeout(seconds):
            return await answer.first
    finally:
        transport.close()


@contextlib.asynccontextmanager
async def _connected(
    place: Place, *, tls: bool | ssl.SSLContext = False
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    context = tls or None
    if context is True:
        # The listener is asked whether it is there; peers, not we, judge its certificate.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    reader, writer = await asyncio.open_connection(*place, ssl=context)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
