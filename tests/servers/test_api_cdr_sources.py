"""CDR sources over HTTP: what is set is shown, secrets are not, and files that are brought are safe."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh
import httpx
import pytest

from tests.servers.management import problem
from tests.services.collecting import Clock, Recorder, sha256
from tests.support import World, runtime
from tollkeeper.errors import InvalidInput
from tollkeeper.servers.api.app import create_app
from tollkeeper.servers.api.context import Services
from tollkeeper.services.cdr_sources import create_source, get_source
from tollkeeper.services.collect import CollectReport, Spool, collect_once
from tollkeeper.store.cdr_sources import CdrSource

SOURCES = "/v1/cdr/sources"
SECRET = "correct horse battery staple"
PUSH = {"code": "push", "kind": "http", "switch": "sw1", "format": "asterisk-csv"}
FTP = {
    "code": "ftp1",
    "kind": "ftp",
    "switch": "sw1",
    "format": "vos3000",
    "secret": SECRET,
    "settings": {"host": "192.0.2.1", "user": "carrier", "path": "/out"},
}
MAX_BYTES = 1_000_000


@dataclass
class Api:
    """A client with a key, the process it speaks to, and the world behind it."""

    world: World
    parts: Any
    client: httpx.AsyncClient
    spool: Spool
    load: Recorder

    async def create(self, **fields: Any) -> httpx.Response:
        """Create a source."""
        return await self.client.post(SOURCES, json=fields)

    async def push(self, data: Any, *, name: str = "a.csv", **options: Any) -> httpx.Response:
        """Bring a file."""
        return await self.client.post(
            f"{SOURCES}/push/files", params={"name": name}, content=data, **options
        )

    async def collect(self) -> CollectReport:
        """What the process does a moment later."""
        source = await get_source(self.parts.database, "push")
        return await collect_once(self.parts.database, source, self.spool, self.load, Clock())


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with World(database_url) as made:
        yield made


@pytest.fixture
async def api(world: World, tmp_path: Path) -> AsyncIterator[Api]:
    token = world.key("manage")
    spool = Spool(tmp_path / "spool", max_bytes=MAX_BYTES)
    async with runtime(world.url) as parts:
        services = Services(parts.database, parts.directory, parts.charging, parts.clock, spool)
        transport = httpx.ASGITransport(create_app(services), raise_app_exceptions=False)
        async with httpx.AsyncClient(
            transport=transport,
            base_url="http://test",
            headers={"Authorization": f"Bearer {token}"},
        ) as client:
            yield Api(world, parts, client, spool, Recorder(parts.database))


# --- sources -------------------------------------------------------------------------------------


async def test_a_source_is_created_and_shown_without_its_secret(api: Api) -> None:
    made = await api.create(**FTP)
    assert made.status_code == 201, made.text
    body = made.json()
    assert body["has_secret"] is True
    assert body["settings"] == {
        "path": "/out",
        "pattern": "*",
        "settle_seconds": 10,
        "done_marker": "",
        "after": "keep",
        "move_to": "",
        "host": "192.0.2.1",
        "user": "carrier",
        "port": 21,
        "tls": False,
        "certificate_sha256": "",
    }
    shown = await api.client.get(f"{SOURCES}/ftp1")
    assert shown.json() == body
    listed = await api.client.get(SOURCES)
    assert listed.json() == {"items": [body], "next": None}
    trail = str(api.world.sql("SELECT * FROM audit"))
    assert "cdr_source.create" in trail
    assert SECRET not in made.text + shown.text + listed.text + trail


async def test_sources_are_listed_page_by_page(api: Api) -> None:
    for n in range(3):
        await api.create(**{**PUSH, "code": f"s{n}"})
    first = (await api.client.get(SOURCES, params={"limit": 2})).json()
    assert ([s["code"] for s in first["items"]], first["next"]) == (["s0", "s1"], "s1")
    rest = (await api.client.get(SOURCES, params={"limit": 2, "after": "s1"})).json()
    assert ([s["code"] for s in rest["items"]], rest["next"]) == (["s2"], None)


async def test_a_source_is_changed_setting_by_setting(api: Api) -> None:
    await api.create(**FTP)
    change = {
        "settings": {"pattern": "*.csv", "settle_seconds": 30},
        "secret": "another",
        "poll_seconds": 5,
    }
    changed = (await api.client.patch(f"{SOURCES}/ftp1", json=change)).json()
    assert (changed["poll_seconds"], changed["settings"]["pattern"]) == (5, "*.csv")
    assert changed["settings"]["host"] == "192.0.2.1"
    back = await api.client.patch(f"{SOURCES}/ftp1", json={"settings": {"pattern": None}})
    assert back.json()["settings"]["pattern"] == "*"
    assert back.json()["settings"]["settle_seconds"] == 30
    (row,) = api.world.sql("SELECT detail FROM audit WHERE action = 'cdr_source.change' LIMIT 1")
    assert row["detail"]["secret"] == ["***", "***"]
    off = await api.client.patch(f"{SOURCES}/ftp1", json={"enabled": False})
    assert off.json()["enabled"] is False
    assert api.world.one("SELECT secret FROM cdr_source") == "another"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"settings": {"host": "h", "user": "u"}}, "settings.path"),
        ({"settings": {**FTP["settings"], "prt": 1}}, "settings.prt"),  # type: ignore[dict-item]
        ({"settings": {**FTP["settings"], "port": 70_000}}, "settings.port"),  # type: ignore[dict-item]
        ({"settings": {**FTP["settings"], "port": "21"}}, "settings.port"),  # type: ignore[dict-item]
        ({"settings": {**FTP["settings"], "after": "burn"}}, "settings.after"),  # type: ignore[dict-item]
        ({"settings": {**FTP["settings"], "after": "move"}}, "settings.move_to"),  # type: ignore[dict-item]
        ({"settings": {**FTP["settings"], "pattern": "a/b"}}, "settings.pattern"),  # type: ignore[dict-item]
        ({"settings": {**FTP["settings"], "done_marker": "ok"}}, "settings.done_marker"),  # type: ignore[dict-item]
        ({"settings": {**FTP["settings"], "certificate_sha256": "ff"}}, "settings.certificate_sha256"),  # type: ignore[dict-item]
        ({"secret": ""}, "secret"),
        ({"format": "morse"}, "format"),
        ({"format": "csv"}, "mapping"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"kind": "mysql", "settings": {"host": "h", "user": "u"}}, "settings.database"),
        ({"kind": "sftp", "settings": {**FTP["settings"], "host_key": "none"}}, "settings.host_key"),  # type: ignore[dict-item]
        ({"kind": "http", "settings": {}}, "secret"),
        ({"kind": "carrier-pigeon"}, "kind"),
    ],
)  # fmt: skip
async def test_a_source_that_cannot_work_is_refused_and_the_field_named(
    api: Api, change: dict[str, Any], field: str
) -> None:
    refused = await api.create(**{**FTP, **change})
    sentence = problem(refused, 422, "invalid_input", field) if field != "timezone" else (
        problem(refused, 422, "unknown_timezone", field)
    )  # fmt: skip
    assert field in sentence
    assert SECRET not in sentence


async def test_a_code_is_taken_once_and_an_unknown_one_is_not_found(api: Api) -> None:
    await api.create(**PUSH)
    problem(await api.create(**PUSH), 409, "source_exists", "code")
    problem(await api.client.get(f"{SOURCES}/nothing"), 404, "unknown_cdr_source")
    problem(
        await api.client.patch(f"{SOURCES}/nothing", json={"enabled": False}),
        404,
        "unknown_cdr_source",
    )


async def test_folders_of_the_server_are_not_opened_by_the_api(api: Api, tmp_path: Path) -> None:
    """A key for the API is no key to the disks of the server."""
    refused = await api.create(**{**PUSH, "kind": "directory", "settings": {"path": "/etc"}})
    problem(refused, 422, "invalid_input", "kind")
    folder = CdrSource(
        code="local",
        kind="directory",
        switch="sw1",
        format="vos3000",
        settings={"path": str(tmp_path)},
    )
    await create_source(api.parts.database, folder, actor="test")
    change = {"settings": {"path": "/etc"}}
    problem(await api.client.patch(f"{SOURCES}/local", json=change), 403, "local_folder")
    off = await api.client.patch(f"{SOURCES}/local", json={"enabled": False})
    assert off.json()["enabled"] is False


async def test_a_private_key_is_a_secret_and_a_broken_one_is_refused(api: Api) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    host_key = key.export_public_key().decode()
    source = {**FTP, "kind": "sftp", "settings": {**FTP["settings"], "host_key": host_key}}  # type: ignore[dict-item]
    bad = await api.create(**{**source, "secret": "-----BEGIN PRIVATE KEY-----\nAAAA"})
    problem(bad, 422, "invalid_input", "secret")
    good = await api.create(**{**source, "secret": key.export_private_key().decode()})
    assert good.status_code == 201, good.text
    assert "PRIVATE KEY" not in good.text


# --- files that are brought ----------------------------------------------------------------------


async def test_a_file_is_taken_loaded_and_known_from_then_on(api: Api) -> None:
    await api.create(**PUSH)
    data = os.urandom(300_000)
    taken = await api.push(data)
    assert taken.status_code == 202, taken.text
    body = taken.json()
    assert (body["status"], body["name"], body["sha256"], body["bytes"]) == (
        "loading",
        "a.csv",
        sha256(data),
        len(data),
    )
    again = await api.push(data, name="b.csv")
    assert (again.status_code, again.json()) == (202, body)
    assert (await api.collect()).count("loaded") == 1
    assert api.load.loaded == [("a.csv", data)]
    known = await api.push(data, name="c.csv")
    assert (known.status_code, known.json()) == (200, {**body, "status": "done"})
    assert (await api.collect()).files == ()


async def test_a_source_is_due_at_once_when_a_file_was_brought(api: Api) -> None:
    await api.create(**PUSH)
    await api.collect()
    assert api.world.one("SELECT last_run_at FROM cdr_source") is not None
    await api.push(b"one\n")
    assert api.world.one("SELECT last_run_at FROM cdr_source") is None


async def test_a_file_that_failed_is_tried_again_when_it_is_brought_again(api: Api) -> None:
    await api.create(**PUSH)
    first = (await api.push(b"one\n")).json()
    api.load.faults["a.csv"] = InvalidInput("line 1: no")
    assert (await api.collect()).count("failed") == 1
    assert api.world.one("SELECT status FROM cdr_file") == "failed"
    api.load.faults.clear()
    again = await api.push(b"one\n")
    assert (again.status_code, again.json()) == (202, first)
    assert (await api.collect()).count("loaded") == 1
    assert api.world.one("SELECT status FROM cdr_file") == "done"


async def test_a_file_that_is_too_large_is_refused_with_or_without_a_length(api: Api) -> None:
    await api.create(**PUSH)
    sentence = problem(await api.push(b"x" * (MAX_BYTES + 1)), 413, "body_too_large")
    assert "cdr_file_max_bytes" in sentence

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(MAX_BYTES // 100_000 + 1):
            yield b"x" * 100_000

    problem(await api.push(chunks()), 413, "body_too_large")
    assert [files for _, _, files in os.walk(api.spool.root) if files] == []
    assert (await api.push(b"x" * MAX_BYTES)).status_code == 202


async def test_a_sender_that_goes_away_leaves_nothing_behind(api: Api) -> None:
    await api.create(**PUSH)
    token = api.client.headers["Authorization"].encode()
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "http",
        "method": "POST",
        "path": f"{SOURCES}/push/files",
        "root_path": "",
        "query_string": b"name=a.csv",
        "headers": [(b"authorization", token)],
        "client": None,
        "server": ("test", 80),
    }
    coming = iter(
        [
            {"type": "http.request", "body": b"half", "more_body": True},
            {"type": "http.disconnect"},
        ]
    )
    sent: list[Any] = []

    async def receive() -> Any:
        return next(coming)

    async def send(message: Any) -> None:
        sent.append(message)

    assert isinstance(api.client._transport, httpx.ASGITransport)
    await api.client._transport.app(scope, receive, send)
    assert sent[0]["status"] == 503
    assert [files for _, _, files in os.walk(api.spool.root) if files] == []
    assert api.world.one("SELECT count(*) FROM cdr_file") == 0


@pytest.mark.parametrize("name", ["", "a/b", "..", "a\nb", "x" * 256])
async def test_a_name_that_is_no_file_name_is_refused(api: Api, name: str) -> None:
    await api.create(**PUSH)
    problem(await api.push(b"one\n", name=name), 422, "invalid_input", "name")


async def test_an_empty_file_and_a_source_of_another_kind_are_refused(api: Api) -> None:
    await api.create(**PUSH)
    problem(await api.push(b""), 422, "empty_file")
    await api.client.patch(f"{SOURCES}/push", json={"enabled": False})
    assert "disabled" in problem(await api.push(b"one\n"), 422, "invalid_input")
    await api.create(**FTP)
    other = await api.client.post(f"{SOURCES}/ftp1/files", params={"name": "a"}, content=b"x")
    assert "its kind is ftp" in problem(other, 422, "invalid_input")


async def test_a_switch_brings_its_own_files_only(api: Api) -> None:
    await api.create(**PUSH)
    for switch, scope, status in (
        ("sw1", "charge", 202),
        ("sw2", "charge", 403),
        ("sw1", "read", 403),
        ("sw2", "manage", 202),
    ):
        token = api.world.key(scope, switch=switch)
        await api.parts.directory.load()
        headers = {"Authorization": f"Bearer {token}"}
        answer = await api.push(f"{switch} {scope}".encode(), headers=headers)
        assert answer.status_code == status, answer.text
