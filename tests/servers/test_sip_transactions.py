"""What the SIP redirect server remembers of requests: bounded, and for as long as RFC 3261 asks."""

from __future__ import annotations

from tollkeeper.servers.sip.transactions import Transactions


def test_transactions_are_bounded_and_forgotten_in_time() -> None:
    """Of fifty, the last ten are remembered; after half a minute none is, nor what came twice."""
    now = [0.0]
    kept = Transactions(clock=lambda: now[0], most=10)
    for number in range(50):
        kept.begin((str(number),), ("m", str(number)), lambda _: None, reliable=True)
    assert len(kept) == 10
    assert [kept.find((str(number),)) is not None for number in (39, 40)] == [False, True]
    assert kept.came_twice(("x",), ("m", "49"))
    assert not kept.came_twice(("x",), ("m", "3"))
    now[0] = 40.0
    assert kept.find(("49",)) is None
    assert not kept.came_twice(("x",), ("m", "49"))
    kept.begin(("new",), ("m", "new"), lambda _: None, reliable=True)
    assert len(kept) == 1
    assert len(kept._merged) == 1
