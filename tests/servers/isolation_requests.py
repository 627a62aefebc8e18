"""Which routes a party's key may use, each with the request to try it, and which it may not.

``{party}`` stands for the code of a party, ``{card}``, ``{plan}``, ``{call}`` and so on for something of
that party: the test puts in the key's own, those below it, and somebody else's.
"""

from __future__ import annotations

from typing import Any

Request = tuple[dict[str, str], dict[str, Any], Any]
"""Values of the path, the query, and the body (None: none)."""

PARTY = {"code": "{party}"}
WALLET = {**PARTY, "currency": "USD"}
CARD = {"code": "{card}"}
VERSION = {**CARD, "version": "1"}
PLAN = {"code": "{plan}"}
CALL = {"session_id": "{call}"}

OPEN: dict[str, Request] = {
    "list_parties": ({}, {}, None),
    "get_party": (PARTY, {}, None),
    "change_party": (PARTY, {}, {"max_cps": 9}),
    "create_party": ({}, {}, {"code": "new", "name": "New", "parent": "{party}"}),
    "move_party": (PARTY, {}, {"parent": "ra", "reason": "test"}),
    "list_moves": (PARTY, {}, None),
    "create_plan": ({}, {}, {"code": "np", "name": "P", "cards": [{"card": "{card}"}]}),
    "list_plans": ({}, {}, None),
    "get_plan": (PLAN, {}, None),
    "set_plan_cards": (PLAN, {}, {"cards": [{"card": "{card}"}]}),
    "get_terms": (PLAN, {}, None),
    "set_terms": (PLAN, {}, {}),
    "create_wallet": (PARTY, {}, {"currency": "EUR"}),
    "list_wallets": (PARTY, {}, None),
    "change_wallet": (WALLET, {}, {"credit_limit": "5", "reason": "test"}),
    "top_up": (WALLET, {}, {"amount": "5", "reason": "test"}),
    "statement": (WALLET, {}, None),
    "make_transfer": (WALLET, {}, {"to": "ca", "amount": "1", "reason": "test"}),
    "list_transfers": (PARTY, {}, None),
    "list_bonuses": (WALLET, {}, None),
    "make_vouchers": (
        {},
        {},
        {
            "code": "vb",
            "count": 1,
            "amount": "1",
            "currency": "USD",
            "valid_to": "2099-01-01T00:00:00Z",
            "owner": "{party}",
        },
    ),
    "list_voucher_batches": ({}, {}, None),
    "get_voucher_batch": ({"code": "vb"}, {}, None),
    "change_voucher_batch": ({"code": "vb"}, {}, {"status": "blocked"}),
    "redeem_voucher": ({}, {}, {"party": "{party}", "code": "0000-0000-0000-0000"}),
    "block_voucher": ({}, {}, {"code": "0000-0000-0000-0000"}),
    "make_cards": (
        {},
        {},
        {
            "code": "cb",
            "count": 1,
            "plan": "{plan}",
            "amount": "1",
            "currency": "USD",
            "valid_days": 30,
            "expires_at": "2099-01-01T00:00:00Z",
            "owner": "{party}",
        },
    ),
    "list_card_batches": ({}, {}, None),
    "get_card_batch": ({"code": "cb"}, {}, None),
    "change_card_batch": ({"code": "cb"}, {}, {"status": "blocked"}),
    "list_calling_cards": ({}, {}, None),
    "get_calling_card": ({"code": "{party}"}, {}, None),
    "change_calling_card": ({"code": "{party}"}, {}, {"status": "blocked"}),
    "access_card": ({}, {}, {"pin": "000000000000"}),
    "create_key": ({}, {}, {"name": "k", "scopes": ["read"], "party": "{party}"}),
    "list_keys": ({}, {}, None),
    "revoke_key": ({"id": "{key}"}, {}, None),
    "create_card": ({}, {}, {"code": "nc", "currency": "USD"}),
    "list_cards": ({}, {}, None),
    "get_card": (CARD, {}, None),
    "import_sheet": (CARD, {"dry_run": "true"}, b"prefix,destination,price\n44,UK,0.5\n"),
    "list_versions": (CARD, {}, None),
    "get_version": (VERSION, {}, None),
    "list_refusals": (VERSION, {}, None),
    "list_changes": (VERSION, {}, None),
    "activate": (CARD, {}, {"version": 1}),
    "roll_back": (CARD, {}, {}),
    "lookup": (CARD, {"number": "442071838750"}, None),
    "create_zone": ({}, {}, {"code": "nz", "prefixes": ["44"]}),
    "list_zones": ({}, {}, None),
    "get_zone": ({"code": "{mark}-zone"}, {}, None),
    "change_zone": ({"code": "{mark}-zone"}, {}, {"prefixes": ["45"]}),
    "delete_zone": ({"code": "{mark}-zone"}, {}, None),
    "create_time_profile": (
        {},
        {},
        {"code": "nt", "windows": [{"days": ["mon"], "from": "08:00", "to": "09:00"}]},
    ),
    "list_time_profiles": ({}, {}, None),
    "get_time_profile": ({"code": "{mark}-hours"}, {}, None),
    "change_time_profile": ({"code": "{mark}-hours"}, {}, {"timezone": "UTC"}),
    "delete_time_profile": ({"code": "{mark}-hours"}, {}, None),
    "list_fx_rates": ({}, {}, None),
    "list_sessions": ({}, {}, None),
    "get_session": (CALL, {}, None),
    "explain_session": (CALL, {}, None),
    "search_usage": ({}, {}, None),
    "export_usage": ({}, {}, None),
    "report_usage": ({}, {"by": "customer,destination"}, None),
    "list_commissions": ({}, {}, None),
    "buy_package": (PARTY, {}, {"package": "none"}),
    "list_packages": (PARTY, {}, None),
    "renew_package": ({**PARTY, "sale_id": "1"}, {}, {"renew": True}),
    "lookup_number": ({}, {}, {"party": "{party}", "number": "442071838750", "request_id": "l1"}),
    "order_esim": ({}, {}, {"party": "{party}", "item": "none"}),
    "list_esims": ({}, {"party": "{party}"}, None),
    "list_esim_items": ({}, {}, None),
    "get_esim": ({"iccid": "8944500000000000001"}, {}, None),
    "activate_esim": ({"iccid": "8944500000000000001"}, {}, {}),
    "release_esim": ({"iccid": "8944500000000000001"}, {}, {}),
    "list_dids": ({}, {"prefix": "44"}, None),
    "order_did": (
        {},
        {},
        {"party": "{party}", "number": "442071838750", "request_id": "d1"},
    ),
    "get_did_order": ({"order_id": "1"}, {}, None),
    "get_did": ({"number": "442071838750"}, {}, None),
    "get_did_history": ({"number": "442071838750"}, {}, None),
    "change_did": ({"number": "442071838750"}, {}, {"destination": "sip:x"}),
    "release_did": ({"number": "442071838750"}, {}, None),
    "add_fee": (
        {},
        {},
        {"party": "{party}", "name": "line", "period": "once", "amount": "1", "currency": "USD"},
    ),
    "list_fees": ({}, {}, None),
    "get_fee": ({"fee_id": "1"}, {}, None),
    "end_fee": ({"fee_id": "1"}, {}, {}),
    "list_commitments": ({}, {}, None),
    "list_purchases": ({}, {}, None),
    "get_purchase": ({"order_id": "none"}, {}, None),
    # the charging routes
    "authorise": (
        {},
        {},
        {"session_id": "{party}-new", "party": "{party}", "called": "442071838750"},
    ),
    "start": (CALL, {}, {}),
    "update": (CALL, {}, {"used_seconds": 3}),
    "stop": (CALL, {}, {"used_seconds": 5}),
    "kill": (CALL, {}, {"reason": "test"}),
    "quote": ({}, {}, {"party": "{party}", "called": "442071838750"}),
    "charge_event": (
        {},
        {},
        {"event_id": "{party}-ev", "party": "{party}", "called": "442071838750"},
    ),
    "refund_event": ({"event_id": "{call}"}, {}, {"reason": "undelivered"}),
}
"""By the name of the operation."""

