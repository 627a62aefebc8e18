"""FreeSWITCH over HTTP: dialplans that it asks for, records that it posts, files that are made for it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree as ET

import httpx
import pytest
import pytest_asyncio
from defusedxml.ElementTree import fromstring

from tests.protocols.freeswitch_events import Call, channel_headers
from tests.protocols.freeswitch_fake import FakeFreeSwitch
from tests.protocols.house import QUICK, House, add_peer, add_trunk
from tests.support import UK_FIXED, World, until
from tollkeeper.cli.connect.freeswitch import site_of
from tollkeeper.cli.connect.freeswitch_files import PLACES, configuration
from tollkeeper.errors import InvalidInput
from tollkeeper.servers.api.app import create_app
from tollkeeper.servers.api.context import Services
from tollkeeper.services.spool import Spool
from tollkeeper.services.verify import verify
from tollkeeper.store.peers import Peer

UUID = "0f1b3a52-2b0d-4a8e-9d53-5ff0a3c7f1d2"
PASSWORD = "between us alone"


class Web:
    """The HTTP side of a house, and a switch with an account code for its customer."""

    def __init__(self, client: httpx.AsyncClient, world: World, house: House, token: str) -> None:
        self.client, self.world, self.house = client, world, house
        self.auth = ("tollkeeper", token)

    async def ask(self, called: str = UK_FIXED, **fields: str) -> ET.Element:
        """Ask for a dialplan as mod_xml_curl does; the document is checked to be one."""
        form = {
            "hostname": "fake-switch",
            "section": "dialplan",
            "Unique-ID": UUID,
            "Core-UUID": "core-0001",
            "Caller-Context": "tollkeeper",
            "Hunt-Context": "tollkeeper",
            "Hunt-Destination-Number": called,
            "Hunt-Caller-ID-Number": "442071838750",
            "variable_accountcode": "acme",
            "variable_sip_network_ip": "192.0.2.9",
            **fields,
        }
        answer = await self.client.post("/v1/freeswitch/dialplan", data=form, auth=self.auth)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("text/xml")
        root: ET.Element = fromstring(answer.content)
        assert root.tag == "document"
        assert root.get("type") == "freeswitch/xml"
        return root

    async def post(self, record: bytes, path: str = "/v1/freeswitch/cdr") -> httpx.Response:
        """Post a record as mod_json_cdr does."""
        return await self.client.post(
            f"{path}?uuid={UUID}",
            content=record,
            headers={"content-type": "application/json"},
            auth=self.auth,
        )


def actions(root: ET.Element) -> list[tuple[str, str]]:
    """What a dialplan does."""
    return [(one.get("application", ""), one.get("data", "")) for one in root.iter("action")]


def record(milliseconds: int, *, uuid: str = UUID, **variables: str) -> bytes:
    """A record of mod_json_cdr of a call of so many milliseconds."""
    call = Call(uuid, "442071838750", UK_FIXED, "acme", {}, 1_795_000_000_000_000)
    call.answered = call.created + 4_000_000
    call.ended = call.answered + milliseconds * 1000
    call.cause = "NORMAL_CLEARING"
    found = {
        name.removeprefix("variable_"): quote(value, safe="")
        for name, value in channel_headers("CHANNEL_HANGUP_COMPLETE", call, [])
        if name.startswith("variable_")
    }
    profile = {"caller_id_number": call.caller, "destination_number": call.called, "uuid": uuid}
    document = {
        "core-uuid": "core-0001",
        "switchname": "fake-switch",
        "channel_data": {"state": "CS_REPORTING", "direction": "inbound"},
        "variables": {**found, **variables},
        "callflow": [{"dialplan": "XML", "caller_profile": profile}],
    }
    return json.dumps(document).encode()


@pytest_asyncio.fixture
async def web(database_url: str, tmp_path: Path) -> AsyncIterator[Web]:
    """The application of a house in which a switch "fs1" without an agent is set up."""
    with World(database_url) as world:
        acme = world.customer("acme", balance="1")
        add_trunk(world, "acme-in", acme)
        world.sql("UPDATE trunk SET account = 'acme'")
        add_peer(world, "fs1", "freeswitch", options={"slice": 60})
        token = world.key("charge", switch="fs1")
        world.sql(
            "INSERT INTO cdr_source (code, kind, switch, format)"
            " VALUES ('fs-cdr', 'http', 'fs1', 'freeswitch-json')"
        )
        house = House(database_url, policy=QUICK)
        await house.start()
        parts = house.parts
        services = Services(
            parts.database,
            parts.directory,
            parts.charging,
            parts.clock,
            spool=Spool(tmp_path / "spool", max_bytes=10**7),
            board=parts.board,
        )
        transport = httpx.ASGITransport(app=create_app(services))
        try:
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                yield Web(client, world, house, token)
        finally:
            await house.stop()


# --- dialplan ------------------------------------------------------------------------------------


async def test_an_allowed_call_gets_its_limit_and_its_route(web: Web) -> None:
    """Golden: the mark, the limit that counts from the answer, the transfer; asked again, the same."""
    expected = [
        ("set", "tollkeeper=curl"),
        ("set", "tollkeeper_granted=60"),
        ("set", "execute_on_answer_tollkeeper=sched_hangup +60 ALLOTTED_TIMEOUT"),
        ("transfer", f"{UK_FIXED} XML tollkeeper-route"),
    ]
    for _ in range(2):
        root = await web.ask()
        assert [one.get("name") for one in root.iter("context")] == ["tollkeeper"]
        assert actions(root) == expected
    assert web.world.one("SELECT key FROM live_session") == f"fs1/{UUID}"
    acme = web.world.one("SELECT held FROM wallet")
    assert acme == Decimal("0.6")


async def test_a_dial_string_takes_the_place_of_the_route(web: Web) -> None:
    """With the option bridge the answer dials by itself, and its XML is escaped."""
    web.world.sql(
        """UPDATE peer SET options = options || '{"bridge": "{a=<b>&c}sofia/gateway/x/{number}"}'"""
    )
    web.world.notify("peer:1")
    await until(lambda: bool(web.house.board.book.peers["fs1"].text("bridge")))
    assert actions(await web.ask())[-1] == ("bridge", f"{{a=<b>&c}}sofia/gateway/x/{UK_FIXED}")


REFUSED: list[tuple[str, dict[str, str], str, str]] = [
    ("999123", {}, "no_rate", "NO_ROUTE_DESTINATION"),
    ("88213777", {}, "destination_blocked", "CALL_REJECTED"),
    (UK_FIXED, {"variable_accountcode": "who"}, "unknown_customer", "CALL_REJECTED"),
    ("${system(x)}", {}, "invalid_number", "INVALID_NUMBER_FORMAT"),
    ('44"/><evil>', {}, "invalid_number", "INVALID_NUMBER_FORMAT"),
    (UK_FIXED, {"Unique-ID": "x"}, "unknown_customer", "CALL_REJECTED"),
]
"""Number, other fields, reason, cause."""


async def test_a_refused_call_gets_its_end(web: Web) -> None:
    """The cause of the reason, which the record tells too; nothing is held."""
    for number, (called, fields, reason, cause) in enumerate(REFUSED):
        uuid = f"0f1b3a52-2b0d-4a8e-9d53-{number:012d}"
        found = actions(await web.ask(called, **{"Unique-ID": uuid, **fields}))
        assert ("set", f"tollkeeper_reason={reason}") in found
        assert found[-1] == ("hangup", cause)
    assert web.world.one("SELECT held FROM wallet") == 0


async def test_what_is_not_for_us_is_left_to_the_switchs_files(web: Web) -> None:
    """Other sections and contexts: "not found", and no session."""
    for fields in (
        {"section": "directory"},
        {"Hunt-Context": "tollkeeper-route"},
        {"Hunt-Context": "", "Caller-Context": "default"},
    ):
        root = await web.ask(**fields)
        (result,) = root.iter("result")
        assert result.get("status") == "not found"
    assert web.world.one("SELECT count(*) FROM live_session") == 0


async def test_who_asks_is_known_by_the_key(web: Web) -> None:
    """No key, a wrong one, one of a switch without a peer: each refused, by basic or bearer."""
    path = "/v1/freeswitch/dialplan"
    assert (await web.client.post(path)).status_code == 401
    for credentials in (("tollkeeper", "tk_wrong"), ("tollkeeper", "")):
        assert (await web.client.post(path, auth=credentials)).status_code == 401
    for header in ("Basic !!!", "Basic ", "Basic dG9sbA==", "Basic /w=="):
        answer = await web.client.post(path, headers={"Authorization": header})
        assert answer.status_code == 401
    elsewhere = web.world.key("charge", switch="other")
    reader = web.world.key("read", switch="fs1")

    async def known() -> bool:
        return (await web.client.post(path, auth=("x", reader))).status_code == 403

    await until(known)
    answer = await web.client.post(path, auth=("x", elsewhere))
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_peer")
    bearer = {"Authorization": f"Bearer {web.auth[1]}"}
    assert (await web.client.post(path, headers=bearer)).status_code == 200


async def test_an_endless_form_is_refused(web: Web) -> None:
    """By its fields or its bytes."""
    for body, status in ((b"a=1&" * 20_000, 422), (b"x" * (1024 * 1024 + 1), 413)):
        answer = await web.client.post("/v1/freeswitch/dialplan", content=body, auth=web.auth)
        assert answer.status_code == status
        assert answer.json()["code"] in {"body_too_large", "malformed_esl"}


async def test_bytes_that_are_no_form_are_not_found(web: Web) -> None:
    """Whatever comes, the answer is a document that the switch can read."""
    for body in (b"", b"\xff\xfe\x00", b"section", b"section=dialplan&section=x"):
        answer = await web.client.post("/v1/freeswitch/dialplan", content=body, auth=web.auth)
        assert answer.status_code == 200
        assert b"not found" in answer.content


# --- records -------------------------------------------------------------------------------------


async def test_a_record_ends_the_session_once(web: Web) -> None:
    """The call is settled at the record's usage; posted again, nothing is charged again."""
    await web.ask()
    for _ in range(2):
        answer = await web.post(record(12_345))
        assert (answer.status_code, answer.json()) == (200, {"settled": True, "file": None})
    (row,) = web.world.sql("SELECT charge, (body->>'used_ms')::int AS used_ms FROM closed_session")
    assert row == {"charge": Decimal("0.13"), "used_ms": 12_345}
    assert web.world.one("SELECT held FROM wallet") == 0
    assert (await verify(web.house.parts.database)).clean


