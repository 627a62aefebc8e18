"""The rating arithmetic of core over columns, for millions of records at a time."""

from __future__ import annotations