LISTS = frozenset(
    name
    for name, (path, query, body) in OPEN.items()
    if not path and body is None and name not in {"list_esim_items", "list_esims", "list_purchases"}
)
"""Those that answer 200 to whoever may ask."""

CLOSED = frozenset(
    (
        "metrics",
        "cdr_assurance",
        "list_cdr_batches",
        "load_cdr_file",
        "list_cdr_files",
        "get_cdr_file",
        "roll_back_cdr_file",
        "list_cdr_formats",
        "list_cdr_mismatches",
        "list_quarantine",
        "drop_quarantined",
        "replay_quarantine",
        "fix_quarantined",
        "rerate_records",
        "roll_back_rerate",
        "sniff_cdr_file",
        "create_cdr_source",
        "list_cdr_sources",
        "get_cdr_source",
        "change_cdr_source",
        "push_cdr_file",
        "add_commission_rule",
        "list_commission_rules",
        "end_commission_rule",
        "post_commission",
        "preview_commission",
        "set_fx_rate",
        "import_fx_rates",
        "import_office_codes",
        "grant_bonus",
        "import_dids",
        "resolve_purchase",
        "reconcile",
        "create_supplier",
        "list_suppliers",
        "get_supplier",
        "change_supplier",
        "delete_supplier",
        "try_supplier",
        "get_switch",
        "set_switch",
        "delete_switch",
        "create_trunk",
        "list_trunks",
        "get_trunk",
        "change_trunk",
        "delete_trunk",
    )
)
"""The operator's own."""

WITHOUT_KEY = frozenset(("healthz",))
