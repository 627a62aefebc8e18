"""A world in which messages are decided one by one, with the books checked after each.

``Table`` reads scenarios written in words, one line a message with what it must be answered.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec

from tests.sim.books import MemoryBooks
from tollkeeper.core.audit import Finding, audit, check_step
from tollkeeper.core.batch import Batch, Written, change_of, tally
from tollkeeper.core.ledger import Code
from tollkeeper.core.rating import Tariff
from tollkeeper.core.reasons import Reason
from tollkeeper.core.records import (
    Authorise,
    Charge,
    Command,
    Decision,
    Expire,
    Kill,
    Limits,
    Offer,
    Outcome,
    Pin,
    Policy,
    Refund,
    Reply,
    Role,
    Session,
    Start,
    Stop,
    Update,
    Wallet,
    enrol,
)
from tollkeeper.core.session import View, decide
from tollkeeper.core.terms import Meter, Terms
from tollkeeper.errors import TollkeeperError

D = Decimal
T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
PER_SECOND = Tariff(D("0.60"), D("0.60"), 1, 1)
"""One cent a second: the prices in the tables can be done in the head."""


def pin_of(tariff: Tariff, currency: str = "USD") -> Pin:
    """A pinned rate."""
    return Pin(1, "retail", 1, 7, "44", "United Kingdom", currency, tariff)


class World:
    """Decisions one by one on books in memory; each wallet belongs to the party of its number."""

    def __init__(
        self, money: dict[int, Decimal], policy: Policy | None = None, currency: str = "USD"
    ) -> None:
        self.policy = policy or Policy()
        self.now = T0
        self.limits: dict[int, Limits] = {}
        self.books = MemoryBooks(observe=self._observe)
        self.findings: list[Finding] = []
        self._count = 0
        for id_, amount in money.items():
            self.books.add_wallet(Wallet(id_, id_, currency))
            if amount:
                self.books.top_up(id_, amount, self.now, Code.TOPUP)

    def _observe(self, before: Wallet, after: Wallet, on_credit: Decimal, lowered: Decimal) -> None:
        self.findings += check_step(before, after, on_credit, max(lowered, D(0)))

    def add_meter(self, id_: int, cap: int | str | None = None, used: int | str = 0) -> None:
        """Make a meter of party 1; what is used stands for calls before this world."""
        meter = Meter(id_, 1, cap=None if cap is None else D(cap))
        self.books.meters[id_] = msgspec.structs.replace(meter, used=D(used))

    def offers(
        self, tariffs: dict[int, Tariff], terms: dict[int, Terms] | None = None
    ) -> tuple[Offer, ...]:
        """Legs on these wallets; the first is the customer's, the others of the resellers above."""
        roles = [Role.CUSTOMER] + [Role.RESELLER] * len(tariffs)
        return tuple(
            Offer(
                role,
                id_,
                id_,
                pin_of(tariff, self.books.wallets[id_].currency),
                (terms or {}).get(id_),
            )
            for role, (id_, tariff) in zip(roles, tariffs.items(), strict=False)
        )

    def authorise(
        self,
        key: str,
        tariffs: dict[int, Tariff],
        terms: dict[int, Terms] | None = None,
        **values: object,
    ) -> Authorise:
        """An Authorise whose legs are on these wallets; the first is the customer's."""
        offers = self.offers(tariffs, terms)
        party = offers[0].party_id if offers else 1
        made = Authorise(key, party, "442071234567", offers=offers)
        return msgspec.structs.replace(made, **values)

    def charge(
        self,
        key: str,
        units: int,
        tariffs: dict[int, Tariff],
        terms: dict[int, Terms] | None = None,
        **values: object,
    ) -> Charge:
        """An event whose legs are on these wallets."""
        offers = self.offers(tariffs, terms)
        made = Charge(key, offers[0].party_id, "442071234567", units, offers=offers)
        return msgspec.structs.replace(made, **values)

    def send(self, command: Command) -> Decision:
        """Decide, write and check.

        Raises:
            TollkeeperError: the command cannot be taken; nothing is written then.
        """
        session = self.books.session(command.key)
        before = dict(self.books.wallets)
        self._count += 1
        view = View(before, self.limits, self.policy, dict(self.books.meters))
        decision = decide(session, command, view, self.now, f"id-{self._count}")
        self.findings += [
            Finding(
                "I24.step", f"meter {count.meter_id}", f"{count} on {view.meters[count.meter_id]}"
            )
            for count in decision.counts
            if not _sound(tally(view.meters[count.meter_id], count), guarded=count.guarded)
        ]
        if decision.session is not session:
            self._write(session, decision, before)
        return decision

    def _write(
        self,
        session: Session | None,
        decision: Decision,
        before: dict[int, Wallet],
    ) -> None:
        opens = session is None
        after = {
            id_: enrol(wallet, decision, second=int(self.now.timestamp()), opens=opens)
            for id_, wallet in before.items()
        }
        ids = {leg.wallet_id for leg in decision.session.legs}
        meters = dict(self.books.meters)
        written = Written(change_of(session, decision), decision, f"m{self._count}", "", b"{}")
        self.books.apply(
            Batch(
                self.now, [written], before, {id_: after[id_] for id_ in ids},
                ids if decision.guarded else set(),
                meters, {c.meter_id: tally(meters[c.meter_id], c) for c in decision.counts},
                {c.meter_id for c in decision.counts if c.guarded},
            )
        )  # fmt: skip

    def check(self) -> list[Finding]:
        """All findings so far; an open session may be overdue for ever, for nobody expires it."""
        return self.findings + audit(self.books.snapshot(), self.now, timedelta(days=3))


