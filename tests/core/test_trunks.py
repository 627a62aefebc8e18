"""Whose call it was: everything a trunk names must fit, and the one that says most wins."""

from __future__ import annotations

import pytest

from tollkeeper.core.trunks import Trace, Trunk, Trunks, check_address


def trunk(id_: int, party: int, **terms: object) -> Trunk:
    return Trunk(id_, f"t{id_}", "in", party, **terms)  # type: ignore[arg-type]


def found(trunks: list[Trunk], switch: str = "sw1", **trace: str) -> list[int]:
    return [one.id for one in Trunks(trunks, direction="in", switch=switch).find(Trace(**trace))]


def test_all_that_a_trunk_names_must_fit() -> None:
    """Half a match is none."""
    both = [trunk(1, 1, names=("acme",), addresses=("192.0.2.1",))]
    assert found(both, trunk="acme", address="192.0.2.1") == [1]
    assert found(both, trunk="acme", address="192.0.2.2") == []
    assert found(both, trunk="other", address="192.0.2.1") == []


def test_names_win_over_accounts_and_these_over_addresses() -> None:
    """Each says more than the next."""
    known = [
        trunk(1, 1, addresses=("192.0.2.0/24",)),
        trunk(2, 2, account="77"),
        trunk(3, 3, names=("acme",)),
    ]
    assert found(known, trunk="acme", account="77", address="192.0.2.1") == [3]
    assert found(known, trunk="x", account="77", address="192.0.2.1") == [2]
    assert found(known, trunk="x", account="8", address="192.0.2.1") == [1]
    assert found(known, trunk="x", account="8", address="198.51.100.1") == []


def test_the_smaller_network_wins() -> None:
    """A single address is the smallest."""
    known = [
        trunk(1, 1, addresses=("10.0.0.0/8",)),
        trunk(2, 2, addresses=("10.1.0.0/16", "10.9.9.9")),
        trunk(3, 3, addresses=("10.1.1.1",)),
    ]
    assert found(known, address="10.1.1.1") == [3]
    assert found(known, address="10.1.1.2") == [2]
    assert found(known, address="10.9.9.9") == [2]
    assert found(known, address="10.2.0.1") == [1]


def test_a_longer_tech_prefix_wins_over_a_shorter_one_and_over_none() -> None:
    """Customers behind one address are told apart by what they dial first."""
    known = [
        trunk(1, 1, addresses=("192.0.2.1",)),
        trunk(2, 2, addresses=("192.0.2.1",), tech_prefix="99"),
        trunk(3, 3, addresses=("192.0.2.1",), tech_prefix="9988"),
    ]
    assert found(known, address="192.0.2.1", called="9988441234") == [3]
    assert found(known, address="192.0.2.1", called="99441234") == [2]
    assert found(known, address="192.0.2.1", called="441234") == [1]
    assert found(known, address="192.0.2.1", called="+99441234") == [2]


def test_two_parties_that_fit_equally_well_are_both_named() -> None:
    """Nobody is charged by chance; two trunks of one party are no contradiction."""
    known = [trunk(1, 1, names=("x",)), trunk(2, 2, names=("x", "y"))]
    assert found(known, trunk="x") == [1, 2]
    assert found(known, trunk="y") == [2]
    assert found([trunk(1, 7, names=("x",)), trunk(2, 7, names=("x",))], trunk="x") == [1]


def test_a_trunk_of_another_switch_or_direction_is_not_looked_at() -> None:
    """An empty switch is any."""
    known = [trunk(1, 1, names=("x",), switch="sw2"), trunk(2, 2, names=("x",))]
    assert found(known, trunk="x") == [2]
    assert found(known, "sw2", trunk="x") == [1, 2]
    out = Trunks([Trunk(3, "o", "out", 3, names=("x",))], direction="in", switch="sw1")
    assert (len(out), out.find(Trace(trunk="x"))) == (0, ())


@pytest.mark.parametrize(
    "written",
    ["192.0.2.1", "192.0.2.1:5060", " 192.0.2.1 "],
)
def test_an_address_may_be_written_with_its_port(written: str) -> None:
    assert found([trunk(1, 1, addresses=("192.0.2.1",))], address=written) == [1]


@pytest.mark.parametrize("written", ["2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:5060"])
def test_so_may_one_of_ipv6(written: str) -> None:
    assert found([trunk(1, 1, addresses=("2001:db8::/32",))], address=written) == [1]


@pytest.mark.parametrize("written", ["", "acme.example", "300.1.1.1", "192.0.2"])
def test_what_is_no_address_is_in_no_network(written: str) -> None:
    assert found([trunk(1, 1, addresses=("0.0.0.0/0",))], address=written) == []


def test_addresses_are_kept_in_one_form() -> None:
    assert check_address(" 192.0.2.1/32 ") == "192.0.2.1"
    assert check_address("192.0.2.77/24") == "192.0.2.0/24"
    with pytest.raises(ValueError, match="appear to be"):
        check_address("acme")
