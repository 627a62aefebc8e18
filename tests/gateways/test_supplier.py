"""The HTTP adapter of suppliers, against a real server: what is asked, and what each answer means."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.gateways.platform import SECRET, SETTINGS, Platform, platform
from tests.support import free_port
from tollkeeper.errors import InvalidInput
from tollkeeper.gateways.supplier import (
    Answer,
    HttpSupplier,
    NullSupplier,
    Outcome,
    Refused,
    Suppliers,
    Unknown,
    judge,
)
from tollkeeper.gateways.supplier_settings import (
    NULL_URL,
    Operation,
    SupplierConfig,
    at,
    check_base_url,
    read_supplier_settings,
)

VALUES = {"order_id": "o-1", "item": "EU 5GB", "number": "4930 1/2", "kind": "hlr", "query": "a&b"}


def config(url: str, **changes: Any) -> SupplierConfig:
    """The made-up supplier; ``changes`` are settings."""
    settings = read_supplier_settings({**copy.deepcopy(SETTINGS), **changes})
    return SupplierConfig("sky", "esim", url, SECRET, settings)


def with_order(**changes: Any) -> dict[str, Any]:
    """The operations, with another order."""
    operations = copy.deepcopy(SETTINGS["operations"])
    operations["order"].update(changes)
    return {"operations": operations}


@pytest_asyncio.fixture
async def sky() -> AsyncIterator[Platform]:
    async with platform() as made:
        yield made


@pytest_asyncio.fixture
async def gateway() -> AsyncIterator[HttpSupplier]:
    made = HttpSupplier()
    yield made
    await made.close()


async def order(gateway: HttpSupplier, supplier: SupplierConfig) -> Answer:
    return await gateway.call(supplier, "order", VALUES, key="o-1")


async def test_an_order_is_sent_as_configured_and_its_answer_read(
    gateway: HttpSupplier, sky: Platform
) -> None:
    answer = await order(gateway, config(sky.url))
    assert answer == Answer(
        Outcome.DONE,
        {
            "reference": "ref-0",
            "iccid": "8901000000000000000",
            "activation_code": "LPA:1$rsp.example$8901000000000000000",
        },
    )
    (sent,) = sky.requests
    assert (sent.method, sent.path) == ("POST", "/orders")
    assert sent.headers["idempotency-key"] == "o-1"
    assert sent.headers["content-type"] == "application/json"
    assert sent.body == {"client_order": "o-1", "product": "EU 5GB", "number": "4930 1/2"}


async def test_values_in_paths_and_queries_cannot_break_out(
    gateway: HttpSupplier, sky: Platform
) -> None:
    """A slash or ampersand of a value is part of the value, not of the address."""
    await gateway.call(config(sky.url), "lookup", VALUES, key="k")
    await gateway.call(config(sky.url), "search", VALUES, key="k")
    lookup, search = sky.requests
    assert (lookup.path, lookup.query) == ("/numbers/4930 1/2", {"type": "hlr"})
    assert (search.path, search.query) == ("/stock", {"q": "a&b"})


async def test_a_list_in_an_answer_stays_a_list(gateway: HttpSupplier, sky: Platform) -> None:
    answer = await gateway.call(config(sky.url), "search", VALUES, key="k")
    assert answer.fields == {"numbers": ["4930100000", "4930100001"]}


async def test_a_placeholder_in_a_value_is_not_filled_again(
    gateway: HttpSupplier, sky: Platform
) -> None:
    """Who names an item "{secret}" learns nothing."""
    await gateway.call(config(sky.url), "order", {**VALUES, "item": "{secret}"}, key="o-1")
    assert sky.requests[0].body["product"] == "{secret}"


async def test_a_refusal_has_its_reason(gateway: HttpSupplier, sky: Platform) -> None:
    sky.state = "REJECTED"
    with pytest.raises(Refused) as refused:
        await order(gateway, config(sky.url))
    assert refused.value.reason == "out of stock"


async def test_an_order_that_is_being_worked_on_is_pending(
    gateway: HttpSupplier, sky: Platform
) -> None:
    sky.state = "PROCESSING"
    answer = await order(gateway, config(sky.url))
    assert (answer.outcome, answer.fields["reference"]) == (Outcome.PENDING, "ref-0")


async def test_a_client_error_is_a_refusal_and_never_repeats_the_secret(
    gateway: HttpSupplier, sky: Platform
) -> None:
    sky.faults = [403]
    with pytest.raises(Refused) as refused:
        await order(gateway, config(sky.url))
    assert refused.value.reason == "fault ***"
    assert len(sky.requests) == 1


@pytest.mark.parametrize(
    "fault", [500, 429, 408, "drop", "take_and_drop", "garbage", "huge", "slow"]
)
async def test_what_may_have_been_done_is_repeated_under_the_same_key(
    gateway: HttpSupplier, sky: Platform, fault: str | int
) -> None:
    """Two attempts fail, the third is answered; the supplier has one order."""
    sky.faults = [fault, fault]
    answer = await order(gateway, config(sky.url))
    assert answer.outcome is Outcome.DONE
    assert len(sky.requests) == 3
    assert len(sky.orders) == 1


@pytest.mark.parametrize("fault", [500, "take_and_drop", "garbage", "huge", "take_and_hang"])
async def test_what_never_answers_is_unknown(
    gateway: HttpSupplier, sky: Platform, fault: str | int
) -> None:
    sky.faults = [fault] * 3
    with pytest.raises(Unknown) as unknown:
        await order(gateway, config(sky.url))
    assert unknown.value.sent
    assert len(sky.requests) == 3
    assert SECRET not in str(unknown.value)


async def test_an_order_that_cannot_be_repeated_is_sent_once(
    gateway: HttpSupplier, sky: Platform
) -> None:
    sky.faults = ["take_and_drop"]
    with pytest.raises(Unknown):
        await order(gateway, config(sky.url, **with_order(idempotent=False)))
    assert len(sky.requests) == 1
    assert len(sky.orders) == 1


async def test_who_does_not_listen_was_never_asked(gateway: HttpSupplier) -> None:
    with pytest.raises(Unknown) as unknown:
        await order(gateway, config(f"http://127.0.0.1:{free_port()}"))
    assert not unknown.value.sent


async def test_one_attempt_that_may_have_arrived_counts_for_all(
    gateway: HttpSupplier, sky: Platform
) -> None:
    """The first request may have been taken, though the last ones found nobody."""
    calls = 0

    class Flaky(HttpSupplier):
        async def _once(self, *_: Any) -> Answer:
            nonlocal calls
            calls += 1
            raise Unknown("x", sent=calls == 1)

    flaky = Flaky()
    with pytest.raises(Unknown) as unknown:
        await order(flaky, config(sky.url))
    await flaky.close()
    assert (calls, unknown.value.sent) == (3, True)


async def test_what_a_header_cannot_hold_is_left_out(gateway: HttpSupplier, sky: Platform) -> None:
    """A reference of the supplier's own making cannot add a header."""
    settings = {**SETTINGS["headers"], "X-Ref": "{reference}"}
    values = {**VALUES, "reference": "r\r\nx-evil: 1\u00e9"}
    await gateway.call(config(sky.url, headers=settings), "order", values, key="o-1")
    assert sky.requests[0].headers["x-ref"] == "rx-evil: 1"
    assert "x-evil" not in sky.requests[0].headers