def _sound(meter: Meter, *, guarded: bool) -> bool:
    """What is held is never negative, and nothing is taken beyond the cap."""
    return meter.held >= 0 and not (guarded and meter.left is not None and meter.left < 0)


# --- scenarios in words --------------------------------------------------------------------------

_NUMBER = r"([0-9.]+)"


class Table:
    """Runs a scenario. Every line: ``<second>: <message> -> <expected>, <expected> ...``.

    The session is ``s`` unless the message names another with ``[name]``.
    """

    def __init__(
        self,
        money: str = "10",
        tariff: Tariff = PER_SECOND,
        policy: Policy | None = None,
        **limits: object,
    ) -> None:
        self.world = World({1: D(money)}, policy)
        self.world.limits[1] = Limits(**limits)  # type: ignore[arg-type]
        self.tariff = tariff
        self.refusal = Reason.NONE

    def run(self, scenario: str) -> None:
        """Send each message and check its answer, and all guarantees after it."""
        lines = [line.strip() for line in scenario.strip().splitlines()]
        for line in lines:
            if line and not line.startswith("#"):
                self._line(line)
                assert self.world.check() == [], line

    def _line(self, line: str) -> None:
        second, _, rest = line.partition(":")
        message, arrow, expected = rest.partition("->")
        assert arrow, f"no expectation in: {line}"
        self.world.now = T0 + timedelta(seconds=int(second))
        name, text = "s", message.strip()
        if named := re.match(r"\[(\w+)\] (.*)", text):
            name, text = named.groups()
        key = f"switch/{name}"
        before = self.world.books.session(key)
        reply, events = self._send(text, key)
        for claim in expected.split(","):
            self._claim(claim.strip(), key, before, reply, events, line)

    def _send(self, text: str, key: str) -> tuple[Reply | TollkeeperError | None, list[str]]:
        if self._operate(text):
            return None, []
        verb, _, rest = text.partition(" ")
        command = _COMMANDS[verb](self, key, rest)
        try:
            decision = self.world.send(command)
        except TollkeeperError as error:
            return error, []
        return decision.reply, [event.kind for event in decision.events]

    def _operate(self, text: str) -> bool:
        """What the operator does meanwhile."""
        books, now = self.world.books, self.world.now
        if found := re.fullmatch(f"top up {_NUMBER}", text):
            books.top_up(1, D(found[1]), now, Code.TOPUP)
        elif found := re.fullmatch(f"withdraw {_NUMBER}", text):
            books.top_up(1, D(found[1]), now, Code.WITHDRAWAL)
        elif found := re.fullmatch(f"credit limit {_NUMBER}", text):
            books.change_wallet(1, credit_limit=D(found[1]))
        elif found := re.fullmatch(f"new rate {_NUMBER}", text):
            self.tariff = msgspec.structs.replace(
                self.tariff, first_price=D(found[1]), next_price=D(found[1])
            )
        elif text == "park":
            books.change_wallet(1, parked=True)
        elif text == "suspend":
            self.world.limits[1] = msgspec.structs.replace(self.world.limits[1], suspended=True)
        elif text == "suspend and kill":
            self.world.limits[1] = msgspec.structs.replace(
                self.world.limits[1], suspended=True, kill_on_suspend=True
            )
        else:
            return False
        return True

    def _claim(
        self,
        claim: str,
        key: str,
        before: Session | None,
        reply: Reply | TollkeeperError | None,
        events: list[str],
        line: str,
    ) -> None:
        if claim.startswith("error "):
            assert isinstance(reply, TollkeeperError), line
            assert reply.code == claim.removeprefix("error "), line
            assert self.world.books.session(key) == before, line
            return
        assert not isinstance(reply, TollkeeperError), f"{line}: {reply}"
        found = _about_reply(claim, reply) if reply is not None else None
        if found is None:
            found = _about_wallet(claim, self.world.books, self.world.books.wallets[1])
        if found is None:
            found = _about_session(claim, before, self.world.books.session(key), events)
        assert found is not None, f"cannot read: {claim}"
        stands, wanted = found
        assert stands == wanted, f"{line}: {claim}, but it is {stands}"


