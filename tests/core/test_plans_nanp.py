"""North American calls, priced by the office codes of both numbers."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from tests.core.prices import AZ, MARCH, PLACES, UK, D, ask, card, cost, flat, no_exchange, plan
from tollkeeper.core.nanp import jurisdiction, located
from tollkeeper.core.plans import (
    Conditions,
    PlanCard,
    Priced,
    Question,
    price_question,
)
from tollkeeper.core.rating import Tariff
from tollkeeper.core.tariff import Card, PrefixTable, RateRow

# --- North America -------------------------------------------------------------------------------

NY, NY_TOO, NJ, NJ_TOO = "12125550100", "17162000100", "12012000100", "19733000100"
JURISDICTIONS = [
    pytest.param(NY, NJ, "", "interstate", id="New York to New Jersey"),
    pytest.param(NY, NY_TOO, "", "intrastate", id="New York to New York"),
    pytest.param(NY, "13105550100", "", "indeterminate", id="the called office is not known"),
    pytest.param("13105550100", NJ, "", "indeterminate", id="the caller's office is not known"),
    pytest.param("", NJ, "", "indeterminate", id="no caller's number"),
    pytest.param(UK, NJ, "", "indeterminate", id="a caller from Britain"),
    pytest.param(NY, "18005550100", "", "indeterminate", id="toll-free"),
    pytest.param(NY, "18885550100", "2012000000", "indeterminate", id="toll-free with an LRN"),
    pytest.param(NY, UK, "", "", id="not a North American number"),
    pytest.param(NY, "1212555010", "", "", id="a digit short"),
    pytest.param(NY, "11125550100", "", "", id="an area code cannot begin with 1"),
    pytest.param(NY, NJ, "7162000000", "intrastate", id="ported to New York, 10 digits"),
    pytest.param(NY, NY_TOO, "12012000000", "interstate", id="ported to New Jersey, 11 digits"),
    pytest.param(NY, NJ, "00000", "interstate", id="what is no LRN is passed over"),
    pytest.param(NY, NJ, "3105550100", "indeterminate", id="an LRN of an office not known"),
]


@pytest.mark.parametrize(("caller", "called", "lrn", "expected"), JURISDICTIONS)
def test_jurisdictions_are_told_by_both_office_codes(
    caller: str, called: str, lrn: str, expected: str
) -> None:
    assert jurisdiction(caller, called, lrn, PLACES) == expected


NANP = plan(
    PlanCard(
        card(11, "inter", p1=flat("0.004"), p1201200=flat("0.003"), p1716200=flat("0.0035")),
        "plan", Conditions(jurisdiction="interstate"),
    ),
    PlanCard(card(12, "intra", p1=flat("0.009"), p1716200=flat("0.012")), "plan", Conditions(jurisdiction="intrastate")),
    PlanCard(card(13, "indet", p1=flat("0.020")), "plan", Conditions(jurisdiction="indeterminate")),
    PlanCard(AZ, "fallback"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("caller", "called", "lrn", "card_code", "minute"),
    [
        pytest.param(NY, NJ, "", "inter", "0.003", id="interstate, by its office code"),
        pytest.param(NY, NJ_TOO, "", "inter", "0.004", id="interstate, another office"),
        pytest.param(NY, NY_TOO, "", "intra", "0.012", id="intrastate"),
        pytest.param("", NY_TOO, "", "indet", "0.020", id="without a caller's number"),
        # dialled in New Jersey (0.003), rings in 716-200, New York: intrastate there is 0.012
        pytest.param(NY, NJ, "7162000000", "intra", "0.012", id="a ported number by its LRN"),
        pytest.param(NY, UK, "", "az", "0.010", id="abroad: only the card without conditions"),
    ],
)
def test_north_american_calls_are_priced_by_jurisdiction(
    caller: str, called: str, lrn: str, card_code: str, minute: str
) -> None:
    answer = ask(NANP, called, caller=caller, lrn=lrn)
    assert isinstance(answer, Priced)
    assert (answer.pin.card, cost(answer, 60)) == (card_code, D(minute))


@pytest.mark.parametrize(
    ("called", "lrn", "expected"),
    [
        (NJ, "7162000000", "17162000000"),
        (NJ, "17162000000", "17162000000"),
        (NJ, "716200000", NJ),
        ("18005550100", "7162000000", "18005550100"),
        (UK, "7162000000", UK),
    ],
)
def test_a_number_lies_where_its_lrn_says(called: str, lrn: str, expected: str) -> None:
    assert located(called, lrn) == expected


def test_the_step_of_a_jurisdiction_says_the_states() -> None:
    answer = ask(NANP, NJ, caller=NY, lrn="7162000000")
    assert isinstance(answer, Priced)
    assert [(step.kind, step.name, step.detail) for step in answer.pin.steps] == [
        ("card", "intra", "intrastate: from NY to NY by LRN 17162000000")
    ]


# --- a real deck ---------------------------------------------------------------------------------

DECK = (
    Path(os.environ.get("TOLLKEEPER_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
    / "decks"
    / "nanp_npanxx_scrub.csv.gz"
)


@pytest.mark.skipif(
    not DECK.is_file(), reason="the office codes are not here; set TOLLKEEPER_SHARED_DATA"
)
def test_a_real_deck_of_office_codes_is_priced_by_both_numbers() -> None:
    """184,000 office codes; 201 is made New Jersey, 212 and 716 New York, the rest unknown."""
    states = {"201": "NJ", "212": "NY", "716": "NY"}
    with gzip.open(DECK, "rt") as lines:
        next(lines)
        rates = {line.split(",")[0]: D(line.split(",")[1]) for line in lines}
    places = {code: states[code[:3]] for code in rates if code[:3] in states}
    inter = PrefixTable(RateRow("1" + code, code, Tariff(r, r, 6, 6)) for code, r in rates.items())
    intra = PrefixTable(
        RateRow("1" + code, code, Tariff(2 * r, 2 * r, 6, 6)) for code, r in rates.items()
    )
    one = plan(
        PlanCard(Card(1, "inter", 1, "USD", inter), "plan", Conditions(jurisdiction="interstate")),
        PlanCard(Card(2, "intra", 1, "USD", intra), "plan", Conditions(jurisdiction="intrastate")),
        PlanCard(Card(3, "indet", 1, "USD", inter), "plan", Conditions(jurisdiction="indeterminate")),
    )  # fmt: skip
    jersey = sorted(code for code in places if places[code] == "NJ")
    york = sorted(code for code in places if places[code] == "NY")
    assert len(jersey) > 500
    assert len(york) > 500
    for here, there in zip(jersey, york, strict=False):
        for caller, called, lrn, times, name in (
            (here, there, "", 1, "inter"),
            (there, york[0], "", 2, "intra"),
            (here, there, here + "0000", 2, "intra"),
            ("", there, "", 1, "indet"),
        ):
            answer = price_question(
                one,
                Question("voice", f"1{called}0100", caller and f"1{caller}0199", lrn=lrn),
                MARCH,
                party_id=1,
                wallets={"USD": 1},
                exchange=no_exchange,
                places=places,
            )
            assert isinstance(answer, Priced)
            rated = lrn[:6] or called
            assert (answer.pin.card, answer.pin.prefix) == (name, f"1{rated}")
            assert answer.pin.tariff.next_price == times * rates[rated]
