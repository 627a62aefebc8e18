"""The SMPP gateway: ESMEs bind to us, we bind to SMSCs, and every message is paid for in between.

One object has the sockets of both kinds (plain and TLS), the ESMEs bound to them, the SMSCs and the
receipts: a message that came in by one process must go out by it.
"""

from __future__ import annotations

import asyncio
import ssl
from datetime import timedelta
from ipaddress import ip_address, ip_network

import psycopg
import structlog

from tollkeeper.errors import Busy
from tollkeeper.servers.answers import Room
from tollkeeper.servers.smpp.esme import EsmeLink, same_secret
from tollkeeper.servers.smpp.link import Link
from tollkeeper.servers.smpp.options import EsmeOptions, esme_options, smsc_options
from tollkeeper.servers.smpp.receipts import Receipts
from tollkeeper.servers.smpp.smsc import Upstream
from tollkeeper.servers.smpp.submit import Submissions
from tollkeeper.servers.switchboard import Switchboard
from tollkeeper.servers.tls import server_tls
from tollkeeper.services.tasks import end
from tollkeeper.settings import Settings, listen_address
from tollkeeper.store.sms_messages import purge_messages
from tollkeeper.telemetry import PeerMeter
from tollkeeper.wire.smpp import pdu as smpp
from tollkeeper.wire.smpp.pdu import Bind, Pdu

CONNECTIONS_MAX = 2000
UNBOUND_MAX = 200
"""Connections that are not bound yet; of a flood of them the oldest go, so that others can still bind."""
DRAIN_SECONDS = 5.0
KEEP = timedelta(days=7)
"""Messages are remembered so long: a receipt that comes or is fetched later finds nothing."""
PURGE_SECONDS = 3600.0
_PURGE_PAGE = 10_000
SWEEP_SECONDS = 30.0
"""Charges of which nothing was heard are looked after so often."""
AGAIN_SECONDS = 2.0
_log = structlog.get_logger()


