"""A tree with two resellers, and everything in it that one of them must never see, marked.

::

    zzoper ─┬─ ra ─┬─ ca (customer) ── ua (user)
            │      └─ rs (sub-reseller) ── cs (customer)
            ├─ zzrb ── zzcb (customer)
            └─ zzvend

All codes and names of what reseller ``ra`` must not see begin with ``zz`` or ``Zz``; the prices and
amounts are planted numbers that stand nowhere else.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb

from tests.support import Customer, Row, World, tariff

DAY = "(now() AT TIME ZONE 'UTC')::date"
NUMBERS = ("0.739113", "739113.57", "0.284467", "284467.31", "0.911773")
"""Hidden from everybody below the operator: B's price and money, the operator's cost and turnover."""

PRICE_OF_RA = "0.150607"
"""What reseller A pays a minute: hidden from those below it."""


@dataclass(frozen=True)
class Tree:
    """The parties, the tokens of their keys, and what each must not find."""

    world: World
    parties: dict[str, Customer]
    tokens: dict[str, str]
    ids: dict[str, int]

    def hidden_from(self, who: str) -> tuple[str, ...]:
        """Texts that no answer to this key may contain."""
        texts = ("zz", "Zz", *NUMBERS)
        if who == "rs":
            texts += ("ra-", '"ra"', "Reseller-A", PRICE_OF_RA, '"ca"', "Customer-A")
        return texts


def make_tree(url: str) -> Tree:
    """The world, by SQL."""
    world = World(url, ())
    world.sql("UPDATE rate_plan SET code = 'zzretail', name = 'Zzretail'")
    world.sql("UPDATE rate_card SET code = 'zzretail-usd', name = 'Zzretail'")
    made: dict[str, Customer] = {}
    ids: dict[str, int] = {}

    def party(code: str, parent: str | None, kind: str, balance: str, plan: int | None) -> None:
        made[code] = world.customer(
            code,
            balance=balance,
            kind=kind,
            parent=made[parent] if parent else None,
            plan=plan if plan is not None else False,
        )

    def plan(name: str, price: str, owner: str | None) -> int:
        rows = (Row("44", f"{name}-land", tariff(price)),)
        owner_id = made[owner].id if owner else None
        card = world.card(f"{name}-card", rows, owner_id=owner_id)
        id_ = int(
            world.one(
                "INSERT INTO rate_plan (code, name, owner_id) VALUES (%s, %s, %s) RETURNING id",
                f"{name}-plan", name, owner_id,
            )
        )  # fmt: skip
        world.sql(
            "INSERT INTO rate_plan_card (plan_id, position, card_id) VALUES (%s, 1, %s)", id_, card
        )
        ids[f"{name}-card"] = card
        return id_

    party("zzoper", None, "operator", "284467.31", None)
    # What the operator sells to A at is A's to know, the name of the card is not.
    party("ra", "zzoper", "reseller", "5000", plan("zzwholesale", PRICE_OF_RA, None))
    world.sql("UPDATE rate_row SET destination = 'land'")
    party("zzrb", "zzoper", "reseller", "739113.57", plan("zzb", "0.739113", None))
    party("ca", "ra", "customer", "100", plan("ra-retail", "0.21", "ra"))
    party("rs", "ra", "reseller", "1000", plan("ra-sub", "0.18", "ra"))
    world.sql("UPDATE rate_row SET destination = 'land'")
    party("cs", "rs", "customer", "50", plan("rs-retail", "0.3", "rs"))
    party("zzcb", "zzrb", "customer", "739113.57", plan("zzb-retail", "0.911773", "zzrb"))
    party("zzvend", "zzoper", "vendor", "284467.31", None)
    world.sql("UPDATE party SET name = 'Reseller-A' WHERE code = 'ra'")
    world.sql("UPDATE party SET name = 'Customer-A' WHERE code = 'ca'")
    user = world.one(
        "INSERT INTO party (code, name, kind, parent_id) VALUES ('ua', 'User', 'user', %s) RETURNING id",
        made["ca"].id,
    )
    made["ua"] = Customer("ua", user, 0, "USD")
    _plant_rest(world, made)
    tokens = {
        code: _key(world, None if code == "zzoper" else made[code].id, f"{code} key")
        for code in ("zzoper", "ra", "rs", "ca", "zzrb")
    }
    return Tree(world, made, tokens, ids)


def _key(world: World, party_id: int | None, name: str) -> str:
    token = f"tk_isolation_{name.replace(' ', '_')}"
    world.sql(
        "INSERT INTO api_key (name, hash, scopes, switch, party_id)"
        " VALUES (%s, %s, '{manage}', %s, %s)",
        name, hashlib.sha256(token.encode()).digest(), "sw1", party_id,
    )  # fmt: skip
    return token


def _plant_rest(world: World, made: dict[str, Customer]) -> None:
    """A row of everything else, one of A's side and one of B's."""
    for mine, owner in (("ra", "ra"), ("zz", "zzrb"), ("zzop", None)):
        owner_id = made[owner].id if owner else None
        world.sql(
            "INSERT INTO zone (code, name, owner_id, prefixes) VALUES (%s, %s, %s, '{44}')",
            f"{mine}-zone", f"{mine} zone", owner_id,
        )  # fmt: skip
        world.sql(
            "INSERT INTO time_profile (code, name, owner_id, timezone, windows) VALUES (%s, %s, %s, 'UTC', %s)",
            f"{mine}-hours", f"{mine} hours", owner_id,
            Jsonb([]),
        )  # fmt: skip
        hook = world.one(
            "INSERT INTO webhook (code, party_id, url, secret, events)"
            " VALUES (%s, %s, %s, 'whsec_zzsecret', '{session.ended}') RETURNING id",
            f"{mine}-hook", owner_id, f"https://{mine}.example/",
        )  # fmt: skip
        world.sql(
            "INSERT INTO webhook_delivery (webhook_id, feed_id, at, kind, body, next_at)"
            " VALUES (%s, 1, now(), 'session.ended', %s, now())",
            hook, f"{mine} body",
        )  # fmt: skip
    for code in ("ca", "cs", "zzcb"):
        payload = {"party": code, "session_id": code, "legs": [
            {"party_id": made[leg].id, "party": leg, "currency": "USD", "charge": charge}
            for leg, charge in ((code, "1"), ("zzrb", NUMBERS[0]), ("zzoper", NUMBERS[2]))
        ]}  # fmt: skip
        world.sql(
            "INSERT INTO feed (at, kind, party_id, switch, payload)"
            " VALUES (now(), 'session.ended', %s, 'sw1', %s)",
            made[code].id, Jsonb(payload),
        )  # fmt: skip
    world.sql(
        "INSERT INTO feed (at, kind, payload) VALUES (now(), 'wallet.alert', %s)", Jsonb({"zz": 1})
    )
    batch = world.one(
        "INSERT INTO cdr_batch (kind, at, switch, records, rated) VALUES ('load', now(), 'zzsw', 2, 2) RETURNING id"
    )
    for line, code in enumerate(("ca", "cs", "zzcb"), 1):
        _usage(world, batch, line, made[code], made["zzvend"])
        world.sql(
            "INSERT INTO meter (party_id, kind, code, begins_at) VALUES (%s, 'tier', 'volume', now())",
            made[code].id,
        )
    for code in ("ra", "ca", "rs", "cs", "zzrb", "zzcb"):
        world.sql(
            "INSERT INTO party_move (party_id, parent_id, actor, reason)"
            " SELECT id, parent_id, 'cli:zzroot', 'zzreason' FROM party WHERE code = %s",
            code,
        )
        rule = world.one(
            "INSERT INTO commission_rule (party_id, basis, percent, currency, valid_from)"
            " VALUES (%s, 'margin', 2, 'USD', '2026-01-01') RETURNING id",
            made[code].id,
        )
        world.sql(
            "INSERT INTO commission_run (rule_id, party_id, period_begin, period_end, service, basis, percent,"
            " currency, turnover, own, commission, lines, actor, at) VALUES (%s, %s, '2026-01-01', '2026-02-01',"
            " '', 'margin', 2, 'USD', 3, 2, 0.02, '[]', 'cli:zzroot', now())",
            rule, made[code].id,
        )  # fmt: skip


def _usage(world: World, batch: int, line: int, customer: Customer, vendor: Customer) -> None:
    foreign = customer.code.startswith("zz")
    values: dict[str, Any] = {
        "batch_id": batch, "line": line, "duration_ms": 60_000, "call_id": f"{customer.code}-call",
        "leg": "", "caller": "441", "called": "4420", "service": "voice", "customer_id": customer.id,
        "vendor_id": vendor.id, "trunk_in": 0, "trunk_out": 0, "state": "rated", "destination": "land",
        "sell_wallet": customer.wallet_id, "sell_version": 0, "sell_row": 0, "sell_prefix": "44",
        "sell_billed": 60, "charge": "0.911773" if foreign else "0.21", "buy_wallet": vendor.wallet_id,
        "buy_version": 0, "buy_row": 0, "buy_prefix": "4420", "buy_billed": 60, "cost": "0.284467",
    }  # fmt: skip
    names, marks = ", ".join(values), ", ".join(["%s"] * len(values))
    world.sql(
        f"INSERT INTO usage (day, start_at, {names}) VALUES ({DAY}, now() - interval '1 minute', {marks})",
        *values.values(),
    )
    hour = {
        "batch_id": batch, "customer_id": customer.id, "vendor_id": vendor.id, "trunk_in": 0, "trunk_out": 0,
        "service": "voice", "destination": "land", "prefix": "44", "sell_currency": "USD",
        "buy_currency": "USD", "attempts": 1, "answers": 1, "effective": 1, "duration_ms": 60_000,
        "sell_billed": 60, "buy_billed": 60, "pdd_ms": 0, "pdd_count": 0, "revenue": values["charge"],
        "cost": "0.284467",
    }  # fmt: skip
    names, marks = ", ".join(hour), ", ".join(["%s"] * len(hour))
    world.sql(
        f"INSERT INTO usage_hour (day, hour, {names}) VALUES ({DAY}, date_trunc('hour', now()), {marks})",
        *hour.values(),
    )
    world.sql(
        f"INSERT INTO usage_leg VALUES ({DAY}, %s, %s, 2, %s, %s, 0, 0, '44', 60, 1)",
        batch, line, customer.id, customer.wallet_id,
    )  # fmt: skip
