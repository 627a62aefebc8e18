"""PostgreSQL: the only package that knows SQL."""

from __future__ import annotations
