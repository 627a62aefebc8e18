"""The rules of the business, pure: no I/O, clock, ids, randomness, logging or async."""
