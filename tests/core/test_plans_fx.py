"""Exchange rates, and prices brought into the currency of a wallet, worked out by hand."""

from __future__ import annotations

from datetime import date

import pytest

from tests.core.prices import MORE, OFFICE, D, ask, card, cost, flat, plan, z
from tollkeeper.core.fx import Rates, convert, exchange_on, pick
from tollkeeper.core.money import Rounding
from tollkeeper.core.plans import (
    Conditions,
    Markup,
    PlanCard,
    Priced,
    Surcharge,
    TierRule,
)
from tollkeeper.core.reasons import Reason
from tollkeeper.core.terms import TierStep

# --- exchange ------------------------------------------------------------------------------------

DAY = date(2026, 3, 10)
ECB: Rates = {
    ("EUR", "USD"): [(date(2026, 3, 2), D("1.16"), "ECB"), (date(2026, 3, 9), D("1.25"), "ECB")],
    ("EUR", "GBP"): [(date(2026, 3, 9), D("0.80"), "ECB")],
    ("EUR", "CHF"): [(date(2026, 2, 28), D("0.95"), "ECB")],
    ("EUR", "SEK"): [(date(2026, 2, 27), D("11.2"), "ECB")],
    ("USD", "MXN"): [(date(2026, 3, 10), D("20"), "desk"), (date(2026, 3, 11), D("30"), "desk")],
}


@pytest.mark.parametrize(
    ("base", "quote", "expected"),
    [
        pytest.param("EUR", "USD", "1.25", id="direct, the latest before the day"),
        # 1 / 1.25
        pytest.param("USD", "EUR", "0.8", id="turned round"),
        # 0.80 / 1.25
        pytest.param("USD", "GBP", "0.64", id="crossed by way of the euro"),
        # 1.25 / 0.80
        pytest.param("GBP", "USD", "1.5625", id="and back"),
        # 0.80 / 0.95 = 0.842105263157(89...)
        pytest.param("CHF", "GBP", "0.842105263158", id="12 decimals, half even; 10 days old"),
        pytest.param("EUR", "SEK", None, id="11 days are too old"),
        pytest.param("USD", "MXN", "20", id="on the day itself, not tomorrow's"),
        pytest.param("GBP", "MXN", None, id="no way by the euro"),
        pytest.param("USD", "JPY", None, id="not known"),
        pytest.param("USD", "USD", "1", id="the same"),
    ],
)
def test_rates_are_found_directly_turned_round_or_crossed(
    base: str, quote: str, expected: str | None
) -> None:
    rate = pick(ECB, base, quote, DAY)
    assert (None if rate is None else rate.rate) == (None if expected is None else D(expected))


def test_a_rate_that_has_vanished_is_none() -> None:
    """1 / 10^13 is nothing at 12 decimals: better no price than a free one."""
    assert pick({("USD", "ABC"): [(DAY, D(10) ** 13, "desk")]}, "ABC", "USD", DAY) is None


def test_a_rate_names_where_it_is_from() -> None:
    inverse, crossed = pick(ECB, "USD", "EUR", DAY), pick(ECB, "USD", "CHF", DAY)
    assert inverse is not None
    assert (inverse.day, inverse.source) == ("2026-03-09", "1 / (EUR/USD 1.25 ECB)")
    assert crossed is not None
    assert crossed.day == "2026-03-09 / 2026-02-28"
    assert crossed.source == "1 / (EUR/USD 1.25 ECB) x EUR/CHF 0.95 ECB"


EXCHANGE = exchange_on(ECB, DAY)


@pytest.mark.parametrize(
    ("wallets", "margin", "currency", "minute"),
    [
        # 0.010 x 0.8
        pytest.param({"EUR": 3}, "0", "EUR", "0.008", id="turned round"),
        # 0.010 x 0.64
        pytest.param({"GBP": 3}, "0", "GBP", "0.0064", id="crossed"),
        # 0.010 x 0.8 x 1.02
        pytest.param({"EUR": 3}, "2", "EUR", "0.00816", id="with 2 percent margin"),
        # 0.010 x 20
        pytest.param({"MXN": 3}, "0", "MXN", "0.200", id="direct"),
        pytest.param({"EUR": 3, "USD": 4}, "2", "USD", "0.010", id="the card's own wallet first"),
        pytest.param(
            {"JPY": 2, "GBP": 3, "EUR": 4}, "0", "GBP", "0.0064", id="the first with a rate"
        ),
    ],
)
def test_prices_are_brought_into_the_wallets_currency(
    wallets: dict[str, int], margin: str, currency: str, minute: str
) -> None:
    answer = ask(plan(fx_margin=D(margin)), wallets=wallets, exchange=EXCHANGE)
    assert isinstance(answer, Priced)
    assert (answer.pin.currency, cost(answer, 60)) == (currency, D(minute))


