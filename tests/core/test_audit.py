"""Each guarantee is found broken when it is broken, and only then."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import msgspec
import pytest

from tests.core.world import PER_SECOND, T0, World
from tollkeeper.core.audit import (
    GUARANTEES,
    Books,
    EntryLine,
    MessageLine,
    PostingKind,
    WalletTotals,
    audit,
    check_book,
    check_growth,
    check_keys,
    check_posting,
    check_step,
    check_wallet,
    leg_sums,
)
from tollkeeper.core.reasons import Reason
from tollkeeper.core.records import (
    Ending,
    Expire,
    Leg,
    Outcome,
    Session,
    SilentTail,
    State,
    Stop,
    Update,
    Wallet,
)

D = Decimal
replace = msgspec.structs.replace
DAY = timedelta(days=1)


def _world() -> World:
    """A live call, one settled with an overrun, one refused, one expired and come late."""
    world = World({1: D(10)})
    world.policy = replace(world.policy, silent_tail=SilentTail.LAST_USAGE)
    for name, seconds in [("over", 100), ("late", 100), ("live", 200)]:
        world.send(world.authorise(f"s/{name}", {1: PER_SECOND}, requested_seconds=seconds))
    world.send(world.authorise("s/refused", {}, refusal=Reason.NO_RATE))
    world.send(Update("s/live", 50_000))
    world.send(Stop("s/over", 110_000))
    world.now += timedelta(hours=1)
    world.send(Expire("s/late"))
    world.send(Stop("s/late", 30_000))
    assert world.check() == []
    return world


def _books() -> Books:
    return _world().books.snapshot()


def _codes(books: Books, patience: timedelta = DAY) -> set[str]:
    return {finding.code for finding in audit(books, T0 + timedelta(hours=1), patience)}


def _with_session(name: str, change: Callable[[Session], Session]) -> Books:
    books = _books()
    sessions = [change(s) if s.key == f"s/{name}" else s for s in books.sessions]
    return Books(books.wallets, books.entries, sessions, books.messages, books.limit_peaks)


def _leg(session: Session, **values: object) -> Session:
    return replace(session, legs=(replace(session.legs[0], **values),))


def test_every_code_belongs_to_a_guarantee_in_words() -> None:
    books = _with_session("live", lambda s: _leg(s, held=D(0)))
    findings = audit(books, T0, DAY)
    assert findings
    for finding in findings:
        assert finding.guarantee in GUARANTEES.values()


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"credited": D(11)}, "I3.credited"),
        ({"debited": D(1)}, "I3.debited"),
        ({"version": 2}, "I3.version"),
        ({"credited": D(11)}, "I3.last_balance"),
        ({"credited": D(11)}, "I1.balance"),
        ({"held": D(9)}, "I8.held"),
        ({"live": 2}, "I8.live"),
        ({"held": D(-1)}, "I4.negative"),
        ({"held": D(9), "credited": D(1)}, "I7.overspent"),
    ],
)
def test_a_wrong_wallet_is_found(values: dict[str, object], code: str) -> None:
    books = _books()
    wrong = {1: replace(books.wallets[1], **values)}
    assert code in _codes(
        Books(wrong, books.entries, books.sessions, books.messages, books.limit_peaks)
    )


@pytest.mark.parametrize(
    ("name", "change", "code"),
    [
        ("live", lambda s: _leg(s, held=D("0.5")), "I9.grant"),
        ("live", lambda s: _leg(s, held=D(0)), "I11.hold"),
        ("live", lambda s: replace(s, granted_seconds=0), "I11.nothing"),
        ("live", lambda s: replace(s, legs=()), "I11.nothing"),
        ("live", lambda s: replace(s, max_seconds=10), "I9.longest"),
        ("live", lambda s: _leg(s, charged=D(1)), "I15.early"),
        ("live", lambda s: replace(s, ending=Ending.EXPIRED), "I8.ended"),
        ("live", lambda s: replace(s, expires_at=T0 - DAY), "I12.overdue"),
        ("live", lambda s: replace(s, closed_at=T0), "I17.closed_at"),
        (
            "live",
            lambda s: replace(s, expires_at=s.expires_at.astimezone(timezone(timedelta(hours=2)))),
            "I17.zone",
        ),
        ("live", lambda s: replace(s, version=9), "I14.steps"),
        ("live", lambda s: replace(s, id="other"), "I14.steps"),
        ("over", lambda s: replace(s, state=State.CLOSED, ending=Ending.NONE), "I8.open"),
        ("over", lambda s: _leg(s, held=D(1)), "I8.held"),
        ("over", lambda s: replace(s, granted_seconds=99), "I8.parts"),
        ("over", lambda s: replace(s, granted_seconds=105), "I8.parts"),
        ("over", lambda s: _leg(s, charged=D(1)), "I15.charge"),
        ("over", lambda s: replace(s, used_ms=120_000), "I15.charge"),
        ("over", lambda s: _leg(s, charged=D(1)), "I19.entries"),
        ("over", lambda s: replace(s, legs=()), "I19.stray"),
        ("over", lambda s: _leg(s, wallet_id=2), "I19.stray"),
        ("over", lambda s: replace(s, assumed_ms=1), "I15.assumed"),
        ("over", lambda s: replace(s, ending=Ending.REFUSED), "I10.refused"),
        ("over", lambda s: replace(s, ending=Ending.REFUSED), "I10.answer"),
        ("over", lambda s: replace(s, key="s/late"), "I16.twice"),
        ("refused", lambda s: replace(s, granted_seconds=5), "I10.refused"),
        ("refused", lambda s: replace(s, ending=Ending.SETTLED), "I10.answer"),
    ],
)
def test_a_wrong_session_is_found(
    name: str, change: Callable[[Session], Session], code: str
) -> None:
    books = _with_session(name, change)
    if any(leg.wallet_id == 2 for session in books.sessions for leg in session.legs):
        wallets = {**books.wallets, 2: Wallet(2, 2, "USD")}
        books = Books(wallets, books.entries, books.sessions, books.messages, books.limit_peaks)
    assert code in _codes(books)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda lines: lines[1:], "I14.steps"),
        (lambda lines: [*lines, lines[-1]], "I14.repeated"),
        (lambda lines: [_line(lines[0], id="x"), *lines[1:]], "I14.other"),
        (lambda lines: [_line(lines[0], outcome=Outcome.REFUSED), *lines[1:]], "I10.answer"),
        (lambda lines: [_line(lines[0], granted_seconds=999), *lines[1:]], "I10.grant"),
    ],
)
def test_a_wrong_history_is_found(
    change: Callable[[list[MessageLine]], list[MessageLine]], code: str
) -> None:
    books = _books()
    live = next(s.id for s in books.sessions if s.key == "s/live")
    messages = {**books.messages, live: change(list(books.messages[live]))}
    assert code in _codes(
        Books(books.wallets, books.entries, books.sessions, messages, books.limit_peaks)
    )


def _line(line: MessageLine, **values: object) -> MessageLine:
    return MessageLine(line.version, line.message_id, replace(line.reply, **values))


@pytest.mark.parametrize(
    ("drop", "code"),
    [(0, "I3.credited"), (1, "I3.debited"), (1, "I3.gap"), (1, "I3.balances"), (3, "I19.entries")],
)
def test_an_entry_that_is_gone_is_missed(drop: int, code: str) -> None:
    books = _books()
    entries = [entry for n, entry in enumerate(books.entries) if n != drop]
    assert code in _codes(
        Books(books.wallets, entries, books.sessions, books.messages, books.limit_peaks)
    )
    assert [f.code for f in check_growth(books.entries, entries)] == ["I2.changed"]
    assert list(check_growth(entries[:1], entries)) == []


def test_a_hold_that_is_settled_twice_is_found() -> None:
    books = _books()
    again = next(entry for entry in books.entries if entry.code == "usage")
    entries = [*books.entries, again]
    codes = _codes(Books(books.wallets, entries, books.sessions, books.messages, {}))
    assert {"I8.settled", "I19.entries", "I3.gap"} <= codes


@pytest.mark.parametrize(
    ("kind", "codes"),
    [
        (("usage", "wallet", "revenue", "USD", "USD", "USD", 3, D(1)), []),
        (("usage", "revenue", "wallet", "USD", "USD", "USD", 3, D(1)), ["I5.pair"]),
        (("usage", "wallet", "clearing", "USD", "USD", "USD", 3, D(1)), ["I5.pair"]),
        (("gift", "wallet", "revenue", "USD", "USD", "USD", 3, D(1)), ["I5.pair"]),
        (("usage", "wallet", "revenue", "USD", "EUR", "USD", 3, D(1)), ["I1.currency"]),
        (("usage", "wallet", "revenue", "EUR", "EUR", "USD", 3, D(1)), ["I1.currency"]),
        (("usage", "wallet", "revenue", "USD", "USD", "USD", 3, D(0)), ["I1.amount"]),
    ],
)
def test_an_illegal_posting_is_found(kind: tuple[object, ...], codes: list[str]) -> None:
    assert [f.code for f in check_posting(PostingKind(*kind))] == codes  # type: ignore[arg-type]


def test_books_that_do_not_add_up_to_zero_are_found() -> None:
    assert list(check_book("USD", D(5), D(-5))) == []
    assert [f.code for f in check_book("USD", D(5), D(-4))] == ["I1.balance"]


WALLET = Wallet(1, 1, "USD", credited=D(10), debited=D(2), held=D(3), version=4, stamp=9)


@pytest.mark.parametrize(
    ("values", "on_credit", "lowered", "codes"),
    [
        ({"held": D(8)}, 0, 0, []),
        ({"held": D(9)}, 0, 0, ["I7.step"]),
        ({"debited": D(8)}, 0, 0, ["I7.step"]),
        ({"debited": D(8)}, 6, 0, []),
        ({"debited": D(8)}, 5, 0, ["I7.step"]),
        ({"debited": D(8), "held": D(0)}, 0, 0, []),
        ({"credited": D(9)}, 0, 0, ["I4.shrunk"]),
        ({"debited": D(1)}, 0, 0, ["I4.shrunk"]),
        ({"version": 3}, 0, 0, ["I4.shrunk"]),
        ({"stamp": 8}, 0, 0, ["I4.shrunk"]),
    ],
)
def test_a_wrong_step_of_a_wallet_is_found(
    values: dict[str, object], on_credit: int, lowered: int, codes: list[str]
) -> None:
    after = replace(WALLET, **values)
    assert [f.code for f in check_step(WALLET, after, D(on_credit), D(lowered))] == codes


def test_a_lowered_limit_may_leave_less_than_nothing_available() -> None:
    before = replace(WALLET, credit_limit=D(5), held=D(10))
    after = replace(before, credit_limit=D(0))
    assert list(check_step(before, after, lowered=D(5))) == []
    assert [f.code for f in check_step(before, after)] == ["I7.step"]


def test_a_parked_wallet_that_holds_more_is_found() -> None:
    parked = replace(WALLET, parked=True)
    assert [f.code for f in check_step(parked, replace(parked, held=D(4)))] == ["I20.held"]
    assert list(check_step(parked, replace(parked, held=D(2)))) == []


@pytest.mark.parametrize(
    ("on_credit", "peak", "codes"),
    [
        (D(0), None, ["I7.overspent"]),
        (D(2), None, []),
        (D(1), D(1), []),
        (D(1), None, ["I7.overspent"]),
    ],
)
def test_overspending_is_allowed_as_far_as_it_was_named(
    on_credit: Decimal, peak: Decimal | None, codes: list[str]
) -> None:
    """10 paid in, 12 spent: two must be overrun, late, or of a limit that was higher once."""
    wallet = Wallet(1, 1, "USD", credited=D(10), debited=D(12), version=2)
    totals = WalletTotals(
        wallet, D(10), D(12), on_credit, 2, 2, 2, last_balance=D(-2), limit_peak=peak
    )
    assert [f.code for f in check_wallet(totals)] == codes


def test_a_key_is_one_session_for_as_long_as_it_is_remembered() -> None:
    one = datetime(2026, 3, 1, 23, 0, tzinfo=UTC)
    assert list(check_keys([("a", one, False), ("b", one, True)], 1)) == []
    assert list(check_keys([("a", one + 2 * DAY, True), ("a", one, False)], 1)) == []
    twice = [("a", one, False), ("a", one + DAY, False)]
    assert [f.code for f in check_keys(twice, 1)] == ["I16.twice"]
    both = [("a", one, True), ("a", one + 9 * DAY, False)]
    assert [f.code for f in check_keys(both, 1)] == ["I16.twice"]


def test_the_entries_of_a_leg_add_up_by_code() -> None:
    line = EntryLine("usage", "wallet", "revenue", "USD", "USD", "USD", D(3), 1, 1, D(0), "s", 0)
    codes = [("usage", D(3)), ("overrun", D(2)), ("late", D(4)), ("correction", D(1))]
    entries = [
        EntryLine(code, *[getattr(line, name) for name in EntryLine.__slots__[1:6]], amount, 1, n, D(0), "s", 0)
        for n, (code, amount) in enumerate(codes)
    ]  # fmt: skip
    sums = leg_sums(entries)["s"][0, 1]
    assert sums.total == D(8)
    assert (sums.usage_entries, sums.overrun_entries) == (1, 1)


def test_a_leg_that_nothing_is_known_of_owes_nothing() -> None:
    free = _with_session("refused", lambda s: s)
    assert _codes(free) == set()
    assert all(isinstance(leg, Leg) for s in free.sessions for leg in s.legs)
