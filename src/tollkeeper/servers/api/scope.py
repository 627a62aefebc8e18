"""Which routes a key may use that is bounded to a party: those named here, and no others.

A new route is closed to such keys until its name (that of its function) stands in
:data:`PARTY_ROUTES`. Before you add it:

1. the route takes ``key: ReadKey`` (or ``ManageKey``) and hands ``scope_of(key)`` down, so that all it
   reads and writes goes through ``database.read(scope=...)`` or ``database.write(scope=...)``;
2. the tables behind it have policies (the migration ends with ``SELECT isolate('table', 'party_id')``
   and the rights that are needed);
3. what it changes is checked by ``services.scope.check_below``: a party changes those below it, never
   itself;
4. ``tests/servers/test_isolation.py`` calls it with a reseller's key: give it the request there, in
   ``OPEN`` (tests/servers/isolation_requests.py), or name it in ``CLOSED``. Until then that test fails.

The charging routes are not FastAPI's: they ask the directory whether the party is below the key's.
"""

from __future__ import annotations

from fastapi import Request
from fastapi.routing import APIRoute

from tollkeeper.errors import Forbidden
from tollkeeper.servers.api.auth import SCOPE_KEY
from tollkeeper.services.keys import ApiKey

PARTY_ROUTES = frozenset(
    (
        # parties and plans
        "create_party",
        "list_parties",
        "get_party",
        "change_party",
        "move_party",
        "list_moves",
        "create_plan",
        "list_plans",
        "get_plan",
        "set_plan_cards",
        "get_terms",
        "set_terms",
        "create_zone",
        "list_zones",
        "get_zone",
        "change_zone",
        "delete_zone",
        "create_time_profile",
        "list_time_profiles",
        "get_time_profile",
        "change_time_profile",
        "delete_time_profile",
        "list_fx_rates",
        # wallets: a top-up is refused there, with the hint to make a transfer
        "create_wallet",
        "list_wallets",
        "change_wallet",
        "top_up",
        "statement",
        # money within the tree: bonus is looked at only
        "make_transfer",
        "list_transfers",
        "list_bonuses",
        "make_vouchers",
        "list_voucher_batches",
        "get_voucher_batch",
        "change_voucher_batch",
        "redeem_voucher",
        "block_voucher",
        # calling cards: a reseller sells its own
        "make_cards",
        "list_card_batches",
        "get_card_batch",
        "change_card_batch",
        "list_calling_cards",
        "get_calling_card",
        "change_calling_card",
        "access_card",
        # keys
        "create_key",
        "list_keys",
        "revoke_key",
        # rates
        "create_card",
        "list_cards",
        "get_card",
        "import_sheet",
        "list_versions",
        "get_version",
        "list_refusals",
        "list_changes",
        "activate",
        "roll_back",
        "lookup",
        # packages
        "buy_package",
        "list_packages",
        "renew_package",
        # sessions and usage
        "list_sessions",
        "get_session",
        "explain_session",
        "search_usage",
        "export_usage",
        "report_usage",
        # what it buys from suppliers: the services ask whether the party is below the key's
        "list_purchases",
        "get_purchase",
        "lookup_number",
        "order_esim",
        "list_esims",
        "list_esim_items",
        "get_esim",
        "activate_esim",
        "release_esim",
        # telephone numbers: as what is bought, and those that can be
        "list_dids",
        "order_did",
        "get_did_order",
        "get_did",
        "get_did_history",
        "change_did",
        "release_did",
        # fees: its own are looked at only
        "add_fee",
        "list_fees",
        "get_fee",
        "end_fee",
        "list_commitments",
        # events: what happens at the party and below it
        "create_webhook",
        "list_webhooks",
        "get_webhook",
        "change_webhook",
        "delete_webhook",
        "rotate_webhook_secret",
        "try_webhook",
        "list_deliveries",
        "redeliver",
        "stream_events",
        # commissions: its own statements
        "list_commissions",
    )
)
"""Names of the routes that a bounded key may use."""


def within_bounds(request: Request) -> None:
    """Let a key that is bounded to a party use only the routes that are made for it.

    Raises:
        Forbidden: any other route.
    """
    key: ApiKey | None = request.scope.get(SCOPE_KEY)
    if key is None or key.party_id is None:
        return
    route = request.scope.get("route")
    if not isinstance(route, APIRoute) or route.name not in PARTY_ROUTES:
        raise Forbidden("this address is the operator's only", code="operator_only")
