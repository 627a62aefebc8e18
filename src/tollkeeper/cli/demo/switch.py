"""A simulated switch: it plays planned calls and asks the server for each, over the real HTTP API.

It behaves as switches do: it asks for more time near the end of each grant, ends a call whose last
grant is used up, loses messages and answers and sends them again, and forgets a call now and then.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec

from tollkeeper.cli.demo.traffic import Fate, PlannedCall, Slip, slips_of

SLICE_SECONDS = 60
AHEAD_SECONDS = 10
"""More time is asked for so many call seconds before a grant ends."""
RETRY_SECONDS = 0.25
ATTEMPTS = 8
LATE_SECONDS = 90
"""So many call seconds after a grant a server surely has closed the session: 60 of grace, and its timer."""
RECENT = 4000
CONNECTIONS = 24
"""Requests under way at once. More wait here: httpx's own queue takes ever longer as it grows."""


@dataclass(slots=True)
class Tally:
    """What the switch has seen so far; times in real seconds."""

    up: Counter[str] = field(default_factory=Counter)
    tried: Counter[str] = field(default_factory=Counter)
    granted: Counter[str] = field(default_factory=Counter)
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    settled: int = 0
    cut: Counter[str] = field(default_factory=Counter)
    """Calls ended because the money was used up, or because the server said so."""
    slips: Counter[str] = field(default_factory=Counter)
    fates: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    """Answers that the server gave from its memory."""
    problems: Counter[str] = field(default_factory=Counter)
    operations: int = 0
    recent: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=RECENT))
    latencies: list[float] = field(default_factory=list)
    last_refusal: dict[str, dict[str, Any]] = field(default_factory=dict)
    tales: list[tuple[int, str]] = field(default_factory=list)
    """Settled calls worth telling of: how many messages each had, and its id."""

    @property
    def calls_up(self) -> int:
        """Calls that are ringing or up."""
        return self.up.total()

    def speed(self, now: float) -> tuple[float, float, float]:
        """Operations per second, and the latency's median and 99th percentile in ms, of late."""
        late = [(at, took) for at, took in self.recent if at > now - 3]
        if not late:
            return 0.0, 0.0, 0.0
        span = max(0.5, now - late[0][0])
        p50, p99 = percentiles([took for _, took in late])
        return len(late) / span, p50, p99


