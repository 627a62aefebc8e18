"""The command line: it reads arguments, calls services through the wiring, and prints."""

from __future__ import annotations
