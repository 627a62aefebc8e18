"""The course of the demonstration: set the scene, run the calls, show the end, prove the books."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice

import httpx
import psycopg
from rich.console import Console
from rich.rule import Rule

from tollkeeper.cli.books import render, render_report
from tollkeeper.cli.common import console
from tollkeeper.cli.demo.deck import DeckRow, make_deck
from tollkeeper.cli.demo.reseller import (
    RESELLER,
    TALKER,
    find_crossing,
    print_margin,
    sell_services,
    set_prices,
    volume_steps,
)
from tollkeeper.cli.demo.scene import (
    DECK,
    FLAT_RATE,
    SWITCH,
    TALKER_SHARE,
    Customer,
    create_parties,
    customers,
    import_cards,
    now,
)
from tollkeeper.cli.demo.server import running_server
from tollkeeper.cli.demo.sip import run_sip
from tollkeeper.cli.demo.switch import Switch, percentiles
from tollkeeper.cli.demo.traffic import Numbers, one_call, plan_calls
from tollkeeper.cli.demo.view import View
from tollkeeper.errors import SetupError
from tollkeeper.services.explain import explain
from tollkeeper.services.rates import ImportReport
from tollkeeper.services.verify import verify
from tollkeeper.settings import load_settings
from tollkeeper.store.db import Database
from tollkeeper.store.embedded import create_database, drop_database
from tollkeeper.store.migrate import migrate
from tollkeeper.telemetry import configure_logging
from tollkeeper.wiring import database_url

DATABASE = "tollkeeper_demo"
DRAINING, SUSPENDED = "harbour", "mirage"
PREFIXES_MIN = 20_000
SETTLE_CALL_SECONDS = 600
"""Longest wait for calls to end and for forgotten ones to expire, in call seconds, beside a real minute."""
REFUSALS_SHOWN = 4
LONG_CALL_SECONDS = 3_600
DRAIN_CALLS = 200
DRAIN_SECONDS = 10
"""As many calls are begun as use up what is left in so many seconds, but not too many at once."""
MORE_CALLS = 8
LOOK_SECONDS = 1.0
REST_SECONDS = 0.25
TALE_MESSAGES = 5


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asked for."""

    seconds: int
    speed: int
    calls_per_second: int
    seed: int
    keep: bool


def run_demo(options: Options) -> int:
    """Run the demonstration; 0 if the books hold, else 1."""
    out = console()
    settings = load_settings()
    configure_logging("error", settings.log_format)
    began = time.monotonic()
    deck = make_deck()
    out.print("starting the database ...")
    with database_url(settings) as base, _own_database(base, keep=options.keep) as url:
        out.print(f"database {DATABASE} is ready, {_since(began)}")
        clean = asyncio.run(_run(out, url, deck, options))
    _print_next(out, options)
    out.print(f"This took {_since(began)}.")
    return 0 if clean else 1


def run_sip_demo(*, keep: bool) -> int:
    """Run the demonstration with real SIP calls; 0 if the books hold, else 1."""
    out = console()
    settings = load_settings()
    configure_logging("error", settings.log_format)
    began = time.monotonic()
    out.print("starting the database ...")
    with database_url(settings) as base, _own_database(base, keep=keep) as url:
        clean = asyncio.run(run_sip(url, settings))
    out.print(f"This took {_since(began)}.")
    return 0 if clean else 1


@contextmanager
def _own_database(base: str, *, keep: bool) -> Iterator[str]:
    """A fresh database of the demonstration's own, removed at the end unless it is kept."""
    try:
        drop_database(base, DATABASE)
        url = create_database(base, DATABASE)
    except psycopg.Error as error:
        raise SetupError(
            f"The database {DATABASE} cannot be made here: {' '.join(str(error).split())}. "
            "Leave TOLLKEEPER_DATABASE_URL out to use a private PostgreSQL."
        ) from error
    try:
        migrate(url)
        yield url
    finally:
        if not keep:
            drop_database(base, DATABASE)


def _head(out: Console, text: str) -> None:
    """A headline: a rule across a terminal, a line of its own elsewhere."""
    out.print()
    out.print(Rule(text, align="left") if out.is_terminal else f"== {text}", markup=False)


def _since(began: float) -> str:
    return f"{time.monotonic() - began:.1f} s"


async def _run(out: Console, url: str, deck: list[DeckRow], options: Options) -> bool:
    cast = customers(seconds=options.seconds, calls_per_second=options.calls_per_second)
    async with _database(url) as database:
        await _set_rates(out, database, deck)
        volume = volume_steps(
            share=TALKER_SHARE, seconds=options.seconds, calls_per_second=options.calls_per_second
        )
        await set_prices(database, deck=DECK, volume=volume, now=now)
        token = await create_parties(database, cast)
        for customer in cast:
            out.print(
                f"  {customer.code:<10} {customer.name:<18} plan {customer.plan:<9} {customer.story}"
            )
        steps = ", ".join(f"{percent} % from minute {start}" for start, percent in volume[1:])
        out.print(f"{TALKER} pays by its volume of the month: {steps}", markup=False)
        tales = await _run_calls(out, url, token, cast, Numbers(deck), options)
        return await _prove(out, database, tales)


