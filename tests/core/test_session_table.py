"""What a session does with every message, told as tables: one line a message and its answer.

The rate is one cent a second, the wallet holds 10.00 unless said otherwise, a slice is 300 s, the
answer window is 120 s and the grace 60 s. After every line all guarantees are checked. The failure
cases stand in ``test_session_failures.py``.
"""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.core.world import PER_SECOND, Table, World
from tollkeeper.core.money import Rounding
from tollkeeper.core.rating import Tariff
from tollkeeper.core.reasons import MEANINGS, Reason
from tollkeeper.core.records import (
    Authorise,
    Charge,
    Command,
    Expire,
    Kill,
    Limits,
    Refund,
    Start,
    State,
    Stop,
    Update,
)
from tollkeeper.core.session import TRANSITIONS

D = Decimal
PER_MINUTE = Tariff(D("0.60"), D("0.60"), 60, 60)


# --- the ordinary call ---------------------------------------------------------------------------


def test_an_ordinary_call_is_held_metered_and_settled() -> None:
    Table().run("""
        0:   authorise    -> granted 300 s, not final, until 180, held 3.00, available 7.00
        8:   start        -> active 300 s, until 368, held 3.00
        200: update 192   -> active 492 s, not final, until 560, held 4.92, available 5.08
        310: stop 301.4   -> closed 3.02, ending settled, held 0, balance 6.98, 1 entries, no event
    """)


def test_a_slice_is_rounded_up_to_what_is_paid_for_anyway() -> None:
    """100 s asked on a minute card cost two minutes: two minutes are granted."""
    Table(tariff=PER_MINUTE).run("""
        0:  authorise 100 s -> granted 120 s, held 1.20
        9:  start           -> active 120 s
        70: stop 61         -> closed 1.20, held 0
    """)


def test_a_switch_that_reports_no_answer_gets_time_for_ringing_and_talking() -> None:
    Table().run("""
        0:   authorise no start -> granted 300 s, until 480
        300: update 290         -> active 590 s
        400: stop 390           -> closed 3.90
    """)


def test_a_report_without_a_wish_for_more_takes_no_more_money() -> None:
    Table().run("""
        0:  authorise      -> granted 300 s
        60: update 50 only -> active 300 s, held 3.00, not final
    """)


def test_a_wallet_drains_to_the_last_paid_second() -> None:
    Table(money="3.50").run("""
        0:   authorise     -> granted 300 s, held 3.00, available 0.50
        1:   [b] authorise -> granted 50 s, final, available 0
        2:   [c] authorise -> refused insufficient_funds
        9:   start         -> active 300 s
        200: update 190    -> active 300 s, final, reason insufficient_funds, go on
        309: update 300    -> active 300 s, final, terminate
        310: stop 300      -> closed 3.00, balance 0.50
        311: [b] stop 0    -> closed 0, ending released, available 0.50
    """)


# --- refusals ------------------------------------------------------------------------------------


def test_a_refused_call_stays_refused_whatever_money_comes() -> None:
    """I10: the id was answered; a new attempt needs a new id."""
    Table(money="0").run("""
        0:  authorise     -> refused insufficient_funds, held 0
        1:  top up 10     -> available 10
        2:  authorise     -> error session_id_reused
        3:  start         -> closed 0, nothing changed
        4:  stop 0        -> closed 0, nothing changed
        5:  update 0      -> closed 0, nothing changed
        6:  stop 12       -> error session_refused
        7:  kill          -> error session_closed
        8:  expire        -> closed 0, nothing changed
        9:  [b] authorise -> granted 300 s
    """)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"suspended": True}, Reason.PARTY_SUSPENDED),
        ({"max_sessions": 0}, Reason.CONCURRENCY_LIMIT),
        ({"max_cps": 0}, Reason.CPS_LIMIT),
        ({"max_cost": D("0.001")}, Reason.COST_LIMIT),
    ],
)
def test_a_limit_beside_money_refuses_by_its_name(
    limits: dict[str, object], reason: Reason
) -> None:
    Table(**limits).run(f"0: authorise -> refused {reason}, held 0")  # type: ignore[arg-type]


def test_the_channels_in_use_are_counted() -> None:
    Table(max_sessions=2).run("""
        0: [a] authorise -> granted 300 s
        1: [b] authorise -> granted 300 s
        2: [c] authorise -> refused concurrency_limit
        3: [a] stop 0    -> closed 0
        4: [d] authorise -> granted 300 s
    """)


def test_the_calls_of_one_second_are_counted() -> None:
    Table(max_cps=2).run("""
        0: [a] authorise 10 s -> granted 10 s
        0: [b] authorise 10 s -> granted 10 s
        0: [c] authorise 10 s -> refused cps_limit
        1: [d] authorise 10 s -> granted 10 s
    """)


def test_the_cost_of_a_call_is_limited_however_long_it_lasts() -> None:
    Table(max_cost=D("4.00")).run("""
        0:   authorise  -> granted 300 s, held 3.00
        200: update 190 -> active 400 s, final, reason cost_limit, held 4.00
        410: update 400 -> active 400 s, terminate
    """)


