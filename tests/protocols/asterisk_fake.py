"""A fake Asterisk: a manager interface, and channels that run the dialplan that we generate.

Calls are made, answered and ended by the test. Each asks ``AGI(agi://.../authorise)`` as res_agi does,
dials if it is allowed to, obeys ``L(ms)`` and ``TIMEOUT(absolute)``, and runs ``AGI(agi://.../hangup)``
in its extension h. It can also misbehave: lose events, refuse or cut off lists, hang, drop its
connections, die and start anew. It writes both protocols by itself, without the codecs under test. What
it cannot prove is what only the real switch does; see docs/how-to/connect-asterisk.md.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import suppress
from dataclasses import dataclass, field


@dataclass(eq=False)
class Call:
    """A channel that dials; ``variables`` are those that AGI set; times are of the loop's clock."""

    name: str
    uniqueid: str
    called: str
    caller: str
    account: str
    args: tuple[str, ...]
    variables: dict[str, str] = field(default_factory=dict)
    created: float = 0.0
    answered: float | None = None
    ended: float | None = None
    cause: int = 16
    limits: list[float] = field(default_factory=list)
    """Each limit that was set from outside, in seconds."""
    timer: asyncio.TimerHandle | None = None
    dial_timer: asyncio.TimerHandle | None = None
    told: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when extension h has run."""

    @property
    def used_ms(self) -> int:
        """ANSWEREDTIME_MS."""
        if self.answered is None or self.ended is None:
            return 0
        return int((self.ended - self.answered) * 1000)

    @property
    def up(self) -> bool:
        """Whether the channel exists."""
        return self.ended is None


class FakeAsterisk:
    """A switch on a loopback port; its FastAGI connections come from ``address``."""

    def __init__(
        self,
        agi_port: int,
        *,
        address: str = "127.0.0.1",
        username: str = "tollkeeper",
        secret: str = "s3cret",
    ) -> None:
        self.agi_port = agi_port
        self.address = address
        self.username, self.secret = username, secret
        self.port = 0
        self.calls: dict[str, Call] = {}
        self.logins = 0
        self.refused_logins = 0
        self.actions: list[dict[str, str]] = []
        self.lose: set[str] = set()
        self.list_fault = ""
        """"error", "cut", "short": how CoreShowChannels fails."""
        self.hang: set[str] = set()
        """Actions that are never answered."""
        self.h_extension = True
        self.milliseconds = True
        """False: an Asterisk that does not know ANSWEREDTIME_MS."""
        self.started = time.time()
        self._boots = itertools.count(1)
        self._boot = next(self._boots)
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.StreamWriter] = set()
        self._jobs: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count(1)
        self._last_agi: tuple[Call, str] | None = None
        self._last_event: list[tuple[str, str]] | None = None

    # --- the process -----------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen; again on the port of before, if there was one."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """End the process: nobody is told anything."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for call in self.calls.values():
            self._no_timers(call)
        self.drop()
        jobs = list(self._jobs)
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)

    async def restart(self) -> None:
        """Crash and come back: the channels are gone without a word."""
        await self.stop()
        for call in list(self.calls.values()):
            self.vanish(call)
        self._boot = next(self._boots)
        self.started = time.time()
        await self.start()

    def drop(self) -> None:
        """Break the manager connections; calls go on."""
        for writer in list(self._clients):
            writer.transport.abort()

    # --- what a test does ------------------------------------------------------------------------

    async def dial(
        self,
        called: str,
        *,
        caller: str = "442071838750",
        account: str = "",
        endpoint: str = "acme",
        args: tuple[str, ...] = (),
    ) -> Call:
        """A call arrives, is authorised and, if allowed, dialled: it rings when this returns."""
        number = next(self._numbers)
        call = Call(
            name=f"PJSIP/{endpoint}-{number:08x}",
            uniqueid=f"{int(self.started)}{self._boot}.{number}",
            called=called,
            caller=caller,
            account=account,
            args=args,
            created=self._now(),
        )
        self.calls[call.uniqueid] = call
        self._event("Newchannel", *self._channel(call))
        await self.run_agi(call, "authorise")
        if call.up and call.variables.get("TK_RESULT") != "allow":
            call.cause = int(call.variables.get("TK_CAUSE", "42"))
            await self.hang_up(call)
        elif call.up:
            self._event("DialBegin", *self._channel(call), ("DialString", called))
        return call

    def answer(self, call: Call) -> None:
        """The called side answers."""
        call.answered = self._now()
        limit = call.variables.get("TK_DIAL_LIMIT", "")
        if limit.startswith("L("):
            seconds = int(limit[2:-1]) / 1000
            call.dial_timer = asyncio.get_running_loop().call_later(seconds, self._expire, call)
        self._event("DialEnd", *self._channel(call), ("DialStatus", "ANSWER"))
        self._event("BridgeEnter", ("BridgeUniqueid", "b-1"), *self._channel(call))

    async def hang_up(self, call: Call, *, cause: int | None = None) -> int:
        """The call ends; extension h runs, then the channel is gone. Returns ANSWEREDTIME_MS."""
        if call.ended is None:
            call.ended = self._now()
            call.cause = cause if cause is not None else call.cause
            self._no_timers(call)
            call.variables["HANGUPCAUSE"] = str(call.cause)
            if call.answered is not None:
                call.variables["DIALSTATUS"] = "ANSWER"
                call.variables["ANSWEREDTIME"] = str(call.used_ms // 1000)
                if self.milliseconds:
                    call.variables["ANSWEREDTIME_MS"] = str(call.used_ms)
            elif call.variables.get("TK_RESULT") == "allow":
                call.variables["DIALSTATUS"] = "CANCEL"
            if self.h_extension and call.variables.get("TK_RESULT") == "allow":
                with suppress(OSError, asyncio.IncompleteReadError):
                    await self.run_agi(call, "hangup")
            self.calls.pop(call.uniqueid, None)
            self._event("Hangup", *self._channel(call), ("Cause", str(call.cause)))
            call.told.set()
        return call.used_ms

    def vanish(self, call: Call) -> None:
        """The channel is gone, and nobody is told."""
        call.ended = self._now()
        self._no_timers(call)
        self.calls.pop(call.uniqueid, None)
        call.told.set()

    async def repeat(self) -> None:
        """The last FastAGI script and the last event once more."""
        if self._last_agi is not None:
            call, script = self._last_agi
            before = dict(call.variables)
            await self.run_agi(call, script)
            call.variables = before
        if self._last_event is not None:
            self._send(self._last_event)

    # --- FastAGI ---------------------------------------------------------------------------------

    async def run_agi(self, call: Call, script: str) -> None:
        """``AGI(agi://127.0.0.1:port/script)`` on a channel."""
        self._last_agi = call, script
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.agi_port, local_addr=(self.address, 0)
        )
        try:
            writer.write(self.environment(call, script))
            while line := await reader.readline():
                writer.write(self._command(call, line.decode()[:-1]))
                await writer.drain()
            call.variables["AGISTATUS"] = "SUCCESS"
        except OSError:
            call.variables["AGISTATUS"] = "FAILURE"
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def environment(self, call: Call, script: str) -> bytes:
        """What a FastAGI connection begins with."""
        lines = [
            "network: yes", f"network_script: {script}",
            f"request: agi://127.0.0.1:{self.agi_port}/{script}", f"channel: {call.name}",
            "language: en", "type: PJSIP", f"uniqueid: {call.uniqueid}", "version: 20.5.0",
            f"callerid: {call.caller or 'unknown'}", "calleridname: unknown", "callingpres: 0",
            "callingani2: 0", "callington: 0", "callingtns: 0", "dnid: unknown", "rdnis: unknown",
            "context: tollkeeper", f"extension: {call.called if script != 'hangup' else 'h'}",
            "priority: 1", "enhanced: 0.0", f"accountcode: {call.account}", "threadid: 1398",
            *(f"arg_{number}: {text}" for number, text in enumerate(call.args, 1)),
        ]  # fmt: skip
        return "".join(f"agi_{line}\n" for line in lines).encode() + b"\n"

    def _command(self, call: Call, line: str) -> bytes:
        words = _words(line)
        verb = [word.upper() for word in words[:2]]
        if verb == ["SET", "VARIABLE"] and len(words) == 4:
            call.variables[words[2]] = words[3]
            if words[2] == "TIMEOUT(absolute)":
                self._set_timeout(call, words[3])
            return b"200 result=1\n"
        if verb == ["GET", "VARIABLE"] and len(words) == 3:
            value = call.variables.get(words[2])
            if words[2] == "CDR(billsec)":
                value = str(call.used_ms // 1000)
            return b"200 result=0\n" if value is None else f"200 result=1 ({value})\n".encode()
        if verb[:1] == ["VERBOSE"]:
            return b"200 result=1\n"
        if verb in (["SET", "VARIABLE"], ["GET", "VARIABLE"]):
            return b"520-Invalid command syntax.  Proper usage follows:\n Usage\n520 End of proper usage.\n"
        return b"510 Invalid or unknown command\n"

    # --- the manager interface -------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._jobs.add(task)
        try:
            writer.write(b"Asterisk Call Manager/7.0.3\r\n")
            while True:
                block = (await reader.readuntil(b"\r\n\r\n")).decode()
                headers = dict(line.split(": ", 1) for line in block.strip().split("\r\n"))
                self._action(writer, headers)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._jobs.discard(task)
            self._clients.discard(writer)
            writer.close()

    def _action(self, writer: asyncio.StreamWriter, headers: dict[str, str]) -> None:
        name, id_ = headers["Action"].lower(), headers.get("ActionID", "")
        self.actions.append(headers)
        if name in self.hang:
            return

        def say(response: str, message: str = "", *more: tuple[str, str]) -> None:
            lines = [("Response", response), ("ActionID", id_)]
            lines += [("Message", message)] if message else []
            writer.write(_block([*lines, *more]))

        if name == "login":
            if (headers.get("Username"), headers.get("Secret")) != (self.username, self.secret):
                self.refused_logins += 1
                say("Error", "Authentication failed")
                return
            self._clients.add(writer)
            self.logins += 1
            say("Success", "Authentication accepted")
            uptime = str(int(time.time() - self.started))
            writer.write(_block([("Event", "FullyBooted"), ("Uptime", uptime)]))
        elif writer not in self._clients:
            say("Error", "Permission denied")
        elif name == "ping":
            say("Success", "", ("Ping", "Pong"))
        elif name == "corestatus":
            day = ("CoreStartupDate", "2026-01-01")
            say("Success", "", day, ("CoreStartupTime", f"00:00:{self._boot:02d}"))
        elif name == "coreshowchannels":
            self._list(writer, id_, say)
        else:
            self._on_channel(name, headers, say)

    def _on_channel(self, name: str, headers: dict[str, str], say: object) -> None:
        assert callable(say)
        found = [one for one in self.calls.values() if one.name == headers.get("Channel")]
        if not found:
            say("Error", "No such channel")
            return
        call = found[0]
        if name == "setvar":
            call.variables[headers["Variable"]] = headers["Value"]
            if headers["Variable"] == "TIMEOUT(absolute)":
                call.limits.append(float(headers["Value"]))
                self._set_timeout(call, headers["Value"])
            say("Success", "Variable Set")
        elif name == "getvar":
            seconds = self._now() - call.answered if call.answered is not None else 0.0
            value = call.uniqueid if headers["Variable"] == "UNIQUEID" else f"{seconds:.6f}"
            say("Success", "", ("Variable", headers["Variable"]), ("Value", value))
        elif name == "hangup":
            say("Success", "Channel Hungup")
            self._later(self.hang_up(call, cause=int(headers.get("Cause", "16"))))
        else:
            say("Error", "Invalid/unknown command")

    def _list(self, writer: asyncio.StreamWriter, id_: str, say: object) -> None:
        assert callable(say)
        if self.list_fault == "error":
            say("Error", "Permission denied")
            return
        say("Success", "Channels will follow", ("EventList", "start"))
        channels = list(self.calls.values())
        for call in channels[1:] if self.list_fault == "short" else channels:
            seconds = int(self._now() - call.created)
            clock = f"{seconds // 3600:02d}:{seconds % 3600 // 60:02d}:{seconds % 60:02d}"
            bridge = "b-1" if call.answered is not None else ""
            lines = [("Event", "CoreShowChannel"), ("ActionID", id_), *self._channel(call)]
            writer.write(_block([*lines, ("BridgeId", bridge), ("Duration", clock)]))
        if self.list_fault != "cut":
            end = [("Event", "CoreShowChannelsComplete"), ("ActionID", id_)]
            end += [("EventList", "Complete"), ("ListItems", str(len(channels)))]
            writer.write(_block(end))

    def _event(self, name: str, *headers: tuple[str, str]) -> None:
        if name in self.lose:
            return
        self._last_event = [("Event", name), ("Privilege", "call,all"), *headers]
        self._send(self._last_event)

    def _send(self, headers: list[tuple[str, str]]) -> None:
        for writer in self._clients:
            if not writer.is_closing():
                writer.write(_block(headers))

    # --- channels --------------------------------------------------------------------------------

    def _channel(self, call: Call) -> list[tuple[str, str]]:
        state = ("6", "Up") if call.answered is not None else ("4", "Ring")
        return [
            ("Channel", call.name), ("ChannelState", state[0]), ("ChannelStateDesc", state[1]),
            ("CallerIDNum", call.caller), ("Exten", call.called), ("Uniqueid", call.uniqueid),
            ("Linkedid", call.uniqueid),
        ]  # fmt: skip

    def _set_timeout(self, call: Call, seconds: str) -> None:
        if call.timer is not None:
            call.timer.cancel()
        call.timer = asyncio.get_running_loop().call_later(float(seconds), self._expire, call)

    def _expire(self, call: Call) -> None:
        if call.up:
            self._later(self.hang_up(call))

    def _later(self, work: object) -> None:
        assert asyncio.iscoroutine(work)

        async def guarded() -> None:
            await work

        task = asyncio.create_task(guarded())
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)

    def _no_timers(self, call: Call) -> None:
        for timer in (call.timer, call.dial_timer):
            if timer is not None:
                timer.cancel()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _block(headers: list[tuple[str, str]]) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in headers).encode() + b"\r\n"


def _words(line: str) -> list[str]:
    """The words of a command, as ``shlex`` takes them: double quotes and backslashes mean the same there."""
    import shlex

    return shlex.split(line)
