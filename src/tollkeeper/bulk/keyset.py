"""The keys that are known already: a hash set of 128-bit keys that fills as parts of files go by.

Open addressing with linear probing over one array, at most five eighths full. A key is two
unsigned 64-bit integers that are hashes themselves, so the first one is its own place; the key
(0, 0) marks an empty place, and is never made by a keyed hash in practice (one in 2^128).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

Keys = npt.NDArray[np.uint64]
"""Shape (n, 2)."""

_FIRST_SLOTS = 1 << 12


@njit(nogil=True, cache=True)
def _place(slots: Keys, high: np.uint64, low: np.uint64) -> np.uint64:
    """The place of a key, or of the empty one where it would go."""
    mask = np.uint64(len(slots) - 1)
    at = high & mask
    while True:
        one, other = slots[at, 0], slots[at, 1]
        if (one == high and other == low) or (one == 0 and other == 0):
            return at
        at = (at + np.uint64(1)) & mask


@njit(nogil=True, cache=True)
def _add(slots: Keys, keys: Keys, fresh: npt.NDArray[np.bool_]) -> int:
    added = 0
    for n in range(len(keys)):
        high, low = keys[n, 0], keys[n, 1]
        at = _place(slots, high, low)
        if slots[at, 0] == 0 and slots[at, 1] == 0:
            slots[at, 0] = high
            slots[at, 1] = low
            fresh[n] = True
            added += 1
    return added


@njit(nogil=True, cache=True)
def _contains(slots: Keys, keys: Keys, known: npt.NDArray[np.bool_]) -> None:
    for n in range(len(keys)):
        at = _place(slots, keys[n, 0], keys[n, 1])
        known[n] = slots[at, 0] != 0 or slots[at, 1] != 0


@njit(nogil=True, cache=True)
def _move(old: Keys, new: Keys) -> None:
    for n in range(len(old)):
        if old[n, 0] != 0 or old[n, 1] != 0:
            at = _place(new, old[n, 0], old[n, 1])
            new[at, 0] = old[n, 0]
            new[at, 1] = old[n, 1]


class KeySet:
    """Keys seen so far; 16 bytes a place, of which at least three eighths are empty."""

    __slots__ = ("_slots", "size")

    def __init__(self) -> None:
        self._slots: Keys = np.zeros((_FIRST_SLOTS, 2), dtype=np.uint64)
        self.size = 0

    def add(self, keys: Keys) -> npt.NDArray[np.bool_]:
        """Add keys in the order of their rows; True where a key was not known before."""
        keys = np.ascontiguousarray(keys, dtype=np.uint64)
        self._make_room(len(keys))
        fresh = np.zeros(len(keys), dtype=np.bool_)
        self.size += int(_add(self._slots, keys, fresh))
        return fresh

    def contains(self, keys: Keys) -> npt.NDArray[np.bool_]:
        """True where a key is known."""
        known = np.zeros(len(keys), dtype=np.bool_)
        _contains(self._slots, np.ascontiguousarray(keys, dtype=np.uint64), known)
        return known

    def _make_room(self, more: int) -> None:
        slots = len(self._slots)
        while (self.size + more) * 8 > slots * 5:
            slots *= 2
        if slots == len(self._slots):
            return
        grown = np.zeros((slots, 2), dtype=np.uint64)
        _move(self._slots, grown)
        self._slots = grown
