"""What a credit control must survive, told as tables: one line a message and its answer.

The numbers F1 to F34 are those of the failure cases; F33 stands with the refusals in
``test_session_table.py``, which also says how the tables are read.
"""

from __future__ import annotations

from decimal import Decimal

from tests.core.world import Table
from tollkeeper.core.rating import Tariff
from tollkeeper.core.records import Policy, SilentTail

D = Decimal
PER_MINUTE = Tariff(D("0.60"), D("0.60"), 60, 60)
TO_THE_END = Policy(silent_tail=SilentTail.GRANT_END)


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
