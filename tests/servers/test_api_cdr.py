"""Files of records over HTTP: brought, looked at, mended, priced anew and taken back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.servers.management import problem
from tests.services.cdr_world import HEADER, MAPPING, SWITCH, Call, CdrWorld
from tests.services.test_cdr_files import Here
from tests.support import UNSOLD, Row, runtime, tariff
from tollkeeper.errors import Busy
from tollkeeper.servers.api import cdr
from tollkeeper.servers.api.app import create_app
from tollkeeper.servers.api.context import Services
from tollkeeper.services.cdr.brought import Bringing
from tollkeeper.services.cdr.prepare import LoadPolicy
from tollkeeper.services.cdr.quarantine import Filter, ReplayReport, replay
from tollkeeper.services.cdr.rerate import RerateJob, RerateReport, rerate
from tollkeeper.services.spool import Spool

NOW = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=10)
FILES = "/v1/cdr/files"
MAX_BYTES = 100_000


class Desk(Here):
    """Does in this process what the real worker does in another one."""

    async def replay(self, wanted: Filter, *, actor: str) -> ReplayReport:
        """Play records again."""
        return await replay(
            self.database, wanted, policy=LoadPolicy(), actor=actor, clock=lambda: datetime.now(UTC)
        )

    async def rerate(self, job: RerateJob) -> RerateReport:
        """Price records anew."""
        return await rerate(self.database, job, clock=lambda: datetime.now(UTC))


@dataclass
class Api:
    """A client that may do everything, the worker behind the server, and the world."""

    world: CdrWorld
    parts: Any
    desk: Desk
    client: httpx.AsyncClient
    services: Services

    async def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request."""
        return await self.client.request(method, path, **options)

    async def bring(self, *calls: Call, **query: str) -> httpx.Response:
        """Bring a file of calls of this moment, with its mapping."""
        form = {"mapping": json.dumps(MAPPING)}
        given = {"switch": SWITCH, "name": "a.csv", "format": "csv", **query}
        return await self.client.post(
            FILES, params=given, data=form, files={"file": ("x.csv", file_of(*calls))}
        )


def file_of(*calls: Call) -> bytes:
    lines = [HEADER, *(replace(call, start=NOW).line() for call in calls)]
    return ("\n".join(lines) + "\n").encode()


@pytest.fixture
def world(database_url: str) -> Iterator[CdrWorld]:
    with CdrWorld(database_url) as made:
        yield made


@asynccontextmanager
async def client_of(services: Services, token: str) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(services), raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://test", headers=headers
    ) as client:
        yield client


@pytest.fixture
async def api(world: CdrWorld, tmp_path: Path) -> AsyncIterator[Api]:
    token = world.key("manage", "read")
    async with runtime(world.url) as parts:
        desk = Desk(parts.database, parts.clock)
        spool = Spool(tmp_path / "spool", max_bytes=MAX_BYTES)
        bringing = Bringing(database=parts.database, spool=spool, worker=desk, clock=parts.clock)  # type: ignore[arg-type]
        services = Services(
            parts.database, parts.directory, parts.charging, parts.clock, spool, desk, bringing  # type: ignore[arg-type]
        )  # fmt: skip
        async with client_of(services, token) as client:
            yield Api(world, parts, desk, client, services)
        await bringing.stop()


# --- files ---------------------------------------------------------------------------------------


async def test_a_file_is_brought_loaded_and_shown(api: Api) -> None:
    """With its mapping in the form; the same file again is the same file."""
    answer = await api.bring(Call("a"), Call("b", called=UNSOLD), name="march.csv")
    assert answer.status_code == 200, answer.text
    made = answer.json()
    assert (made["status"], made["name"], made["records"], made["rated"], made["quarantined"]) == (
        "done", "march.csv", 2, 1, 1,
    )  # fmt: skip
    again = (await api.bring(Call("a"), Call("b", called=UNSOLD))).json()
    assert again == made
    shown = (await api.call("GET", f"{FILES}/{made['id']}")).json()
    assert shown["file"] == made
    assert shown["quarantine"] == {"no_rate": 1}
    assert shown["money"] == [{"currency": "USD", "charged": "0.60", "cost": "0.30"}]
    assert [batch["kind"] for batch in shown["batches"]] == ["load"]
    assert api.world.balance(api.world.acme) == Decimal("99.4")


async def test_a_file_is_read_as_a_source_says(api: Api) -> None:
    api.world.sql(
        "INSERT INTO cdr_source (code, kind, switch, format, mapping) VALUES ('s', 'manual', 'sw5', 'csv', %s)",
        json.dumps(MAPPING),
    )
    query = {"source": "s", "name": "a.csv"}
    answer = await api.call("POST", FILES, params=query, content=file_of(Call("a")))
    assert answer.status_code == 200, answer.text
    assert (answer.json()["switch"], answer.json()["rated"]) == ("sw5", 1)
    problem(await api.call("POST", FILES, params={**query, "source": "t"}, content=b"x"), 404, "unknown_cdr_source")  # fmt: skip


