"""What is seen while calls run: a live table on a terminal, plain lines without one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tollkeeper.cli.common import table
from tollkeeper.cli.demo.scene import Customer
from tollkeeper.cli.demo.switch import Switch

REFRESH_SECONDS = 0.5
LINE_SECONDS = 5.0
NEWS_SHOWN = 5


@dataclass(slots=True)
class Wallets:
    """The customers' wallets as the API shows them; amounts stay the strings that they are there."""

    by_party: dict[str, dict[str, Any]] = field(default_factory=dict)

    async def read(self, http: httpx.AsyncClient, cast: Sequence[Customer]) -> None:
        """Ask the API for all wallets."""
        answers = await asyncio.gather(
            *(http.get(f"/v1/parties/{customer.code}/wallets") for customer in cast)
        )
        for customer, answer in zip(cast, answers, strict=True):
            if answer.status_code == 200:
                self.by_party[customer.code] = answer.json()["items"][0]


class View:
    """Shows the run while its block lasts; ``tell`` adds a line of news."""

    def __init__(
        self,
        console: Console,
        http: httpx.AsyncClient,
        switch: Switch,
        cast: Sequence[Customer],
        *,
        seconds: int,
    ) -> None:
        self.wallets = Wallets()
        self._console = console
        self._http = http
        self._switch = switch
        self._cast = cast
        self._seconds = seconds
        self._began = time.monotonic()
        self._news: list[str] = []
        self._live: Live | None = None
        self._task: asyncio.Task[None] | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Begin to show."""
        self._began = time.monotonic()
        await self.wallets.read(self._http, self._cast)
        if self._console.is_terminal:
            live = Live(self._render(), console=self._console, auto_refresh=False)
            self._live = self._stack.enter_context(live)
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Show the last state and stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if kind is None:
            await self.wallets.read(self._http, self._cast)
            self._show()
        await self._stack.aclose()

    def tell(self, text: str) -> None:
        """Add a line of news."""
        line = f"{self._elapsed:5.1f} s  {text}"
        self._news.append(line)
        if self._live is None:
            self._console.print(line, markup=False, soft_wrap=True)

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    async def _run(self) -> None:
        pause = REFRESH_SECONDS if self._live is not None else LINE_SECONDS
        while True:
            await asyncio.sleep(pause)
            try:
                await self.wallets.read(self._http, self._cast)
            except httpx.HTTPError:
                continue  # the next look will tell
            self._show()

    def _show(self) -> None:
        if self._live is not None:
            self._live.update(self._render(), refresh=True)
        else:
            self._console.print(self._line(), markup=False, soft_wrap=True)

    # --- what is shown ---------------------------------------------------------------------------

    def _headline(self) -> str:
        tally = self._switch.tally
        rate, p50, p99 = tally.speed(time.monotonic())
        return (
            f"{tally.calls_up} calls up, {tally.granted.total()} granted, "
            f"{tally.refused.total()} refused, {tally.settled} settled; "
            f"{rate:.0f} operations/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms"
        )

    def _line(self) -> str:
        money = ", ".join(
            f"{code} {wallet['available']}" for code, wallet in self.wallets.by_party.items()
        )
        return f"{self._elapsed:5.1f} s  {self._headline()}; available: {money}"

    def _render(self) -> RenderableType:
        left = max(0, round(self._seconds - self._elapsed))
        head = Text(f"{self._headline()}   ", style="bold")
        head.append(f"{left} s to go" if left else "calls end and are settled", style="dim")
        return Group(head, "", self.customers(), "", self.reasons(), *self._news[-NEWS_SHOWN:])

    def customers(self) -> Table:
        """Each customer with its calls and its wallet."""
        tally = self._switch.tally
        rows = []
        for customer in self._cast:
            code = customer.code
            wallet = self.wallets.by_party.get(code, {})
            refused = sum(count for (who, _), count in tally.refused.items() if who == code)
            rows.append(
                (
                    code,
                    customer.story,
                    tally.up[code],
                    tally.granted[code],
                    refused,
                    tally.cut[code],
                    *(wallet.get(name, "") for name in ("balance", "held", "available")),
                )
            )
        columns = [
            "customer", "", "up>", "granted>", "refused>", "cut off>", "balance>", "held>", "available>",
        ]  # fmt: skip
        return table("", columns, rows)

    def reasons(self) -> Text:
        """Why calls were refused, and what the network did to messages."""
        tally = self._switch.tally
        by_reason: dict[str, int] = {}
        for (_, reason), count in tally.refused.items():
            by_reason[reason] = by_reason.get(reason, 0) + count
        refused = ", ".join(
            f"{reason} {count}"
            for reason, count in sorted(by_reason.items(), key=lambda item: -item[1])
        )
        slips = tally.slips
        fates = tally.fates
        return Text(
            f"refused: {refused or 'none'}\n"
            f"network: {slips['lost']} messages lost, {slips['unheard']} answers lost, "
            f"{slips['twice']} doubled; {tally.repeated} answers given again from memory\n"
            f"switch: {fates['crash']} calls forgotten, {fates['late']} late STOPs, "
            f"{fates['reordered']} reports overtaken"
            + "".join(f"; {count} x {name}" for name, count in tally.problems.items())
        )