async def test_a_record_is_loaded_as_pushed_files_are(web: Web) -> None:
    """With a source in the address the record is a file of it, once; its session is ended the same."""
    await web.ask()
    body = b"cdr=" + quote(record(2_000)).encode()
    first = await web.post(body, "/v1/freeswitch/cdr/fs-cdr")
    again = await web.post(body, "/v1/freeswitch/cdr/fs-cdr")
    assert first.status_code == again.status_code == 200, first.text
    assert first.json() == again.json()
    (file,) = web.world.sql("SELECT id, name, switch FROM cdr_file")
    assert file == {"id": first.json()["file"], "name": f"{UUID}.cdr.json", "switch": "fs1"}
    assert web.world.one("SELECT charge FROM closed_session") == Decimal("0.02")
    assert (await web.post(body, "/v1/freeswitch/cdr/none")).status_code == 404


async def test_records_of_other_calls_settle_nothing(web: Web) -> None:
    """A call that was never authorised, and the leg that another one made."""
    other = "0f1b3a52-2b0d-4a8e-9d53-000000000000"
    assert (await web.post(record(1_000, uuid=other))).json() == {"settled": False, "file": None}
    await web.ask()
    assert (await web.post(record(1_000, originator=other))).json()["settled"] is False
    assert web.world.one("SELECT count(*) FROM live_session") == 1


