"""A party sees its own subtree and nothing else, on every route and in every table."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
import pytest
import pytest_asyncio

from tests.servers.isolation_requests import CLOSED, LISTS, OPEN, WITHOUT_KEY
from tests.servers.isolation_world import Tree, make_tree
from tests.servers.management import problem
from tests.support import api as whole_api
from tollkeeper.servers.api.scope import PARTY_ROUTES
from tollkeeper.store.db import Database

NAMING = re.compile(r"{(party|card|plan|call|key|mark)}")
"""What a request names, in place of which the test puts its own, one below it, or another's."""


@pytest.fixture
def tree(database_url: str) -> Iterator[Tree]:
    made = make_tree(database_url)
    yield made
    made.world.close()


@dataclass
class Api:
    """The application, its document, and calls that were made: ``calls`` are session ids by party."""

    tree: Tree
    client: httpx.AsyncClient
    operations: dict[str, tuple[str, str]]
    calls: dict[str, str]
    foreign: str

    async def send(
        self, who: str, operation: str, values: dict[str, str], *, tag: str = ""
    ) -> httpx.Response:
        """Send the request that the table has for this operation, with these values in it."""
        path_values, query, body = OPEN.get(operation, ({}, {}, {}))
        method, template = self.operations[operation]
        path = re.sub(r"{(\w+)}", lambda m: _fill(path_values.get(m[1], "1"), values), template)
        headers = {
            "Authorization": f"Bearer {self.tree.tokens[who]}",
            "Idempotency-Key": f"{who}-{operation}-{tag}",
        }
        options: dict[str, Any] = {"params": _fill(query, values)}
        if isinstance(body, bytes):
            options["content"] = body
            headers["Content-Type"] = "text/csv"
        elif body is not None and method != "GET":
            options["json"] = _fill(body, values)
        return await self.client.request(method, path, headers=headers, **options)


def _fill(value: Any, values: dict[str, str]) -> Any:
    """The same with values in place of {names}."""
    if isinstance(value, str):
        return re.sub(r"{(\w+)}", lambda m: values.get(m[1], m[0]), value)
    if isinstance(value, dict):
        return {key: _fill(inner, values) for key, inner in value.items()}
    if isinstance(value, list):
        return [_fill(inner, values) for inner in value]
    return value


@pytest_asyncio.fixture
async def api(tree: Tree) -> AsyncIterator[Api]:
    async with whole_api(tree.world.url) as (client, _):
        document = (await client.get("/openapi.json")).json()
        operations = {
            operation["operationId"]: (method.upper(), path)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        }
        made = Api(tree, client, operations, {}, "")
        for party in ("ca", "cs", "zzcb"):
            body = {"session_id": f"{party}-call", "party": party, "called": "442071838750"}
            answer = await client.post(
                "/v1/sessions",
                json=body,
                headers={"Authorization": f"Bearer {tree.tokens['zzoper']}"},
            )
            assert answer.json()["outcome"] == "granted", answer.text
            made.calls[party] = body["session_id"]
            if party == "zzcb":
                made.foreign = answer.json()["id"]
        yield made


def values_of(api: Api, party: str) -> dict[str, str]:
    """What stands for a party in the requests: its code, and its card, plan, call, key and zone."""
    ids = {
        row["name"]: str(row["id"]) for row in api.tree.world.sql("SELECT id, name FROM api_key")
    }
    names = {
        "ra": ("ra-retail-card", "ra-retail-plan", api.calls["ca"], "rs key", "ra"),
        "ca": ("ra-retail-card", "ra-retail-plan", api.calls["ca"], "ca key", "ra"),
        "rs": ("rs-retail-card", "rs-retail-plan", api.calls["cs"], "rs key", "none"),
        "cs": ("rs-retail-card", "rs-retail-plan", api.calls["cs"], "rs key", "none"),
        "zzcb": ("zzb-retail-card", "zzb-retail-plan", api.foreign, "zzrb key", "zz"),
        "zzoper": ("zzwholesale-card", "zzwholesale-plan", api.calls["zzcb"], "zzoper key", "zzop"),
    }
    card, plan, call, key, mark = names[party]
    return {"party": party, "card": card, "plan": plan, "call": call, "key": ids[key], "mark": mark}