class SmppGateway:
    """The SMPP listener of one process, and all that belongs to it."""

    name = "SMPP"

    def __init__(self, board: Switchboard, settings: Settings) -> None:
        self._board = board
        self._settings = settings
        self._room = Room(settings.network_queue_max)
        self._links: set[EsmeLink] = set()
        self._unbound: dict[EsmeLink, None] = {}
        self._left: set[asyncio.Task[None]] = set()
        """Messages under way whose connections are gone."""
        self._bound: dict[str, list[EsmeLink]] = {}
        self._esmes: dict[str, EsmeOptions] = {}
        self._submissions = Submissions(board)
        self._receipts = Receipts(board, self._submissions, self._receiver)
        self._servers: list[asyncio.Server] = []
        self._chores: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._listening = False

    # --- Listener ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen, connect to the SMSCs.

        Raises:
            OSError: an address cannot be had. SetupError: TLS is wrong.
        """
        settings = self._settings
        places: list[tuple[str, ssl.SSLContext | None]] = []
        if settings.smpp_listen:
            places.append((settings.smpp_listen, None))
        if settings.smpp_tls_listen:
            places.append((settings.smpp_tls_listen, server_tls(settings)))
        loop = asyncio.get_running_loop()
        try:
            for place, context in places:
                host, port = listen_address(place)
                self._servers.append(
                    await loop.create_server(
                        lambda: EsmeLink(self), host, port, ssl=context, start_serving=False
                    )
                )
        except BaseException:
            for server in self._servers:
                server.close()
            self._servers = []
            raise
        await self._submissions.start()
        self._receipts.start()
        self._read_peers()
        if not self._listening:
            self._board.on_peers(self._changed.set)
            self._listening = True
        self._chores = asyncio.create_task(self._run(), name="smpp")
        for server in self._servers:
            await server.start_serving()

    async def stop(self) -> None:
        """Take no more messages, finish those under way, unbind."""
        for server in self._servers:
            server.close()
        self._servers = []
        if working := self._under_way():
            await asyncio.wait(working, timeout=DRAIN_SECONDS)
        if self._chores is not None:
            await end([self._chores])
            self._chores = None
        await end(self._under_way())
        for link in list(self._links):
            if link.esme is not None:
                link.write(smpp.frame(smpp.UNBIND, smpp.OK, 0x7FFFFFFE))
            link.close()
        await self._receipts.stop()
        await asyncio.gather(*[one.stop() for one in self._submissions.upstreams.values()])
        self._submissions.upstreams.clear()
        await self._submissions.stop()

    def _under_way(self) -> set[asyncio.Task[None]]:
        """Messages that are not answered yet, those of connections that are gone among them."""
        return self._left.union(*[link.working for link in self._links])

    @property
    def ports(self) -> list[int]:
        """The ports that are listened on, the plain one first."""
        return [server.sockets[0].getsockname()[1] for server in self._servers]

    def upstream_up(self, code: str) -> bool:
        """Whether we are bound to an SMSC."""
        found = self._submissions.upstreams.get(code)
        return found is not None and found.up

    # --- Door --------------------------------------------------------------------------------------

    def opened(self, link: EsmeLink) -> bool:
        """A connection came."""
        self._links.add(link)
        if len(self._links) > CONNECTIONS_MAX:
            return False
        if len(self._unbound) >= UNBOUND_MAX:
            # Whoever means it binds at once: it is the longest silent ones that can be spared.
            oldest = next(iter(self._unbound))
            del self._unbound[oldest]
            oldest.meter.fault("too_many_connections", oldest.address)
            oldest.abort()
        self._unbound[link] = None
        return True

    def admit(self, link: EsmeLink, bind: Bind) -> tuple[EsmeOptions | None, int]:
        """Check who binds. A wrong name and a wrong password look the same from outside."""
        esme = self._esmes.get(bind.system_id)
        meter = PeerMeter.of(esme.peer.code if esme is not None else "", "smpp")
        secret = esme.peer.secret if esme is not None else "no such ESME"
        right = same_secret(bind.password, secret)
        if esme is None or not right:
            kind = "unknown_peer" if esme is None else "wrong_secret"
            meter.fault(kind, f"{link.address} as {bind.system_id[:16]!r}")
            return None, smpp.INVALID_PASSWORD
        if not _is_within(link.address, esme.peer.addresses):
            meter.fault("wrong_address", link.address)
            return None, smpp.BIND_FAILED
        if esme.tls_only and not link.encrypted:
            meter.fault("not_encrypted", link.address)
            return None, smpp.BIND_FAILED
        if len(self._bound.get(esme.peer.code, ())) >= esme.connections:
            meter.fault("too_many_binds", f"{esme.connections} are allowed")
            return None, smpp.ALREADY_BOUND
        return esme, smpp.OK

    def bound(self, link: EsmeLink) -> None:
        """An ESME is bound."""
        assert link.esme is not None
        self._unbound.pop(link, None)
        self._bound.setdefault(link.esme.peer.code, []).append(link)
        link.meter.connected(1)
        if link.receives:
            self._receipts.bound(link.esme.peer.code)

    def closed(self, link: EsmeLink) -> None:
        """A connection is gone; what it has under way is finished all the same."""
        self._links.discard(link)
        self._unbound.pop(link, None)
        for task in link.working:
            self._left.add(task)
            task.add_done_callback(self._left.discard)
        if link.esme is None:
            return
        links = self._bound.get(link.esme.peer.code, [])
        if link in links:
            links.remove(link)
            link.meter.connected(-1)
        if not links:
            self._bound.pop(link.esme.peer.code, None)

    def enter(self) -> bool:
        """Take a place for a message."""
        return self._room.enter("authorise")

    def leave(self) -> None:
        """Give it back."""
        self._room.leave()

    async def submit(self, link: EsmeLink, pdu: Pdu) -> tuple[int, str]:
        """Charge a message and pass it on."""
        assert link.esme is not None
        return await self._submissions.submit(link.esme, pdu.command, pdu.body, link.address)

    def _receiver(self, code: str) -> Link | None:
        """A connection by which an ESME can be told something: the one with least to do."""
        links = [one for one in self._bound.get(code, ()) if one.receives]
        return min(links, key=lambda one: one.outstanding) if links else None

    # --- peers and chores ----------------------------------------------------------------------------

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        purge_at = loop.time()
        unknown = {esme.peer.code for esme in self._esmes.values()}
        while True:
            if unknown:
                unknown = await self._give_back_unknown(unknown)
            await self._give_back_doubtful()
            if loop.time() >= purge_at:
                purge_at = loop.time() + PURGE_SECONDS
                await self._give_back_unheard()
                await self._purge()
            pause = AGAIN_SECONDS if unknown else min(purge_at - loop.time(), SWEEP_SECONDS)
            try:
                async with asyncio.timeout(pause):
                    await self._changed.wait()
            except TimeoutError:
                continue
            self._changed.clear()
            for upstream in self._read_peers():
                await upstream.stop()

    def _read_peers(self) -> list[Upstream]:
        """Take the peers as they are now; returns the SMSCs that are to be left."""
        book = self._board.book
        found = [esme_options(peer) for peer in book.of_kind("esme")]
        self._esmes = {esme.system_id: esme for esme in found}
        now = {esme.peer.code: esme for esme in found}
        for link in list(self._links):
            if link.esme is None:
                continue
            new = now.get(link.esme.peer.code)
            if new is None or (new.system_id, new.peer.secret, new.peer.addresses) != (
                link.esme.system_id, link.esme.peer.secret, link.esme.peer.addresses,
            ):  # fmt: skip
                _log.info("esme.let_go", peer=link.esme.peer.code)
                link.write(smpp.frame(smpp.UNBIND, smpp.OK, 0x7FFFFFFE))
                link.close()
            else:
                link.esme = new
        upstreams = self._submissions.upstreams
        wanted = {peer.code: smsc_options(peer) for peer in book.of_kind("smsc")}
        gone = [code for code, one in upstreams.items() if wanted.get(code) != one.options]
        left = [upstreams.pop(code) for code in gone]
        for code, options in wanted.items():
            if code not in upstreams and options.host:
                upstreams[code] = Upstream(options, self._receipts.deliver)
                upstreams[code].start()
        return left

    async def _give_back_unknown(self, codes: set[str]) -> set[str]:
        """What the process before us charged and surely did not pass on; those that are still to be seen to."""
        left: set[str] = set()
        for esme in [one for one in self._esmes.values() if one.peer.code in codes]:
            try:
                given = await self._submissions.give_back_unknown(esme)
            except (Busy, psycopg.Error) as error:
                _log.warning("smpp.unknown_fate_not_read", peer=esme.peer.code, error=str(error))
                left.add(esme.peer.code)
                continue
            if given:
                _log.warning("smpp.given_back", peer=esme.peer.code, messages=given)
        return left

    async def _give_back_doubtful(self) -> None:
        try:
            given = await self._submissions.give_back_doubtful(list(self._esmes.values()))
        except (Busy, psycopg.Error) as error:
            _log.warning("smpp.doubtful_not_read", error=str(error))
        else:
            if given:
                _log.warning("smpp.given_back", messages=given)

    async def _give_back_unheard(self) -> None:
        for upstream in list(self._submissions.upstreams.values()):
            try:
                given = await self._submissions.give_back_unheard(upstream.options)
            except (Busy, psycopg.Error) as error:
                _log.warning("smpp.unheard_not_read", error=str(error))
                return
            if given:
                _log.warning(
                    "smpp.given_back_unheard", peer=upstream.options.peer.code, messages=given
                )

    async def _purge(self) -> None:
        try:
            while True:
                async with self._board.database.write() as connection:
                    gone = await purge_messages(connection, self._board.clock() - KEEP)
                if gone < _PURGE_PAGE:
                    return
        except Busy as error:
            _log.warning("smpp.not_purged", error=str(error))


def _is_within(address: str, networks: tuple[str, ...]) -> bool:
    """Whether an ESME comes from where it may; without networks from anywhere."""
    if not networks:
        return True
    try:
        host = ip_address(address.partition("%")[0])
        return any(
            host.version == network.version and host in network
            for network in (ip_network(one, strict=False) for one in networks)
        )
    except ValueError:
        return False
