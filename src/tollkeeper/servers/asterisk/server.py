"""FastAGI: a call of an Asterisk is authorised before it is dialled, and settled after it has ended.

``AGI(agi://host/authorise)`` sets variables of the channel, TK_RESULT ("allow", "refuse" or "busy") as
the last one, so that a dialplan that finds "allow" has all of them. ``AGI(agi://host/hangup)`` in the
extension ``h`` reports how long the call lasted; ``answered`` may be called where Dial answers. What is
under way while the call is up does the agent (:mod:`tollkeeper.servers.asterisk.agent`).

FastAGI proves nothing of who connects: peers are known by their address.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Final

import structlog

from tollkeeper.core.rating import SECONDS_MAX
from tollkeeper.core.reasons import Reason
from tollkeeper.core.records import Outcome
from tollkeeper.core.routes import routes_for
from tollkeeper.servers.answers import Room
from tollkeeper.servers.asks import Ask, Verdict
from tollkeeper.servers.asterisk.names import address_of, call_ms, peer_of_channel
from tollkeeper.servers.switchboard import Switchboard
from tollkeeper.services.tasks import end
from tollkeeper.store.peers import Peer
from tollkeeper.telemetry import PeerMeter
from tollkeeper.wire.asterisk import agi

PROTOCOL: Final = "asterisk"
LINE_SECONDS: Final = 5.0
"""Asterisk answers commands at once; a connection that says nothing for so long is closed."""
RING_SECONDS: Final = 120
"""A call may ring so long before its limit counts against it (the peer's option ``ring_seconds``)."""
WHOLE_CALL_SECONDS: Final = 7200
"""Without an agent nobody can extend a call: so much is asked for at once (option ``whole_call``)."""
SETTLE_AGAIN_SECONDS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
"""An end that cannot be charged is tried again for some minutes; then the call's record settles it."""
SPARE: Final = 256
"""Connections beyond the bound: which of them end a call is seen only when they have said so."""
_CHUNK = 4096
_PLAIN = re.compile(r"[A-Za-z0-9._:@+*#-]{0,120}")
_log = structlog.get_logger()


class HungUp(Exception):
    """The channel, or the connection to its switch, is gone."""


class AgiServer:
    """The listener; ``most`` connections at once, ends of calls half more."""

    name = "FastAGI"

    def __init__(self, board: Switchboard, host: str, port: int, *, most: int = 2048) -> None:
        self._board = board
        self._address = (host, port)
        self._room = Room(most)
        self._most = most
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._settling: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Begin to listen; raises OSError where the address cannot be had."""
        self._server = await asyncio.start_server(self._accept, *self._address, limit=_CHUNK)

    async def stop(self) -> None:
        """Stop listening; what is being settled is given a moment."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._connections:
            await asyncio.wait(list(self._connections), timeout=1.0)
        await end(self._connections)
        if self._settling:
            await asyncio.wait(list(self._settling), timeout=2.0)
        await end(self._settling)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, HungUp):
            pass  # the switch went away; its calls are told of otherwise
        finally:
            self._connections.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = str((writer.get_extra_info("peername") or ("",))[0])
        peer = self._board.book.at(PROTOCOL, address)
        if peer is None:
            PeerMeter.of("", PROTOCOL).fault("unknown_peer", f"FastAGI from {address}")
            return
        meter = PeerMeter.of(peer.code, PROTOCOL)
        if len(self._connections) > 2 * self._most + SPARE:
            meter.fault("overload", "too many connections at once")
            return
        channel = AgiChannel(reader, writer)
        meter.connected(1)
        try:
            environment = await channel.begin()
            await self._script(peer, environment, channel)
        except ValueError as error:
            # MalformedAgi, or something that cannot be said in a command (a very long route).
            meter.fault("malformed", str(error))
        except TimeoutError:
            meter.fault("silent", f"a FastAGI connection said nothing for {LINE_SECONDS:g} s")
        finally:
            meter.connected(-1)

    async def _script(self, peer: Peer, env: agi.Environment, channel: AgiChannel) -> None:
        scripts: dict[str, tuple[str, Callable[..., Coroutine[None, None, None]]]] = {
            "authorise": ("authorise", self._authorise),
            "answered": ("update", self._answered),
            "hangup": ("stop", self._hangup),
        }
        found = scripts.get(env.script)
        if found is None or not call_of(env):
            meter = PeerMeter.of(peer.code, PROTOCOL)
            meter.fault("unknown_script", f"agi://.../{env.script[:40]}: there is no such script")
            return
        action, script = found
        entered = self._room.enter(action)
        # The end of a call is told once only: it is taken as long as there is a connection to tell it.
        if not entered and action != "stop":
            PeerMeter.of(peer.code, PROTOCOL).fault("overload", "too many requests at once")
            if action == "authorise":
                await channel.set("TK_REASON", "busy")
                await channel.set("TK_CAUSE", "42")
                await channel.set("TK_RESULT", "busy")
            return
        try:
            await script(peer, env, channel)
        finally:
            if entered:
                self._room.leave()

    # --- authorise -------------------------------------------------------------------------------

    async def _authorise(self, peer: Peer, env: agi.Environment, channel: AgiChannel) -> None:
        ask = ask_of(peer, env)
        verdict = replace(await self._board.authorise(peer, ask), call_id=ask.call_id)
        ways = peer.rows("routes")
        routes = [route.to for route in routes_for(verdict.called, ways)]
        if verdict.allowed and ways and not routes:
            self._settle(peer, verdict.call_id, 0, "no_route")
            verdict = Verdict(verdict.call_id, Outcome.REFUSED, Reason.NO_ROUTE)
        told = False
        try:
            for name, value in variables_of(peer, verdict, routes):
                told = name == "TK_RESULT"
                await channel.set(name, value)
        except (HungUp, OSError, TimeoutError, ValueError):
            if verdict.allowed and not told:
                # It cannot have been dialled: what was held goes back at once.
                self._settle(peer, verdict.call_id, 0, "abandoned")
            raise

    async def _answered(self, peer: Peer, env: agi.Environment, channel: AgiChannel) -> None:
        verdict = await self._board.answered(peer, call_of(env))
        await channel.set("TK_LIMIT", str(verdict.granted))

    # --- hangup ----------------------------------------------------------------------------------

    async def _hangup(self, peer: Peer, env: agi.Environment, channel: AgiChannel) -> None:
        used_ms, cause = await self._usage(env, channel)
        verdict = await self._board.stop_call(peer, call_of(env), used_ms, cause=cause)
        if verdict.busy:
            self._settle(peer, call_of(env), used_ms, cause)
        # The channel may be gone by now, which matters to nobody.
        with contextlib.suppress(HungUp, OSError, TimeoutError, ValueError):
            await channel.set("TK_SETTLED", "no" if verdict.busy else "yes")

    async def _usage(self, env: agi.Environment, channel: AgiChannel) -> tuple[int, str]:
        """Milliseconds from the answer to the end, and the cause: given with the call, or asked for."""
        given = options_of(env)
        cause = given.get("cause", "")
        if not cause:
            cause = await channel.get("HANGUPCAUSE") or ""
        cause = cause if cause.isascii() and cause.isdigit() and len(cause) < 4 else ""
        status = given.get("status") or await channel.get("DIALSTATUS") or ""
        if status not in ("", "ANSWER"):
            # Nobody spoke, whatever CDR(billsec) counted since the dialplan's own Answer().
            return 0, cause
        values = [given.get(name, "") for name in ("answered_ms", "answered_s", "billsec")]
        if call_ms(*values) is None:
            values = [
                await channel.get(name) or ""
                for name in ("ANSWEREDTIME_MS", "ANSWEREDTIME", "CDR(billsec)")
            ]
        used = call_ms(*values)
        return min(used or 0, SECONDS_MAX * 1000), cause

    def _settle(self, peer: Peer, call_id: str, used_ms: int, cause: str) -> None:
        """Report an end for which there is nobody to answer to, again while that cannot be done."""
        if len(self._settling) >= self._most:
            return  # its record, or its expiry, settles it

        async def settle() -> None:
            for seconds in (0.0, *SETTLE_AGAIN_SECONDS):
                await asyncio.sleep(seconds)
                verdict = await self._board.stop_call(peer, call_id, used_ms, cause=cause)
                if not verdict.busy:
                    return
            _log.warning("stop.given_up", peer=peer.code, call=call_id, used_ms=used_ms)

        task = asyncio.create_task(settle(), name="agi settle")
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)


