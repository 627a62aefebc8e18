"""Why one field cannot be read, and the refusal of its record."""

from __future__ import annotations

from tollkeeper.core.usage import Refused

RAW_MAX = 4_000
"""Characters of a refused record that are kept."""
VALUE_MAX = 200
"""Characters of a refused field that are kept."""


class FieldProblem(Exception):
    """A text that has no meaning as ``field``. Codecs turn it into a ``Refused``."""

    def __init__(self, field: str, value: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field
        self.value = value
        self.reason = reason

    def refused(self, line: int, raw: bytes | str) -> Refused:
        """Return the refusal of the record at ``line``, which read ``raw``."""
        return refused(line, self.field, self.value, self.reason, raw)


def refused(line: int, field: str, value: str, reason: str, raw: bytes | str) -> Refused:
    """Build a refusal whose texts are safe to store: bounded, without NUL or half characters."""
    return Refused(line, field, _safe(value, VALUE_MAX), reason, raw_text(raw))


def raw_text(raw: bytes | str) -> str:
    """Return a record as text for people: at most ``RAW_MAX`` characters, always storable."""
    if isinstance(raw, bytes):
        # Four bytes a character at the most, so this cuts no character of the text we keep.
        raw = raw[: RAW_MAX * 4].decode("utf-8", "replace")
    return _safe(raw, RAW_MAX)


def _safe(text: str, length: int) -> str:
    text = text[:length].replace("\0", "\N{SYMBOL FOR NULL}")
    return text.encode("utf-8", "replace").decode("utf-8")
