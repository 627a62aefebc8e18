"""Two servers and their PostgreSQL are killed under load, again and again; no money is lost or made.

The servers are real processes (``tollkeeper serve``) that die by ``kill -9``; PostgreSQL stops as in
a power failure (``immediate``: no checkpoint, recovery at the next start). The clients do what a
switch does: they send a message again, to either server, until it is answered. They keep their own
account of what was used, and it is compared with the books.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import ROWS, UK_FIXED, UK_MOBILE, Customer, Node, World, until
from tollkeeper.core.rating import price
from tollkeeper.services.verify import verify
from tollkeeper.store.db import Database
from tollkeeper.store.embedded import EmbeddedPostgres
from tollkeeper.store.migrate import migrate

CRASHES = 20
CLIENTS = 24
CALLS_BETWEEN = 60
"""So many messages are answered between two crashes at least."""
TARIFFS = {UK_FIXED: ROWS[0].tariff, UK_MOBILE: ROWS[1].tariff}


@dataclass
class Ledger:
    """The clients' own account: what was charged by each wallet as they know it."""

    charged: dict[str, Decimal] = field(
        default_factory=lambda: {"acme": Decimal(0), "poor": Decimal(0)}
    )
    ids: dict[str, str] = field(default_factory=dict)
    answered: int = 0
    lost: int = 0
    replayed: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)


