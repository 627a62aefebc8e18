"""The generated page of the formats of call records."""

from __future__ import annotations

import inspect
import sys

from tollkeeper.core.usage import Mismatch, Quarantine
from tollkeeper.wire.cdr.formats import FORMATS
from tollkeeper.wire.cdr.mapping import FIELDS
from tools.pages import page, table


def _summary(code: str) -> str:
    """The first sentence of the module that reads a format."""
    text = inspect.getdoc(sys.modules[FORMATS[code].read.__module__]) or ""
    return " ".join(text.split("\n\n")[0].split())


def cdr_formats() -> str:
    """The formats of call records, and what can become of a record."""
    rows = [
        [f"`{code}`", found.title, ", ".join(found.suffixes), _summary(code)]
        for code, found in sorted(FORMATS.items())
    ]
    fields = ", ".join(f"`{name}`" for name in FIELDS)
    return page(
        "Formats of call records",
        "`tollkeeper cdr sniff FILE` says which one a file is of. Files may be packed by gzip, bzip2, xz or zstd.",
        table(["format", "what", "endings", "how it is read"], rows),
        f"For `csv` and `jsonl` a [mapping](cdr-mapping.md) says what is what. It can fill these fields: {fields}.",
        "## Why a record is put aside",
        table(["reason"], [[f"`{one.value}`"] for one in Quarantine]),
        "What helps is said in [how records become money](../explanation/how-records-become-money.md).",
        "## What is reported of records in the books",
        table(["mismatch"], [[f"`{one.value}`"] for one in Mismatch]),
    )
