"""One run: nodes, switches, an operator and a bad network, first with faults and then without."""

from __future__ import annotations

import asyncio
import hashlib
import random
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal

import msgspec

from tests.sim.books import MemoryBooks
from tests.sim.loop import VirtualLoop
from tests.sim.model import Model
from tests.sim.node import (
    CALLS_METER,
    EXPIRE_EVERY,
    PACKAGE_METER,
    SPEND_METER,
    TIER_METER,
    Directory,
    Node,
    no_limits,
    owner,
)
from tests.sim.people import People
from tests.sim.plan import EPOCH, TIER_STEPS, Plan, plan
from tests.sim.store import MemoryDatabase
from tests.sim.switch import Switch
from tollkeeper.core.audit import Finding, audit, check_growth, check_step
from tollkeeper.core.batch import StoreAway
from tollkeeper.core.ledger import Code
from tollkeeper.core.records import (
    Authorise,
    Charge,
    Command,
    Outcome,
    Refund,
    Reply,
    Stop,
    Update,
    Wallet,
)
from tollkeeper.core.terms import Meter

AUDIT_EVERY = 60.0
LIVENESS_SECONDS = 4 * 3600.0
CLOSING_SECONDS = 900 + 120 + 60 + 4 * EXPIRE_EVERY
"""The longest call, the answer window and the grace: after that nothing may be open."""


class Broken(Exception):
    """A guarantee does not hold in this run."""


