"""The demonstration with real SIP calls: SIPp calls SIPp through Kamailio, which asks Tollkeeper."""

from __future__ import annotations

import asyncio
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from rich.console import Console

from tollkeeper.cli.books import render, render_report
from tollkeeper.cli.common import console
from tollkeeper.cli.connect.kamailio_files import Site
from tollkeeper.cli.demo.kamailio import Kamailio, running_kamailio
from tollkeeper.cli.demo.sipp import Sipp, SippCall, gateway, holding, talking
from tollkeeper.errors import SetupError
from tollkeeper.services.explain import explain
from tollkeeper.services.parties import create_party, create_plan
from tollkeeper.services.peers import create_peer
from tollkeeper.services.rate_cards import create_card
from tollkeeper.services.rates import activate, import_sheet
from tollkeeper.services.verify import verify
from tollkeeper.services.wallets import create_wallet, get_wallets, top_up
from tollkeeper.settings import Settings
from tollkeeper.store.db import Database
from tollkeeper.store.parties import Party, PlanCard
from tollkeeper.store.peers import Peer
from tollkeeper.wiring import Runtime, open_network, open_runtime

ACTOR, CARD, SWITCH, CURRENCY = "demo", "sip", "kamailio", "USD"
DECK = b"Prefix,Destination,Rate,First Interval,Next Interval\n44,United Kingdom,0.60,1,1\n"
CALLED = "442071838750"
SLICE_SECONDS = 4
CONNECT_SECONDS = 15.0
SETTLE_SECONDS = 15.0
LOOK_SECONDS = 0.05
TALK_MS = 3_000


@dataclass(frozen=True, slots=True)
class Customer:
    """Who calls, with how much money, and what will become of it."""

    code: str
    money: Decimal
    story: str


CAST = (
    Customer("broke", Decimal(0), "has no money: the call is refused before it rings"),
    Customer("talker", Decimal(5), f"talks for {TALK_MS // 1000} s and hangs up"),
    Customer("short", Decimal("0.06"), "has money for 6 s and would go on: it is cut off"),
)


async def run_sip(url: str, settings: Settings) -> bool:
    """Run the calls on a migrated database; whether the books hold."""
    out = console()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tollkeeper-sip-")))
        answering = stack.enter_context(gateway(folder))
        site = Site(secret="demonstration")  # noqa: S106 - both ends are ours, for some seconds
        kamailio = stack.enter_context(
            running_kamailio(folder, gateway_port=answering.port, site=site, by_user=True)
        )
        out.print(f"Kamailio listens on 127.0.0.1:{kamailio.sip_port}, a gateway answers behind it")
        async with open_runtime(url, settings) as runtime:
            await _furnish(runtime.database, kamailio)
            async with open_network(runtime, settings):
                await _connected(runtime)
                out.print("Tollkeeper is connected to Kamailio; a second to 44 costs one cent")
                calls = await _call(folder, kamailio)
                await _settled(runtime)
            await _tell(out, runtime.database, calls)
            return await _prove(out, runtime.database, calls)


async def _furnish(database: Database, kamailio: Kamailio) -> None:
    now = datetime.now(UTC)
    await create_card(database, code=CARD, currency=CURRENCY, name="SIP", actor=ACTOR)
    report = await import_sheet(
        database, card=CARD, data=DECK, actor=ACTOR, now=now, file_name="sip.csv"
    )
    assert report.version is not None
    await activate(database, card=CARD, version=report.version, actor=ACTOR, now=now)
    await create_plan(database, code=CARD, name="SIP", cards=[PlanCard(card=CARD)], actor=ACTOR)
    for customer in CAST:
        party = Party(customer.code, customer.code.title(), plan=CARD)
        await create_party(database, party, actor=ACTOR)
        await create_wallet(database, party=customer.code, currency=CURRENCY, actor=ACTOR)
        if customer.money:
            await top_up(
                database,
                party=customer.code,
                currency=CURRENCY,
                amount=customer.money,
                reason="demonstration",
                actor=ACTOR,
                clock=lambda: datetime.now(UTC),
            )
    options = {
        "connect": f"127.0.0.1:{kamailio.evapi_port}",
        "rpc": kamailio.rpc_url,
        "slice": SLICE_SECONDS,
        "accounts_are_parties": True,
    }
    peer = Peer(0, SWITCH, SWITCH, SWITCH, secret=kamailio.site.secret, options=options)
    await create_peer(database, peer, actor=ACTOR)


async def _connected(runtime: Runtime) -> None:
    deadline = time.monotonic() + CONNECT_SECONDS
    while not runtime.board.reach.has(SWITCH, SWITCH):
        if time.monotonic() > deadline:
            raise SetupError("Tollkeeper did not reach Kamailio's evapi port.")
        await asyncio.sleep(LOOK_SECONDS)
    # The secret is said right after the connection is made.
    await asyncio.sleep(LOOK_SECONDS * 4)


async def _call(folder: Path, kamailio: Kamailio) -> dict[str, SippCall]:
    """Three calls at once; what each caller lived through, by its name."""
    target = kamailio.sip_port
    callers = [
        Sipp(folder, "broke", talking(), target=target, lines=[("broke", CALLED, TALK_MS)]),
        Sipp(folder, "talker", talking(), target=target, lines=[("talker", CALLED, TALK_MS)]),
        Sipp(folder, "short", holding(), target=target, lines=[("short", CALLED)]),
    ]
    for caller in callers:
        caller.start()
    lived = await asyncio.gather(*(asyncio.to_thread(caller.wait) for caller in callers))
    return {call.caller: call for calls in lived for call in calls}


async def _settled(runtime: Runtime) -> None:
    deadline = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < deadline:
        peer = runtime.board.book.named(SWITCH, SWITCH)
        if peer is not None and not await runtime.board.open_calls(peer):
            return
        await asyncio.sleep(LOOK_SECONDS)


async def _tell(out: Console, database: Database, calls: dict[str, SippCall]) -> None:
    for customer in CAST:
        call = calls[customer.code]
        if call.refused:
            end = f"refused with {call.refused} after {call.waited * 1000:.0f} ms"
        else:
            who = "cut off by BYE" if "cut" in call.moments else "hung up"
            end = f"answered, {who} after {call.seconds:.2f} s"
        (wallet,) = await get_wallets(database, customer.code)
        out.print(
            f"  {customer.code:<8} {customer.story:<52} {end:<42} balance {customer.money} -> "
            f"{wallet.balance:.2f}",
            markup=False,
            soft_wrap=True,
        )


async def _prove(out: Console, database: Database, calls: dict[str, SippCall]) -> bool:
    report = await verify(database)
    out.print(render_report(report), markup=False)
    told = await explain(database, f"{SWITCH}/{calls['short'].call_id}")
    out.print("The call that was cut off, explained:")
    out.print(render(told), markup=False)
    return report.clean