def test_without_a_rate_nothing_is_charged_at_a_guess() -> None:
    assert ask(plan(), wallets={"JPY": 2, "SEK": 3}, exchange=EXCHANGE) is Reason.NO_FX_RATE


def test_amounts_of_reports_are_converted_with_one_rounding() -> None:
    # 12.345 x 0.842105263158 = 10.39578947...
    assert convert(D("12.345"), D("0.842105263158"), 2, Rounding.HALF_UP) == D("10.40")
    assert convert(D("-0.005"), D(1), 2, Rounding.HALF_EVEN) == D("0.00")


def test_all_steps_are_done_in_their_order_and_told_with_their_figures() -> None:
    """Cost 0.010 in pounds, by way of everything, to dollars.

    Markup: 0.010 x 1.2 + 0.002 = 0.014. Surcharge: + 10 % = 0.0154, and 0.005 a minute beside it.
    Half off: 0.0077 and 0.0025. Pounds at 1.5625 and 2 % = 1.59375: 0.012271875 and 0.003984375.
    """
    one = plan(
        PlanCard(card(9, "plus", "GBP", p44=flat("0.010")), "plan", markup=Markup(D(20), D("0.002"))),
        surcharges=(Surcharge("far", D("0.005"), D(10)),),
        promotions=(MORE,),
        tiers=(TierRule("volume", "month", (TierStep(0, percent=D(100)), TierStep(6000, D("0.01")))),),
        fx_margin=D(2),
    )  # fmt: skip
    answer = ask(one, exchange=EXCHANGE)
    assert isinstance(answer, Priced)
    assert answer.pin.tariff.next_price == D("0.012271875")
    assert answer.pin.tariff.surcharge == D("0.003984375")
    assert cost(answer, 60) == D("0.016256")
    assert [(step.kind, step.name, step.detail) for step in answer.pin.steps] == [
        ("markup", "plus", "cost + 20.00 %, + 0.002 per 60: price 0.01 -> 0.014"),
        (
            "surcharge",
            "far",
            "+ 10.00 % of the prices, + 0.005 per 60: price 0.014 -> 0.0154, surcharge 0.00 -> 0.005",
        ),
        ("promotion", "more", "50.00 % off: price 0.0154 -> 0.0077, surcharge 0.005 -> 0.0025"),
        (
            "fx",
            "GBP/USD",
            (
                "1 GBP = 1.5625 USD (1 / (EUR/GBP 0.80 ECB) x EUR/USD 1.25 ECB, 2026-03-09) + 2.00 % = 1.59375: "
                "price 0.0077 -> 0.012271875, surcharge 0.0025 -> 0.003984375"
            ),
        ),
    ]
    # A tier's price stands where the card's would: 0.01 x 1.1 / 2 x 1.59375
    assert answer.tier is not None
    assert answer.tier.steps == (
        TierStep(0, percent=D(100)), TierStep(6000, D("0.008765625")),
    )  # fmt: skip


def test_a_later_card_in_another_currency_is_brought_into_the_same_wallet() -> None:
    """Peak in dollars, off-peak 0.016 in pounds: at 1.5625 that is 0.025."""
    two = plan(
        PlanCard(card(3, "peak", p44=flat("0.020")), "plan", Conditions(profile=OFFICE)),
        PlanCard(card(31, "off", "GBP", p44=flat("0.016")), "fallback"),
    )
    answer = ask(
        two, at=z("2026-03-10T17:30"), until=z("2026-03-10T19:00"),
        wallets={"GBP": 1, "USD": 2}, exchange=EXCHANGE,
    )  # fmt: skip
    assert isinstance(answer, Priced)
    assert answer.pin.currency == "USD"
    assert [one.tariff.next_price for one in answer.later] == [D("0.025")]
