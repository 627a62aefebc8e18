"""The partner's side of a comparison: a file of any format, as lean columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from decimal import ROUND_HALF_EVEN, Decimal
from typing import BinaryIO

import numpy as np
import polars as pl

from tollkeeper.bulk.numbers import normalise_column
from tollkeeper.bulk.reconcile import AMOUNT_MAX, THEIRS
from tollkeeper.core.money import EXACT, SCALE
from tollkeeper.core.numbering import DEFAULT_RULES, DialRules
from tollkeeper.core.trunks import Trace, Trunk, Trunks
from tollkeeper.core.usage import DURATION_MAX_MS, Refused
from tollkeeper.errors import InvalidInput
from tollkeeper.services.cdr.halves import Halves
from tollkeeper.wire.cdr.columns import open_parts
from tollkeeper.wire.cdr.compressed import open_stream
from tollkeeper.wire.cdr.format import HEAD_BYTES, Format, ReadOptions
from tollkeeper.wire.cdr.formats import FORMATS
from tollkeeper.wire.cdr.mapping import Mapping
from tollkeeper.wire.cdr.part import RECORDS

REFUSED_MAX = 100
"""Lines that could not be read and are shown; all are counted."""
SURE = 50
"""A format is taken when it is at least so sure of the first bytes, of 100."""
YEAR_2000 = 946_684_800_000_000
YEAR_2200 = 7_258_118_400_000_000

Say = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class FileFormat:
    """How a file is read; ``format`` "" is recognised from its first bytes."""

    format: str = ""
    mapping: Mapping | None = None
    timezone: str = "UTC"
    encoding: str = "utf-8"


@dataclass(frozen=True, slots=True)
class Rules:
    """How numbers are written in a file: by ``fallback``, unless the record names one of ``senders``.

    ``of_parties`` are the dial rules of parties by id: what a trunk without rules goes by.
    """

    fallback: DialRules = DEFAULT_RULES
    senders: tuple[Trunk, ...] = ()
    switch: str = ""
    of_parties: dict[int, DialRules] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TheirFile:
    """What a file says: ``frame`` (``THEIRS``), its running numbers, and what could not be read.

    ``first`` and ``last`` are the starts it spans, in microseconds. ``priced`` counts records with
    a price in the currency asked for, ``other_currency`` those with one in another.
    """

    frame: pl.DataFrame
    sequence: pl.Series
    format: str
    first: int | None
    last: int | None
    priced: int
    other_currency: int
    refused: Sequence[Refused]
    refused_count: int
    skipped: int


def rules_of(trunk: Trunk, of_party: DialRules) -> DialRules:
    """How numbers are written on a trunk: by its own rules, else its party's, behind its prefix."""
    rules = trunk.rules if trunk.rules != DEFAULT_RULES else of_party
    if trunk.tech_prefix:
        rules = replace(rules, tech_prefix=trunk.tech_prefix, tech_prefix_required=False)
    return rules


def read_file(
    stream: BinaryIO, reading: FileFormat, rules: Rules, currency: str, most: int, say: Say
) -> TheirFile:
    """Read a file that can seek; prices count where they are in ``currency``, or name none.

    Raises:
        InvalidInput: an unknown or unrecognised format, nothing that can be read, more than
            ``most`` records, or a file that is cut short: what it lacks would seem to be missing.
    """
    stream.seek(0)
    format_ = _format_of(stream, reading)
    options = ReadOptions(reading.timezone, reading.mapping, reading.encoding)
    halves = Halves(0)
    frames: list[pl.DataFrame] = []
    refused: list[Refused] = []
    refused_count = skipped = rows = 0
    for part in open_parts(
        open_stream(stream), format_, options, offset=0, line=0, records=RECORDS
    ):
        frame, wrong = _sound(halves.join(part)[0])
        found = [*part.refused, *wrong]
        refused_count += len(found)
        refused += found[: REFUSED_MAX - len(refused)]
        skipped += part.skipped
        frames.append(_lean(frame, rules, currency))
        rows += len(frame)
        say("their file", rows)
        if rows > most:
            raise InvalidInput(
                f"the file has more than {most:,} records; split it by days", field="file"
            )
    whole = pl.concat(frames) if frames else _lean_empty()
    if whole.is_empty() and refused_count:
        first = refused[0]
        raise InvalidInput(
            f"no record of the file could be read; line {first.line}: {first.reason}", field="file"
        )
    low, high = (whole["start"].min(), whole["start"].max()) if len(whole) else (None, None)
    return TheirFile(
        frame=whole.select(THEIRS.names()),
        sequence=whole["sequence"],
        format=format_.code,
        first=low if isinstance(low, int) else None,
        last=high if isinstance(high, int) else None,
        priced=whole["amount"].count(),
        other_currency=int(whole["other_currency"].sum()),
        refused=refused,
        refused_count=refused_count,
        skipped=skipped,
    )


# --- format --------------------------------------------------------------------------------------


