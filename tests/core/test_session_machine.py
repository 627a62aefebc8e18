"""Any sequence of messages and of the operator's acts, against a naive model of what is owed.

The model knows nothing of holds and transitions. It remembers which rate a session was pinned to,
the highest usage that was reported and whether the session is over, and works out from scratch
after every step what each wallet must stand at.
"""

# ruff: noqa: D102 - a rule is told by its name

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from tests.core.naive import naive_billed, naive_price
from tests.core.world import World
from tollkeeper.core.ledger import Code
from tollkeeper.core.money import Rounding
from tollkeeper.core.rating import Tariff
from tollkeeper.core.records import (
    Authorise,
    Command,
    Decision,
    Expire,
    Kill,
    Limits,
    Outcome,
    Policy,
    SilentTail,
    Start,
    Stop,
    Update,
)
from tollkeeper.errors import Conflict, NotFound

D = Decimal
LONGEST = 400
TARIFFS = [
    Tariff(D("0.60"), D("0.60"), 1, 1),
    Tariff(D("0.60"), D("0.60"), 60, 60),
    Tariff(D("0.0065"), D("0.0123"), 30, 6, decimals=4, rounding=Rounding.UP),
    Tariff(D("1.20"), D("0.30"), 10, 60, connect_fee=D("0.05"), attempt_fee=D("0.001")),
    Tariff(D("0.50"), D("0.50"), 6, 6, minimum=D("0.10"), free_below=6, decimals=2),
    Tariff(D("5"), D("5"), 60, 1, cap=D("6"), surcharge=D("0.1")),
    Tariff(D(0), D(0), 1, 1),
]
amounts = st.decimals(D("0.01"), D(8), places=2)
usages = st.one_of(st.integers(0, 130_000), st.integers(0, 500).map(lambda n: n * 1000))