def test_a_parked_wallet_opens_nothing_and_extends_nothing() -> None:
    """I20: what runs is settled, nothing new is held."""
    Table().run("""
        0: authorise     -> granted 300 s
        5: park          -> ok
        6: [b] authorise -> refused wallet_parked
        7: update 5      -> active 300 s, final, reason wallet_parked, held 3.00
        9: stop 7        -> closed 0.07, held 0
    """)


def test_f33_an_unknown_destination_is_refused_and_never_free() -> None:
    for reason in (Reason.NO_RATE, Reason.DESTINATION_BLOCKED, Reason.NO_PLAN):
        table = Table()
        table.refusal = reason
        table.run(f"""
            0: authorise -> refused {reason}, held 0
            1: stop 0    -> closed unanswered
            2: stop 9    -> error session_refused
        """)
        assert MEANINGS[reason].sip >= 400


def test_a_message_for_a_session_never_authorised_is_an_error() -> None:
    Table().run("""
        0: start    -> error unknown_session
        1: update 5 -> error unknown_session
        2: stop 5   -> error unknown_session
        3: kill     -> error unknown_session
        4: expire   -> error unknown_session
    """)


# --- every pair of the table ---------------------------------------------------------------------

REACH: dict[State, str] = {
    State.AUTHORISED: "0: authorise -> granted 300 s",
    State.ACTIVE: "0: authorise -> granted 300 s\n 1: start -> active 300 s",
    State.CLOSED: "0: authorise -> granted 300 s\n 1: stop 1 -> closed 0.01",
}
PAIRS: dict[tuple[State, type[Command]], str] = {
    (State.AUTHORISED, Authorise): "2: authorise -> error session_id_reused",
    (State.AUTHORISED, Start): "2: start -> active 300 s, until 362",
    (State.AUTHORISED, Update): "2: update 1 -> active 301 s",
    (State.AUTHORISED, Stop): "2: stop 1 -> closed 0.01",
    (State.AUTHORISED, Kill): "2: kill -> active 300 s, terminate, event session.kill",
    (State.AUTHORISED, Charge): "2: charge 1 -> error session_id_reused",
    (State.AUTHORISED, Refund): "2: refund -> error session_open",
    (State.AUTHORISED, Expire): "180: expire -> closed 0, ending expired",
    (State.ACTIVE, Authorise): "2: authorise -> error session_id_reused",
    (State.ACTIVE, Start): "2: start -> active 300 s, until 361, nothing changed",
    (State.ACTIVE, Update): "2: update 1 -> active 301 s",
    (State.ACTIVE, Stop): "2: stop 1 -> closed 0.01",
    (State.ACTIVE, Kill): "2: kill -> active 300 s, terminate, event session.kill",
    (State.ACTIVE, Charge): "2: charge 1 -> error session_id_reused",
    (State.ACTIVE, Refund): "2: refund -> error session_open",
    (State.ACTIVE, Expire): "361: expire -> closed 0, ending expired",
    (State.CLOSED, Authorise): "2: authorise -> error session_id_reused",
    (State.CLOSED, Start): "2: start -> closed 0.01, nothing changed",
    (State.CLOSED, Update): "2: update 2 -> closed 0.02, late entry 0.01",
    (State.CLOSED, Stop): "2: stop 2 -> closed 0.02, late entry 0.01",
    (State.CLOSED, Kill): "2: kill -> error session_closed",
    (State.CLOSED, Charge): "2: charge 1 -> error session_id_reused",
    (State.CLOSED, Refund): "2: refund -> closed 0, refund entry 0.01, balance 10",
    (State.CLOSED, Expire): "999: expire -> closed 0.01, nothing changed",
}


def test_every_pair_of_state_and_message_is_in_the_table() -> None:
    assert set(PAIRS) == set(TRANSITIONS)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair[0]}-{pair[1].__name__}")
def test_each_pair_of_state_and_message(pair: tuple[State, type[Command]]) -> None:
    table = Table()
    table.run(REACH[pair[0]])
    session = table.world.books.session("switch/s")
    assert session is not None
    assert session.state is pair[0]
    table.run(PAIRS[pair])


# --- several legs --------------------------------------------------------------------------------


def test_the_grant_is_the_smallest_that_all_legs_can_pay() -> None:
    """A reseller with money for 100 s bounds its customer's call; both are held and charged."""
    world = World({1: D(10), 2: D("0.50")})
    wholesale = Tariff(D("0.30"), D("0.30"), 30, 30, rounding=Rounding.UP)
    opened = world.send(world.authorise("switch/s", {1: PER_SECOND, 2: wholesale}))
    assert opened.reply.granted_seconds == 90
    assert opened.reply.final
    assert [leg.held for leg in opened.session.legs] == [D("0.90"), D("0.45")]
    assert world.check() == []
    closed = world.send(Stop("switch/s", 61_000))
    assert [leg.charged for leg in closed.session.legs] == [D("0.61"), D("0.45")]
    assert closed.reply.charge == D("0.61")
    assert world.check() == []


def test_a_suspended_reseller_refuses_its_customers_calls() -> None:
    world = World({1: D(10), 2: D(10)})
    world.limits[2] = Limits(suspended=True)
    refused = world.send(world.authorise("switch/s", {1: PER_SECOND, 2: PER_SECOND}))
    assert refused.reply.reason is Reason.PARTY_SUSPENDED
    assert world.check() == []
