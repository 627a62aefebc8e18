"""Rate cards: create, import a sheet, look at what it changes, activate it, roll it back, look up.

An import makes a draft version and changes no price; activating a draft makes it the version in
force, in one transaction; every process hears of it at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from tollkeeper.core.deck import Mode, Status
from tollkeeper.core.markup import Markup, marked_up
from tollkeeper.core.numbering import DEFAULT_RULES, normalise
from tollkeeper.core.rating import price
from tollkeeper.core.tariff import Card, Match, PrefixTable, RateRow
from tollkeeper.errors import Conflict, InvalidInput, NotFound
from tollkeeper.services.fields import INTEGER_MAX
from tollkeeper.services.rate_cards import (
    PAGE_MAX,
    SERVICE_PATTERN,
    CostPlus,
    RateCard,
    create_card,
    find_card,
    get_card,
    list_cards,
    page_of,
)
from tollkeeper.services.rate_import import ImportJob, ImportReport, Say
from tollkeeper.services.rate_refused import write_refused
from tollkeeper.services.rate_worker import import_in_process
from tollkeeper.services.scope import shown_actors
from tollkeeper.store.changes import record
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.rates import (
    RateChange,
    RateRefusal,
    RateVersion,
    read_changes,
    read_refusals,
    read_rows_of,
    read_version,
    read_versions,
    retire_active,
    set_active,
)
from tollkeeper.wire.ratesheet import BYTES_MAX, SheetOptions

__all__ = [
    "BYTES_MAX",
    "SERVICE_PATTERN",
    "CostPlus",
    "ImportReport",
    "Lookup",
    "RateCard",
    "RateChange",
    "RateRefusal",
    "RateVersion",
    "activate",
    "changes",
    "create_card",
    "get_card",
    "get_version",
    "import_sheet",
    "list_cards",
    "lookup",
    "refusals",
    "refused_sheet",
    "roll_back",
    "versions",
]

FILE_NAME_MAX = 255
_DEFAULT = SheetOptions()


@dataclass(frozen=True, slots=True)
class Lookup:
    """Which row of a card prices a number.

    ``prices`` are those of once and of three times what prices are for (calls of 60 and of 180
    seconds) in the card's currency. The row of a cost-plus card has the price that it makes.
    """

    number: str
    at: datetime
    chosen: Match
    prices: tuple[Decimal, Decimal]


async def import_sheet(
    database: Database,
    *,
    card: str,
    data: bytes,
    actor: str,
    now: datetime,
    options: SheetOptions = _DEFAULT,
    mode: Mode = "full",
    dry_run: bool = False,
    file_name: str = "",
    progress: Say | None = None,
    scope: int | None = None,
) -> ImportReport:
    """Compare a sheet with the active version and store the outcome as a draft version.

    A full sheet closes the codes it does not name, a partial one leaves them. A dry run stores
    nothing. The work is done in a process of its own.

    Raises:
        NotFound: no such card.
        InvalidInput: no rate sheet, options that do not fit, a wrong currency, or (not in a dry
            run) a sheet of which every row was refused.
        Busy: too many imports at once, or the process died.
    """
    if mode not in ("full", "partial"):
        raise InvalidInput("mode: full or partial", field="mode")
    if len(data) > options.bytes_max:
        raise InvalidInput(
            f"the file is larger than {options.bytes_max // 2**20} MiB: is it a rate sheet? "
            "Send one in parts as partial sheets",
            code="file_too_large",
        )
    found = await get_card(database, card, scope=scope)
    if found.cost_card is not None:
        raise InvalidInput(
            f"{card} is a cost-plus card: its prices are those of {found.cost_card}; import there",
            code="cost_plus_card",
            field="card",
        )
    job = ImportJob(
        url=database.url,
        card=card,
        data=data,
        options=options,
        mode=mode,
        dry_run=dry_run,
        file_name=_shown(file_name),
        actor=actor,
        at=now,
    )
    return await import_in_process(job, progress or (lambda *_: None))


def _shown(file_name: str) -> str:
    """A name from outside, short and without what a terminal or a database would stumble over."""
    return "".join(c if c.isprintable() else "?" for c in file_name[:FILE_NAME_MAX])


async def activate(
    database: Database,
    *,
    card: str,
    version: int,
    actor: str,
    now: datetime,
    force: bool = False,
    scope: int | None = None,
) -> RateVersion:
    """Put a draft in force, retiring the version before it.

    A draft says what it changes against the version it was compared with. If another one is
    active by now, that is no longer true, and ``force`` is needed.

    Raises:
        NotFound: no such card or version.
        Conflict: already active, retired, or compared with a version that is not active any more.
    """
    async with database.write(scope=scope) as connection:
        found = await find_card(connection, card, lock=True)
        draft = await _version(connection, found, version)
        if draft.status == "active":
            raise Conflict(f"version {version} of {card} is already active", code="already_active")
        if draft.status == "retired":
            raise Conflict(
                f"version {version} of {card} was active before; roll back to return to it, "
                "or import its sheet again",
                code="version_retired",
            )
        if draft.base_version != found.active_version and not force:
            raise Conflict(
                f"version {version} of {card} was compared with {_named(draft.base_version)}, but "
                f"{_named(found.active_version)} is active now: import the sheet again, or force it",
                code="base_changed",
            )
        await _put_in_force(connection, found, draft, now, replaced_version=found.active_version)
        await _record_switch(connection, found, draft, actor, "card.activate")
        row = await _version(connection, found, version)
        return (await _signed(connection, [row], scope))[0]


def _named(version: int | None) -> str:
    return "no version" if version is None else f"version {version}"


async def roll_back(
    database: Database,
    *,
    card: str,
    actor: str,
    now: datetime,
    expected: int | None = None,
    scope: int | None = None,
) -> RateVersion:
    """Return to the version that was active before the present one, as it was.

    ``expected`` is the version that the caller believes to be active: two who roll back at once
    then go back one step together, not two.

    Raises:
        NotFound: no such card.
        Conflict: nothing to return to, or another version than ``expected`` is active.
    """
    async with database.write(scope=scope) as connection:
        found = await find_card(connection, card, lock=True)
        if expected is not None and expected != found.active_version:
            raise Conflict(
                f"{_named(found.active_version)} of {card} is active, not version {expected}",
                code="active_changed",
            )
        active = (
            None
            if found.active_version is None
            else await _version(connection, found, found.active_version)
        )
        if active is None or active.replaced_version is None:
            raise Conflict(
                f"{card} has no earlier version to return to", code="nothing_to_roll_back"
            )
        earlier = await _version(connection, found, active.replaced_version)
        # It keeps its own predecessor: rolling back once more goes one step further back.
        await _put_in_force(
            connection, found, earlier, now, replaced_version=earlier.replaced_version
        )
        await _record_switch(connection, found, earlier, actor, "card.roll_back")
        row = await _version(connection, found, earlier.version)
        return (await _signed(connection, [row], scope))[0]


async def _put_in_force(
    connection: Connection,
    card: RateCard,
    version: RateVersion,
    now: datetime,
    *,
    replaced_version: int | None,
) -> None:
    await retire_active(connection, card.id, now)
    await set_active(connection, card.id, version, at=now, replaced_version=replaced_version)


async def _record_switch(
    connection: Connection, card: RateCard, version: RateVersion, actor: str, action: str
) -> None:
    await record(
        connection,
        actor=actor,
        action=action,
        subject=f"card {card.code}",
        detail={"version": version.version, "before": card.active_version},
        notice=f"card:{card.id}",
    )


async def versions(
    database: Database,
    card: str,
    *,
    before: int | None = None,
    limit: int = 100,
    scope: int | None = None,
) -> list[RateVersion]:
    """List the versions of a card, the newest first, those below number ``before``.

    Raises:
        NotFound: no such card.
    """
    async with database.read(scope=scope) as connection:
        found = await find_card(connection, card)
        top = INTEGER_MAX if before is None else before
        rows = await read_versions(connection, found.id, before=top, limit=page_of(limit))
        return await _signed(connection, rows, scope)


async def get_version(
    database: Database, card: str, version: int, *, scope: int | None = None
) -> RateVersion:
    """Return one version of a card.

    Raises:
        NotFound: no such card or version.
    """
    async with database.read(scope=scope) as connection:
        row = await _version(connection, await find_card(connection, card), version)
        return (await _signed(connection, [row], scope))[0]


async def refusals(
    database: Database,
    card: str,
    version: int,
    *,
    after: int = 0,
    limit: int = PAGE_MAX,
    scope: int | None = None,
) -> list[RateRefusal]:
    """List the lines that were refused, in the order of the file, those after ``seq``.

    Raises:
        NotFound: no such card or version.
    """
    async with database.read(scope=scope) as connection:
        found = await _version(connection, await find_card(connection, card), version)
        return await read_refusals(connection, found.id, after=after, limit=page_of(limit))


async def refused_sheet(
    database: Database, card: str, version: int, *, scope: int | None = None
) -> str:
    """Give the refused lines as a sheet, each with the reason: to be mended and imported again.

    It has the titles and the delimiter of the sheet they come from. A sheet without titles is
    given back as bare lines, because its columns are known by their position only.

    Raises:
        NotFound: no such card or version.
    """
    async with database.read(scope=scope) as connection:
        found = await _version(connection, await find_card(connection, card), version)
        refused: list[RateRefusal] = []
        while page := await read_refusals(connection, found.id, after=len(refused), limit=PAGE_MAX):
            refused += page
    return write_refused(
        refused,
        header=str(found.summary.get("header", "")),
        delimiter=str(found.summary.get("delimiter", "") or ","),
    )


async def changes(
    database: Database,
    card: str,
    version: int,
    *,
    status: str | None = None,
    after: int = 0,
    limit: int = 100,
    scope: int | None = None,
) -> list[RateChange]:
    """List what a version changes against its base, most notable first, those after ``seq``.

    Raises:
        NotFound: no such card or version. InvalidInput: no such status.
    """
    if status is not None and status not in {known.value for known in Status}:
        raise InvalidInput(f"status: one of {', '.join(Status)}", field="status")
    async with database.read(scope=scope) as connection:
        found = await _version(connection, await find_card(connection, card), version)
        return await read_changes(
            connection, found.id, status=status, after=after, limit=page_of(limit)
        )


async def lookup(
    database: Database, number: str, *, card: str, now: datetime, scope: int | None = None
) -> Lookup:
    """Find the row of a card that prices a number at ``now``.

    Raises:
        NotFound: no such card, or no row covers the number. InvalidInput: not a number.
    """
    async with database.read(scope=scope) as connection:
        found = await find_card(connection, card)
        digits = normalise(number, DEFAULT_RULES, field="number")
        compiled = await _only(connection, found, digits)
    row = compiled.table.find(digits, now)
    if row is None:
        raise NotFound(
            f"no prefix of {digits} stands in card {card}", code="unknown_prefix", field="number"
        )
    tariff = row.tariff
    prices = price(tariff, tariff.per), price(tariff, 3 * tariff.per)
    return Lookup(digits, now, Match(compiled, row), prices)


async def _only(connection: Connection, card: RateCard, digits: str) -> Card:
    """The active version of a card, with no other rows than those that can match a number."""
    rows: Sequence[RateRow] = ()
    source = card if card.cost_card is None else await find_card(connection, card.cost_card)
    if source.active_version is not None:
        version = await _version(connection, source, source.active_version)
        prefixes = [digits[:length] for length in range(len(digits) + 1)]
        rows = await read_rows_of(connection, source, version, prefixes)
    if card.cost_card is not None:
        raised = Markup(card.markup_percent, card.markup, card.floor_price, card.ceiling_price)
        rows = [replace(row, tariff=marked_up(row.tariff, raised, card.code)[0]) for row in rows]
    return Card(card.id, card.code, source.active_version or 0, card.currency, PrefixTable(rows))


async def _version(connection: Connection, card: RateCard, number: int) -> RateVersion:
    found = await read_version(connection, card.id, number) if 0 < number <= INTEGER_MAX else None
    if found is None:
        raise NotFound(
            f"{card.code} has no version {number}", code="unknown_version", field="version"
        )
    return found


async def _signed(
    connection: Connection, rows: list[RateVersion], scope: int | None
) -> list[RateVersion]:
    """Versions with the names of those who made them, as far as a scope may know them."""
    if scope is None:
        return rows
    names = await shown_actors(connection, [row.created_by for row in rows])
    return [replace(row, created_by=names[row.created_by]) for row in rows]