# --- routes --------------------------------------------------------------------------------------


async def test_every_route_is_judged(api: Api) -> None:
    """A new route fails here until somebody has said whether parties may use it."""
    assert set(api.operations) == set(OPEN) | CLOSED | WITHOUT_KEY
    assert not set(OPEN) & CLOSED
    charging = {"authorise", "start", "update", "stop", "kill", "quote", "charge_event"}
    assert set(OPEN) - PARTY_ROUTES == charging | {"refund_event"}
    assert set(OPEN) >= PARTY_ROUTES


async def test_closed_routes_refuse_a_partys_key_whatever_is_asked(api: Api) -> None:
    for operation in sorted(CLOSED):
        answer = await api.send("ra", operation, values_of(api, "ra"))
        assert (answer.status_code, answer.json()["code"]) == (403, "operator_only"), operation


@pytest.mark.parametrize(("who", "own"), [("ra", ("ra", "ca", "rs", "cs")), ("rs", ("rs", "cs"))])
async def test_no_answer_tells_of_anything_above_or_beside(
    api: Api, who: str, own: tuple[str, ...]
) -> None:
    """All open routes, asked about itself and everybody below: the markers of others are in none."""
    answered = set()
    for party in own:
        for operation in sorted(OPEN, key=lambda name: (name in LISTS, name)):
            answer = await api.send(who, operation, values_of(api, party), tag=party)
            assert answer.status_code < 500 or answer.status_code == 503, (operation, answer.text)
            if operation in LISTS:
                assert answer.status_code == 200, (operation, answer.text)
            if answer.status_code < 300:
                answered.add(operation)
            found = [text for text in api.tree.hidden_from(who) if text in answer.text]
            assert not found, f"{who} asked {operation} of {party} and read {found}: {answer.text}"
    expected = {"get_party", "statement", "get_session", "explain_session", "get_card", "get_plan"}
    assert expected | LISTS | {"authorise", "stop", "quote"} <= answered


@pytest.mark.parametrize("who", ["ra", "rs", "ca"])
async def test_what_is_anothers_does_not_exist(api: Api, who: str) -> None:
    """Asked by its code about B, and about the operator, no route does or shows anything."""
    before = api.tree.world.sql(
        "SELECT * FROM wallet WHERE party_id = %s", api.tree.parties["zzcb"].id
    )
    for party in ("zzcb", "zzoper"):
        values = values_of(api, party)
        for operation in sorted(OPEN):
            if not NAMING.search(str(OPEN[operation])):
                continue
            answer = await api.send(who, operation, values, tag=party)
            assert answer.status_code in {403, 404, 409, 422, 503}, (operation, answer.text)
            # It may read back what it sent, and no more than that.
            left = answer.text
            for sent in values.values():
                left = left.replace(sent, "")
            assert "zz" not in left, (operation, answer.text)
    after = api.tree.world.sql(
        "SELECT * FROM wallet WHERE party_id = %s", api.tree.parties["zzcb"].id
    )
    assert after == before


async def test_a_party_does_not_learn_who_stands_above_it(api: Api) -> None:
    values = values_of(api, "ra")
    own = (await api.send("ra", "get_party", values)).json()
    assert (own["code"], own["parent"], own["plan"]) == ("ra", None, None)
    below = (await api.send("ra", "get_party", values_of(api, "cs"))).json()
    assert (below["parent"], below["plan"]) == ("rs", "rs-retail-plan")
    (move,) = (await api.send("ra", "list_moves", values)).json()["items"]
    assert (move["parent"], move["reason"], move["actor"]) == (None, "", "operator")


async def test_a_party_changes_nothing_of_itself_and_makes_no_money(api: Api) -> None:
    own, below = values_of(api, "ra"), values_of(api, "ca")
    for operation in ("change_party", "change_wallet", "create_wallet"):
        problem(await api.send("ra", operation, own), 403, "own_party")
    for values in (own, below):
        sentence = problem(
            await api.send("ra", "top_up", values, tag=values["party"]), 403, "use_transfer"
        )
        assert "transfer" in sentence
    assert (await api.send("ra", "change_wallet", below)).status_code == 200
    assert (await api.send("ra", "change_party", below)).json()["max_cps"] == 9