async def test_an_address_that_no_client_takes_was_never_asked(gateway: HttpSupplier) -> None:
    with pytest.raises(Unknown) as unknown:
        await order(gateway, config("https://a..b"))
    assert not unknown.value.sent


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, b'{"state": "COMPLETED"}', Outcome.DONE),
        (202, b'{"state": "PROCESSING"}', Outcome.PENDING),
        (404, b"", "refused: it answered 404"),
        (
            200,
            b'{"state": "NEWSPEAK"}',
            "unknown: order: /state is 'NEWSPEAK', which no list names",
        ),
        (200, b"{}", "unknown: order: /state is 'None', which no list names"),
        (200, b"[" * 100_000, "unknown: order: it answered 200 with what is no JSON"),
        (302, b"", "unknown: order: it answered 302"),
        (503, b"{}", "unknown: order: it answered 503"),
        (409, b'{"error": {"message": "no\\u0007\\ncredit"}}', "refused: no  credit"),
    ],
)
def test_what_an_answer_means(status: int, body: bytes, expected: Outcome | str) -> None:
    operation = read_supplier_settings(SETTINGS).operations["order"]
    try:
        found: Outcome | str = judge(operation, "order", status, body).outcome
    except Refused as error:
        found = f"refused: {error.reason}"
    except Unknown as error:
        found = f"unknown: {error.detail}"
    assert found == expected