def percentiles(latencies: list[float]) -> tuple[float, float]:
    """Median and 99th percentile of seconds, in milliseconds."""
    if not latencies:
        return 0.0, 0.0
    ranked = sorted(latencies)
    return ranked[len(ranked) // 2] * 1000, ranked[len(ranked) * 99 // 100] * 1000


class Refused(Exception):
    """The server answered a message with a problem; the call ends here."""


class Switch:
    """Plays calls; ``speed`` is how many call seconds pass in one real second."""

    def __init__(self, base_url: str, token: str, *, speed: int) -> None:
        self.tally = Tally()
        self.on_refusal: Callable[[str, str], None] = lambda _party, _reason: None
        self._speed = speed
        self._http = httpx.AsyncClient(
            base_url=base_url,
            headers={"authorization": f"Bearer {token}", "content-type": "application/json"},
            limits=httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS),
            timeout=10.0,
        )
        self._turn = asyncio.Semaphore(CONNECTIONS)
        self._calls: set[asyncio.Task[None]] = set()

    async def play(self, calls: list[PlannedCall]) -> None:
        """Begin each call at its time; returns when the last one has begun."""
        began = time.monotonic()
        for call in calls:
            wait = began + call.at - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            self.begin(call)

    def begin(self, call: PlannedCall) -> asyncio.Task[None]:
        """Begin a call in the background."""
        task = asyncio.create_task(self._call(call))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        return task

    async def finish(self, seconds: float) -> bool:
        """Wait for all calls to end; False if some have not after ``seconds``."""
        if self._calls:
            await asyncio.wait(set(self._calls), timeout=seconds)
        return not self._calls

    async def close(self) -> None:
        """End what is under way and close the connections."""
        for task in self._calls:
            task.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
        await self._http.aclose()

    # --- one call --------------------------------------------------------------------------------

    async def _call(self, call: PlannedCall) -> None:
        tally = self.tally
        tally.tried[call.party] += 1
        tally.up[call.party] += 1
        try:
            await self._live(call)
        except Refused as error:
            tally.problems[str(error)] += 1
        finally:
            tally.up[call.party] -= 1

    async def _live(self, call: PlannedCall) -> None:
        slips = slips_of(call)
        body = {
            "session_id": call.session_id,
            "party": call.party,
            "called": call.called,
            "caller": call.caller,
            "requested_seconds": SLICE_SECONDS,
        }
        answer = await self._send("/v1/sessions", body, next(slips))
        if answer["outcome"] == "refused":
            self.tally.refused[call.party, answer["reason"]] += 1
            self.tally.last_refusal[call.party] = {"called": call.called, **answer}
            self.on_refusal(call.party, answer["reason"])
            return
        self.tally.granted[call.party] += 1
        await self._pass(call.ring_seconds)
        if call.fate is Fate.CRASH and not call.talk_seconds:
            self.tally.fates[Fate.CRASH] += 1
            return
        used, messages = await self._talk(call, answer, slips)
        if used is None:
            return
        if call.fate is Fate.LATE and call.talk_seconds:
            self.tally.fates[Fate.LATE] += 1
            await self._pass(SLICE_SECONDS + LATE_SECONDS)
        cause = "normal_clearing" if call.talk_seconds else "no_answer"
        path = f"/v1/sessions/{call.session_id}/stop"
        await self._send(path, {"used_seconds": used, "cause": cause}, next(slips))
        self.tally.settled += 1
        if used and call.fate is Fate.NONE:
            self.tally.tales.append((messages, call.session_id))

    async def _talk(
        self, call: PlannedCall, answer: dict[str, Any], slips: Iterator[Slip]
    ) -> tuple[int | None, int]:
        """Talk until the caller hangs up or the money ends: seconds used, None if the switch crashed."""
        used, messages = 0, 2
        if not call.talk_seconds:
            return 0, messages
        path = f"/v1/sessions/{call.session_id}"
        await self._send(f"{path}/start", {}, next(slips))
        granted, final = answer["granted_seconds"], answer["final"]
        while used < call.talk_seconds:
            ahead = 0 if final else min(AHEAD_SECONDS, (granted - used) // 2)
            until = min(call.talk_seconds, granted - ahead)
            await self._pass(until - used)
            before, used = used, until
            if used >= call.talk_seconds:
                break
            if call.fate is Fate.CRASH:
                self.tally.fates[Fate.CRASH] += 1
                return None, messages
            if final:
                self.tally.cut[call.party] += 1
                break
            answer = await self._send(f"{path}/update", {"used_seconds": used}, next(slips))
            messages += 1
            granted, final = answer["granted_seconds"], answer["final"]
            if call.fate is Fate.REORDERED and before:
                self.tally.fates[Fate.REORDERED] += 1
                old = {"used_seconds": before, "request_id": f"overtaken-{before}"}
                await self._send(f"{path}/update", old, Slip.NONE)
            # Closed by the server in the meantime: it heard nothing of this call for too long.
            if answer["terminate"] or answer["outcome"] == "closed":
                self.tally.cut[call.party] += 1
                break
        return used, messages

    async def _pass(self, call_seconds: int) -> None:
        await asyncio.sleep(call_seconds / self._speed)

    # --- one message -----------------------------------------------------------------------------

    async def _send(self, path: str, body: dict[str, Any], slip: Slip) -> dict[str, Any]:
        """Bring a message to the server through a network that slips; returns its answer."""
        content = msgspec.json.encode(body)
        if slip is not Slip.NONE:
            self.tally.slips[slip] += 1
        if slip is Slip.LOST:
            await asyncio.sleep(RETRY_SECONDS)
        elif slip is Slip.UNHEARD:
            await self._post(path, content)
            await asyncio.sleep(RETRY_SECONDS)
        elif slip is Slip.TWICE:
            answers = await asyncio.gather(self._post(path, content), self._post(path, content))
            return answers[0]
        return await self._post(path, content)

    async def _post(self, path: str, content: bytes) -> dict[str, Any]:
        """Ask until the server answers; a busy server is asked again, as its answer says."""
        problem = "no answer"
        for _ in range(ATTEMPTS):
            try:
                async with self._turn:
                    began = time.monotonic()
                    response = await self._http.post(path, content=content)
                    now = time.monotonic()
            except httpx.TransportError as error:
                problem = type(error).__name__
                await asyncio.sleep(RETRY_SECONDS)
                continue
            self.tally.operations += 1
            self.tally.recent.append((now, now - began))
            self.tally.latencies.append(now - began)
            answer: dict[str, Any] = msgspec.json.decode(response.content)
            if response.status_code == 200:
                self.tally.repeated += answer["repeated"]
                return answer
            problem = f"{response.status_code} {answer.get('code', '')}"
            if response.status_code != 503:
                break
            await asyncio.sleep(RETRY_SECONDS)
        raise Refused(problem)