def _ms(text: str) -> int:
    return int(D(text.split(maxsplit=1)[0]) * 1000)


def _authorise(table: Table, key: str, text: str) -> Authorise:
    wish = re.search(f"{_NUMBER} s", text)
    unrated = table.refusal in {Reason.NO_RATE, Reason.DESTINATION_BLOCKED, Reason.NO_PLAN}
    return table.world.authorise(
        key,
        {} if unrated else {1: table.tariff},
        party_id=1,
        requested_seconds=int(wish[1]) if wish else 300,
        refusal=table.refusal,
        start_expected="no start" not in text,
    )


_COMMANDS: dict[str, Callable[[Table, str, str], Command]] = {
    "authorise": _authorise,
    "start": lambda _, key, __: Start(key),
    "update": lambda _, key, rest: Update(key, _ms(rest), "only" not in rest),
    "stop": lambda _, key, rest: Stop(key, _ms(rest)),
    "refund": lambda _, key, rest: Refund(key, int(rest.split()[0]) if rest else None),
    "charge": lambda table, key, rest: table.world.charge(
        key, int(rest.split()[0]), {1: table.tariff}
    ),
    "kill": lambda _, key, rest: Kill(key, rest or "operator"),
    "expire": lambda _, key, __: Expire(key),
}


Found = tuple[object, object] | None


def _about_reply(claim: str, reply: Reply) -> Found:
    """A claim about the answer: its value and the one wanted; None when it is about other things."""
    if found := re.fullmatch(f"(granted|active) {_NUMBER} s", claim):
        return (reply.outcome, reply.granted_seconds), (found[1], int(found[2]))
    if found := re.fullmatch(r"refused (\w+)", claim):
        return (reply.outcome, reply.reason), (Outcome.REFUSED, found[1])
    if found := re.fullmatch(f"charged {_NUMBER}", claim):
        return (reply.outcome, reply.charge), (Outcome.CHARGED, D(found[1]))
    if found := re.fullmatch(f"closed {_NUMBER}", claim):
        return (reply.outcome, reply.charge), (Outcome.CLOSED, D(found[1]))
    if found := re.fullmatch(r"reason (\w+)", claim):
        return reply.reason, found[1]
    if found := re.fullmatch(f"until {_NUMBER}", claim):
        return reply.expires_at, T0 + timedelta(seconds=int(found[1]))
    simple: dict[str, tuple[object, object]] = {
        "final": (reply.final, True),
        "not final": (reply.final, False),
        "terminate": (reply.terminate, True),
        "go on": (reply.terminate, False),
        "closed unanswered": ((reply.outcome, reply.charge), (Outcome.CLOSED, None)),
    }
    return simple.get(claim)


def _about_wallet(claim: str, books: MemoryBooks, wallet: Wallet) -> Found:
    if found := re.fullmatch(r"(held|balance|available) (-?[0-9.]+)", claim):
        return getattr(wallet, found[1]), D(found[2])
    if found := re.fullmatch(r"(\w+) entry (-?[0-9.]+)", claim):
        last = books.entries[-1]
        return (last.code, last.amount), (found[1], D(found[2]))
    if found := re.fullmatch(r"(\d+) entries", claim):
        return len([entry for entry in books.entries if entry.session_id]), int(found[1])
    if claim == "ok":
        return 0, 0
    return None


def _about_session(
    claim: str, before: Session | None, session: Session | None, events: list[str]
) -> Found:
    if found := re.fullmatch(r"event ([\w.]+)", claim):
        return found[1] in events, True
    if claim == "no event":
        return events, []
    if claim == "nothing changed":
        return session, before
    if session is None:
        return None
    if found := re.fullmatch(r"ending (\w+)", claim):
        return session.ending, found[1]
    if found := re.fullmatch(r"marked (\w+)", claim):
        return found[1] in session.marks, True
    if found := re.fullmatch(f"used {_NUMBER}", claim):
        return session.used_ms, int(D(found[1]) * 1000)
    return None
