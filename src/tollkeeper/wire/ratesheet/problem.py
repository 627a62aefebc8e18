"""Why one cell cannot be read: raised by the cell readers, turned into a refusal of its row."""

from __future__ import annotations


class CellProblem(Exception):
    """A cell that has no meaning as ``field``. It never leaves this package."""

    def __init__(self, field: str, value: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field
        self.value = value
        self.reason = reason