class Simulation:
    """Everything of one seed. ``run`` raises Broken with what was found."""

    def __init__(self, seed: int) -> None:
        self.plan: Plan = plan(seed)
        self.chance = random.Random(seed + 1)
        self.loop = VirtualLoop()
        self.books = MemoryBooks(observe=self._observe)
        self.database = MemoryDatabase(self.books)
        self.directory = Directory(self.plan)
        self.model = Model()
        self.people = People(self)
        self.faulty = True
        self.trace = hashlib.sha256()
        self.facts: dict[str, int] = {}
        self._outage_until = 0.0
        self._seen_entries: tuple[object, ...] = ()
        self._tasks: dict[asyncio.Task[object], str] = {}
        self._crash_turn = 0
        self._errors: list[str] = []
        self.nodes = [
            Node(
                f"node{n}", self.loop, self.plan, self.chance, self.database, self.directory,
                self._fault, self._end_tasks_of,
            )
            for n in range(2)
        ]  # fmt: skip
        self.switches = [
            Switch(
                f"switch{n}",
                self.loop,
                self.chance,
                self,
                self.plan.customers,
                self.plan.message_share,
            )
            for n in range(self.plan.switches)
        ]

    def run(self) -> str:
        """Run to the end; return a fingerprint of everything that happened."""
        self.loop.set_task_factory(self._make_task)
        self.loop.set_exception_handler(self._note_error)
        self.loop.on_turn = self._turn
        try:
            self.loop.run_until_complete(self._story())
            self._turn()
        finally:
            self.loop.on_turn = None
            for task in list(self._tasks):
                task.cancel()
            # Twice: the first may be ended by a stop that was meant for the run itself.
            for _ in range(2):
                with suppress(RuntimeError):
                    self.loop.run_until_complete(asyncio.sleep(1))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()
        return self.trace.hexdigest()

    # --- the two phases --------------------------------------------------------------------------

    async def _story(self) -> None:
        self._furnish()
        for node in self.nodes:
            node.begin()
        helpers = [
            self.loop.create_task(work)
            for work in (
                self._place_calls(), self.people.operate(), self._break_nodes(), self._break_store(),
                self._break_switches(), self._deliver_outbox(), self._audit_for_ever(),
            )
        ]  # fmt: skip
        await asyncio.sleep(self.plan.safety_seconds)
        self.faulty = False
        for helper in helpers[:5]:
            helper.cancel()
        self._outage_until = 0.0
        self._crash_turn = 0
        for node in self.nodes:
            if not node.up:
                node.begin()
        await self._liveness()
        for helper in helpers:
            helper.cancel()
        await self._probe()
        self._audit()
        self._complain(list(self.model.complaints(self.books, self.plan.silent_tail)))
        self._sum_up()

    def _sum_up(self) -> None:
        """What this run has met: a simulator that never sees a case proves nothing about it."""
        for entry in self.books.entries:
            self._count(f"entry {entry.code}")
        for session in self.books.sessions():
            self._count(f"ending {session.ending}")
            for mark in session.marks:
                self._count(f"marked {mark}")
        for row in self.books.outbox:
            self._count(f"event {row.event.kind}")
        if self.books.meters[TIER_METER].used > TIER_STEPS[1][0]:
            self._count("volume crosses a step")
        package = self.books.meters[PACKAGE_METER]
        if package.used == package.cap != 0:
            self._count("a package is used up")

    async def _liveness(self) -> None:
        """Without faults every call ends, and then nothing is open and nothing is held."""
        for _ in range(int(LIVENESS_SECONDS / 10)):
            if not any(switch.busy for switch in self.switches):
                break
            await asyncio.sleep(10)
        if any(switch.busy for switch in self.switches):
            self._complain(["LIVENESS: a switch never got its answers"])
        await asyncio.sleep(CLOSING_SECONDS)
        open_keys = sorted(self.books.live)
        if open_keys:
            self._complain([f"LIVENESS: still open: {open_keys[:5]}"])
        for wallet in self.books.wallets.values():
            if wallet.held or wallet.live:
                self._complain([f"LIVENESS: wallet {wallet.id} holds {wallet.held}"])
        for meter in self.books.meters.values():
            if meter.held:
                self._complain([f"LIVENESS: meter {meter.id} holds {meter.held}"])

    async def _probe(self) -> None:
        """Both nodes still work: a paid call goes through each."""
        for id_, wallet in list(self.books.wallets.items()):
            self.directory.limits[id_] = no_limits()
            await self.people.change(id_, parked=False)
            await self.people.pay(id_, max(Decimal(0), -wallet.available) + 100, Code.TOPUP)
        await self.people.raise_cap(SPEND_METER, Decimal(100))
        for node in self.nodes:
            key = f"probe/{node.name}"
            story = self.model.call(key, 1)
            offers = self.directory.offers(1)
            story.offered.append({o.wallet_id: o.pin.tariff for o in offers})
            reply = await node.handle(Authorise(key, 1, "4420", offers=offers), "authorise", b"{}")
            story.delivered.add(1000)
            end = await node.handle(Stop(key, 1000), "stop", b"{}")
            granted = isinstance(reply, Reply) and reply.outcome is Outcome.GRANTED
            if not granted or not isinstance(end, Reply) or not node.sound:
                self._complain([f"LIVENESS: {node.name} answers {reply} and {end}"])

    def _furnish(self) -> None:
        for id_ in range(1, self.plan.customers + 3):
            self.books.add_wallet(Wallet(id_, id_, self.directory.currency(id_)))
            self.people.change_tariff(id_)
            self.directory.limits[id_] = no_limits()
            self.books.top_up(id_, self.plan.money, EPOCH, Code.TOPUP)
            self.model.paid_in[id_] = self.plan.money
        reseller = self.directory.reseller
        for meter in (
            Meter(TIER_METER, 1),
            Meter(PACKAGE_METER, 1, cap=Decimal(self.plan.package_units)),
            Meter(SPEND_METER, reseller, cap=self.plan.spend_cap),
            Meter(CALLS_METER, 1),
        ):
            self.books.meters[meter.id] = meter

    # --- the network -----------------------------------------------------------------------------

    async def ask(
        self, party: int, command: Command, message_id: str, request: bytes, seconds: float
    ) -> Reply | str | None:
        """Send a request to some node, and perhaps another copy; the first answer counts."""
        answer: asyncio.Future[Reply | str] = self.loop.create_future()
        copies = 1
        while self.faulty and self.chance.random() < self.plan.doubled and copies < 4:
            copies += 1
        for _ in range(copies):
            self.loop.create_task(self._carry(party, command, message_id, request, answer))
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(answer)
        except TimeoutError:
            return None

    async def _carry(
        self,
        party: int,
        command: Command,
        message_id: str,
        request: bytes,
        answer: asyncio.Future[Reply | str],
    ) -> None:
        if not await self._travel():
            return
        node = self.chance.choice(self.nodes)
        if not node.up:
            return
        life = node.life
        story = self.model.call(command.key, party)
        if isinstance(command, Authorise):
            offers = node.directory.offers(party)
            story.offered.append({offer.wallet_id: offer.pin.tariff for offer in offers})
            counts = node.directory.counts_of(party)
            command = msgspec.structs.replace(command, offers=offers, counts=counts)
        elif isinstance(command, Charge):
            offers = node.directory.messages(party)
            story.offered.append({offer.wallet_id: offer.pin.tariff for offer in offers})
            story.delivered.add(command.units * 1000)
            command = msgspec.structs.replace(command, offers=offers)
        elif isinstance(command, Refund):
            story.refunds.add(command.units)
        elif isinstance(command, Update | Stop):
            story.delivered.add(command.used_ms)
        token = owner.set(node.name)
        work = self.loop.create_task(node.handle(command, message_id, request))
        owner.reset(token)
        await asyncio.wait([work])
        if work.cancelled() or node.life != life or not node.up:
            return
        result = work.result()
        self._note("answer", command.key, message_id, str(result)[:200])
        self._check_answer(command, message_id, request, result)
        if await self._travel() and not answer.done():
            answer.set_result(result)

    async def _travel(self) -> bool:
        """Wait for the network; False when the packet is lost."""
        delay = self.chance.expovariate(1 / self.plan.delay)
        if self.faulty and self.chance.random() < self.plan.slow:
            delay += self.chance.uniform(0, self.plan.slow_delay)
        lost = self.faulty and self.chance.random() < self.plan.lost
        await asyncio.sleep(delay)
        return not lost

    def _check_answer(
        self, command: Command, message_id: str, request: bytes, result: Reply | str
    ) -> None:
        """An answer tells of what is stored, and a repeat is answered as the first time."""
        if not isinstance(result, Reply):
            self._count(f"error {result}")
            return
        self._count(f"{type(command).__name__.lower()} {result.outcome} {result.reason}".strip())
        story = self.model.calls[command.key]
        if story.requests.setdefault(message_id, request) != request:
            self._complain([f"{command.key} {message_id}: taken with two contents"])
        session = self.books.session(command.key)
        if session is None or session.id != result.id:
            self._complain([f"{command.key}: answered {result}, stored is {session}"])
            return
        if isinstance(command, Update | Stop) and result.outcome is not Outcome.REFUSED:
            story.answered.add(command.used_ms)
            if session.used_ms < command.used_ms:
                self._complain([f"{command.key}: {command.used_ms} ms confirmed, not stored"])
        if isinstance(command, Stop):
            story.stop_answered = True
            if session.open:
                self._complain([f"{command.key}: its end was confirmed, yet it is open"])
        if isinstance(command, Refund):
            story.refund_answered = True
        known = self.books.load([command.key], EPOCH.date(), [command.key])[command.key]
        stored = known.messages.get(message_id)
        if isinstance(command, Authorise | Charge) and stored is None:
            self._complain([f"{command.key}: authorised without a trace"])
        first = story.replies.setdefault(message_id, result)
        if stored is not None and not result == stored.reply == first:
            self._complain([f"{command.key} {message_id}: {first}, then {result}"])

    # --- what breaks -----------------------------------------------------------------------------

    async def _fault(self, operation: str) -> None:
        """Every step to the database and back."""
        await asyncio.sleep(self.chance.expovariate(1 / self.plan.store_delay))
        if not self.faulty:
            return
        if self.loop.time() < self._outage_until:
            # Some connections break at once, others hang until somebody gives up.
            await asyncio.sleep(self.chance.choice([0.0, 0.0, 3.0]))
            raise StoreAway(f"outage at {operation}")
        if self.chance.random() < self.plan.store_away:
            raise StoreAway(f"connection lost at {operation}")

    async def _break_store(self) -> None:
        while True:
            await asyncio.sleep(self.chance.expovariate(1 / self.plan.outage_every))
            self._outage_until = self.loop.time() + self.chance.choice([1.0, 10.0, 40.0])
            self._count("outage")

    async def _break_nodes(self) -> None:
        """Choose a turn of the loop a little ahead: the node falls at whatever await it stands."""
        while True:
            await asyncio.sleep(self.chance.expovariate(1 / self.plan.crash_every))
            self._crash_turn = self.loop.turns + self.chance.randint(1, 200)

    def _turn(self) -> None:
        if self._errors:
            raise Broken("\n".join(self._errors))
        if self._crash_turn and self.loop.turns >= self._crash_turn:
            self._crash_turn = 0
            node = self.chance.choice(self.nodes)
            if node.up and self.faulty:
                self._count("crash")
                node.crash()
                self.loop.create_task(self._restart(node, self.chance.choice([0.1, 5.0, 60.0])))

    async def _restart(self, node: Node, seconds: float) -> None:
        await asyncio.sleep(seconds)
        if not node.up:
            node.begin()

    def _end_tasks_of(self, name: str) -> None:
        for task, whose in list(self._tasks.items()):
            if whose == name:
                task.cancel()

    async def _break_switches(self) -> None:
        while True:
            await asyncio.sleep(self.chance.expovariate(1 / self.plan.reboot_every))
            self.chance.choice(self.switches).reboot()
            self._count("reboot")

    # --- what people do --------------------------------------------------------------------------

    async def _place_calls(self) -> None:
        pause = self.plan.safety_seconds / self.plan.calls
        while True:
            for _ in range(self.chance.choice([1, 1, 1, 8])):
                self.chance.choice(self.switches).place()
            await asyncio.sleep(self.chance.expovariate(1 / pause))

    async def _deliver_outbox(self) -> None:
        """Tell switches to end calls, at least once."""
        while True:
            await asyncio.sleep(1.0)
            for row in self.books.outbox:
                if not row.done and row.event.kind == "session.kill":
                    row.done = await self._travel()
                    switch = row.key.partition("/")[0]
                    for known in self.switches:
                        if row.done and known.name == switch:
                            known.kill(row.key)

    # --- what is checked -------------------------------------------------------------------------

    def _observe(self, before: Wallet, after: Wallet, on_credit: Decimal, lowered: Decimal) -> None:
        self._note("wallet", str(after.id), str(after.available), str(after.stamp))
        self._report(list(check_step(before, after, on_credit, max(lowered, Decimal(0)))))

    async def _audit_for_ever(self) -> None:
        while True:
            await asyncio.sleep(AUDIT_EVERY)
            self._audit()

    def _audit(self) -> None:
        books = self.books.snapshot()
        now = EPOCH + timedelta(seconds=self.loop.time())
        # While nodes and the database are down nobody can close anything in time.
        patience = timedelta(days=1) if self.faulty else timedelta(seconds=CLOSING_SECONDS)
        findings = audit(books, now, patience)
        findings += check_growth(self._seen_entries, books.entries)  # type: ignore[arg-type]
        self._seen_entries = tuple(books.entries)
        self._report(findings)
        if any(node.up and not node.sound for node in self.nodes):
            self._complain(["a node's lane or job has ended by itself"])

    def _report(self, findings: list[Finding]) -> None:
        self._complain([f"{f.code} {f.subject}: {f.detail}" for f in findings])

    def _complain(self, complaints: list[str]) -> None:
        """Note what is wrong; the next turn of the loop ends the run, wherever this was found."""
        self._errors += complaints

    def _note(self, *what: str) -> None:
        self.trace.update(repr((round(self.loop.time(), 9), what)).encode())

    def _count(self, fact: str) -> None:
        self.facts[fact] = self.facts.get(fact, 0) + 1

    # --- the loop --------------------------------------------------------------------------------

    def _make_task(self, loop: asyncio.AbstractEventLoop, work: object, **more: object) -> object:
        task: asyncio.Task[object] = asyncio.Task(work, loop=loop, **more)  # type: ignore[arg-type]
        self._tasks[task] = owner.get()
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[object]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and isinstance(task.exception(), AssertionError):
            self._errors.append(str(task.exception()))

    def _note_error(self, _: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        # A future that nobody waits for any more, because its client was cut off, is no fault.
        if "callback" in str(context.get("message")).lower():
            self._errors.append(str(context))


def run(seed: int) -> Simulation:
    """Run one seed to its end."""
    simulation = Simulation(seed)
    simulation.run()
    return simulation