async def test_a_file_that_takes_long_is_safe_and_told_by_its_number(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cdr, "PATIENCE_SECONDS", 0.05)
    api.desk.fault = Busy("another load is running")
    answer = await api.bring(Call("a"))
    assert (answer.status_code, answer.json()["status"]) == (202, "loading")
    api.desk.fault = None
    assert api.services.bringing is not None
    await api.services.bringing.go_on()
    shown = await api.call("GET", f"{FILES}/{answer.json()['id']}")
    assert shown.json()["file"]["status"] == "done"


async def test_what_is_wrong_with_a_file_is_a_problem_that_names_it(api: Api) -> None:
    async def post(content: bytes = b"x", **query: str) -> httpx.Response:
        return await api.call("POST", FILES, params={"name": "a.csv", **query}, content=content)

    problem(await post(), 422, "invalid_input", "switch")
    problem(await post(switch="a b"), 422, "invalid_input", "switch")
    problem(await post(switch="sw1", format="punched-cards"), 422, "invalid_input", "format")
    problem(await post(switch="sw1", format="csv"), 422, "mapping_missing", "mapping")
    problem(await post(switch="sw1", colour="red"), 422, "invalid_input", "colour")
    problem(await post(switch="sw1", timezone="Mars/Olympus"), 422, "unknown_timezone", "timezone")
    problem(await post(b"", switch="sw1"), 422, "empty_file", "file")
    problem(await post(bytes(1000), switch="sw1"), 422, "unknown_format", "format")
    problem(await post(bytes(MAX_BYTES + 1), switch="sw1"), 413, "body_too_large")
    query = {"switch": "sw1", "name": "a.csv"}
    for data, code, field in (
        ({"mapping": "{"}, "invalid_json", None),
        ({"mapping": "[]"}, "invalid_input", "mapping"),
        ({"colour": "red"}, "invalid_input", "form"),
    ):
        answer = await api.client.post(FILES, params=query, data=data, files={"file": b"x"})
        problem(answer, 400 if field is None else 422, code, field)
    form = {"files": {"mapping": (None, json.dumps(MAPPING))}}
    problem(await api.client.post(FILES, params=query, **form), 422, "invalid_input", "file")  # type: ignore[arg-type]
    large = {"file": ("x", bytes(3 * 1024 * 1024))}
    problem(await api.client.post(FILES, params=query, files=large), 413, "body_too_large")
    assert api.world.one("SELECT count(*) FROM cdr_file") == 0
    failed = await api.bring(name="empty.csv")
    assert failed.json()["status"] in {"done", "failed"}


async def test_files_and_batches_are_read_page_by_page(api: Api) -> None:
    numbers = []
    for n in range(3):
        made = await api.bring(Call(f"c{n}"), name=f"{n}.csv", switch=f"sw{n}")
        numbers.insert(0, made.json()["id"])
    for path, names in ((FILES, ["2.csv", "1.csv", "0.csv"]), ("/v1/cdr/batches", numbers)):
        seen: list[Any] = []
        after = 0
        while after is not None:
            page = (await api.call("GET", path, params={"limit": 2, "after": after})).json()
            seen += [item["name"] if path == FILES else item["file"] for item in page["items"]]
            after = page["next"]
        assert seen == names
    for query, count in (
        ({"switch": "sw1"}, 1), ({"status": "failed"}, 0), ({"since": "2026-01-01"}, 3),
    ):  # fmt: skip
        assert len((await api.call("GET", FILES, params=query)).json()["items"]) == count
    one = await api.call(
        "GET", "/v1/cdr/batches", params={"kind": "load", "file": numbers[1], "switch": "sw1"}
    )
    assert [item["file"] for item in one.json()["items"]] == [numbers[1]]
    problem(await api.call("GET", FILES, params={"status": "lost"}), 422, "invalid_input", "status")
    problem(await api.call("GET", f"{FILES}/9999"), 404, "unknown_file", "file")


async def test_a_file_is_taken_back_once_and_may_come_again(api: Api) -> None:
    made = (await api.bring(Call("a"))).json()
    path = f"{FILES}/{made['id']}/rollback"
    problem(await api.call("POST", path, json={}), 422, "invalid_input", "reason")
    back = await api.call("POST", path, json={"reason": "sent by mistake"})
    assert back.status_code == 200, back.text
    assert (len(back.json()["undone"]), back.json()["entries"]) == (1, 2)
    assert api.world.balance(api.world.acme) == Decimal(100)
    problem(await api.call("POST", path, json={"reason": "again"}), 409, "already_rolled_back")
    assert (await api.bring(Call("a"))).json()["id"] != made["id"]