async def test_a_session_shows_the_legs_below_and_a_price_without_its_makings(api: Api) -> None:
    session = (await api.send("ra", "explain_session", values_of(api, "cs"))).json()
    assert [leg["party"] for leg in session["legs"]] == ["cs", "rs", "ra"]
    # Its own price it knows, the operator's card it does not.
    assert [leg["card"] for leg in session["legs"]] == ["rs-retail-card", "ra-sub-card", ""]
    assert session["legs"][2]["tariff"]["first_price"] == "0.150607"
    session = (await api.send("rs", "get_session", values_of(api, "cs"))).json()
    assert [leg["party"] for leg in session["legs"]] == ["cs", "rs"]
    assert [leg["card"] for leg in session["legs"]] == ["rs-retail-card", ""]


async def test_a_refusal_from_above_is_upstream_to_those_below(api: Api) -> None:
    """The reseller above A's sub-reseller is out of money: its own reason is its own business."""
    world = api.tree.world
    world.sql("UPDATE wallet SET debited = credited, stamp = stamp + 1 WHERE party_id = %s",
              api.tree.parties["ra"].id)  # fmt: skip
    reasons = {}
    for who in ("rs", "ra"):
        values = {**values_of(api, "cs"), "party": "cs"}
        method, path = api.operations["authorise"]
        body = {"session_id": f"refused-{who}", "party": values["party"], "called": "442071838750"}
        headers = {"Authorization": f"Bearer {api.tree.tokens[who]}"}
        answer = (await api.client.request(method, path, json=body, headers=headers)).json()
        assert answer["outcome"] == "refused"
        shown = await api.send(who, "get_session", {**values, "call": f"refused-{who}"})
        explained = await api.send(who, "explain_session", {**values, "call": f"refused-{who}"})
        (message,) = explained.json()["messages"]
        reasons[who] = {answer["reason"], shown.json()["reason"], message["reason"]}
    assert reasons == {"rs": {"upstream_refused"}, "ra": {"insufficient_funds"}}


