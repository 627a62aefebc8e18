"""A fake FreeSWITCH: its event socket with the events, headers and commands of the real one.

Calls are made, answered and ended by the test; what the program under test does with them is seen
on :class:`Call`. It can also misbehave: lose, repeat or hold back events, refuse or never answer
commands, drop its connections, restart with a new Core-UUID. It writes the protocol by itself,
without the codec under test. What it cannot prove is what only the real switch does; see
docs/how-to/connect-freeswitch.md.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
import uuid as uuids
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from tests.protocols.freeswitch_events import (
    CAUSES,
    Call,
    Pairs,
    base_headers,
    channel_headers,
    encode_event,
    frame,
    plain,
)


@dataclass(eq=False)
class _Client:
    writer: asyncio.StreamWriter
    authenticated: bool = False
    form: str = "plain"
    events: set[str] = field(default_factory=set)


@dataclass(eq=False)
class _Task:
    id: int
    call: Call
    cause: str
    at: int
    handle: asyncio.TimerHandle


class FakeFreeSwitch:
    """A switch on a loopback port; ``clock_error`` seconds is how wrong its clock is."""

    def __init__(self, password: str = "ClueCon", *, clock_error: float = 0.0) -> None:
        self.password = password
        self.clock_error = clock_error
        self.core = str(uuids.uuid4())
        self.port = 0
        self.calls: dict[str, Call] = {}
        self.commands: list[str] = []
        self.logins = 0
        self.lose: set[str] = set()
        self.repeat: set[str] = set()
        self.held: list[tuple[str, Pairs, str]] | None = None
        self.hang: set[str] = set()
        self.refuse: dict[str, str] = {}
        self.rude = False
        self.on_routed: Callable[[Call], None] | None = None
        self._server: asyncio.Server | None = None
        self._clients: set[_Client] = set()
        self._jobs: set[asyncio.Task[None]] = set()
        self._schedule: dict[int, _Task] = {}
        self._ids = itertools.count(7)
        self._sequence = itertools.count(400)

    # --- the process -----------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen; again on the port of before, if there was one."""
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, limit=1 << 20
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """End the process: connections and timers end; calls are forgotten, not hung up."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in self._schedule.values():
            task.handle.cancel()
        self._schedule.clear()
        self.drop()
        jobs = list(self._jobs)
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)

    async def restart(self) -> None:
        """Crash and come back: no event tells of the calls that were up, the Core-UUID is a new one."""
        await self.stop()
        now = self.now()
        for call in self.calls.values():
            call.ended = call.ended or now
        self.calls.clear()
        self.core = str(uuids.uuid4())
        await self.start()

    def drop(self) -> None:
        """Break all connections; the calls go on."""
        for client in list(self._clients):
            client.writer.transport.abort()

    def now(self) -> int:
        """The switch's clock, in microseconds."""
        return time.time_ns() // 1000 + int(self.clock_error * 1e6)

    # --- what a test does to it ------------------------------------------------------------------

    def dial(
        self,
        called: str,
        *,
        caller: str = "442071838750",
        account: str = "acme",
        uuid: str = "",
        **variables: str,
    ) -> Call:
        """A call comes in and the dialplan parks it."""
        call = Call(
            uuid or str(uuids.uuid4()), caller, called, account, dict(variables), self.now()
        )
        self.calls[call.uuid] = call
        self.emit("CHANNEL_CREATE", call)
        self.park(call)
        return call

    def park(self, call: Call) -> None:
        """The dialplan marks a call and parks it."""
        call.variables["tollkeeper"] = "park"
        call.variables["current_application"] = "park"
        call.parked = True
        self.emit("CHANNEL_PARK", call)

    def bring(self, called: str, *, uuid: str, account: str = "acme", **variables: str) -> Call:
        """A call that the dialplan authorised over HTTP: nothing is parked."""
        call = Call(uuid, "442071838750", called, account, dict(variables), self.now())
        call.variables["tollkeeper"] = "curl"
        self.calls[uuid] = call
        self.emit("CHANNEL_CREATE", call)
        return call

    def answer(self, call: Call) -> None:
        """The called side answers; the channel does what its variables say for this moment."""
        call.answered = self.now()
        self.emit("CHANNEL_ANSWER", call)
        for name, value in list(call.variables.items()):
            if name.startswith("execute_on_answer"):
                application, _, data = value.partition(" ")
                assert application == "sched_hangup", value
                when, _, cause = data.partition(" ")
                self._add_task(call, int(when.removeprefix("+")), cause or "ALLOTTED_TIMEOUT")

    def hang_up(self, call: Call, cause: str = "NORMAL_CLEARING") -> None:
        """The call ends."""
        if not call.live:
            return
        assert cause in CAUSES, f"the switch has no cause {cause}"
        call.ended, call.cause, call.state = self.now(), cause, "CS_REPORTING"
        for task in [task for task in self._schedule.values() if task.call is call]:
            self._delete(task)
        self.calls.pop(call.uuid, None)
        self.emit("CHANNEL_HANGUP", call)
        self.emit("CHANNEL_HANGUP_COMPLETE", call)

    def emit(self, name: str, call: Call) -> None:
        """Send an event of a channel to whom it is for."""
        if name in self.lose:
            return
        for _ in range(2 if name in self.repeat else 1):
            self._send(name, self.channel_headers(name, call))

    def release(self, *, reverse: bool = False) -> None:
        """Send what was held back (``held`` is a list meanwhile), in this order or the other."""
        waiting, self.held = self.held or [], None
        for name, headers, body in reversed(waiting) if reverse else waiting:
            self._send(name, headers, body)

    @property
    def connected(self) -> int:
        """How many clients are logged on."""
        return sum(client.authenticated for client in self._clients)

    @property
    def tasks(self) -> list[tuple[str, float]]:
        """The scheduled hangups: of which channel, and how many seconds from now."""
        return [(task.call.uuid, (task.at - self.now()) / 1e6) for task in self._schedule.values()]

    @property
    def task_ids(self) -> set[int]:
        """Which hangups are scheduled."""
        return set(self._schedule)

    # --- events ----------------------------------------------------------------------------------

    def _base(self, name: str) -> Pairs:
        return base_headers(name, self.core, self.now(), next(self._sequence))

    def channel_headers(self, name: str, call: Call) -> Pairs:
        """The headers of a channel's event, its variables last."""
        return channel_headers(name, call, self._base(name))

    def _send(self, name: str, headers: Pairs, body: str = "") -> None:
        if self.held is not None:
            self.held.append((name, headers, body))
            return
        for client in list(self._clients):
            if client.authenticated and (name in client.events or "ALL" in client.events):
                self._write(client, encode_event(headers, body, client.form))

    # --- the protocol ----------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = _Client(writer)
        self._clients.add(client)
        job = asyncio.current_task()
        if job is not None:
            self._jobs.add(job)
        try:
            if self.rude:
                text = "Access Denied, go away.\n"
                self._write(client, frame("text/rude-rejection", text))
                return
            self._write(client, b"Content-Type: auth/request\n\n")
            while True:
                block = (await reader.readuntil(b"\n\n")).decode().strip("\n")
                if not await self._command(client, block):
                    return
        except (asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            pass
        finally:
            self._clients.discard(client)
            if job is not None:
                self._jobs.discard(job)
            with suppress(OSError, RuntimeError):
                writer.close()

    async def _command(self, client: _Client, block: str) -> bool:
        first, *lines = block.split("\n")
        self.commands.append(first)
        word, _, rest = first.partition(" ")
        if word == "auth":
            if rest != self.password:
                self._reply(client, "-ERR invalid")
                self._write(client, frame("text/disconnect-notice", "Disconnected, goodbye.\n"))
                return False
            client.authenticated = True
            self.logins += 1
            self._reply(client, "+OK accepted")
        elif not client.authenticated:
            self._reply(client, "-ERR command not found")
        elif word == "event":
            client.form, *names = rest.split()
            client.events |= set(names)
            self._reply(client, f"+OK event listener enabled {client.form}")
        elif word == "api":
            answer = await self._api(rest)
            self._write(client, frame("api/response", answer))
        elif word == "bgapi":
            job = next((line[10:] for line in lines if line.startswith("Job-UUID: ")), "")
            job = job or str(uuids.uuid4())
            headers = [("Reply-Text", f"+OK Job-UUID: {job}"), ("Job-UUID", job)]
            self._write(client, frame("command/reply", "", headers))
            task = asyncio.create_task(self._background(job, rest))
            self._jobs.add(task)
            task.add_done_callback(self._jobs.discard)
        else:
            self._reply(client, "-ERR command not found")
        return True

    async def _background(self, job: str, command: str) -> None:
        answer = await self._api(command)
        name, _, argument = command.partition(" ")
        headers = self._base("BACKGROUND_JOB")
        headers += [("Job-UUID", job), ("Job-Command", name), ("Job-Command-Arg", argument)]
        self._send("BACKGROUND_JOB", headers, answer)

    def _reply(self, client: _Client, text: str) -> None:
        self._write(client, frame("command/reply", "", [("Reply-Text", text)]))

    @staticmethod
    def _write(client: _Client, data: bytes) -> None:
        with suppress(OSError, RuntimeError):
            client.writer.write(data)

    # --- commands --------------------------------------------------------------------------------

    async def _api(self, command: str) -> str:
        name, _, rest = command.partition(" ")
        if name in self.hang:
            await asyncio.get_running_loop().create_future()
        if name in self.refuse:
            return self.refuse[name]
        if name == "show":
            return self._show(rest)
        if name == "global_getvar":
            return self.core if rest == "core_uuid" else ""
        if name == "status":
            return "UP 0 years, 0 days, 0 hours, 1 minute\nFreeSWITCH is ready\n"
        if name == "sched_del":
            return self._unschedule(rest)
        if name == "sched_hangup":
            when, _, rest = rest.partition(" ")
        uuid, _, rest = rest.partition(" ")
        call = self.calls.get(uuid)
        if name == "uuid_exists":
            return "true" if call else "false"
        if call is None:
            return "-ERR No such channel!\n"
        if name == "sched_hangup":
            return self._sched_hangup(call, when, rest)
        return self._channel_command(name, call, rest)

    def _channel_command(self, name: str, call: Call, rest: str) -> str:
        if name == "uuid_setvar":
            key, _, value = rest.partition(" ")
            call.variables[key] = value
        elif name == "uuid_setvar_multi":
            for pair in rest.split(";"):
                key, _, value = pair.partition("=")
                call.variables[key] = value
        elif name == "uuid_getvar":
            return call.variables.get(rest, "_undef_")
        elif name == "uuid_transfer":
            extension, dialplan, context = rest.split(" ")
            assert dialplan == "XML", rest
            call.transferred.append((extension, context))
            call.parked, call.context = False, context
            call.variables["current_application"] = "bridge"
            if self.on_routed is not None:
                self.on_routed(call)
        elif name == "uuid_park":
            call.state = "CS_PARK"
            self.park(call)
        elif name == "uuid_kill":
            self.hang_up(call, rest or "NORMAL_CLEARING")
        elif name == "uuid_dump":
            return plain(self.channel_headers("CHANNEL_DATA", call)) + "\n"
        else:
            return "-ERR command not found!\n"
        return "+OK\n"

    def _sched_hangup(self, call: Call, when: str, cause: str) -> str:
        seconds = int(when.removeprefix("+")) if when.startswith("+") else int(when) - (
            self.now() // 10**6
        )  # fmt: skip
        if seconds == 0:
            self.hang_up(call, cause or "ALLOTTED_TIMEOUT")
        else:
            self._add_task(call, seconds, cause or "ALLOTTED_TIMEOUT")
        return "+OK\n"

    def _add_task(self, call: Call, seconds: int, cause: str) -> None:
        loop = asyncio.get_running_loop()
        number = next(self._ids)
        task = _Task(
            number, call, cause, self.now() + seconds * 10**6,
            loop.call_later(seconds, self._run_out, number),
        )  # fmt: skip
        self._schedule[number] = task
        self._tell_task("ADD_SCHEDULE", task)

    def _run_out(self, number: int) -> None:
        task = self._schedule.pop(number, None)
        if task is not None:
            self._tell_task("EXE_SCHEDULE", task)
            self.hang_up(task.call, task.cause)

    def _delete(self, task: _Task) -> None:
        task.handle.cancel()
        self._schedule.pop(task.id, None)
        self._tell_task("DEL_SCHEDULE", task)

    def _unschedule(self, what: str) -> str:
        found = [task for task in self._schedule.values() if what in {str(task.id), task.call.uuid}]
        for task in found:
            self._delete(task)
        return "+OK\n" if found else "-ERR no such id\n"

    def _tell_task(self, name: str, task: _Task) -> None:
        if name in self.lose:
            return
        self._send(
            name,
            [
                *self._base(name),
                ("Task-ID", str(task.id)),
                ("Task-Desc", "switch_ivr_schedule_hangup"),
                ("Task-Group", task.call.uuid),
                ("Task-Runtime", str(task.at // 10**6)),
            ],
        )

    def _show(self, what: str) -> str:
        if what == "channels as json":
            rows: list[dict[str, str]] = [
                {
                    "uuid": call.uuid,
                    "direction": call.direction,
                    "created": "2026-11-21 18:00:00",
                    "created_epoch": str(call.created // 10**6),
                    "name": f"sofia/external/{call.caller}@127.0.0.1:5080",
                    "state": call.state,
                    "cid_name": f"Caller {call.caller}",
                    "cid_num": call.caller,
                    "ip_addr": "127.0.0.1",
                    "dest": call.called,
                    "context": call.context,
                    "callstate": "ACTIVE" if call.answered else "RINGING",
                    "call_uuid": call.uuid,
                    "hostname": "fake-switch",
                }
                for call in self.calls.values()
            ]
        elif what == "tasks as json":
            rows = [
                {
                    "task_id": str(task.id),
                    "task_desc": "switch_ivr_schedule_hangup",
                    "task_group": task.call.uuid,
                    "task_runtime": str(task.at // 10**6),
                    "hostname": "fake-switch",
                }
                for task in self._schedule.values()
            ]
        else:
            return "-USAGE: codec|endpoint|application|channels|calls|tasks\n"
        return json.dumps({"row_count": len(rows), **({"rows": rows} if rows else {})})