# --- quarantine ----------------------------------------------------------------------------------


async def test_records_are_listed_mended_played_again_and_dropped(api: Api) -> None:
    made = await api.bring(
        Call("a", called="banana"), Call("b", called=UNSOLD), Call("c", called=UNSOLD)
    )
    assert made.json()["quarantined"] == 3
    place = "/v1/cdr/quarantine"
    page = (await api.call("GET", place, params={"reason": "no_rate", "limit": 1})).json()
    (first,) = page["items"]
    assert (first["line"], first["record"]["call_id"], first["file_name"]) == (3, "b", "a.csv")
    rest = await api.call("GET", place, params={"reason": "no_rate", "after": page["next"]})
    assert [item["line"] for item in rest.json()["items"]] == [4]
    (odd,) = (await api.call("GET", place, params={"reason": "bad_number"})).json()["items"]
    path = f"{place}/{odd['id']}"
    fixed = await api.call("PATCH", path, json={"values": {"called": "442071838750", "sip": 200}})
    assert fixed.json()["record"]["called"] == "442071838750"
    problem(await api.call("PATCH", path, json={"values": {"colour": "red"}}), 422, "invalid_input", "colour")  # fmt: skip
    problem(await api.call("PATCH", path, json={"values": {"sip": "red"}}), 422, "invalid_input", "values")  # fmt: skip
    problem(await api.call("PATCH", f"{place}/99", json={"values": {"sip": 1}}), 404, "unknown_record")  # fmt: skip
    played = await api.call("POST", f"{place}/replay", json={"ids": [odd["id"], first["id"]]})
    assert played.json() == {
        "played": 2, "rated": 1, "matched": 0, "duplicate": 0, "still": 1, "unreadable": 0,
    }  # fmt: skip
    problem(await api.call("POST", f"{place}/replay", json={"reason": "x"}), 422, "invalid_input", "reason")  # fmt: skip
    assert (await api.call("POST", f"{place}/replay", json={"reason": "no_rate"})).json()[
        "still"
    ] == 2
    dropped = await api.call("POST", f"{place}/drop", json={"ids": [first["id"]], "why": "a test"})
    assert dropped.json() == {"dropped": 1}
    problem(await api.call("POST", f"{place}/drop", json={"ids": [1]}), 422, "invalid_input", "why")
    for status, count in (("open", 1), ("replayed", 1), ("dropped", 1)):
        listed = await api.call("GET", place, params={"status": status})
        assert len(listed.json()["items"]) == count
    assert api.world.balance(api.world.acme) == Decimal("99.4")


# --- mismatches, formats, other prices ---------------------------------------------------------------


async def test_mismatches_are_listed_with_their_counts(api: Api) -> None:
    await api.bring(Call("a", seconds="20000"), Call("b", seconds="20000"))
    days = {"from": f"{NOW:%Y-%m-%d}", "to": f"{NOW:%Y-%m-%d}"}
    path = "/v1/cdr/mismatches"
    page = (await api.call("GET", path, params={**days, "limit": 1, "kind": "long_call"})).json()
    assert page["counts"] == {"long_call": 2}
    assert (page["items"][0]["call_id"], page["items"][0]["customer"]) == ("b", "acme")
    rest = (await api.call("GET", path, params={**days, "after": page["next"]})).json()
    assert [item["call_id"] for item in rest["items"]] == ["a"]
    assert rest["next"] is None
    problem(await api.call("GET", path), 422, "invalid_input", "from")
    problem(await api.call("GET", path, params={**days, "customer": "x"}), 404, "unknown_party", "customer")  # fmt: skip
    problem(await api.call("GET", path, params={**days, "to": "2020-01-01"}), 422, "invalid_input", "to")  # fmt: skip


async def test_a_file_is_recognised_by_its_first_bytes(api: Api) -> None:
    formats = (await api.call("GET", "/v1/cdr/formats")).json()["items"]
    assert {one["code"]: one["needs_mapping"] for one in formats}["csv"] is True
    assert {"tap3", "vos3000", "cucm"} <= {one["code"] for one in formats}
    head = file_of(Call("a"), Call("b"))
    found = (await api.call("POST", "/v1/cdr/sniff", params={"name": "a.csv"}, content=head)).json()
    assert found["format"] == "csv"
    assert found["mapping"]["fields"]["call_id"]
    assert found["rows"][0]["called"] == "442071838750"
    problem(await api.call("POST", "/v1/cdr/sniff", content=b""), 422, "invalid_input", "body")
    answer = await api.call("POST", "/v1/cdr/sniff", content=bytes(2 * 1024 * 1024))
    problem(answer, 413, "body_too_large")


