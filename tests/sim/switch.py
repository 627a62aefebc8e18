"""A switch: it makes calls, believes what it is answered, repeats what is not, and goes down."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Protocol

import msgspec

from tollkeeper.core.records import (
    Authorise,
    Charge,
    Command,
    Outcome,
    Refund,
    Reply,
    Start,
    Stop,
    Update,
)

if TYPE_CHECKING:
    from tests.sim.loop import VirtualLoop

FINAL_ERRORS = {"unknown_session", "session_refused", "session_id_reused", "message_id_reused"}
ANSWER_SECONDS = 3.0
"""How long a switch waits for an answer (its Tx timer)."""


class Wire(Protocol):
    """The way from a switch to the nodes."""

    async def ask(
        self, party: int, command: Command, message_id: str, request: bytes, seconds: float
    ) -> Reply | str | None:
        """Send and wait; None when no answer came in time."""

    @property
    def faulty(self) -> bool:
        """Whether faults are still going on."""


class Call:
    """One call at its switch; ``speed`` is how fast the switch's clock runs."""

    def __init__(self, key: str, party: int, chance: random.Random) -> None:
        self.key = key
        self.party = party
        self.speed = chance.choice([1.0, 1.0, 0.98, 1.03])
        self.wish = chance.expovariate(1 / 90)
        self.ring = chance.choice([0.5, 6.0, 30.0, 150.0])
        self.answered = chance.random() < 0.8
        self.interim = chance.choice([10.0, 30.0, 1e9])
        self.says_start = chance.random() < 0.9
        self.obeys = chance.random() < 0.93
        self.stop_lost = chance.random() < 0.05
        self.stop_after = chance.choice([0.0] * 9 + [400.0])
        self.slice = chance.choice([20, 60, 300])
        self.cut = asyncio.Event()
        self.messages = 0


