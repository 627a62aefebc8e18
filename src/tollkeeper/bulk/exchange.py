"""Amounts of two currencies compared over columns, exactly."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import numpy.typing as npt

_INT64_MAX = 2**63 - 1


def worth_less(
    amount: npt.NDArray[np.int64], than: npt.NDArray[np.int64], rate: Decimal
) -> npt.NDArray[np.bool_]:
    """Tell where ``amount`` (10^-8 of its currency) times the rate is less than ``than`` of the other.

    The rate is a fraction of whole numbers, so that both sides are whole, too: nothing is rounded.
    """
    up, down = rate.as_integer_ratio()
    if _largest(amount) * up <= _INT64_MAX and _largest(than) * down <= _INT64_MAX:
        small: npt.NDArray[np.bool_] = amount * up < than * down
        return small
    # Beyond 64 bits Python's own integers count; a few tenths of a microsecond each.
    large: npt.NDArray[np.bool_] = (amount.astype(object) * up < than.astype(object) * down).astype(
        np.bool_
    )
    return large


def _largest(column: npt.NDArray[np.int64]) -> int:
    """The largest number of a column without its sign, and 1 at least: factors must fit, too."""
    return max(1, abs(int(column.max())), abs(int(column.min()))) if len(column) else 1
