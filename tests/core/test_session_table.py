"""What a session does with every message, told as tables: one line a message and its answer.

The rate is one cent a second, the wallet holds 10.00 unless said otherwise, a slice is 300 s, the
answer window is 120 s and the grace 60 s. After every line all guarantees are checked. The numbers
F1 to F34 are those of the failure cases that a credit control must survive.
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
    Command,
    Expire,
    Kill,
    Limits,
    Policy,
    SilentTail,
    Start,
    State,
    Stop,
    Update,
)
from tollkeeper.core.session import TRANSITIONS

D = Decimal
PER_MINUTE = Tariff(D("0.60"), D("0.60"), 60, 60)
TO_THE_END = Policy(silent_tail=SilentTail.GRANT_END)


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


# --- failure cases -------------------------------------------------------------------------------


def test_f1_a_lost_stop_is_closed_at_the_last_usage() -> None:
    Table().run("""
        0:   authorise -> granted 300 s
        5:   start     -> active 300 s, until 365
        65:  update 60 -> active 360 s, until 425
        424: expire    -> active 360 s, nothing changed
        425: expire    -> closed 0.60, reason expired, ending expired, event session.kill
        426: expire    -> closed 0.60, nothing changed, held 0, balance 9.40, 1 entries
    """)


def test_f1_a_lost_stop_is_closed_at_the_end_of_the_grant_where_the_policy_says_so() -> None:
    """The silent tail is assumed; the STOP that comes at last puts it right."""
    Table(policy=TO_THE_END).run("""
        0:   authorise  -> granted 300 s
        5:   start      -> active 300 s
        365: expire     -> closed 3.00, ending expired, usage entry 3.00
        400: update 100 -> closed 3.00, 1 entries
        500: stop 120   -> closed 1.20, correction entry 1.80, balance 8.80
        501: stop 120   -> closed 1.20, nothing changed
        502: stop 110   -> closed 1.20, nothing changed
        503: update 130 -> closed 1.30, late entry 0.10
    """)


def test_f1_a_call_that_was_never_answered_has_no_silent_tail() -> None:
    Table(policy=TO_THE_END).run("""
        0:   authorise -> granted 300 s
        180: expire    -> closed 0, ending expired, held 0
    """)


def test_f2_a_stop_after_expiry_is_posted_late() -> None:
    Table(money="1").run("""
        0:   authorise     -> granted 100 s, final
        5:   start         -> active 100 s
        165: expire        -> closed 0, ending expired, available 1
        170: [b] authorise -> granted 100 s, available 0
        171: stop 100      -> closed 1.00, late entry 1.00, event session.late, available -1
        172: [c] authorise -> refused insufficient_funds
        173: [b] stop 0    -> closed 0, available 0
    """)


def test_f3_a_repeated_stop_posts_nothing() -> None:
    """The lane answers a repeat from memory; here the message even has a new identity."""
    Table().run("""
        0:  authorise -> granted 300 s
        2:  start     -> active 300 s
        99: stop 95   -> closed 0.95, balance 9.05
        99: stop 95   -> closed 0.95, nothing changed, no event
        99: stop 90   -> closed 0.95, nothing changed, 1 entries
    """)


def test_f4_a_stop_before_start_settles_and_the_start_is_nothing() -> None:
    Table().run("""
        0:  authorise -> granted 300 s
        50: stop 40   -> closed 0.40, ending settled
        51: start     -> closed 0.40, nothing changed
    """)


def test_f4_an_interim_before_start_opens_the_call() -> None:
    Table().run("""
        0:  authorise -> granted 300 s, until 180
        50: update 40 -> active 340 s, until 410
        51: start     -> active 340 s, until 410, nothing changed
    """)


def test_f5_an_interim_after_the_stop_counts_only_if_it_knows_more() -> None:
    Table().run("""
        0:  authorise -> granted 300 s
        50: stop 40   -> closed 0.40
        51: update 30 -> closed 0.40, nothing changed
        52: update 40 -> closed 0.40, nothing changed
        53: update 45 -> closed 0.45, late entry 0.05, event session.late, held 0
        54: update 45 -> closed 0.45, nothing changed, ending settled
    """)


def test_f6_interims_out_of_order_are_answered_with_the_current_grant() -> None:
    Table().run("""
        0:   authorise  -> granted 300 s
        130: update 120 -> active 420 s, used 120
        131: update 60  -> active 420 s, used 120, held 4.20
        190: stop 180   -> closed 1.80
    """)


def test_f7_usage_that_goes_down_is_marked_and_never_lowers_a_charge() -> None:
    """A counter that wrapped or was reset."""
    Table().run("""
        0:   authorise  -> granted 300 s
        130: update 120 -> active 420 s
        140: update 3   -> active 420 s, used 120, marked usage_went_down
        150: stop 5     -> closed 1.20, used 120, marked usage_went_down
    """)


def test_f8_usage_above_the_grant_is_an_overrun_and_blocks_new_calls() -> None:
    Table(money="3").run("""
        0:   authorise     -> granted 300 s, available 0
        5:   start         -> active 300 s
        355: stop 350      -> closed 3.50, overrun entry 0.50, event session.overrun, 2 entries
        356: [b] authorise -> refused insufficient_funds, available -0.50
        357: top up 1      -> available 0.50
        358: [c] authorise -> granted 50 s
    """)


def test_f8_a_report_above_the_grant_is_held_as_far_as_the_money_goes() -> None:
    Table(money="4").run("""
        0:   authorise  -> granted 300 s, available 1.00
        5:   start      -> active 300 s
        385: update 380 -> active 400 s, final, go on, held 4.00
        425: update 420 -> active 400 s, terminate
        426: stop 420   -> closed 4.20, overrun entry 0.20, available -0.20
    """)


def test_f14_an_answer_that_came_too_late_costs_nothing_and_is_released() -> None:
    """The switch gave up and says nothing more: a short first validity bounds the hold."""
    Table().run("""
        0:   authorise 3600 s -> granted 1000 s, final, until 180, available 0
        179: expire           -> active 1000 s, nothing changed
        180: expire           -> closed 0, held 0, available 10, 0 entries
    """)


def test_f15_a_call_never_answered_is_released() -> None:
    Table().run("""
        0:  authorise -> granted 300 s, held 3.00
        40: stop 0    -> closed 0, ending released, held 0, available 10, 0 entries
    """)


def test_f16_a_top_up_helps_the_call_that_is_up() -> None:
    Table(money="2").run("""
        0:   authorise  -> granted 200 s, final
        5:   start      -> active 200 s
        105: update 100 -> active 200 s, final, reason insufficient_funds
        110: top up 10  -> available 10
        155: update 150 -> active 450 s, not final, held 4.50
        200: stop 195   -> closed 1.95, balance 10.05
    """)


def test_f17_a_lowered_limit_takes_no_hold_back_and_gives_no_more() -> None:
    Table(money="0").run("""
        0:   credit limit 5 -> available 5
        1:   authorise      -> granted 300 s, available 2
        10:  credit limit 1 -> available -2
        11:  [b] authorise  -> refused insufficient_funds
        200: update 190     -> active 300 s, final, reason insufficient_funds, held 3.00
        300: stop 290       -> closed 2.90, balance -2.90, available -1.90
    """)


def test_f17_a_suspended_customer_talks_to_the_end_of_the_grant() -> None:
    Table().run("""
        0:   authorise     -> granted 300 s
        10:  suspend       -> ok
        11:  [b] authorise -> refused party_suspended
        100: update 90     -> active 300 s, final, reason party_suspended, go on
        310: update 300    -> active 300 s, terminate
    """)


def test_f17_a_suspended_customer_is_cut_off_where_that_is_wanted() -> None:
    Table().run("""
        0:   authorise        -> granted 300 s
        10:  suspend and kill -> ok
        100: update 90        -> active 300 s, final, reason killed, terminate
        101: stop 90          -> closed 0.90, reason killed
    """)


def test_f18_a_rate_change_concerns_the_next_call() -> None:
    Table().run("""
        0:   authorise     -> granted 300 s, held 3.00
        10:  new rate 1.20 -> ok
        100: update 90     -> active 390 s, held 3.90
        110: [b] authorise -> granted 300 s, held 9.90
        200: stop 190      -> closed 1.90
        201: [b] stop 10   -> closed 0.20
    """)


def test_f20_a_switch_with_a_wrong_clock_is_believed_its_counter_and_marked() -> None:
    Table().run("""
        0:   authorise  -> granted 300 s
        100: update 161 -> active 461 s, marked usage_ahead_of_clock
        101: stop 161   -> closed 1.61
    """)


def test_f20_a_tolerable_difference_of_clocks_is_not_marked() -> None:
    table = Table()
    table.run("""
        0:   authorise  -> granted 300 s
        100: update 160 -> active 460 s
    """)
    session = table.world.books.session("switch/s")
    assert session is not None
    assert session.marks == ()


def test_f21_our_clock_may_jump_without_changing_a_charge() -> None:
    """An hour forward closes what seems overdue; the usage that comes is posted late."""
    Table().run("""
        0:    authorise -> granted 300 s
        5:    start     -> active 300 s
        3600: expire    -> closed 0, ending expired
        70:   stop 60   -> closed 0.60, late entry 0.60
    """)


def test_f21_a_clock_that_goes_back_loses_nothing() -> None:
    Table().run("""
        1000: authorise -> granted 300 s, until 1180
        400:  start     -> active 300 s, until 760
        460:  update 60 -> active 360 s, until 820, used 60
        470:  stop 70   -> closed 0.70
    """)


def test_f22_the_calls_of_a_rebooted_switch_are_settled_at_their_last_usage() -> None:
    """Its ids may be used again at once only for other sessions, not for these."""
    Table().run("""
        0:   authorise     -> granted 300 s
        10:  [b] authorise -> granted 300 s
        70:  update 60     -> active 360 s
        90:  stop 60       -> closed 0.60, held 3.00
        91:  [b] stop 0    -> closed 0, held 0
        95:  authorise     -> error session_id_reused
    """)


def test_f24_a_kill_that_is_not_obeyed_is_asked_for_again_and_paid_for() -> None:
    Table(money="3").run("""
        0:   authorise  -> granted 300 s
        5:   start      -> active 300 s
        60:  kill fraud -> active 300 s, terminate, final, reason killed, event session.kill
        61:  kill fraud -> active 300 s, terminate, no event, nothing changed
        65:  top up 10  -> ok
        100: update 95  -> active 300 s, terminate, reason killed, held 3.00
        365: update 360 -> active 300 s, terminate
        420: stop 410   -> closed 4.10, overrun entry 1.10, reason killed
    """)


def test_f24_a_killed_call_of_which_nothing_is_heard_is_closed() -> None:
    Table().run("""
        0:   authorise -> granted 300 s
        60:  kill      -> active 300 s, terminate
        180: expire    -> closed 0, ending expired, reason expired, held 0
    """)


def test_f32_a_free_destination_needs_no_money_and_no_hold() -> None:
    Table(money="0", tariff=Tariff(D(0), D(0), 1, 1)).run("""
        0:   authorise  -> granted 300 s, held 0
        5:   start      -> active 300 s
        250: update 245 -> active 545 s, not final, held 0
        900: stop 890   -> closed 0, 0 entries
    """)


def test_f32_the_shortest_call_pays_the_minimum_increment() -> None:
    Table(tariff=PER_MINUTE).run("""
        0: authorise  -> granted 300 s
        5: start      -> active 300 s
        6: stop 0.001 -> closed 0.60, ending settled
    """)


def test_f32_an_attempt_fee_is_due_even_when_nobody_answers() -> None:
    tariff = Tariff(D("0.60"), D("0.60"), 1, 1, attempt_fee=D("0.005"))
    Table(tariff=tariff).run("""
        0:  authorise -> granted 300 s, held 3.005
        30: stop 0    -> closed 0.005, ending released, balance 9.995
    """)


def test_f32_a_call_below_the_free_seconds_costs_nothing() -> None:
    tariff = Tariff(D("0.60"), D("0.60"), 1, 1, free_below=6)
    Table(tariff=tariff).run("""
        0:  authorise     -> granted 300 s
        9:  stop 5        -> closed 0, ending settled, 0 entries
        10: [b] authorise -> granted 300 s
        19: [b] stop 6    -> closed 0.06
    """)


def test_f34_no_call_is_longer_than_the_longest_allowed() -> None:
    Table(max_seconds=600).run("""
        0:   authorise 9999 s -> granted 600 s, final
        5:   start            -> active 600 s, until 665
        605: update 600       -> active 600 s, final, terminate, reason duration_limit, until 665
        665: expire           -> closed 6.00, ending expired
    """)


def test_f34_a_call_is_extended_up_to_the_longest_allowed() -> None:
    Table(max_seconds=400).run("""
        0:   authorise  -> granted 300 s, not final
        205: update 200 -> active 400 s, final, reason duration_limit, go on
        406: stop 401   -> closed 4.01, overrun entry 0.01
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
    (State.AUTHORISED, Expire): "180: expire -> closed 0, ending expired",
    (State.ACTIVE, Authorise): "2: authorise -> error session_id_reused",
    (State.ACTIVE, Start): "2: start -> active 300 s, until 361, nothing changed",
    (State.ACTIVE, Update): "2: update 1 -> active 301 s",
    (State.ACTIVE, Stop): "2: stop 1 -> closed 0.01",
    (State.ACTIVE, Kill): "2: kill -> active 300 s, terminate, event session.kill",
    (State.ACTIVE, Expire): "361: expire -> closed 0, ending expired",
    (State.CLOSED, Authorise): "2: authorise -> error session_id_reused",
    (State.CLOSED, Start): "2: start -> closed 0.01, nothing changed",
    (State.CLOSED, Update): "2: update 2 -> closed 0.02, late entry 0.01",
    (State.CLOSED, Stop): "2: stop 2 -> closed 0.02, late entry 0.01",
    (State.CLOSED, Kill): "2: kill -> error session_closed",
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
