"""Clients of outside systems, each with a Null twin for tests and demos."""

from __future__ import annotations
