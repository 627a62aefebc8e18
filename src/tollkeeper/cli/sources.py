"""The command ``cdr source``: where call records come from."""

from __future__ import annotations

import sys
import tomllib
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from cyclopts import App

from tollkeeper.cli.cdr_show import mapping_toml
from tollkeeper.cli.common import FileOrInput, actor, console, given, run, table
from tollkeeper.errors import InvalidInput
from tollkeeper.services import cdr_sources
from tollkeeper.services.cdr.load import FileReport, load_file
from tollkeeper.services.cdr.worker import checked, collected_job
from tollkeeper.services.cdr_sources import CdrSource
from tollkeeper.services.collect import CollectReport, collect_once, retry_failed
from tollkeeper.services.probe import probe
from tollkeeper.services.spool import Spool, SpooledFile
from tollkeeper.settings import load_settings
from tollkeeper.store.db import Database
from tollkeeper.wire.cdr.mapping import load_mapping
from tollkeeper.wiring import load_policy_of, system_clock

app = App(name="source", help="CDR sources: folders, SFTP, FTP, HTTP, databases of switches.")

Kind = Literal["directory", "sftp", "ftp", "http", "mysql", "manual"]


@app.command
def add(
    code: str,
    *,
    kind: Kind,
    switch: str,
    format: str,  # noqa: A002 (the word that users know)
    mapping: Path | None = None,
    timezone: str = "UTC",
    set: list[str] | None = None,  # noqa: A002 (the word that users know)
    secret_file: FileOrInput | None = None,
    poll_seconds: int = 60,
    disabled: bool = False,
) -> None:
    """Add a source.

    Args:
        code: Its short name, used everywhere.
        kind: directory, sftp, ftp, http (files are sent to the API), mysql (VOS3000), manual.
        switch: The switch whose records come from it.
        format: Format of the files, such as asterisk-csv, vos3000 or csv.
        mapping: The mapping file (TOML), for the formats csv and jsonl.
        timezone: Zone of times that carry none.
        set: A setting of the kind as name=value, several times: path=/srv/cdr, pattern=*.csv,
            settle_seconds=10, done_marker={name}.ok, after=keep|move|delete, move_to=done, host=,
            port=, user=, host_key=, tls=true, certificate_sha256=, database=, since=2026-03-01.
        secret_file: File with the password or private key; "-" reads standard input.
        poll_seconds: Seconds from one look to the next.
        disabled: Do not begin to collect yet.
    """
    source = CdrSource(
        code=code,
        kind=kind,
        switch=switch,
        format=format,
        mapping=_mapping(mapping),
        timezone=timezone,
        settings=_settings(set),
        secret=_secret(secret_file) or "",
        enabled=not disabled,
        poll_seconds=poll_seconds,
    )
    made = run(lambda database: cdr_sources.create_source(database, source, actor=actor()))
    out = console()
    out.print(
        f"source {made.code} added; try it: tollkeeper cdr source test {made.code}", markup=False
    )


@app.command(name="list")
def list_sources(*, after: str = "", limit: int = 1000) -> None:
    """List sources in the order of their codes.

    Args:
        after: Begin after this code.
        limit: How many at most.
    """
    found = run(lambda database: cdr_sources.list_sources(database, after=after, limit=limit))
    columns = ["code", "kind", "switch", "format", "where", "state", "last look", "fault"]
    rows = [
        (s.code, s.kind, s.switch, s.format, _place(s), "enabled" if s.enabled else "disabled", _time(s.last_run_at), s.last_error)
        for s in found
    ]  # fmt: skip
    console().print(table(f"{len(found)} sources", columns, rows), markup=False)


@app.command
def show(code: str) -> None:
    """Show all of a source but its secret.

    Args:
        code: Code of the source.
    """
    source = run(lambda database: cdr_sources.get_source(database, code))
    rows: list[tuple[str, object]] = [
        ("kind", source.kind),
        ("switch", source.switch),
        ("format", source.format),
        ("timezone", source.timezone),
        ("state", "enabled" if source.enabled else "disabled"),
        ("poll_seconds", source.poll_seconds),
        ("secret", "set" if source.secret else "none"),
        *((f"settings.{name}", value) for name, value in source.settings.items()),
        ("mapping", "" if source.mapping is None else mapping_toml(load_mapping(source.mapping))),
        ("last look", _time(source.last_run_at)),
        ("fault", source.last_error),
    ]
    console().print(table(f"source {code}", ["what", "value"], rows), markup=False)


