"""Meters in real books: written by two processes, proven by verify, and each fault in them named."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from tests.core.world import PER_SECOND, pin_of
from tests.support import Customer, World, gathered, runtime
from tollkeeper.core.rating import Tariff
from tollkeeper.core.records import (
    Authorise,
    CallCount,
    Charge,
    Command,
    Offer,
    Outcome,
    Refund,
    Reply,
    Role,
    Stop,
    Unit,
    Update,
)
from tollkeeper.core.terms import Package, Spend, Terms, Tier, TierStep
from tollkeeper.services.verify import VerifyReport, verify

D = Decimal
MESSAGE = Tariff(D("0.05"), D("0.05"), 1, 1, per=1)


async def send(parts: Any, command: Command, message_id: str = "") -> Reply:
    """The answer of the lane; without an id the message is named by its content."""
    request = msgspec.json.encode(msgspec.to_builtins(command))
    name = message_id or f"{type(command).__name__} {request.decode()}"
    reply, _ = await parts.lane.submit(command, name, request)
    assert isinstance(reply, Reply)
    return reply


@dataclass
class Metered:
    """A customer whose calls have a package, a tier and a daily cap, and a user who may call twice at once."""

    world: World
    customer: Customer
    meters: dict[str, int]
    lanes: list[Any]

    def meter(self, kind: str) -> dict[str, Any]:
        """A meter's row."""
        (row,) = self.world.sql("SELECT * FROM meter WHERE id = %s", self.meters[kind])
        return row

    @property
    def terms(self) -> Terms:
        """All that a leg can have."""
        steps = (TierStep(0), TierStep(100, percent=D(50)))
        steps = (msgspec.structs.replace(steps[0], percent=D(100)), steps[1])
        return Terms(
            packages=(Package(self.meters["package"], "minutes"),),
            tier=Tier(self.meters["tier"], "volume", steps),
            spend=(Spend(self.meters["spend"], "day"),),
        )

    def authorise(self, name: str, seconds: int = 60) -> Authorise:
        """A call of the customer's user."""
        party, wallet = self.customer.id, self.customer.wallet_id
        offer = Offer(Role.CUSTOMER, party, wallet, pin_of(PER_SECOND), self.terms)
        return Authorise(
            f"sw/{name}", party, "4420", requested_seconds=seconds, offers=(offer,),
            counts=(CallCount(self.meters["calls"], party, most=50),),
        )  # fmt: skip

    def charge(self, name: str, units: int) -> Charge:
        """Messages that count on the day's cap alone."""
        party, wallet = self.customer.id, self.customer.wallet_id
        terms = Terms(spend=self.terms.spend)
        offer = Offer(Role.CUSTOMER, party, wallet, pin_of(MESSAGE), terms)
        return Charge(f"sw/{name}", party, "4477", units, unit=Unit.MESSAGE, offers=(offer,))

    async def verify(self) -> VerifyReport:
        """Verify the database."""
        return await verify(self.lanes[0].database)


@pytest.fixture
async def metered(database_url: str) -> AsyncIterator[Metered]:
    """Nothing used yet; two processes."""
    world = World(database_url)
    customer = world.customer(balance="100")
    caps = {"package": D(100), "tier": None, "spend": D(50), "calls": None}
    meters = {
        kind: world.one(
            "INSERT INTO meter (party_id, kind, code, begins_at, cap)"
            " VALUES (%s, %s, 'm', now() - interval '9 days', %s) RETURNING id",
            customer.id, kind, cap,
        )
        for kind, cap in caps.items()
    }  # fmt: skip
    async with gathered(runtime(database_url), runtime(database_url)) as lanes:
        yield Metered(world, customer, meters, list(lanes))
    world.close()


async def some_of_everything(metered: Metered) -> None:
    """Settled, extended, late, refunded, refused and live."""
    one, two = metered.lanes
    await asyncio.gather(
        *[send(metered.lanes[n % 2], metered.authorise(f"c{n}")) for n in range(8)]
    )
    await send(one, Update("sw/c0", 59_000))
    await asyncio.gather(
        *[send(metered.lanes[(n + 1) % 2], Stop(f"sw/c{n}", 40_000 + n)) for n in range(1, 7)]
    )
    await send(two, Stop("sw/c1", 70_500), "late")
    assert (await send(one, metered.charge("m1", 4))).outcome is Outcome.CHARGED
    await send(two, Refund("sw/m1", 1))
    assert (await send(two, metered.charge("m2", 10_000))).outcome is Outcome.REFUSED


