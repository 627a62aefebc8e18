"""All CDR formats by their code."""

from __future__ import annotations

from tollkeeper.errors import InvalidInput
from tollkeeper.wire.cdr import (
    asterisk,
    broadworks,
    cucm,
    freeswitch_csv,
    freeswitch_event,
    freeswitch_json,
    kamailio,
    oracle,
    radius_detail,
    ribbon,
    rows,
    sansay,
    tap3,
    vos3000,
)
from tollkeeper.wire.cdr.format import Format

FORMATS: dict[str, Format] = {
    one.code: one
    for one in (
        freeswitch_json.FORMAT,
        freeswitch_csv.FORMAT,
        freeswitch_event.FORMAT,
        asterisk.FORMAT,
        kamailio.FORMAT,
        vos3000.FORMAT,
        broadworks.FORMAT,
        cucm.FORMAT,
        ribbon.FORMAT,
        sansay.FORMAT,
        oracle.FORMAT,
        radius_detail.FORMAT,
        tap3.FORMAT,
        rows.CSV,
        rows.JSONL,
    )
}
"""In the order in which they are tried; of two that are as sure of a file the first is taken."""


def format_of(code: str) -> Format:
    """Return the format of a code.

    Raises:
        InvalidInput: there is none of that code.
    """
    found = FORMATS.get(code)
    if found is None:
        raise InvalidInput(
            f'format: "{code[:40]}" is not known; use one of {", ".join(FORMATS)}.', field="format"
        )
    return found
