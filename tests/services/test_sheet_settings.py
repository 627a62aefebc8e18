"""Sheet options as people write them become the reader's options, or a sentence on what is wrong."""

from __future__ import annotations

from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from tollkeeper.errors import InvalidInput
from tollkeeper.services.sheet_settings import SheetSettings
from tollkeeper.wire.ratesheet import SheetOptions


def test_nothing_said_is_the_readers_own_default() -> None:
    assert SheetSettings().options() == SheetOptions()


def test_what_is_said_reaches_the_reader() -> None:
    options = SheetSettings(
        delimiter="tab",
        header="no",
        column=("prefix=1", "rate= Price per min ", "blocked="),
        seconds_allowed="1/1, 30/30",
        timezone="Europe/Rome",
        blocked_words="Closed, NO SALE,",
        price_max="12.5",
        prefix_add="",
    ).options()
    assert options == SheetOptions(
        delimiter="\t",
        header=False,
        columns={"prefix": 1, "rate": "Price per min", "blocked": None},
        seconds_allowed=("1/1", "30/30"),
        timezone=ZoneInfo("Europe/Rome"),
        blocked_words=frozenset({"closed", "no sale"}),
        price_max=Decimal("12.5"),
        prefix_add="",
    )
    assert SheetSettings(seconds_allowed="ignore").options().seconds_allowed is None


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        (SheetSettings(column=("prefix",)), "column"),
        (SheetSettings(column=("colour=red",)), "columns"),
        (SheetSettings(timezone="Mars/Base"), "timezone"),
        (SheetSettings(timezone="../etc"), "timezone"),
        (SheetSettings(timezone="Europe"), "timezone"),
        (SheetSettings(timezone=""), "timezone"),
        (SheetSettings(seconds_allowed="1/1"), "seconds_allowed"),
        (SheetSettings(price_max="NaN"), "price_max"),
        (SheetSettings(price_max="0"), "price_max"),
        (SheetSettings(increments="0/60"), "increments"),
        (SheetSettings(delimiter="ab"), "delimiter"),
        (SheetSettings(encoding="klingon"), "encoding"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(settings: SheetSettings, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        settings.options()
    assert caught.value.field == field