@dataclass
class Call:
    """What the model knows of one session."""

    tariffs: dict[int, Tariff]
    granted: int
    highest_ms: int = 0
    assumed_ms: int = 0
    over: bool = False
    refused: bool = False

    def owed(self, wallet: int) -> Decimal:
        """What the session has cost this wallet, by the highest usage."""
        if self.refused or not self.over or wallet not in self.tariffs:
            return D(0)
        milliseconds = max(self.highest_ms, self.assumed_ms)
        return naive_price(self.tariffs[wallet], -(-milliseconds // 1000))


@dataclass
class Model:
    """Everything paid in, and every call."""

    paid_in: dict[int, Decimal] = field(default_factory=dict)
    limit: dict[int, Decimal] = field(default_factory=dict)
    calls: dict[str, Call] = field(default_factory=dict)

    def balance(self, wallet: int) -> Decimal:
        """What was paid in, less all calls that are over."""
        spent = sum((call.owed(wallet) for call in self.calls.values()), D(0))
        return self.paid_in[wallet] - spent

    def held(self, wallet: int) -> Decimal:
        """The price of every grant of a call that is up."""
        return sum(
            (
                naive_price(call.tariffs[wallet], call.granted)
                for call in self.calls.values()
                if not call.over and wallet in call.tariffs
            ),
            D(0),
        )

    def available(self, wallet: int) -> Decimal:
        """What new holds can take."""
        return self.balance(wallet) + self.limit[wallet] - self.held(wallet)

    def affordable(self, tariffs: dict[int, Tariff], wish: int, already: int = 0) -> int:
        """The longest grant, found by trying every second from the top down, leg by leg."""
        best = LONGEST
        for wallet, tariff in tariffs.items():
            money = self.available(wallet) + (naive_price(tariff, already) if already else D(0))
            top = min(naive_billed(tariff, wish), LONGEST)
            lengths = [n for n in range(top, 0, -1) if n == top or naive_billed(tariff, n) == n]
            best = min(best, next((n for n in lengths if naive_price(tariff, n) <= money), 0))
        return best


class Sessions(RuleBasedStateMachine):
    """A customer (wallet 1), its reseller (wallet 2), and everything that may happen to them."""

    calls = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self.world = World({1: D(0), 2: D(0)})
        self.model = Model({1: D(0), 2: D(0)}, {1: D(0), 2: D(0)})
        self.policy = Policy()
        self.suspended = False
        self.parked = False
        self.count = 0
        self.last: Command | None = None

    @initialize(tail=st.sampled_from(SilentTail), own=amounts, other=amounts)
    def open_the_books(self, tail: SilentTail, own: Decimal, other: Decimal) -> None:
        self.world.policy = self.policy = Policy(silent_tail=tail)
        self._limits()
        self.top_up(own, 1)
        self.top_up(other, 2)

    # --- what the switch says --------------------------------------------------------------------

    @rule(
        target=calls,
        tariff=st.sampled_from(TARIFFS),
        above=st.one_of(st.none(), st.sampled_from(TARIFFS)),
        wish=st.integers(1, 150),
    )
    def authorise(self, tariff: Tariff, above: Tariff | None, wish: int) -> object:
        self.count += 1
        key = f"switch/{self.count}"
        tariffs = {1: tariff} if above is None else {1: tariff, 2: above}
        expected = self.model.affordable(tariffs, wish)
        if self.suspended or self.parked:
            expected = 0
        command = self.world.authorise(key, tariffs, requested_seconds=wish)
        decision = self._send(command)
        assert decision.reply.granted_seconds == expected
        assert (decision.reply.outcome is Outcome.REFUSED) == (expected == 0)
        refused = expected == 0
        self.model.calls[key] = Call(tariffs, expected, over=refused, refused=refused)
        return multiple(key)

    @rule(key=calls)
    def authorise_again(self, key: str) -> None:
        """The same id with other content is never applied."""
        before = self.world.books.session(key)
        try:
            self._send(self.world.authorise(key, {1: TARIFFS[0]}, requested_seconds=77))
        except Conflict:
            assert self.world.books.session(key) == before
        else:
            raise AssertionError("an id was taken twice")

    @rule(key=calls)
    def start(self, key: str) -> None:
        self._send(Start(key))

    @rule(key=calls, used_ms=usages, extend=st.booleans())
    def interim(self, key: str, used_ms: int, extend: bool) -> None:
        self._report(Update(key, used_ms, extend))

    @rule(key=calls, used_ms=usages)
    def stop(self, key: str, used_ms: int) -> None:
        self._report(Stop(key, used_ms))

    @rule(key=calls, seconds=st.integers(-50, 50))
    def stop_near_the_end_of_the_grant(self, key: str, seconds: int) -> None:
        granted = self.model.calls[key].granted
        self._report(Stop(key, max(0, granted + seconds) * 1000))

    @precondition(lambda self: isinstance(self.last, Start | Stop | Expire))
    @rule()
    def duplicate(self) -> None:
        """The same end or start once more changes nothing at all."""
        assert self.last is not None
        before = self.world.books.snapshot()
        if isinstance(self.last, Stop):
            self._report(self.last)
        else:
            self._send(self.last)
        assert self.world.books.snapshot() == before

    @rule(used_ms=usages)
    def report_a_call_never_authorised(self, used_ms: int) -> None:
        before = self.world.books.snapshot()
        try:
            self._send(Stop("switch/stranger", used_ms))
        except NotFound:
            assert self.world.books.snapshot() == before
        else:
            raise AssertionError("a session came from nowhere")

    # --- what time and the operator do -------------------------------------------------------------

    @rule(key=calls, seconds=st.integers(0, 200))
    def expire(self, key: str, seconds: int) -> None:
        self.world.now += timedelta(seconds=seconds)
        call, session = self.model.calls[key], self.world.books.session(key)
        assert session is not None
        was_open, answered = session.open, session.answered_at is not None
        due = was_open and self.world.now >= session.expires_at
        decision = self._send(Expire(key))
        assert decision.session.open == (was_open and not due)
        if due:
            call.over = True
            if self.policy.silent_tail is SilentTail.GRANT_END and answered:
                call.assumed_ms = call.granted * 1000

    @rule(amount=amounts, wallet=st.sampled_from([1, 2]))
    def top_up(self, amount: Decimal, wallet: int) -> None:
        self.world.books.top_up(wallet, amount, self.world.now, Code.TOPUP)
        self.model.paid_in[wallet] += amount

    @rule(wallet=st.sampled_from([1, 2]), share=st.integers(1, 100))
    def withdraw(self, wallet: int, share: int) -> None:
        available = self.model.available(wallet)
        amount = (available * share / 100).quantize(D("0.01"), rounding="ROUND_DOWN")
        if amount > 0:
            self.world.books.top_up(wallet, amount, self.world.now, Code.WITHDRAWAL)
            self.model.paid_in[wallet] -= amount

    @rule(wallet=st.sampled_from([1, 2]), limit=st.sampled_from([D(0), D(1), D(10)]))
    def limit_change(self, wallet: int, limit: Decimal) -> None:
        self.world.books.change_wallet(wallet, credit_limit=limit)
        self.model.limit[wallet] = limit

    @rule(suspended=st.booleans())
    def suspend(self, suspended: bool) -> None:
        self.suspended = suspended
        self._limits()

    @rule(parked=st.booleans())
    def park(self, parked: bool) -> None:
        self.parked = parked
        self.world.books.change_wallet(1, parked=parked)

    @rule(key=calls)
    def kill(self, key: str) -> None:
        try:
            decision = self._send(Kill(key, "operator"))
        except Conflict:
            assert self.model.calls[key].over
        else:
            assert decision.reply.terminate

    # --- the naive model -----------------------------------------------------------------------------

    def _limits(self) -> None:
        self.world.limits = {
            id_: Limits(suspended=self.suspended and id_ == 1, max_seconds=LONGEST)
            for id_ in (1, 2)
        }

    def _send(self, command: Command) -> Decision:
        self.last = None
        decision = self.world.send(command)
        self.last = command
        if isinstance(command, Authorise):
            assert decision.session.key == command.key
        return decision

    def _report(self, command: Update | Stop) -> None:
        call = self.model.calls[command.key]
        if call.refused and command.used_ms:
            try:
                self._send(command)
            except Conflict:
                return
            raise AssertionError("usage of a refused call was taken")
        grant = self._expected_grant(command, call)
        decision = self._send(command)
        if call.refused:
            return
        call.highest_ms = max(call.highest_ms, command.used_ms)
        if isinstance(command, Stop):
            call.over, call.assumed_ms = True, 0
        call.granted = grant
        assert decision.reply.granted_seconds == grant
        assert decision.reply.used_ms == call.highest_ms
        if call.over:
            assert decision.reply.charge == call.owed(1)

    def _expected_grant(self, command: Update | Stop, call: Call) -> int:
        """What an update may raise the grant to; nothing else changes it."""
        session = self.world.books.session(command.key)
        assert session is not None
        frozen = call.over or self.suspended or self.parked or session.kill
        if frozen or isinstance(command, Stop) or not command.extend:
            return call.granted
        used = -(-max(call.highest_ms, command.used_ms) // 1000)
        wish = min(used + session.slice_seconds, LONGEST)
        if wish <= call.granted:
            return call.granted
        return max(call.granted, self.model.affordable(call.tariffs, wish, call.granted))

    @invariant()
    def the_wallets_stand_where_the_model_says(self) -> None:
        for id_, wallet in self.world.books.wallets.items():
            assert wallet.balance == self.model.balance(id_)
            assert wallet.held == self.model.held(id_)
            calls = self.model.calls.values()
            assert wallet.live == sum(not call.over and id_ in call.tariffs for call in calls)

    @invariant()
    def all_guarantees_hold(self) -> None:
        assert self.world.check() == []

    def teardown(self) -> None:
        """Whatever happened, everything can be closed, and then nothing is held."""
        self.world.now += timedelta(days=2)
        for key, call in self.model.calls.items():
            if not call.over:
                self._send(Expire(key))
        assert [wallet.held for wallet in self.world.books.wallets.values()] == [0, 0]
        assert [wallet.live for wallet in self.world.books.wallets.values()] == [0, 0]
        assert self.world.check() == []


TestSessions = Sessions.TestCase