@asynccontextmanager
async def _database(url: str) -> AsyncIterator[Database]:
    database = Database(url, size=2)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


# --- rates ---------------------------------------------------------------------------------------


async def _set_rates(out: Console, database: Database, deck: list[DeckRow]) -> None:
    _head(out, "Rate cards")
    began = time.monotonic()

    def say(report: ImportReport) -> None:
        nonlocal began
        out.print(
            f"{report.file_name}: {report.rows_in} rows in = {report.rows_stored} stored + "
            f"{report.rows_refused} refused; "
            f"{_counts(report)}; active as version {report.version} after {_since(began)}",
            soft_wrap=True,
        )
        for refusal in report.refusals[:REFUSALS_SHOWN]:
            out.print(
                f"  line {refusal.line} refused: {refusal.field} {refusal.value!r}: {refusal.reason}",
                markup=False,
                soft_wrap=True,
            )
        began = time.monotonic()

    def progress(*_: object) -> None:
        pass

    change = await import_cards(database, deck, say=say, progress=progress)
    countries = len({row.country for row in deck})
    out.print(f"{DECK} prices {len(deck)} prefixes in {countries} countries.")
    out.print(
        f"{change.file_name}, only looked at (--dry-run): {_counts(change)}; nothing is changed",
        soft_wrap=True,
    )
    for move in change.moves[:2]:
        out.print(
            f"  {move.status}: {move.destination} ({move.prefix}) "
            f"{move.old_price} -> {move.new_price} a minute"
            + (f" from {move.effective:%Y-%m-%d}" if move.effective else " at activation"),
            markup=False,
            soft_wrap=True,
        )


def _counts(report: ImportReport) -> str:
    return ", ".join(f"{count} {status}" for status, count in report.counts.items() if count)


# --- calls ---------------------------------------------------------------------------------------