@app.command(name="set")
def change(
    code: str,
    *,
    switch: str | None = None,
    format: str | None = None,  # noqa: A002 (the word that users know)
    mapping: Path | None = None,
    timezone: str | None = None,
    set: list[str] | None = None,  # noqa: A002 (the word that users know)
    secret_file: FileOrInput | None = None,
    poll_seconds: int | None = None,
    enabled: bool | None = None,
) -> None:
    """Change a source; what is not given stays.

    Args:
        code: Code of the source.
        switch: The switch whose records come from it.
        format: Format of the files.
        mapping: The mapping file (TOML).
        timezone: Zone of times that carry none.
        set: A setting as name=value, several times; "name=" puts it back to its default.
        secret_file: File with the password or private key; "-" reads standard input.
        poll_seconds: Seconds from one look to the next.
        enabled: Whether it is collected from.
    """
    changes = given(
        switch=switch,
        format=format,
        mapping=_mapping(mapping),
        timezone=timezone,
        settings=_settings(set) or None,
        secret=_secret(secret_file),
        poll_seconds=poll_seconds,
        enabled=enabled,
    )
    run(lambda database: cdr_sources.change_source(database, code, changes, actor=actor()))
    console().print(f"source {code} changed", markup=False)


@app.command
def remove(code: str) -> None:
    """Stop collecting from a source; what came from it stays, and "cdr source set --enabled" begins again.

    Args:
        code: Code of the source.
    """
    run(lambda database: cdr_sources.disable_source(database, code, actor=actor()))
    console().print(f"source {code} is disabled", markup=False)


@app.command(name="test")
def try_out(code: str) -> None:
    """Connect to a source and list what would be taken; nothing is touched.

    Args:
        code: Code of the source.
    """

    async def work(database: Database) -> list[tuple[str, int, str]]:
        source = await cdr_sources.get_source(database, code)
        return await probe(database, source, system_clock())

    found = run(work)
    title = f"source {code} answers; {len(found)} found"
    console().print(table(title, ["name", "size>", "what"], found), markup=False)


@app.command(name="run")
def run_once(code: str, *, retry_failed: bool = False) -> int:
    """Collect from a source once, now: take what is complete and load it.

    Args:
        code: Code of the source.
        retry_failed: Also try files again that could not be loaded.
    """
    report = run(lambda database: _round(database, code, again=retry_failed))
    if report.busy:
        console().print(f"another process is collecting from {code} just now", markup=False)
        return 1
    rows = [(f.name, f.bytes, f.status, f.detail) for f in report.files]
    title = f"{report.count('loaded')} of {len(rows)} files loaded"
    console().print(table(title, ["name", "bytes>", "outcome", "why"], rows), markup=False)
    if report.error:
        console(stderr=True).print(f"tollkeeper: {report.error}", style="red", markup=False)
    return 1 if report.error else 0


async def _round(database: Database, code: str, *, again: bool) -> CollectReport:
    settings = load_settings()
    spool = Spool(settings.spool_path, max_bytes=settings.cdr_file_max_bytes)
    source = await cdr_sources.get_source(database, code)
    if again:
        await retry_failed(database, source, spool)
    policy = load_policy_of(settings)

    async def load(file: SpooledFile) -> FileReport:
        job = replace(collected_job(file), policy=policy)
        return checked(await load_file(database, job, clock=system_clock))

    return await collect_once(database, source, spool, load, system_clock)


def _settings(pairs: list[str] | None) -> dict[str, Any]:
    """name=value pairs; numbers, true and false are what they look like, "" is the default."""
    found: dict[str, Any] = {}
    for pair in pairs or []:
        name, sign, value = pair.partition("=")
        if not sign or not name:
            raise InvalidInput(f'--set {pair}: give it as name=value, such as "path=/srv/cdr"')
        found[name] = _value(value)
    return found


def _value(text: str) -> str | int | bool | None:
    if text in {"true", "false"}:
        return text == "true"
    if text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)
    return text or None


def _mapping(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror or error}", field="mapping") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: this is not valid TOML: {error}", field="mapping") from error


def _secret(path: Path | None) -> str | None:
    """A secret from a file: on the command line every user of the machine could read it."""
    if path is None:
        return None
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: it cannot be read: {error}", field="secret") from error
    # A key keeps its last line end; a password has none.
    return text if text.startswith("-----BEGIN ") else text.rstrip("\r\n")


def _place(source: CdrSource) -> str:
    settings = source.settings
    parts = (settings.get("host", ""), settings.get("path") or settings.get("database") or "")
    return ":".join(str(part) for part in parts if part)


def _time(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}" if moment is not None else ""
