"""Mediation: whose call a record is, in numbers and times that mean the same everywhere.

Works on whole columns. What cannot be told is put aside with its reason, and nothing else of the
part suffers from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from tollkeeper.bulk.numbers import normalise_column
from tollkeeper.core.numbering import DialRules
from tollkeeper.core.trunks import Candidate, Trace, Trunks
from tollkeeper.core.usage import DURATION_MAX_MS, MICROSECONDS, Mismatch, Quarantine
from tollkeeper.services.cdr.records import (
    Flags,
    Held,
    Ints,
    Mediated,
    Noted,
    Notes,
    distinct,
    hold,
)
from tollkeeper.services.cdr.reference import Reference, day_of, moment_of

YEAR_2000 = 946_684_800 * MICROSECONDS
FUTURE_US = 86_400 * MICROSECONDS
"""A record of a call that begins later than this from now is not of this world."""
DRIFT_US = 300 * MICROSECONDS
"""Times that contradict each other, or our clock, by more than this are reported."""

NOBODY, SEVERAL = -1, -2


@dataclass(frozen=True, slots=True)
class MediationPolicy:
    """``long_call_seconds``: an answered call that lasts longer is reported."""

    long_call_seconds: int = 14_400


def mediate(
    frame: pl.DataFrame,
    reference: Reference,
    *,
    now_us: int,
    policy: MediationPolicy,
    notes: Notes,
) -> tuple[Mediated, list[Held]]:
    """Judge the records of a PARSED frame; those that cannot be told come back as held."""
    frame, held = _sound(frame, now_us, reference.purged_us)
    trunk_in = _trunks(frame, reference.senders, "trunk_in", "ip_in", "account")
    frame, trunk_in, found = _senders(frame, trunk_in)
    held += found
    called_rules, caller_rules, rule = _rules(reference, trunk_in)
    number, digits, called, bad = normalise_column(frame["called"], rule, called_rules)
    if bad.any():
        held += hold(
            frame, bad, Quarantine.BAD_NUMBER, field="called",
            detail='"{value}" is not a number that can be called; correct it, or the dial rules of its trunk',
        )  # fmt: skip
        keep = ~bad
        frame, trunk_in, rule = frame.filter(pl.Series(keep)), trunk_in[keep], rule[keep]
        number, digits, called = number[keep], digits[keep], called.filter(pl.Series(keep))
    trunk_out = np.maximum(_trunks(frame, reference.receivers, "trunk_out", "ip_out", None), 0)
    parties = _parties_of_trunks(reference)
    mediated = Mediated(
        frame=frame,
        customer=parties[trunk_in],
        vendor=parties[trunk_out],
        trunk_in=trunk_in,
        trunk_out=trunk_out,
        number=number,
        digits=digits,
        called=called,
        caller=_callers(frame["caller"], rule, caller_rules),
    )
    _note_oddities(mediated, now_us=now_us, policy=policy, notes=notes)
    return mediated, held


def _sound(frame: pl.DataFrame, now_us: int, purged_us: int) -> tuple[pl.DataFrame, list[Held]]:
    """Take out what no trunk or rate could make sense of."""
    start = frame["start"].to_numpy()
    duration = frame["duration_ms"].to_numpy()
    checks: list[tuple[Flags, Quarantine, str, str]] = [
        (
            (frame["call_id"].str.len_bytes() == 0).to_numpy(),
            Quarantine.MALFORMED,
            "call_id",
            "the record has no call id, so it could not be told from a repeat; name one in the mapping",
        ),
        (
            (start < YEAR_2000) | (start > now_us + FUTURE_US),
            Quarantine.BAD_TIME,
            "start",
            "the call begins before the year 2000 or in the future ({value} microseconds since 1970)",
        ),
        (
            start < purged_us,
            Quarantine.BAD_TIME,
            "start",
            "the records of that day were purged, so it cannot be told whether this is a repeat",
        ),
        (
            (duration < 0) | (duration > DURATION_MAX_MS),
            Quarantine.BAD_DURATION,
            "duration_ms",
            "no call lasts {value} ms; correct the duration, or the unit in the mapping",
        ),
    ]
    held: list[Held] = []
    bad = np.zeros(len(frame), dtype=np.bool_)
    for wrong, reason, field, detail in checks:
        new = wrong & ~bad
        if new.any():
            held += hold(frame, new, reason, field=field, detail=detail)
            bad |= new
    return (frame.filter(pl.Series(~bad)) if bad.any() else frame), held


# --- trunks ----------------------------------------------------------------------------------------


def _trunks(
    frame: pl.DataFrame, trunks: Trunks, name: str, address: str, account: str | None
) -> Ints:
    """The trunk of each row: its id, NOBODY or SEVERAL. Equal traces are looked up once."""
    columns = [name, address, *([account] if account else [])]
    if not len(frame):
        return np.zeros(0, dtype=np.int64)
    keys = frame.select(columns)
    traces = keys.unique(maintain_order=True).with_row_index("trace")
    place = (
        keys.join(traces, on=columns, how="left", maintain_order="left")["trace"]
        .to_numpy()
        .astype(np.int64)
    )
    certain = np.full(len(traces), NOBODY, dtype=np.int64)
    open_traces: list[tuple[int, tuple[Candidate, ...]]] = []
    for n, row in enumerate(traces.select(columns).iter_rows()):
        candidates = trunks.candidates(Trace(row[0], row[1], row[2] if account else ""))
        if any(one.trunk.tech_prefix for one in candidates):
            open_traces.append((n, candidates))
        else:
            certain[n] = _chosen(candidates)
    found: Ints = certain[place]
    for n, candidates in open_traces:
        rows = np.flatnonzero(place == n)
        found[rows] = _by_tech_prefix(frame["called"].gather(rows), candidates)
    return found


def _chosen(candidates: Sequence[Candidate]) -> int:
    if not candidates:
        return NOBODY
    best = [one for one in candidates if one.score == candidates[0].score]
    return best[0].trunk.id if len({one.trunk.party_id for one in best}) == 1 else SEVERAL


def _by_tech_prefix(called: pl.Series, candidates: Sequence[Candidate]) -> Ints:
    """The same choice where the called number decides; candidates come best first."""
    numbers = called.str.strip_prefix("+")
    found = np.full(len(called), NOBODY, dtype=np.int64)
    for score in dict.fromkeys(one.score for one in candidates):
        tier = [one.trunk for one in candidates if one.score == score]
        parties = np.zeros(len(called), dtype=np.int64)
        chosen = np.full(len(called), NOBODY, dtype=np.int64)
        for trunk in tier:
            fits = numbers.str.starts_with(trunk.tech_prefix).to_numpy() & (found == NOBODY)
            chosen[fits & (chosen != NOBODY) & (parties != trunk.party_id)] = SEVERAL
            first = fits & (chosen == NOBODY)
            chosen[first], parties[first] = trunk.id, trunk.party_id
        found = np.where(found == NOBODY, chosen, found)
    return found


def _senders(frame: pl.DataFrame, trunk: Ints) -> tuple[pl.DataFrame, Ints, list[Held]]:
    """Put aside the rows whose customer is not known, or not one alone."""
    held: list[Held] = []
    bad = trunk < 0
    if not bad.any():
        return frame, trunk, held
    for mark, reason, detail in (
        (
            NOBODY,
            Quarantine.UNKNOWN_CUSTOMER,
            "no trunk fits {value}; add the trunk that it belongs to",
        ),
        (
            SEVERAL,
            Quarantine.AMBIGUOUS_CUSTOMER,
            "trunks of several customers fit {value} equally well; make one of them more specific",
        ),
    ):
        where = trunk == mark
        if where.any():
            rows = frame.filter(pl.Series(where)).select("trunk_in", "ip_in", "account", "called")
            values = [_trace_text(*row) for row in rows.iter_rows()]
            held += hold(frame, where, reason, field="trunk_in", detail=detail, values=values)
    return frame.filter(pl.Series(~bad)), trunk[~bad], held


def _trace_text(name: str, address: str, account: str, called: str) -> str:
    parts = [("trunk", name), ("address", address), ("account", account), ("called", called)]
    return ", ".join(f"{what} {text[:40]}" for what, text in parts if text) or "nothing"


def _parties_of_trunks(reference: Reference) -> Ints:
    table = np.zeros(max(reference.trunks, default=0) + 1, dtype=np.int64)
    for id_, trunk in reference.trunks.items():
        table[id_] = trunk.party_id
    return table


# --- numbers ---------------------------------------------------------------------------------------


def _rules(
    reference: Reference, trunk: Ints
) -> tuple[list[DialRules], list[DialRules], npt.NDArray[np.int64]]:
    """How the called and the calling numbers of each row are written, and which of the rules is its."""
    ids, place = distinct(trunk)
    called = [reference.rules_of(reference.trunks[int(id_)]) for id_ in ids]
    caller = [replace(one, tech_prefix="", tech_prefix_required=False) for one in called]
    return called, caller, place


def _callers(texts: pl.Series, rule: npt.NDArray[np.int64], rules: list[DialRules]) -> pl.Series:
    """Calling numbers in E.164 where they are numbers, else as they were written."""
    _, _, numbers, bad = normalise_column(texts, rule, rules)
    if bad.any():
        numbers = pl.select(
            pl.when(pl.Series(bad)).then(texts.str.slice(0, 64)).otherwise(numbers)
        ).to_series()
    return numbers


# --- oddities --------------------------------------------------------------------------------------


def _note_oddities(
    mediated: Mediated, *, now_us: int, policy: MediationPolicy, notes: Notes
) -> None:
    """Report what is in the books and yet worth a look."""
    frame = mediated.frame
    start, duration = frame["start"].to_numpy(), frame["duration_ms"].to_numpy()
    has_answer = frame["answer"].is_not_null().to_numpy()
    answer = frame["answer"].fill_null(0).to_numpy()
    end = frame["end"].fill_null(-1).to_numpy()
    spoken_until = np.where(has_answer, answer, start) + duration * 1000
    drift = (
        (start > now_us + DRIFT_US)
        | (has_answer & (answer < start - DRIFT_US))
        | ((end >= 0) & (duration > 0) & (spoken_until > end + DRIFT_US))
    )
    _note(mediated, notes, Mismatch.CLOCK_DRIFT, drift,
          lambda n: f"begins {moment_of(int(start[n])).isoformat()}, its times do not agree or lie ahead")  # fmt: skip
    _note(mediated, notes, Mismatch.LONG_CALL, duration > policy.long_call_seconds * 1000,
          lambda n: f"lasts {duration[n] // 1000} s")  # fmt: skip
    _note(mediated, notes, Mismatch.ZERO_ANSWER, has_answer & (duration == 0),
          lambda _: "answered, and 0 ms long")  # fmt: skip
    sent_on = ((frame["trunk_out"] != "") | (frame["ip_out"] != "")).to_numpy()
    trunk_out, ip_out = frame["trunk_out"], frame["ip_out"]
    _note(mediated, notes, Mismatch.UNKNOWN_VENDOR, sent_on & (mediated.vendor == 0) & (duration > 0),
          lambda n: f"no trunk fits trunk {trunk_out[n]} address {ip_out[n]}")  # fmt: skip


def _note(
    mediated: Mediated, notes: Notes, kind: Mismatch, where: Flags, detail: Callable[[int], str]
) -> None:
    rows = np.flatnonzero(where)
    if not len(rows):
        return
    line, call_id = mediated.frame["line"], mediated.frame["call_id"]
    start = mediated.frame["start"]
    for n in rows[: notes.room(kind, len(rows))].tolist():
        notes.listed.append(
            Noted(
                line=line[n],
                kind=kind,
                day=day_of(start[n]),
                call_id=call_id[n],
                customer_id=int(mediated.customer[n]),
                vendor_id=int(mediated.vendor[n]),
                detail=detail(n),
            )
        )