class AgiChannel:
    """One connection: commands and their answers, one after another."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = agi.Decoder()
        self._waiting: list[agi.Received] = []
        self.hung_up = False

    async def begin(self) -> agi.Environment:
        """What the connection begins with."""
        record = await self._next()
        assert isinstance(record, agi.Environment)  # the decoder gives it first
        return record

    async def set(self, name: str, value: str) -> None:
        """Set a variable.

        Raises:
            HungUp: the channel is gone, and takes no variables any more.
        """
        reply = await self._ask(agi.set_variable(name, value))
        if not reply.ok:
            raise HungUp(f"SET VARIABLE {name}: {reply.code} {reply.text}")

    async def get(self, name: str) -> str | None:
        """The value of a variable; None where it is not set or cannot be had."""
        return (await self._ask(agi.get_variable(name))).value

    async def _ask(self, command: bytes) -> agi.Reply:
        self._writer.write(command)
        async with asyncio.timeout(LINE_SECONDS):
            await self._writer.drain()
        while True:
            record = await self._next()
            if isinstance(record, agi.Reply):
                return record
            self.hung_up = True

    async def _next(self) -> agi.Received:
        async with asyncio.timeout(LINE_SECONDS):
            while not self._waiting:
                data = await self._reader.read(_CHUNK)
                if not data:
                    raise HungUp("the switch closed the connection")
                self._waiting = self._decoder.feed(data)
        return self._waiting.pop(0)


# --- what is asked and told ----------------------------------------------------------------------


def options_of(env: agi.Environment) -> dict[str, str]:
    """The further arguments of ``AGI()``, each ``name=value``; the first of a name counts."""
    found: dict[str, str] = {}
    for argument in env.arguments:
        name, equals, value = argument.partition("=")
        if equals:
            found.setdefault(name.strip(), value.strip())
    return found


def call_of(env: agi.Environment) -> str:
    """The id of the call: given as ``session``, or the channel's unique id."""
    return options_of(env).get("session") or env["uniqueid"]