async def test_what_is_no_record_is_refused(web: Web) -> None:
    """With one sentence, and nothing is settled."""
    await web.ask()
    for body in (
        b"", b"{}", b"[]", b"cdr=", b"no json", b'{"variables": []}', b"\xff" * 100,
        record(1_000) + record(1_000), b"cdr=%7B", record(1_000, billusec="-5"), b"[" * 100_000,
    ):  # fmt: skip
        answer = await web.post(body)
        assert answer.status_code == 422, answer.text
        assert web.world.one("SELECT count(*) FROM live_session") == 1


# --- with an agent beside it ---------------------------------------------------------------------


async def test_an_agent_looks_after_calls_that_were_asked_for_over_http(
    database_url: str, tmp_path: Path
) -> None:
    """Authorised over HTTP, answered and ended by events: limited, renewed, charged once."""
    switch = FakeFreeSwitch(PASSWORD)
    await switch.start()
    try:
        with World(database_url) as world:
            acme = world.customer("acme", balance="1")
            add_trunk(world, "acme-in", acme)
            options = {"slice": 2, "connect": f"127.0.0.1:{switch.port}", "reconcile": 1}
            add_peer(world, "fs1", "freeswitch", secret=PASSWORD, trunk="acme-in", options=options)
            token = world.key("charge", switch="fs1")
            house = House(database_url)
            await house.start()
            try:
                await until(lambda: house.board.reach.has("fs1", "freeswitch"))
                parts = house.parts
                services = Services(
                    parts.database, parts.directory, parts.charging, parts.clock, board=parts.board
                )
                transport = httpx.ASGITransport(app=create_app(services))
                async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
                    asked = await Web(client, world, house, token).ask()
                variables = dict(
                    data.split("=", 1) for name, data in actions(asked) if name == "set"
                )
                call = switch.bring(UK_FIXED, uuid=UUID, **variables)
                switch.answer(call)
                first = switch.task_ids
                await until(
                    lambda: len(switch.task_ids) == 1 and switch.task_ids != first, seconds=8
                )
                switch.hang_up(call)
                await until(lambda: world.one("SELECT count(*) FROM live_session") == 0)
                used = (call.ended - call.answered + 500) // 1000
                (row,) = world.sql("SELECT (body->>'used_ms')::int AS used FROM closed_session")
                assert row == {"used": used}
                assert (await verify(parts.database)).clean
            finally:
                await house.stop()
    finally:
        await switch.stop()


