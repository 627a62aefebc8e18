"""The commands explain and verify, as they are typed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.support import UK_FIXED, UK_MOBILE, World, runtime
from tollkeeper.cli.main import run


@pytest.fixture
def world(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Books with two calls in them, and a command line that uses them."""
    monkeypatch.setenv("TOLLKEEPER_DATABASE_URL", database_url)
    monkeypatch.setenv("TOLLKEEPER_LOG_LEVEL", "error")

    async def calls() -> None:
        async with runtime(database_url) as parts:
            for name, called in (("one", UK_FIXED), ("two", UK_MOBILE)):
                await parts.charging.authorise(
                    switch="sw1",
                    session_id=name,
                    party="acme",
                    called=called,
                    caller="[bold]49[/x]",
                )
                await parts.charging.stop(switch="sw1", session_id=name, used_ms=61_000)

    with World(database_url) as made:
        made.customer(balance="50")
        made.key("charge")
        asyncio.run(calls())
        yield made


@pytest.mark.parametrize("name", ["two", "sw1/two"])
def test_explain_tells_a_stranger_how_the_amount_came_about(
    world: World, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Rate, time, sum, charge, hold and entry; brackets that came from a switch are only text."""
    assert run(["explain", name]) == 0
    page = capsys.readouterr().out
    for words in (
        "[bold]49[/x] to 447700900123, voice",
        'card retail-usd version 1, row 2: prefix "447" = United Kingdom Mobile',
        "61 s used, 120 s billed (first 60 s, then steps of 60 s)",
        "connect 0.01 + 60 s x 0.065/min + 1 x 60 s x 0.065/min",
        "Charge: 0.14 USD",
        "wallet:acme -> revenue:voice",
    ):
        assert words in page


def test_explain_of_nothing_is_one_sentence(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """No traceback, and an exit code that says so."""
    assert run(["explain", "three"]) == 1
    assert 'there is no session "three"' in capsys.readouterr().err


def test_verify_says_that_the_books_hold(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """0, the counts, and the balance of each currency."""
    assert run(["verify"]) == 0
    page = capsys.readouterr().out
    assert "1 wallets, 3 entries, 2 closed and 0 live sessions, 4 messages" in page
    assert "The books hold" in page
    (line,) = [line for line in page.splitlines() if line.startswith("USD")]
    assert line.split() == ["USD", "49.25", "0.75", "0.00", "-50.00", "0.00", "0.00"]


def test_verify_names_what_does_not_hold_and_parks_only_when_it_is_told_to(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """3 for findings; with --park the wallet is stopped, and nothing is repaired."""
    world.sql("UPDATE wallet SET held = held + 1")
    assert run(["verify"]) == 3
    page = capsys.readouterr().out
    assert "I8.held" in page
    assert "acme/USD" in page
    assert world.one("SELECT parked FROM wallet") is False
    assert run(["verify", "--park"]) == 3
    assert "parked the wallet acme/USD" in capsys.readouterr().err
    assert world.one("SELECT parked FROM wallet") is True
    assert world.one("SELECT held FROM wallet") == 1
    assert run(["verify", "--park"]) == 3
    assert "parked" not in capsys.readouterr().err
