"""The routes of webhooks: a secret is seen once, a party's stands outside, deliveries are looked at."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.servers.management import Api, client_of, problem
from tests.support import World, runtime
from tollkeeper.gateways.webhook import NullWebhook, Outcome

ROUTE = "/v1/webhooks"
URL = "https://billing.example/events"
BODY = {"code": "hook", "url": URL, "events": ["session.ended", "session.kill"]}


@pytest_asyncio.fixture
async def api(database_url: str) -> AsyncIterator[Api]:
    with World(database_url) as world:
        token = world.key("manage")
        reseller = world.reseller("res")
        world.customer("acme", parent=reseller)
        options: dict[str, Any] = {"webhook": NullWebhook()}
        async with (
            runtime(database_url, **options) as parts,
            client_of(parts, token) as client,
        ):
            yield Api(world, parts, client)


async def test_a_secret_that_is_made_is_shown_once(api: Api) -> None:
    made = await api.call("POST", ROUTE, json=BODY)
    assert made.status_code == 201, made.text
    secret = made.json()["secret"]
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", secret)
    assert api.world.one("SELECT secret FROM webhook") == secret
    shown = await api.call("GET", f"{ROUTE}/hook")
    assert shown.json() == {
        "code": "hook", "party": None, "url": URL, "events": BODY["events"], "enabled": True,
        "failing_since": None, "disabled_why": "", "old_secret_until": None,
        "created_at": shown.json()["created_at"],
    }  # fmt: skip
    listed = await api.call("GET", ROUTE)
    rotated = await api.call("POST", f"{ROUTE}/hook/secret", json={"keep_hours": 2})
    assert rotated.json()["secret"] not in {secret, None}
    assert rotated.json()["old_secret_until"] is not None
    trail = str(api.world.sql("SELECT detail FROM audit"))
    for text in (shown.text, listed.text, trail):
        assert "whsec_" not in text
    assert api.audited() == ["webhook.create", "webhook.rotate"]


async def test_a_secret_that_is_given_is_not_repeated(api: Api) -> None:
    own = "whsec_" + "A" * 32
    made = await api.call("POST", ROUTE, json={**BODY, "secret": own})
    assert made.json()["secret"] is None
    assert api.world.one("SELECT secret FROM webhook") == own


async def test_it_is_changed_listed_and_deleted(api: Api) -> None:
    for code in ("a", "b", "c"):
        await api.call("POST", ROUTE, json={**BODY, "code": code, "url": f"{URL}?token=secret"})
    page = (await api.call("GET", ROUTE, params={"limit": 2})).json()
    assert ([one["code"] for one in page["items"]], page["next"]) == (["a", "b"], "b")
    page = (await api.call("GET", ROUTE, params={"limit": 2, "after": "b"})).json()
    assert ([one["code"] for one in page["items"]], page["next"]) == (["c"], None)
    body = {"url": "http://10.0.0.7/x", "events": ["wallet.topup"], "enabled": False}
    changed = (await api.call("PATCH", f"{ROUTE}/a", json=body)).json()
    assert {name: changed[name] for name in body} == body
    assert (await api.call("DELETE", f"{ROUTE}/a")).status_code == 204
    problem(await api.call("GET", f"{ROUTE}/a"), 404, "unknown_webhook")
    problem(
        await api.call("POST", ROUTE, json={**BODY, "code": "b"}), 409, "webhook_exists", "code"
    )
    assert "token" not in str(api.world.sql("SELECT detail FROM audit"))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"url": "ftp://billing.example/"}, "url"),
        ({"url": "https://user:pw@billing.example/"}, "url"),
        ({"url": "https://billing.example/#x"}, "url"),
        ({"url": "https://"}, "url"),
        ({"url": "https://bücher.example/"}, "url"),
        ({"url": "https://[::1/"}, "url"),
        ({"url": URL + "a" * 3000}, "url"),
        ({"events": []}, "events"),
        ({"events": ["session.began"]}, "events.0"),
        ({"secret": "whsec_AAAA"}, "secret"),
        ({"secret": "whsec_ü"}, "secret"),
        ({"party": "nobody"}, "party"),
        ({"party": "acme", "url": "http://billing.example/"}, "url"),
        ({"party": "acme", "url": "https://127.0.0.1/"}, "url"),
        ({"party": "acme", "url": "https://[::ffff:10.0.0.1]/"}, "url"),
        ({"party": "acme", "url": "https://localhost/"}, "url"),
        ({"party": "acme", "url": "https://2130706433/"}, "url"),
    ],
)
async def test_a_wrong_field_adds_nothing(api: Api, change: dict[str, Any], field: str) -> None:
    answer = await api.call("POST", ROUTE, json={**BODY, **change})
    assert (answer.status_code, answer.json()["field"]) == (422, field), answer.text
    assert api.world.one("SELECT count(*) FROM webhook") == 0


async def test_a_test_is_delivered_and_sent_again(api: Api) -> None:
    await api.call("POST", ROUTE, json=BODY)
    gateway = api.parts.events._gateway
    gateway.answers = [Outcome(500, "answered 500")]
    made = (await api.call("POST", f"{ROUTE}/hook/test")).json()
    assert (made["type"], made["state"], made["attempts"]) == ("webhook.test", "waiting", 0)
    await api.parts.events.settle()
    page = (await api.call("GET", f"{ROUTE}/hook/deliveries", params={"state": "waiting"})).json()
    (waiting,) = page["items"]
    assert (waiting["status"], waiting["error"], waiting["attempts"]) == (500, "answered 500", 1)
    shown = (await api.call("GET", f"{ROUTE}/hook")).json()
    assert shown["failing_since"] is not None
    route = f"{ROUTE}/hook/deliveries/{made['id']}/redeliver"
    assert (await api.call("POST", route)).status_code == 202
    await api.parts.events.settle()
    page = (await api.call("GET", f"{ROUTE}/hook/deliveries", params={"state": "delivered"})).json()
    assert [one["id"] for one in page["items"]] == [made["id"]]
    assert {post.message_id for post in gateway.sent} == {made["event_id"]}
    assert (await api.call("GET", f"{ROUTE}/hook")).json()["failing_since"] is None


async def test_what_is_disabled_sends_nothing(api: Api) -> None:
    await api.call("POST", ROUTE, json={**BODY, "enabled": False})
    problem(await api.call("POST", f"{ROUTE}/hook/test"), 409, "webhook_disabled")
    problem(await api.call("POST", f"{ROUTE}/none/test"), 404, "unknown_webhook")
    await api.call("PATCH", f"{ROUTE}/hook", json={"enabled": True})
    route = f"{ROUTE}/hook/deliveries/7/redeliver"
    problem(await api.call("POST", route), 404, "unknown_delivery")


async def test_a_party_manages_its_own_and_those_below_it(api: Api) -> None:
    """All of it in the party's role, the secret included, which it may write and never read."""
    await api.call("POST", ROUTE, json={**BODY, "code": "ours"})
    key = await api.call(
        "POST", "/v1/keys", json={"name": "k", "scopes": ["manage"], "party": "res"}
    )
    await api.parts.directory.load()
    async with client_of(api.parts, key.json()["secret"]) as client:
        own = await client.post(ROUTE, json={**BODY, "code": "own"})
        assert (own.status_code, own.json()["party"]) == (201, "res"), own.text
        below = await client.post(ROUTE, json={**BODY, "code": "below", "party": "acme"})
        assert below.json()["party"] == "acme"
        listed = (await client.get(ROUTE)).json()["items"]
        assert [one["code"] for one in listed] == ["below", "own"]
        for method, path in (
            ("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/secret"), ("POST", "/test"),
            ("GET", "/deliveries"), ("POST", "/deliveries/1/redeliver"),
        ):  # fmt: skip
            options = {"json": {}} if method == "PATCH" or path == "/secret" else {}
            answer = await client.request(method, f"{ROUTE}/ours{path}", **options)
            problem(answer, 404, "unknown_webhook")
        rotated = await client.post(f"{ROUTE}/own/secret", json={})
        assert rotated.json()["secret"].startswith("whsec_")
        made = await client.post(f"{ROUTE}/own/test")
        assert made.status_code == 202, made.text
        path = f"{ROUTE}/own/deliveries/{made.json()['id']}/redeliver"
        assert (await client.post(path)).status_code == 202
        changed = await client.patch(f"{ROUTE}/own", json={"url": "http://10.0.0.1/"})
        problem(changed, 422, "invalid_input", "url")
        assert (await client.delete(f"{ROUTE}/own")).status_code == 204
