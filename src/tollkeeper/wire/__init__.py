"""Protocols and file formats as pure codecs: bytes to records and back."""

from __future__ import annotations