# --- files for the switch ------------------------------------------------------------------------


def site(**given: Any) -> Any:
    """A site of the tests' peer."""
    options = {"connect": "192.0.2.5:8022", "entry_context": "in", "routing_context": "out"}
    peer = Peer(1, "fs1", "freeswitch", "fs1", secret="<&>\"--'", options=options)
    values: dict[str, Any] = {
        "mode": "park", "clients": ("192.0.2.7", "2001:db8::/64"), "api": "https://tk.example/",
        "source": "", "key": "", "bridge": "sofia/gateway/x/$1", "park_seconds": 10,
        "with_password": False,
    }  # fmt: skip
    return site_of(given.pop("peer", peer), **{**values, **given})


@pytest.mark.parametrize("mode", ["park", "curl"])
def test_every_file_parses_and_says_where_it_goes(mode: str) -> None:
    """Whatever the password holds, the XML is whole; no place is left to be filled in."""
    made = configuration(site(mode=mode, with_password=True, key="tk_1", source="fs-cdr"))
    assert set(made) <= set(PLACES)
    assert ("xml_curl.conf.xml" in made) == (mode == "curl")
    for name, text in made.items():
        root = fromstring(text)
        assert root.tag in {"configuration", "list", "include"}, name
        assert "{{" not in text
        assert "Goes to" in text or "Copy this" in text
    params = {
        one.get("name"): one.get("value")
        for one in fromstring(made["event_socket.conf.xml"]).iter("param")
    }
    assert params["password"] == "<&>\"--'"
    assert (params["listen-ip"], params["listen-port"]) == ("192.0.2.5", "8022")
    assert params["apply-inbound-acl"] == "tollkeeper"
    nodes = [one.get("cidr") for one in fromstring(made["tollkeeper.acl.xml"]).iter("node")]
    assert nodes == ["192.0.2.7/32", "2001:db8::/64"]
    records = {
        one.get("name"): one.get("value")
        for one in fromstring(made["json_cdr.conf.xml"]).iter("param")
    }
    assert records["url"] == "https://tk.example/v1/freeswitch/cdr/fs-cdr"
    assert records["cred"] == "tollkeeper:tk_1"


def test_secrets_are_written_only_when_asked_for() -> None:
    """By default placeholders stand for the password and the key."""
    text = "".join(configuration(site(mode="curl")).values())
    assert "CHANGE-ME" in text
    assert "API-KEY" in text
    assert "&lt;&amp;&gt;" not in text
    with pytest.raises(InvalidInput, match="no secret"):
        site(with_password=True, peer=Peer(1, "f", "freeswitch", "f", ("192.0.2.1",)))


def test_the_dialplan_lets_nothing_through_that_was_not_allowed() -> None:
    """Park marks and gives up in time; the routing context asks for the grant; all else is ended."""
    for mode in ("park", "curl"):
        root = fromstring(configuration(site(mode=mode))["tollkeeper.xml"])
        contexts = {one.get("name"): one for one in root.iter("context")}
        assert set(contexts) == {"in", "out"}
        found = actions(contexts["in"])
        if mode == "park":
            assert ("set", "tollkeeper=park") in found
            assert ("set", "park_timeout=10:NORMAL_TEMPORARY_FAILURE") in found
            assert found[-1] == ("park", "")
        else:
            assert found == [("hangup", "NORMAL_TEMPORARY_FAILURE")]
        first, last = contexts["out"].findall("extension")
        assert first.findall("condition")[0].get("field") == "${tollkeeper_granted}"
        assert actions(last) == [("hangup", "CALL_REJECTED")]


@pytest.mark.parametrize(
    "given", [{"clients": ("everywhere",)}, {"park_seconds": 0}, {"park_seconds": 600}]
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any]) -> None:
    """With one sentence that says what to write."""
    with pytest.raises(InvalidInput, match="--"):
        site(**given)
