"""Charging by hand and packages on the command line."""

from __future__ import annotations

from tests.cli.conftest import Command
from tests.support import UK_FIXED, Row, World, tariff

TERMS = {
    "packages": [{"code": "hour", "units": 60, "price": "5", "currency": "USD"}],
    "promotions": [{"code": "half", "percent": "50", "service": "sms"}],
}


def shop(url: str) -> World:
    """Acme, with calls, messages at half of 0.05, and a package to buy."""
    world = World(url)
    voice = world.card("voice", [Row("44", "United Kingdom", tariff("0.6"))])
    sms = world.card("sms", [Row("44", "UK", tariff("0.05"))], service="sms", per=1)
    world.customer(balance="10", plan=world.plan("gold", voice, sms, terms=TERMS))
    return world


def test_a_message_is_charged_by_hand_once(tollkeeper: Command, on_database: str) -> None:
    """The same name again is the same charge."""
    with shop(on_database) as world:
        for said in ("charged", "charged before"):
            ran = tollkeeper("charge", "acme", UK_FIXED, "--name", "m1", "--text", "a" * 161)
            assert ran.code == 0, ran.err
            assert f"{said}: 0.05 USD for 2 message" in ran.out
        assert str(world.one("SELECT debited FROM wallet")) == "0.05000000"
        ran = tollkeeper("charge", "acme", "33123456789", "--name", "m2")
        assert (ran.code, "refused" in ran.err) == (1, True)


def test_a_price_by_plan_tells_its_steps(tollkeeper: Command, on_database: str) -> None:
    """The promotion is named with its figures; without a rate there is no price."""
    with shop(on_database):
        ran = tollkeeper("price", UK_FIXED, "--party", "acme", "--service", "sms", "--units", "3")
        assert ran.code == 0, ran.err
        for line in (
            "card sms version 1, row 1: 0.05 USD per segment",
            "promotion half: 50.00 % off: price 0.05 -> 0.025",
            "price: 0.025 USD per segment",
            "3 segments, billed 3 segments: 3 segments x 0.025 = 0.075",
            "0.075000 USD (rounded once, half_up, to 6 decimals)",
        ):
            assert line in ran.out.splitlines()
        ran = tollkeeper("price", "33123456789", "--party", "acme")
        assert (ran.code, "No rate" in ran.err) == (1, True)


def test_a_package_is_bought_listed_and_let_end(tollkeeper: Command, on_database: str) -> None:
    """Bought twice under one name it is bought once; a second one is more than the money."""
    with shop(on_database) as world:
        for _ in range(2):
            ran = tollkeeper("package", "buy", "acme", "hour", "--request", "r1")
            assert ran.code == 0, ran.err
        assert "active" in ran.out
        assert world.one("SELECT debited FROM wallet") == 5
        assert "3600" in tollkeeper("package", "list", "acme").out
        sale = world.one("SELECT id FROM package_sale")
        assert tollkeeper("package", "renew", "acme", str(sale), "--no-on").code == 0
        assert world.one("SELECT renew FROM package_sale") is False
        world.sql("UPDATE wallet SET debited = credited")
        ran = tollkeeper("package", "buy", "acme", "hour")
        assert (ran.code, "insufficient funds" in ran.err) == (1, True)
