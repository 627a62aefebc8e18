"""How files of records, their batches and their first rows are shown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from rich.table import Table

from tollkeeper.cli.common import table
from tollkeeper.core.money import plain
from tollkeeper.core.usage import Half, Item, Refused, Usage
from tollkeeper.services.cdr.files import Batch, FileView, Money
from tollkeeper.services.cdr.preview import Preview
from tollkeeper.store.usage_files import CdrFile, Counts
from tollkeeper.wire.cdr.mapping import Mapping as FieldMapping

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def time_of(moment: datetime | None) -> str:
    """A moment in UTC to the second; nothing for None."""
    return "" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def file_tables(view: FileView) -> Iterator[Table]:
    """A file with its counts, what waits in quarantine, and its money."""
    file = view.file
    facts = [
        ("file", f"{file.id}: {file.name}"),
        ("switch", file.switch),
        ("format", file.format),
        ("status", file.status + (f": {file.error}" if file.error else "")),
        ("seen", f"{time_of(file.created_at)} by {file.actor}"),
        ("ended", time_of(file.ended_at)),
        ("bytes", f"{file.bytes:,}"),
        ("sha256", file.sha256),
    ]
    yield table("", ["what", "value"], facts)
    yield outcome_table(file, view.reasons, view.money, settled=view.settled)


def outcome_table(
    counts: CdrFile | Counts,
    reasons: Mapping[str, int],
    money: Sequence[Money],
    *,
    settled: Mapping[str, int] | None = None,
    waiting: int = 0,
) -> Table:
    """What became of the records of a file, each counted once, and what they cost."""
    rows = [
        ("records", f"{counts.records:,}", ""),
        ("rated", f"{counts.rated:,}", "priced and posted"),
        ("matched", f"{counts.matched:,}", "charged live; the file confirms it"),
        ("duplicate", f"{counts.duplicate:,}", "in the books already"),
        ("quarantined", f"{counts.quarantined:,}", "put aside"),
        *((f"  {reason}", f"{count:,}", "waiting") for reason, count in sorted(reasons.items())),
        *((f"  {status}", f"{count:,}", "") for status, count in (settled or {}).items()),
        ("skipped", f"{counts.skipped:,}", "lines that are no records"),
    ]
    if waiting:
        rows.append(("halves", f"{waiting:,}", "calls whose begin or end has not come"))
    for one in money:
        rows.append(("charged", plain(one.charged), one.currency))
        rows.append(("cost", plain(one.cost), one.currency))
    return table("", ["what", "count>", ""], rows)


def preview_tables(found: Preview) -> Iterator[Table]:
    """What loading would do."""
    yield outcome_table(found.counts, found.reasons, found.money, waiting=found.waiting)
    if found.mismatches:
        rows = [(kind, f"{n:,}") for kind, n in sorted(found.mismatches.items())]
        yield table("worth a look", ["mismatch", "records>"], rows)
    if found.problems:
        problems = [(p.line, p.reason.value, p.field, p.value, p.detail) for p in found.problems]
        title = f"{len(problems)} of {found.counts.quarantined:,} that would be put aside"
        yield table(title, ["line>", "reason", "field", "value", "why"], problems)


def batches_table(batches: Iterable[Batch]) -> Table:
    """Batches, one a line."""
    columns = ["batch>", "at", "kind", "file", "lines>", "records>", "rated>", "matched>", "duplicate>", "quarantined>", "by", "undone by>", "note"]  # fmt: skip
    rows = [
        (b.id, time_of(b.at), b.kind, "" if b.file_id is None else f"{b.file_id}: {b.file}",
         f"{b.first_line}-{b.last_line}" if b.last_line else "", f"{b.records:,}", f"{b.rated:,}", f"{b.matched:,}",
         f"{b.duplicate:,}", f"{b.quarantined:,}", b.actor, b.undone_by, b.note)
        for b in batches
    ]  # fmt: skip
    return table(f"{len(rows)} batches (times in UTC)", columns, rows)


def rows_tables(items: Sequence[Item]) -> Iterator[Table]:
    """The first records of a file, and those that could not be read."""
    calls = [one for one in items if isinstance(one, Usage)]
    if calls:
        columns = ["line>", "call id", "start", "seconds>", "caller", "called", "from", "to", "sip>", "q850>"]  # fmt: skip
        rows = [
            (u.line, u.call_id, _moment(u.start), f"{u.duration_ms // 1000}.{u.duration_ms % 1000:03}", u.caller, u.called,
             u.trunk_in or u.account or u.ip_in, u.trunk_out or u.ip_out, u.sip, u.q850)
            for u in calls
        ]  # fmt: skip
        yield table("first records (times in UTC)", columns, rows)
    halves = [one for one in items if isinstance(one, Half)]
    if halves:
        shown = [(h.line, "begin" if h.begins else "end", h.key, _moment(h.at)) for h in halves]
        yield table("first begins and ends of calls", ["line>", "what", "call", "at"], shown)
    refused = [(r.line, r.field, r.value, r.reason) for r in items if isinstance(r, Refused)]
    if refused:
        yield table("could not be read", ["line>", "field", "value", "why"], refused)


def mapping_toml(mapping: FieldMapping) -> str:
    """A mapping as the file that ``--mapping`` takes."""
    data = mapping.to_dict()
    fields, filters = data.pop("fields"), data.pop("filters", [])
    assert isinstance(fields, dict)
    assert isinstance(filters, list)
    lines = [f"{key} = {_toml(value)}" for key, value in data.items()]
    lines += ["", "[fields]", *(f"{name} = {_toml(rule)}" for name, rule in fields.items())]
    for one in filters:
        lines += ["", "[[filters]]", *(f"{key} = {_toml(value)}" for key, value in one.items())]
    return "\n".join(lines)


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_toml(str(key))} = {_toml(one)}" for key, one in value.items())
        return f"{{ {inner} }}"
    if isinstance(value, list):
        return f"[{', '.join(_toml(one) for one in value)}]"
    # JSON and TOML agree on texts, whole numbers and truth values, but for DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _moment(us: int) -> str:
    try:
        return time_of(_EPOCH + timedelta(microseconds=us))
    except OverflowError:
        return str(us)
