"""A connection to the event socket of one FreeSWITCH: log on, send commands, hear events.

Commands for calls go as background jobs, so that one that hangs in the switch holds up no other.
Every wait has an end: what was not answered in time is unknown, neither done nor refused.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from typing import Any

from tollkeeper.services.tasks import end
from tollkeeper.wire.esl import codec as esl
from tollkeeper.wire.esl import commands as esl_commands
from tollkeeper.wire.esl.codec import Decoder, Event, Frame, MalformedEsl

ANSWER_SECONDS = 2.5
"""A command that is not answered so soon is given up: whoever asks to end a call waits for 3 s."""
QUERY_SECONDS = 10.0
"""A list of very many channels takes the switch some seconds."""
CONNECT_SECONDS = 5.0
JOBS_MAX = 10_000
"""Jobs under way at once; the switch has a thread for each."""
_CHUNK = 64 * 1024


class LoginRefused(ConnectionError):
    """The switch does not let us in: a wrong password, or its list of addresses."""


class CommandFailed(Exception):
    """The switch answered that it did not do it; the text is its own."""


class EventSocket:
    """One connection that is logged on; ``hear`` is called with each event, in their order."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        hear: Callable[[Event], None],
    ) -> None:
        self._reader, self._writer = reader, writer
        self._hear = hear
        self._decoder = Decoder()
        self._replies: deque[asyncio.Future[Frame]] = deque()
        self._jobs: dict[str, asyncio.Future[str]] = {}
        self._names = (f"tk-{secrets.token_hex(8)}-{number}" for number in count())
        self._begun: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._why: Exception = ConnectionError("the connection was closed")
        self._task = asyncio.create_task(self._read(), name="event socket")

    @classmethod
    async def open(
        cls, host: str, port: int, password: str, hear: Callable[[Event], None]
    ) -> EventSocket:
        """Connect and log on.

        Raises:
            OSError: the switch cannot be reached, or says nothing. LoginRefused (one of them).
            MalformedEsl: it is no event socket.
        """
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            made = cls(reader, writer, hear)
            try:
                await asyncio.shield(made._begun)
                reply = (await made._send(esl_commands.auth(password))).reply
                if not reply.startswith("+OK"):
                    raise LoginRefused("the password of the event socket is wrong")
            except BaseException as error:
                await made.close()
                if isinstance(error, OSError) and isinstance(
                    made._why, MalformedEsl | LoginRefused
                ):
                    raise made._why from None
                raise
        return made

    async def subscribe(self, names: Sequence[str]) -> None:
        """Ask for events."""
        reply = (await self._timed(esl_commands.subscribe(names), ANSWER_SECONDS)).reply
        if not reply.startswith("+OK"):
            raise ConnectionError(f"the switch gives no events: {_shown(reply)}")

    async def query(self, command: bytes) -> bytes:
        """The answer to a command that asks for something.

        Raises:
            OSError: none came in time; the connection is closed then, for it would block all others.
        """
        return (await self._timed(command, QUERY_SECONDS)).body

    async def job(self, command: bytes) -> str:
        """Have a command carried out, and return what the switch said to it.

        Raises:
            CommandFailed: the switch refused it. OSError: it is not known whether it was done.
        """
        if len(self._jobs) >= JOBS_MAX:
            raise TimeoutError("too many commands are waiting for the switch")
        name = next(self._names)
        done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._jobs[name] = done
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                taken = await self._send(esl_commands.background(name, command))
                if not taken.reply.startswith("+OK"):
                    raise CommandFailed(_shown(taken.reply))
                answer = (await done).strip()
        except TimeoutError:
            raise TimeoutError("the switch did not answer a command in time") from None
        finally:
            self._jobs.pop(name, None)
            if done.done() and not done.cancelled():
                done.exception()  # looked at: the connection may have ended before we waited for it
        if answer.startswith("-"):
            raise CommandFailed(_shown(answer))
        return answer

    async def ended(self) -> Exception:
        """Wait until the connection is over; returns why."""
        await asyncio.wait([self._task])
        return self._why

    async def close(self) -> None:
        """End the connection; whoever waits for an answer is told."""
        # First, for whoever waits here may be cancelled.
        self._writer.close()
        await end([self._task])
        with suppress(OSError):
            await self._writer.wait_closed()

    # --- how -------------------------------------------------------------------------------------

    async def _timed(self, command: bytes, seconds: float) -> Frame:
        try:
            async with asyncio.timeout(seconds):
                return await self._send(command)
        except TimeoutError:
            self._writer.transport.abort()
            raise TimeoutError("the switch did not answer in time") from None

    async def _send(self, command: bytes) -> Frame:
        if self._task.done():
            raise ConnectionError(str(self._why))
        reply: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._replies.append(reply)
        self._writer.write(command)
        return await reply

    async def _read(self) -> None:
        try:
            while data := await self._reader.read(_CHUNK):
                for frame in self._decoder.feed(data):
                    self._take(frame)
            self._why = ConnectionError("the switch closed the connection")
        except (OSError, MalformedEsl) as error:
            self._why = error
        finally:
            unanswered: list[asyncio.Future[Any]] = [
                self._begun,
                *self._replies,
                *self._jobs.values(),
            ]
            for waiting in unanswered:
                if not waiting.done():
                    waiting.set_exception(ConnectionError(str(self._why)))
            # Nobody may be waiting for the first one any more, which is no fault.
            if not self._begun.cancelled():
                self._begun.exception()

    def _take(self, frame: Frame) -> None:
        if frame.kind in {esl.EVENT_PLAIN, esl.EVENT_JSON}:
            self._take_event(esl.parse_event(frame))
        elif frame.kind in {esl.COMMAND_REPLY, esl.API_RESPONSE}:
            if not self._replies:
                raise MalformedEsl("The switch answered what was not asked.")
            reply = self._replies.popleft()
            if not reply.done():
                reply.set_result(frame)
        elif frame.kind == esl.AUTH_REQUEST:
            if not self._begun.done():
                self._begun.set_result(frame)
        elif frame.kind == esl.REJECTION:
            raise LoginRefused("the switch's list of addresses (apply-inbound-acl) has not ours")
        elif frame.kind == esl.DISCONNECT:
            raise ConnectionError("the switch ended the connection")

    def _take_event(self, event: Event) -> None:
        if event.name != "BACKGROUND_JOB":
            self._hear(event)
            return
        waiting = self._jobs.get(event.get("Job-UUID"))
        if waiting is not None and not waiting.done():
            waiting.set_result(event.body)


def _shown(text: str) -> str:
    return "".join(c for c in text[:120] if c.isprintable()).strip()