async def test_records_are_priced_anew_and_taken_back(api: Api) -> None:
    await api.bring(Call("a"), Call("b"))
    card = api.world.card("dearer", [Row("44", "UK", tariff("1.2"))])
    api.world.sql("UPDATE rate_plan_card SET card_id = %s WHERE card_id = (SELECT id FROM rate_card WHERE code = 'retail-usd')", card)  # fmt: skip
    ask: dict[str, Any] = {
        "from": (NOW - timedelta(hours=1)).isoformat(),
        "to": (NOW + timedelta(hours=1)).isoformat(),
        "customer": "acme",
        "cards": {"dearer": 1},
    }
    path = "/v1/cdr/rerates"
    dry = (await api.call("POST", path, json=ask)).json()
    assert (dry["batch"], dry["records"], dry["changed"]) == (None, 2, 2)
    total = {
        "side": "sell",
        "currency": "USD",
        "was": "1.20",
        "amount": "2.40",
        "difference": "1.20",
    }
    assert dry["totals"] == [total]
    assert [(c["party"], c["destination"], c["calls"]) for c in dry["changes"]] == [
        ("acme", "UK", 2)
    ]
    assert api.world.balance(api.world.acme) == Decimal("98.8")
    problem(
        await api.call("POST", path, json={**ask, "apply": True}), 422, "invalid_input", "reason"
    )
    done = await api.call("POST", path, json={**ask, "apply": True, "reason": "new deck"})
    assert done.status_code == 200, done.text
    assert api.world.balance(api.world.acme) == Decimal("97.6")
    undo = f"{path}/{done.json()['batch']}/rollback"
    assert (await api.call("POST", undo, json={"reason": "wrong"})).status_code == 200
    assert api.world.balance(api.world.acme) == Decimal("98.8")
    problem(await api.call("POST", undo, json={"reason": "again"}), 409, "already_rolled_back")
    problem(await api.call("POST", f"{path}/999/rollback", json={"reason": "x"}), 404, "unknown_rerating")  # fmt: skip
    for change, status, code, field in (
        ({"customer": "nobody"}, 404, "unknown_party", "customer"),
        ({"file": 99}, 404, "unknown_file", "file"),
        ({"cards": {"none": 1}}, 404, "unknown_card", "card"),
        ({"to": ask["from"]}, 422, "invalid_input", "until"),
        ({"from": None}, 422, "invalid_input", "from"),
        ({"called": "+44"}, 422, "invalid_input", "called"),
    ):
        problem(await api.call("POST", path, json={**ask, **change}), status, code, field)


# --- who may -------------------------------------------------------------------------------------

ROUTES = [
    ("GET", FILES), ("GET", f"{FILES}/1"), ("GET", "/v1/cdr/batches"), ("GET", "/v1/cdr/quarantine"),
    ("GET", "/v1/cdr/mismatches?from=2026-03-01&to=2026-03-01"), ("GET", "/v1/cdr/formats"),
    ("POST", f"{FILES}?switch=sw1&name=a"), ("POST", f"{FILES}/1/rollback"),
    ("PATCH", "/v1/cdr/quarantine/1"), ("POST", "/v1/cdr/quarantine/replay"),
    ("POST", "/v1/cdr/quarantine/drop"), ("POST", "/v1/cdr/sniff"), ("POST", "/v1/cdr/rerates"),
    ("POST", "/v1/cdr/rerates/1/rollback"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_reading_needs_read_and_everything_else_manage(
    api: Api, method: str, path: str
) -> None:
    may = "read" if method == "GET" else "manage"
    for scope in ("read", "manage", "charge"):
        token = api.world.key(scope)
        await api.parts.directory.load()
        async with client_of(api.services, token) as client:
            answer = await client.request(method, path)
        if scope == may or (scope == "manage" and may == "read"):
            assert answer.status_code not in {401, 403}, answer.text
        else:
            problem(answer, 403, "scope_missing")
    async with client_of(api.services, "tk_wrong") as client:
        problem(await client.request(method, path), 401, "invalid_key")


async def test_a_process_that_loads_nothing_says_so(api: Api) -> None:
    bare = replace(api.services, spool=None, worker=None, bringing=None)
    async with client_of(bare, api.client.headers["authorization"].split()[1]) as client:
        query = {"switch": "sw1", "name": "a"}
        problem(await client.post(FILES, params=query, content=b"x"), 503, "no_spool")
        problem(await client.post("/v1/cdr/quarantine/replay", json={}), 503, "no_spool")