def ask_of(peer: Peer, env: agi.Environment) -> Ask:
    """What a channel asks for: what its dialplan gives, else what Asterisk says of it."""
    given = options_of(env)
    whole = None if peer.secret else peer.whole("whole_call", WHOLE_CALL_SECONDS)
    return Ask(
        call_id=call_of(env),
        called=given.get("called") or env["extension"],
        caller=given.get("caller") or env["callerid"],
        trunk=given.get("trunk") or peer_of_channel(env["channel"]),
        address=address_of(given.get("address", "")),
        account=given.get("account") or env["accountcode"],
        lrn=given.get("lrn", ""),
        requested=whole,
    )


def variables_of(peer: Peer, verdict: Verdict, routes: Sequence[str] = ()) -> list[tuple[str, str]]:
    """What a channel is told, TK_RESULT last; ``routes`` are dial strings in their order.

    Where an agent extends the call, its limit is ``TIMEOUT(absolute)``: it counts from now on, so the
    time it may ring is added until the agent sets it again at the answer. Where there is none, Dial's
    own limit from the answer, ``L(ms)``, ends it to the millisecond.
    """
    if not verdict.allowed:
        meaning = verdict.meaning
        return [
            ("TK_SESSION", _plain(verdict.call_id)),
            ("TK_REASON", verdict.reason.value),
            ("TK_CAUSE", str(meaning.q850)),
            ("TK_SIP", str(meaning.sip)),
            ("TK_LIMIT", "0"),
            ("TK_LIMIT_MS", "0"),
            ("TK_RESULT", "busy" if verdict.busy else "refuse"),
        ]
    ring = max(1, peer.whole("ring_seconds", RING_SECONDS))
    dial_limit = "" if peer.secret else f"L({verdict.granted * 1000})"
    return [
        ("TK_SESSION", _plain(verdict.call_id)),
        ("TK_PARTY", _plain(verdict.party)),
        ("TK_REASON", ""),
        ("TK_CAUSE", "16"),
        ("TK_LIMIT", str(verdict.granted)),
        ("TK_LIMIT_MS", str(verdict.granted * 1000)),
        ("TK_DIAL_LIMIT", dial_limit),
        ("TK_RING", str(ring)),
        ("TK_CALLED", _plain(verdict.called)),
        ("TK_ROUTES", str(len(routes))),
        *((f"TK_ROUTE_{place}", route) for place, route in enumerate(routes, 1)),
        ("TIMEOUT(absolute)", str(verdict.granted + ring)),
        ("TK_RESULT", "allow"),
    ]


def _plain(text: str) -> str:
    """A value that a dialplan may put anywhere: nothing in it ends an argument or begins a variable."""
    return text if _PLAIN.fullmatch(text) is not None else ""