def test_without_a_pointer_the_status_decides() -> None:
    plain = Operation(path="/x", absent_statuses=(404,), done_statuses=(409,))
    assert judge(plain, "x", 204, b"").outcome is Outcome.DONE
    assert judge(plain, "x", 202, b"").outcome is Outcome.PENDING
    assert judge(plain, "x", 404, b"").outcome is Outcome.ABSENT
    assert judge(plain, "x", 409, b"").outcome is Outcome.DONE


def test_json_pointers() -> None:
    """RFC 6901, section 5."""
    document = {"foo": ["bar", "baz"], "a/b": 1, "m~n": 8, "": 0}
    assert [at(document, p) for p in ("/foo/0", "/foo/2", "/a~1b", "/m~0n", "/", "/x/y")] == [
        "bar",
        None,
        1,
        8,
        0,
        None,
    ]
    assert at(document, "") == document


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"operations": {"order": {}}}, "settings.operations[...]"),
        ({"operations": {"buy": {"path": "/x"}}}, "settings.operations"),
        (with_order(path="orders"), "settings.operations.order.path"),
        (with_order(path="/{nothing}"), "settings.operations.order.path"),
        (with_order(path="/{secret}"), "settings.operations.order.path"),
        (with_order(body={"a": ["{b}"]}), "settings.operations.order.body"),
        (with_order(body={"a": [float("inf")]}), "settings.operations.order.body"),
        (
            with_order(body=[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]),
            "settings.operations.order.body",
        ),
        (with_order(done=[]), "settings.operations.order.done"),
        (with_order(outcome=""), "settings.operations.order.outcome"),
        ({"headers": {"x y": "1"}}, "settings.headers"),
        ({"headers": {"x": "a\r\nb: c"}}, "settings.headers"),
        ({"timeout_seconds": 0}, "settings.timeout_seconds"),
        ({"items": {"a": {"rate_key": "EU"}}}, "settings.items[...].rate_key"),
        ({"items": {"a": {"rate_key": "1", "data_bytes": 5}}}, "settings.items.a.package"),
        ({"surprise": 1}, "settings"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as error:
        read_supplier_settings({**copy.deepcopy(SETTINGS), **changes})
    assert error.value.field == field
    assert "\n" not in error.value.detail


@pytest.mark.parametrize(
    "url", ["ftp://x", "https://", "https://u:p@x", "https://x?a=1", "x", "https://x y"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput):
        check_base_url(url)


def test_the_secret_is_not_in_the_text_of_a_configuration() -> None:
    assert SECRET not in repr(config("https://x.example"))


async def test_a_supplier_that_is_not_there_pretends_and_remembers() -> None:
    everybody = Suppliers()
    nobody = SupplierConfig("demo", "esim", NULL_URL, "", read_supplier_settings({}))
    first = await everybody.call(nobody, "order", {"order_id": "00ff"}, key="a")
    again = await everybody.call(nobody, "order", {"order_id": "00ff"}, key="a")
    await everybody.close()
    assert first == again
    assert first.fields["iccid"].isdigit()
    scripted = NullSupplier(lambda *_: Answer(Outcome.ABSENT))
    assert (await scripted.call(nobody, "lookup", {"number": "1"}, key="b")).fields == {}
    assert scripted.asked == [("lookup", {"number": "1"}, "b")]
