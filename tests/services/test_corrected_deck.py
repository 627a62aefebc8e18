"""F19: a deck that is corrected after the fact changes no past charge by itself."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from tests.support import CARD, UK_FIXED, World, runtime, until
from tollkeeper.services.explain import explain
from tollkeeper.services.rates import activate, import_sheet
from tollkeeper.services.verify import verify
from tollkeeper.services.wallets import top_up


def now() -> datetime:
    """The time now."""
    return datetime.now(UTC)


async def test_f19_a_corrected_deck_leaves_past_charges_and_a_correction_is_a_new_entry(
    database_url: str,
) -> None:
    """The charge keeps the row it was priced by; what is owed back is given back with a reason."""
    with World(database_url) as world:
        customer = world.customer(balance="10")
        async with runtime(database_url) as parts:
            call = {"switch": "sw1", "party": "acme", "called": UK_FIXED}
            await parts.charging.authorise(session_id="before", **call)
            await parts.charging.authorise(session_id="across", **call)
            await parts.charging.stop(switch="sw1", session_id="before", used_ms=60_000)

            sheet = b"Prefix,Destination,Rate,Increment\n44,United Kingdom,0.3,1/1\n"
            report = await import_sheet(
                parts.database, card=CARD, data=sheet, actor="rates", now=now(), mode="partial"
            )
            assert report.version is not None
            await activate(
                parts.database, card=CARD, version=report.version, actor="rates", now=now()
            )
            party = parts.directory.party("acme")
            await until(
                lambda: (
                    parts.directory.cards_of(party.plan_id, "voice")[0].version == report.version
                )
            )
            await parts.charging.authorise(session_id="after", **call)
            for session_id in ("across", "after"):
                await parts.charging.stop(switch="sw1", session_id=session_id, used_ms=60_000)
            charges = {
                name: (await parts.charging.session(f"sw1/{name}")).legs[0].charged
                for name in ("before", "across", "after")
            }
            # A call that was authorised before keeps its rate to the end.
            assert charges == {
                "before": Decimal("0.6"),
                "across": Decimal("0.6"),
                "after": Decimal("0.3"),
            }

            await top_up(
                parts.database, party="acme", currency="USD", amount=Decimal("0.3"),
                reason="call before charged by the wrong sheet", actor="finance",
                clock=now, kind="adjust_up",
            )  # fmt: skip
            assert world.wallet(customer).balance == Decimal("8.8")
            explained = await explain(parts.database, "sw1/before")
            assert explained.session.legs[0].charged == Decimal("0.6")
            assert (await verify(parts.database)).clean