async def test_a_key_gives_away_no_more_than_it_has(api: Api) -> None:
    method, path = api.operations["create_key"]

    async def make(who: str, **body: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {api.tree.tokens[who]}"}
        given = {"name": "k", "scopes": ["charge"], **body}
        return await api.client.request(method, path, json=given, headers=headers)

    made = await make("ra", party="rs")
    assert (made.json()["party"], made.json()["switch"]) == ("rs", "sw1")
    assert (await make("ra")).json()["party"] == "ra"
    problem(await make("ra", party="zzrb"), 422, "unknown_party", "party")
    problem(await make("rs", party="ra"), 422, "unknown_party", "party")
    problem(await make("ra", switch="other"), 403, "operator_only")
    assert (await make("zzoper", party="ra", switch="other")).json()["party"] == "ra"


# --- tables --------------------------------------------------------------------------------------

WITHOUT_POLICY = {"fx_rate", "npanxx", "cdr_batch"}
"""Tables that parties read and that have nobody's rows: of the last one only which were taken back."""


def test_every_table_that_a_party_may_read_has_a_policy(tree: Tree) -> None:
    """Rights without row-level security would show all of it; partitions are reached by no name."""
    rows = tree.world.sql(
        "SELECT c.relname AS name, c.relrowsecurity AS secured, c.relispartition AS part"
        " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p', 'v', 'm')"
        " AND (has_any_column_privilege('tollkeeper_party', c.oid, 'SELECT, INSERT, UPDATE')"
        "      OR has_table_privilege('tollkeeper_party', c.oid, 'DELETE, TRUNCATE'))"
    )
    names = {row["name"] for row in rows}
    assert {"party", "wallet", "entry", "live_session", "usage", "rate_card", "api_key"} <= names
    assert not [row["name"] for row in rows if row["part"]]
    open_ = {row["name"] for row in rows if not row["secured"]}
    # What was done can be written down by everybody and read by nobody.
    assert open_ == WITHOUT_POLICY | {"audit"}
    readable = tree.world.one(
        "SELECT has_any_column_privilege('tollkeeper_party', 'audit', 'SELECT')"
    )
    assert not readable


SEEN = {
    "party": "SELECT code FROM party ORDER BY 1",
    "party_above": "SELECT DISTINCT p.code FROM party_above a JOIN party p ON p.id = a.party_id ORDER BY 1",
    "party_move": "SELECT DISTINCT p.code FROM party_move m LEFT JOIN party p ON p.id = m.party_id ORDER BY 1",
    "wallet": "SELECT p.code FROM wallet w LEFT JOIN party p ON p.id = w.party_id ORDER BY 1",
    "account": "SELECT name FROM account WHERE kind = 'wallet' ORDER BY 1",
    "entry": "SELECT DISTINCT w.party_id IS NOT NULL AS own FROM entry e LEFT JOIN wallet w ON w.id = e.wallet_id",
    "live_session": "SELECT key FROM live_session ORDER BY 1",
    "closed_session": "SELECT key FROM closed_session ORDER BY 1",
    "session_message": "SELECT DISTINCT count(*) FROM session_message",
    "meter": "SELECT p.code FROM meter m LEFT JOIN party p ON p.id = m.party_id ORDER BY 1",
    "usage": "SELECT call_id FROM usage ORDER BY 1",
    "usage_leg": "SELECT p.code FROM usage_leg l LEFT JOIN party p ON p.id = l.party_id ORDER BY 1",
    "usage_hour": "SELECT p.code FROM usage_hour h LEFT JOIN party p ON p.id = h.customer_id ORDER BY 1",
    "rate_card": "SELECT code FROM rate_card ORDER BY 1",
    "rate_version": "SELECT DISTINCT c.code FROM rate_version v LEFT JOIN rate_card c ON c.id = v.card_id ORDER BY 1",
    "rate_row": "SELECT DISTINCT next_price::text FROM rate_row ORDER BY 1",
    "rate_plan": "SELECT code FROM rate_plan ORDER BY 1",
    "rate_plan_card": "SELECT count(*) FROM rate_plan_card",
    "zone": "SELECT code FROM zone ORDER BY 1",
    "time_profile": "SELECT code FROM time_profile ORDER BY 1",
    "api_key": "SELECT name FROM api_key ORDER BY 1",
    "webhook": "SELECT code FROM webhook ORDER BY 1",
    "webhook_delivery": "SELECT body FROM webhook_delivery ORDER BY 1",
    "feed": "SELECT payload->>'party' FROM feed ORDER BY 1",
    "commission_run": "SELECT p.code FROM commission_run r LEFT JOIN party p ON p.id = r.party_id ORDER BY 1",
}  # fmt: skip

EXPECTED: dict[str, list[Any]] = {
    "party": ["ca", "cs", "ra", "rs", "ua"],
    "party_above": ["ca", "cs", "ra", "rs", "ua"],
    "party_move": ["ca", "cs", "ra", "rs"],
    "wallet": ["ca", "cs", "ra", "rs"],
    "account": ["ca", "cs", "ra", "rs"],
    "entry": [True],
    "live_session": ["sw1/ca-call", "sw1/cs-call"],
    "closed_session": [],
    "session_message": [2],
    "meter": ["ca", "cs"],
    "usage": ["ca-call", "cs-call"],
    "usage_leg": ["ca", "cs"],
    "usage_hour": ["ca", "cs"],
    "rate_card": ["ra-retail-card", "ra-sub-card", "rs-retail-card"],
    "rate_version": ["ra-retail-card", "ra-sub-card", "rs-retail-card"],
    "rate_row": ["0.18", "0.21", "0.3"],
    "rate_plan": ["ra-retail-plan", "ra-sub-plan", "rs-retail-plan"],
    "rate_plan_card": [3],
    "zone": ["ra-zone"],
    "time_profile": ["ra-hours"],
    "api_key": ["ca key", "ra key", "rs key"],
    "webhook": ["ra-hook"],
    "webhook_delivery": ["ra body"],
    "feed": ["ca", "cs"],
    "commission_run": ["ca", "cs", "ra", "rs"],
}


async def test_in_its_role_a_party_reads_the_rows_of_its_subtree_only(api: Api) -> None:
    """Straight SQL, as if a service had forgotten every condition."""
    database = Database(api.tree.world.url, size=1)
    await database.open()
    try:
        async with database.read(scope=api.tree.parties["ra"].id) as connection:
            for table, query in SEEN.items():
                rows = await (await connection.execute(query)).fetchall()
                assert [next(iter(row.values())) for row in rows] == EXPECTED[table], table
        async with database.read() as connection:
            row = await (await connection.execute("SELECT count(*) FROM party")).fetchone()
            assert row == {"count": 9}
    finally:
        await database.close()


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT cost FROM usage",
        "SELECT vendor_id FROM usage",
        "SELECT cost FROM usage_hour",
        "SELECT hash FROM api_key",
        "SELECT * FROM trunk",
        "SELECT * FROM switch",
        "SELECT * FROM cdr_file",
        "SELECT * FROM audit",
        "SELECT * FROM outbox",
        "INSERT INTO outbox (at, kind, next_at) VALUES (now(), 'session.kill', now())",
        "SELECT * FROM outbox_unfed",
        "SELECT * FROM feed_interest",
        "SELECT secret FROM webhook",
        "SELECT old_secret FROM webhook",
        "INSERT INTO feed (at, kind) VALUES (now(), 'session.kill')",
        "SELECT * FROM commission_rule",
        "UPDATE party SET overcommit = 9",
        "UPDATE party SET code = 'x'",
        "UPDATE wallet SET party_id = 1",
        "DELETE FROM party",
        "INSERT INTO party (code, name, kind) VALUES ('top', 'Top', 'customer')",
        (
            "INSERT INTO party (code, name, kind, parent_id) SELECT 'top', 'Top', 'customer', parent_id"
            " FROM party WHERE code = 'ra'"
        ),
        "INSERT INTO rate_card (code, name, currency) VALUES ('x', 'X', 'USD')",
        (
            "INSERT INTO entry (day, at, code, debit_account, credit_account, amount, currency, wallet_id,"
            " wallet_version, balance_after) SELECT current_date, now(), 'topup', 0, id, 5, 'USD', id, 99, 5 FROM wallet"
            " LIMIT 1"
        ),
    ],
)
def test_in_its_role_a_party_may_not(tree: Tree, statement: str) -> None:
    with psycopg.connect(tree.world.url) as connection:
        connection.execute("SET LOCAL ROLE tollkeeper_party")
        connection.execute(
            "SELECT set_config('tollkeeper.party', %s, true)", (str(tree.parties["ra"].id),)
        )
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement)  # type: ignore[call-overload]
        connection.rollback()


@pytest.mark.parametrize("who", ["ra", "zzrb"])
def test_in_its_role_a_party_changes_no_row_of_itself_or_of_others(tree: Tree, who: str) -> None:
    with psycopg.connect(tree.world.url) as connection:
        connection.execute("SET LOCAL ROLE tollkeeper_party")
        connection.execute(
            "SELECT set_config('tollkeeper.party', %s, true)", (str(tree.parties[who].id),)
        )
        changed = connection.execute("UPDATE party SET name = 'x' RETURNING code").fetchall()
        below = {"ra": {"ca", "cs", "rs", "ua"}, "zzrb": {"zzcb"}}[who]
        assert {code for (code,) in changed} == below
        connection.rollback()


def test_without_a_party_the_role_sees_nothing(tree: Tree) -> None:
    """A connection that forgot to say for whom it works is shown nothing, not everything."""
    with psycopg.connect(tree.world.url) as connection:
        connection.execute("SET LOCAL ROLE tollkeeper_party")
        assert connection.execute("SELECT count(*) FROM party").fetchone() == (0,)
        connection.rollback()