async def test_meters_that_two_processes_wrote_are_proven(metered: Metered) -> None:
    await some_of_everything(metered)
    report = await metered.verify()
    assert report.clean, report.findings
    rows = {kind: metered.meter(kind) for kind in metered.meters}
    assert rows["calls"]["held"] == 2
    assert rows["package"]["used"] + rows["package"]["held"] <= 100
    assert rows["tier"]["used"] > 100
    assert rows["tier"]["base"] > 0
    wallet = metered.world.wallet(metered.customer)
    assert (rows["spend"]["used"], rows["spend"]["held"]) == (
        wallet.debited - D("0.05"),
        wallet.held,
    )


async def test_the_last_free_units_are_given_once(metered: Metered) -> None:
    """Thirty-two calls on two processes that hold nothing but the package's hundred seconds."""
    metered.world.sql("UPDATE meter SET cap = 0, stamp = stamp + 1 WHERE kind = 'spend'")
    answers = await asyncio.gather(
        *[send(metered.lanes[n % 2], metered.authorise(f"c{n}", 30)) for n in range(32)]
    )
    assert sum(reply.granted_seconds for reply in answers) == 100
    assert metered.meter("package")["held"] == 100
    assert metered.world.wallet(metered.customer).held == 0
    report = await metered.verify()
    assert report.clean, report.findings
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    assert metered.world.one(deadlocks) == 0


FAULTS = {
    "units used that no call used": ("UPDATE meter SET used = used + 1 WHERE kind = 'package'", "I24.used"),
    "volume that was lost": ("UPDATE meter SET used = used - 1 WHERE kind = 'tier'", "I24.used"),
    "money of a volume that was lost": ("UPDATE meter SET base = base - 1 WHERE kind = 'tier'", "I24.base"),
    "spending that was forgotten": ("UPDATE meter SET used = 0 WHERE kind = 'spend'", "I24.used"),
    "a call counted that is over": ("UPDATE meter SET held = held + 1 WHERE kind = 'calls'", "I24.held"),
    "units set aside for ever": ("UPDATE meter SET held = held + 1 WHERE kind = 'package'", "I24.held"),
    "a meter that is gone": ("DELETE FROM meter WHERE kind = 'calls'", "I24.stray"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
async def test_each_fault_put_into_the_meters_is_named(metered: Metered, fault: str) -> None:
    change, code = FAULTS[fault]
    await some_of_everything(metered)
    metered.world.sql(change)
    report = await metered.verify()
    assert set(report.found) == {code}
    assert report.findings[0].guarantee
    assert report.breached == ()


async def test_what_older_sessions_used_is_not_asked_for_once_they_are_gone(
    metered: Metered,
) -> None:
    """Only what is held can then be proven: it belongs to calls that are up."""
    metered.world.sql(
        "UPDATE meter SET created_at = created_at - interval '9 days', used = 77 WHERE kind = 'package'"
    )
    assert (await metered.verify()).clean
    metered.world.sql("UPDATE meter SET held = 1 WHERE kind = 'package'")
    assert set((await metered.verify()).found) == {"I24.held"}


async def test_a_transfer_of_which_one_half_is_missing_is_found(metered: Metered) -> None:
    """The account of transfers stands at nothing in each currency, whenever one looks."""
    world, id_ = metered.world, metered.customer.wallet_id
    account = world.one(
        "INSERT INTO account (kind, currency, name) VALUES ('transfer', 'USD', '') RETURNING id"
    )
    world.sql(
        "INSERT INTO entry (day, at, code, debit_account, credit_account, amount, currency, wallet_id,"
        " wallet_version, balance_after) SELECT (now() AT TIME ZONE 'UTC')::date, now(), 'transfer_out',"
        " id, %s, 5, currency, id, version + 1, credited - debited - 5 FROM wallet WHERE id = %s",
        account,
        id_,
    )
    world.sql("UPDATE wallet SET debited = 5, version = version + 1 WHERE id = %s", id_)
    report = await metered.verify()
    assert set(report.found) == {"I25.transfer"}
    (book,) = report.books
    assert (book.transfer, book.wallets + book.others) == (5, 0)