def _format_of(stream: BinaryIO, reading: FileFormat) -> Format:
    code = reading.format or (reading.mapping.format if reading.mapping is not None else "")
    if code:
        if code not in FORMATS:
            known = ", ".join(sorted(FORMATS))
            raise InvalidInput(
                f'there is no format "{code}"; it is one of {known}',
                code="unknown_format",
                field="format",
            )
        return FORMATS[code]
    head = open_stream(stream).read(HEAD_BYTES)
    stream.seek(0)
    sure = {code: one.recognise(head) for code, one in FORMATS.items()}
    best = max(sure, key=lambda code: sure[code], default="")
    if not best or sure[best] < SURE:
        raise InvalidInput(
            "the format of the file was not recognised: name the format, or give a mapping that "
            'says what its columns are ("cdr sniff" proposes one)',
            code="unknown_format",
            field="format",
        )
    return FORMATS[best]


# --- columns -------------------------------------------------------------------------------------


def _sound(frame: pl.DataFrame) -> tuple[pl.DataFrame, list[Refused]]:
    """Take out records whose times no call has."""
    wrong = ~pl.col("start").is_between(YEAR_2000, YEAR_2200)
    long = ~pl.col("duration_ms").is_between(0, DURATION_MAX_MS)
    bad = frame.filter(wrong | long)
    if bad.is_empty():
        return frame, []
    refused = [
        Refused(
            line,
            "duration_ms" if YEAR_2000 <= start <= YEAR_2200 else "start",
            str(duration if YEAR_2000 <= start <= YEAR_2200 else start),
            "No call began then or lasted so long; check the time format and the units.",
            call_id,
        )
        for line, start, duration, call_id in bad.select(
            "line", "start", "duration_ms", "call_id"
        ).iter_rows()
    ]
    return frame.filter(~(wrong | long)), refused


def _lean_empty() -> pl.DataFrame:
    more = {"sequence": pl.Int64(), "other_currency": pl.Boolean()}
    return pl.Schema({**THEIRS, **more}).to_frame()


def _lean(frame: pl.DataFrame, rules: Rules, currency: str) -> pl.DataFrame:
    """A PARSED frame with only what is compared, numbers in E.164, prices in 10^-8."""
    which, table = _rules_by_row(frame, rules)
    _, _, called, bad = normalise_column(frame["called"], which, table)
    if bad.any():
        # What is no number can still be the same text on both sides.
        raw = frame["called"].str.strip_chars()
        called = pl.select(pl.when(pl.Series(bad)).then(raw).otherwise(called)).to_series()
    plain = [replace(one, tech_prefix="", tech_prefix_required=False) for one in table]
    _, _, caller, _ = normalise_column(frame["caller"], which, plain)
    elsewhere = frame["price"].is_not_null() & ~frame["currency"].is_in(["", currency])
    amount = _amounts(frame["price"])
    if not currency:
        elsewhere, amount = (
            elsewhere & False,
            pl.repeat(None, len(frame), dtype=pl.Int64, eager=True),
        )
    return frame.select(
        "line",
        "call_id",
        "leg",
        caller.fill_null("").alias("caller"),
        called.fill_null("").alias("called"),
        "start",
        "duration_ms",
        pl.when(elsewhere).then(None).otherwise(amount).cast(pl.Int64).alias("amount"),
        "sequence",
        elsewhere.alias("other_currency"),
    )


def _rules_by_row(
    frame: pl.DataFrame, rules: Rules
) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], list[DialRules]]:
    """Which rules each row's numbers are written by: those of the trunk that the record names best.

    A trunk that is told from another by its tech prefix only is not: call ids tell those apart.
    """
    table = [rules.fallback]
    which = np.zeros(len(frame), dtype=np.int64)
    if not rules.senders or frame.is_empty():
        return which, table
    trunks = Trunks(rules.senders, direction="in", switch=rules.switch)
    keys = ["trunk_in", "ip_in", "account"]
    traces = frame.select(keys).unique(maintain_order=True)
    places = []
    for name, address, account in traces.iter_rows():
        fitting = trunks.candidates(Trace(name, address, account))
        place = 0
        if fitting:
            trunk = fitting[0].trunk
            own = rules_of(trunk, rules.of_parties.get(trunk.party_id, DEFAULT_RULES))
            if own not in table:
                table.append(own)
            place = table.index(own)
        places.append(place)
    traces = traces.with_columns(pl.Series("place", places, dtype=pl.Int64))
    found = frame.select(keys).join(traces, on=keys, how="left", maintain_order="left")
    return found["place"].to_numpy().astype(np.int64), table


def _amounts(prices: pl.Series) -> pl.Series:
    """Prices as integers of 10^-8, each different one worked out once, exactly."""
    texts = prices.drop_nulls().unique().to_list()
    amounts = [_amount(text) for text in texts]
    return prices.replace_strict(texts, amounts, default=None, return_dtype=pl.Int64)


def _amount(text: str) -> int:
    whole = Decimal(text).scaleb(SCALE, EXACT).to_integral_value(ROUND_HALF_EVEN, EXACT)
    return max(-AMOUNT_MAX, min(AMOUNT_MAX, int(whole)))