class Switch:
    """Asks either server, and asks again until there is an answer."""

    def __init__(self, nodes: list[Node], token: str, ledger: Ledger, rng: random.Random) -> None:
        self._nodes, self._rng, self.ledger = nodes, rng, ledger
        self._client = httpx.AsyncClient(
            headers={"authorization": f"Bearer {token}"},
            timeout=5,
            limits=httpx.Limits(max_connections=100),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def ask(self, path: str, **body: Any) -> dict[str, Any]:
        """Send a message until it is answered; the same bytes every time."""
        lost = False
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 60
        while True:
            assert loop.time() < deadline, f"{path} was never answered"
            try:
                response = await self._client.post(
                    self._rng.choice(self._nodes).url + path, json=body
                )
            except httpx.TransportError:
                lost = True
                self.ledger.lost += 1
                await asyncio.sleep(0.02)
                continue
            if response.status_code == 503:
                lost = True
                await asyncio.sleep(0.02)
                continue
            assert response.status_code == 200, f"{path}: {response.status_code} {response.text}"
            answer: dict[str, Any] = response.json()
            self.ledger.answered += 1
            # A repeat that is answered from store: the crash came after the commit (F10).
            self.ledger.replayed += lost and answer["repeated"]
            return answer

    async def call(self, name: str, party: str, called: str) -> None:
        """One call from beginning to end, as the model sees it."""
        rng, ledger = self._rng, self.ledger
        answer = await self.ask(
            "/v1/sessions", session_id=name, party=party, called=called, requested_seconds=30
        )
        ledger.outcomes[answer["outcome"]] += 1
        ledger.ids[name] = answer["id"]
        if answer["outcome"] == "refused":
            return
        granted = answer["granted_seconds"]
        path = f"/v1/sessions/{name}"
        await self.ask(f"{path}/start")
        used = 0
        for _ in range(rng.randrange(3)):
            used = rng.randrange(used, granted + 1)
            answer = await self.ask(f"{path}/update", used_seconds=used)
            granted = answer["granted_seconds"]
        used = rng.randrange(used, granted + 1)
        answer = await self.ask(f"{path}/stop", used_seconds=used, cause="16")
        tariff = TARIFFS[called]
        assert Decimal(answer["charge"]) == price(tariff, used)
        assert answer["id"] == ledger.ids[name]
        ledger.charged[party] += price(tariff, used)


class Cluster:
    """The PostgreSQL that is crashed, and the handle of its latest start."""

    def __init__(self, server: EmbeddedPostgres, bin_dir: Path | None) -> None:
        self._server, self._bin_dir = server, bin_dir
        self.url = server.url

    def crash(self) -> None:
        """Stop it as a power failure would."""
        self._server.stop("immediate", force=True)

    def start(self) -> None:
        """Start it; it recovers from its log."""
        self._server = EmbeddedPostgres.start(self._server.data_dir, bin_dir=self._bin_dir)


@pytest.mark.crash
@pytest.mark.slow
async def test_f9_f10_nothing_is_lost_or_doubled_over_twenty_crashes(
    durable_server: EmbeddedPostgres, pg_bin_dir: Path | None, tmp_path: Path
) -> None:
    """F9, F10, F12, F13, F26: 10 times a server is killed and 10 times PostgreSQL, under load."""
    seed = int(os.environ.get("TOLLKEEPER_TEST_SEED", "0")) or random.SystemRandom().randrange(
        10**6
    )
    print(f"TOLLKEEPER_TEST_SEED={seed}")
    rng = random.Random(seed)
    cluster = Cluster(durable_server, pg_bin_dir)
    migrate(cluster.url)
    with World(cluster.url) as world:
        customers = [world.customer("acme", balance="100000"), world.customer("poor", balance="8")]
        token = world.key("charge")
    nodes = [Node(cluster.url, tmp_path / f"node{number}.log") for number in range(2)]
    ledger = Ledger()
    switch = Switch(nodes, token, ledger, rng)
    over = asyncio.Event()

    async def client(number: int) -> None:
        turn = 0
        while not over.is_set():
            turn += 1
            party = "poor" if number % 6 == 0 else "acme"
            await switch.call(f"c{number}-{turn}", party, rng.choice([UK_FIXED, UK_MOBILE]))

    try:
        for node in nodes:
            node.start()
        await until(lambda: _all_answer(nodes), seconds=30)
        clients = [asyncio.create_task(client(number)) for number in range(CLIENTS)]
        for crash in range(CRASHES):
            target = ledger.answered + CALLS_BETWEEN
            await until(
                lambda target=target: ledger.answered >= target or _failed(clients), seconds=60
            )
            await asyncio.sleep(rng.random() / 20)
            await _crash(crash, cluster, nodes)
            if _failed(clients):
                break
        over.set()
        await asyncio.gather(*clients)
        await _check(cluster.url, customers, ledger)
    finally:
        over.set()
        for node in nodes:
            node.kill()
        await switch.close()
        cluster.crash()
    print(f"{ledger.answered} answers, {ledger.lost} lost, {ledger.replayed} answered from store")


def _failed(clients: list[asyncio.Task[None]]) -> bool:
    return any(task.done() and task.exception() is not None for task in clients)


async def _all_answer(nodes: list[Node]) -> bool:
    return all([await node.answers() for node in nodes])


async def _crash(number: int, cluster: Cluster, nodes: list[Node]) -> None:
    """By turns: one server, PostgreSQL; every fifth time of a server both servers at once."""
    if number % 2:
        await asyncio.to_thread(cluster.crash)
        await asyncio.to_thread(cluster.start)
        return
    victims = nodes if number % 10 == 8 else [nodes[number // 2 % 2]]
    for node in victims:
        node.kill()
    for node in victims:
        node.start()
    await until(lambda: _all_answer(victims), seconds=30)


async def _check(url: str, customers: list[Customer], ledger: Ledger) -> None:
    """The clients' account and the books are the same, to the last digit; and the books hold."""
    database = Database(url)
    await database.open()
    try:
        report = await verify(database)
    finally:
        await database.close()
    assert report.clean, report.findings[:10]
    assert report.live_sessions == 0
    assert report.closed_sessions == len(ledger.ids)
    begun = {"acme": Decimal(100_000), "poor": Decimal(8)}
    with World.attached(url) as world:
        for customer in customers:
            wallet = world.wallet(customer)
            assert wallet.debited == ledger.charged[customer.code]
            assert wallet.balance == begun[customer.code] - ledger.charged[customer.code] >= 0
            assert (wallet.held, wallet.live) == (0, 0)
        stored = {
            row["key"]: str(row["id"]) for row in world.sql("SELECT key, id FROM closed_session")
        }
        assert stored == {f"sw1/{name}": id_ for name, id_ in ledger.ids.items()}
    # The test was one: requests were really lost, and calls of the small wallet really refused.
    assert ledger.lost > 0
    assert ledger.outcomes["refused"] > 0