class Switch:
    """Makes calls until it is told to stop; ``reboot`` forgets all that are up."""

    def __init__(
        self,
        name: str,
        loop: VirtualLoop,
        chance: random.Random,
        wire: Wire,
        customers: int,
        messages: float,
    ) -> None:
        self.name = name
        self.calls: dict[str, Call] = {}
        self._loop = loop
        self._chance = chance
        self._wire = wire
        self._customers = customers
        self._messages = messages
        self._count = 0
        self._tasks: dict[asyncio.Task[None], None] = {}

    @property
    def busy(self) -> bool:
        """Whether calls are up or their ends are not yet confirmed."""
        return bool(self._tasks)

    def place(self) -> None:
        """Begin a call, or send a message."""
        self._count += 1
        if self._chance.random() < self._messages:
            party = self._chance.randint(1, self._customers)
            self._run(self._message(Call(f"{self.name}/m{self._count}", party, self._chance)))
            return
        call = Call(
            f"{self.name}/{self._count}", self._chance.randint(1, self._customers), self._chance
        )
        self.calls[call.key] = call
        self._run(self._one(call))

    def _run(self, work: object) -> None:
        task = self._loop.create_task(work)  # type: ignore[arg-type]
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    def reboot(self) -> None:
        """All calls are gone, and most of the ends that were not confirmed."""
        for task in list(self._tasks):
            task.cancel()
        self.calls.clear()

    def kill(self, key: str) -> bool:
        """End a call by order; False when there is none."""
        call = self.calls.get(key)
        if call is not None and call.obeys:
            call.cut.set()
        return call is not None

    async def _send(
        self, call: Call, command: Command, message_id: str, tries: int, **content: object
    ) -> Reply | str | None:
        """Send until an answer comes; every copy of a message has the same identity and content."""
        request = msgspec.json.encode({"type": type(command).__name__, **content})
        for attempt in range(tries):
            answer = await self._wire.ask(call.party, command, message_id, request, ANSWER_SECONDS)
            if isinstance(answer, Reply) or answer in FINAL_ERRORS:
                return answer
            await asyncio.sleep(min(60.0, 0.5 * 2**attempt) * self._chance.uniform(0.9, 1.1))
        return None

    async def _one(self, call: Call) -> None:
        try:
            command = Authorise(
                call.key, call.party, "4420", requested_seconds=call.slice,
                start_expected=call.says_start,
            )  # fmt: skip
            if self._chance.random() < 0.03:
                # A switch in confusion: the same id for two calls. One of them is an error.
                other = msgspec.structs.replace(command, called="331")
                self._run(self._say(call, other, "authorise", called="331"))
            reply = await self._send(call, command, "authorise", 2, party=call.party)
            if not isinstance(reply, Reply):
                # The caller has gone elsewhere; the hold, if there is one, must end by itself.
                if self._chance.random() < 0.5:
                    await self._stop(call, 0)
                return
            if reply.outcome is not Outcome.GRANTED:
                return
            await asyncio.sleep(call.ring)
            used_ms = await self._talk(call, reply.granted_seconds) if call.answered else 0
            if not call.stop_lost:
                await asyncio.sleep(call.stop_after)
                await self._stop(call, used_ms)
        finally:
            self.calls.pop(call.key, None)

    async def _message(self, call: Call) -> None:
        """Send a message of some segments; of those that are charged some come back undelivered."""
        units = self._chance.choice([1, 1, 3, 10])
        command = Charge(call.key, call.party, "4420", units)
        reply = await self._send(call, command, "charge", 3, party=call.party, units=units)
        if not isinstance(reply, Reply) or reply.outcome is not Outcome.CHARGED:
            return
        if self._chance.random() < 0.4:
            lost = self._chance.choice([None, 1, units])
            await asyncio.sleep(self._chance.uniform(0, 30))
            await self._send(call, Refund(call.key, lost), "refund", 100, units=lost)

    async def _talk(self, call: Call, granted: int) -> int:
        """Talk until somebody hangs up or the grant is used; return the usage in milliseconds."""
        began = self._loop.time()
        if call.says_start:
            self._run(self._say(call, Start(call.key), "start"))

        def used() -> float:
            return (self._loop.time() - began) * call.speed

        next_interim = call.interim
        while True:
            horizon = min(call.wish, next_interim, granted - 3.0 if granted > 6 else granted)
            pause = max(0.1, (horizon - used()) / call.speed)
            try:
                async with asyncio.timeout(pause):
                    await call.cut.wait()
            except TimeoutError:
                pass
            now_used = used()
            over = now_used >= granted and call.obeys
            if call.cut.is_set() or now_used >= call.wish or over:
                return int(min(now_used, granted) * 1000) if call.obeys else int(now_used * 1000)
            next_interim = now_used + call.interim
            call.messages += 1
            answer = await self._send(
                call, Update(call.key, int(now_used * 1000)), f"u{call.messages}", 2,
                used_ms=int(now_used * 1000),
            )  # fmt: skip
            if isinstance(answer, Reply):
                granted = max(granted, answer.granted_seconds)
                if (answer.terminate or answer.outcome is Outcome.CLOSED) and call.obeys:
                    return int(used() * 1000)
            if not isinstance(answer, Reply) or answer.final:
                # No more will come: talk on to the end of what was granted.
                next_interim = max(granted, used() + 10.0)

    async def _say(self, call: Call, command: Command, message_id: str, **content: object) -> None:
        await self._send(call, command, message_id, 2, **content)

    async def _stop(self, call: Call, used_ms: int) -> None:
        """Report the end until it is confirmed, for hours if need be."""
        if self._chance.random() < 0.1 and used_ms > 2000:
            # An interim that was left behind in a queue.
            late = Update(call.key, used_ms - 1000, extend=False)
            self._run(self._report(call, late, "late"))
        await self._report(call, Stop(call.key, used_ms), "stop")

    async def _report(self, call: Call, command: Update | Stop, message_id: str) -> None:
        await self._send(call, command, message_id, 100, used_ms=command.used_ms)
