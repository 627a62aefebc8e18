"""The use cases, one function per command: transactions begin and end here."""

from __future__ import annotations
