"""Tollkeeper: billing and real-time charging for wholesale telecom carriers."""

from __future__ import annotations

__version__ = "0.1.0"