async def _run_calls(
    out: Console, url: str, token: str, cast: list[Customer], numbers: Numbers, options: Options
) -> list[str]:
    """Run all calls to their end; returns the ids of calls that may be worth explaining, the best first."""
    shares = {customer.code: customer.share for customer in cast}
    plan = list(
        plan_calls(
            numbers,
            shares,
            seconds=options.seconds,
            calls_per_second=options.calls_per_second,
            seed=options.seed,
            punctual=DRAINING,
        )
    )
    async with running_server(url, speed=options.speed) as address:
        _head(out, f"Calls at {options.speed} times their speed, by {address}")
        switch = Switch(address, token, speed=options.speed)
        headers = {"authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(base_url=address, headers=headers, timeout=10.0) as http:
            try:
                async with View(out, http, switch, cast, seconds=options.seconds) as view:
                    beside = asyncio.gather(
                        _suspend(http, view, options.seconds / 2),
                        _sell(http, view, options.seconds / 4),
                    )
                    switch.on_refusal = _teller(view)
                    await switch.play(plan)
                    view.tell("no more calls are begun; those that are up end and are settled")
                    await beside
                    await _drain(http, switch, view, numbers, len(plan), cast, options)
                    await _settle(http, switch, view, cast, options)
            finally:
                await switch.close()
    _print_traffic(out, switch, view)
    tales = switch.tally.tales
    # One that asked for more time once or twice shows everything and still fits on a screen.
    usual = min(tales, key=lambda tale: abs(tale[0] - TALE_MESSAGES))[1:] if tales else ()
    return [*(call.session_id for call in plan if call.party == TALKER), *usual]


async def _sell(http: httpx.AsyncClient, view: View, after: float) -> None:
    await asyncio.sleep(after)
    await sell_services(http, view.tell)


async def _suspend(http: httpx.AsyncClient, view: View, after: float) -> None:
    await asyncio.sleep(after)
    answer = await http.patch(f"/v1/parties/{SUSPENDED}", json={"status": "suspended"})
    told = "its calls end, new ones are refused" if answer.is_success else answer.text
    view.tell(f"{SUSPENDED} is suspended: {told}")


def _teller(view: View) -> Callable[[str, str], None]:
    """Tells of the first refusal for want of money."""
    told: set[str] = set()

    def tell(party: str, reason: str) -> None:
        if reason == "insufficient_funds" and party not in told:
            told.add(party)
            view.tell(f"{party}'s money is used up or held: a call is refused, {reason}")

    return tell


async def _drain(
    http: httpx.AsyncClient,
    switch: Switch,
    view: View,
    numbers: Numbers,
    count: int,
    cast: list[Customer],
    options: Options,
) -> None:
    """Let the draining customer talk until its wallet is at zero and a call is refused."""
    random_ = random.Random(options.seed)  # noqa: S311 (a simulation, which must be repeatable)
    deadline = time.monotonic() + options.seconds + 20
    calls = (
        one_call(numbers, number, 0.0, DRAINING, random_, talk_seconds=LONG_CALL_SECONDS)
        for number in range(count + 1, count + DRAIN_CALLS)
    )
    for call in calls:
        before = switch.tally.granted[DRAINING]
        task = switch.begin(call)
        while not (await asyncio.wait({task}, timeout=LOOK_SECONDS))[0]:
            # What other calls give back at their end would keep this one alone up for long.
            await view.wallets.read(http, cast)
            left = Decimal(view.wallets.by_party[DRAINING]["available"])
            wanted = min(MORE_CALLS, int(left / (FLAT_RATE / 60 * options.speed * DRAIN_SECONDS)))
            for more in islice(calls, max(0, wanted - switch.tally.up[DRAINING])):
                switch.begin(more)
        refused = switch.tally.granted[DRAINING] == before
        if refused and (switch.tally.up[DRAINING] == 0 or time.monotonic() > deadline):
            break
        if refused:
            # Others of its calls still hold money; what they give back is used up next.
            await asyncio.sleep(REST_SECONDS)
    view.tell(f"{DRAINING} has talked to the end of its money")


async def _settle(
    http: httpx.AsyncClient, switch: Switch, view: View, cast: list[Customer], options: Options
) -> None:
    """Wait until every call has ended: by its STOP, or by the server where none came."""
    patience = 60 + SETTLE_CALL_SECONDS / options.speed
    deadline = time.monotonic() + patience
    await switch.finish(patience)
    while True:
        await view.wallets.read(http, cast)
        left = sum(wallet["live_sessions"] for wallet in view.wallets.by_party.values())
        if not left or time.monotonic() > deadline:
            break
        await asyncio.sleep(REST_SECONDS)
    forgotten = switch.tally.fates["crash"]
    view.tell(
        f"{left} calls are still open"
        if left
        else f"all is settled; the server closed {forgotten} forgotten calls by itself"
    )


def _print_traffic(out: Console, switch: Switch, view: View) -> None:
    tally = switch.tally
    p50, p99 = percentiles(tally.latencies)
    if not out.is_terminal:
        out.print(view.customers())
        out.print(view.reasons())
    out.print(
        f"{tally.operations} requests over HTTP, each answered after its commit: "
        f"p50 {p50:.1f} ms, p99 {p99:.1f} ms",
        soft_wrap=True,
    )
    _head(out, f"The wallet of {DRAINING} is empty")
    wallet = view.wallets.by_party[DRAINING]
    out.print(f"balance {wallet['balance']} {wallet['currency']}, held {wallet['held']}")
    if (refusal := tally.last_refusal.get(DRAINING)) is not None:
        shown = {
            name: refusal[name]
            for name in (
                "called",
                "outcome",
                "reason",
                "reason_text",
                "sip_code",
                "q850",
                "granted_seconds",
            )
        }
        out.print(f"The next call got this answer:\n{json.dumps(shown, indent=2)}", markup=False)


# --- the proof -----------------------------------------------------------------------------------


async def _prove(out: Console, database: Database, tales: list[str]) -> bool:
    _head(out, f"The reseller {RESELLER}")
    await print_margin(out, database)
    _head(out, "The books")
    began = time.monotonic()
    report = await verify(database)
    out.print(render_report(report), markup=False)
    out.print(f"Proven in {_since(began)}." if report.clean else "The books do not hold.")
    if tales:
        names = [f"{SWITCH}/{tale}" for tale in tales]
        told = await find_crossing(database, names) or await explain(database, names[-1])
        _head(out, f"One call, explained: {len(told.legs)} levels pay for it")
        out.print(render(told), markup=False)
    return report.clean


def _print_next(out: Console, options: Options) -> None:
    _head(out, "What to try next")
    lines = [
        ("tollkeeper serve", "run the server; it says how to make an API key"),
        (
            "tollkeeper rates create SELL --currency USD",
            "then: tollkeeper rates import FILE --card SELL",
        ),
        ("tollkeeper plan create gold --card SELL", "what customers are sold by"),
        (
            "tollkeeper party create acme --plan gold --currency USD --top-up 100",
            "a customer with money",
        ),
        ("tollkeeper price 4915112345678 --party acme", "what a call would cost, and why"),
        ("docs/tutorial/first-calls.md", "the same, step by step"),
    ]
    if options.keep:
        lines.insert(
            0, (f"the database {DATABASE} was kept", "set TOLLKEEPER_DATABASE_URL to look around")
        )
    for command, meaning in lines:
        out.print(f"  {command:<70} {meaning}", markup=False, soft_wrap=True)
