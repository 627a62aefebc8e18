"""The calls of the demonstration, planned in advance: who calls where, for how long, what goes wrong.

The same seed plans the same calls. What becomes of them is the server's business.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from phonenumbers import PhoneNumberType, country_code_for_region, example_number_for_type

from tollkeeper.cli.demo.deck import DeckRow

# Where wholesale calls go; the rest of the world shares what is left.
_REGIONS = {
    "IN": 14, "US": 12, "MX": 9, "BD": 8, "PK": 8, "PH": 7, "NG": 6, "GB": 6, "DE": 5, "VN": 4,
    "FR": 4, "BR": 4, "CO": 3, "ES": 3, "IT": 3, "EG": 3, "TR": 3, "ID": 3, "CA": 3, "SA": 2,
    "AE": 2, "ZA": 2, "PL": 2, "CN": 2, "AU": 1, "JP": 1,
}  # fmt: skip
_REST = 12
_MOBILE_SHARE = 0.72
_PREMIUM_SHARE = 0.012
_SATELLITE_SHARE = 0.004
_UNKNOWN_SHARE = 0.01
UNKNOWN_PREFIX = "999"
"""Belongs to nobody, so no deck prices it."""

_ANSWERED_SHARE = 0.62
_RING_SECONDS = (4, 28)
_TALK_MEAN_SECONDS = 105
_TALK_MAX_SECONDS = 240


class Fate(StrEnum):
    """What goes wrong with a call."""

    NONE = "none"
    CRASH = "crash"
    """The switch forgets the call: no STOP ever comes, and the server closes the session."""
    LATE = "late"
    """The STOP comes after the server has closed the session."""
    REORDERED = "reordered"
    """An old report comes after a newer one."""


class Slip(StrEnum):
    """What goes wrong with one message."""

    NONE = "none"
    LOST = "lost"
    """It does not arrive; the switch sends it again."""
    UNHEARD = "unheard"
    """It arrives, its answer is lost; the switch sends it again."""
    TWICE = "twice"
    """It arrives twice at once."""


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """One attempt. ``at`` is real seconds from the start; all other durations are call seconds."""

    number: int
    at: float
    party: str
    caller: str
    called: str
    ring_seconds: int
    talk_seconds: int
    fate: Fate
    slips: int = field(repr=False)
    """Seed of the slips of its messages."""

    @property
    def session_id(self) -> str:
        """The switch's id of the call."""
        return f"call-{self.number:05}"


class Numbers:
    """Draws called numbers as a wholesale carrier sees them."""

    def __init__(self, rows: Sequence[DeckRow]) -> None:
        by_kind: dict[tuple[str, str], list[str]] = {}
        for row in rows:
            by_kind.setdefault((row.region, row.kind), []).append(row.prefix)
        self._prefixes = by_kind
        self._premium = [row.prefix for row in rows if row.kind == "premium"]
        self._satellite = [row.prefix for row in rows if row.kind == "special" and not row.blocked]
        rest = sorted({row.region for row in rows} - _REGIONS.keys() - {"001"})
        self._regions = [*_REGIONS, *rest]
        self._weights = [*_REGIONS.values(), *[_REST / len(rest)] * len(rest)]
        self._lengths: dict[str, int] = {}

    def draw(self, random_: random.Random) -> str:
        """A number to call, in E.164 digits."""
        lot = random_.random()
        if lot < _UNKNOWN_SHARE:
            return _filled(UNKNOWN_PREFIX, 12, random_)
        if lot < _UNKNOWN_SHARE + _PREMIUM_SHARE:
            return _filled(random_.choice(self._premium), 12, random_)
        if lot < _UNKNOWN_SHARE + _PREMIUM_SHARE + _SATELLITE_SHARE:
            return _filled(random_.choice(self._satellite), 12, random_)
        (region,) = random_.choices(self._regions, self._weights)
        kind = "mobile" if random_.random() < _MOBILE_SHARE else "fixed"
        prefixes = self._prefixes.get((region, kind)) or self._prefixes[region, "fixed"]
        return _filled(random_.choice(prefixes), self._length(region), random_)

    def _length(self, region: str) -> int:
        """Digits of a number of a region, country code included."""
        if region not in self._lengths:
            example = example_number_for_type(region, PhoneNumberType.MOBILE)
            national = 9 if example is None else len(str(example.national_number))
            self._lengths[region] = len(str(country_code_for_region(region))) + national
        return self._lengths[region]


def _filled(prefix: str, length: int, random_: random.Random) -> str:
    missing = max(2, length - len(prefix))
    return prefix + "".join(str(random_.randrange(10)) for _ in range(missing))


def plan_calls(
    numbers: Numbers,
    parties: dict[str, float],
    *,
    seconds: int,
    calls_per_second: int,
    seed: int,
    punctual: str = "",
) -> Iterator[PlannedCall]:
    """All calls of a run in the order of their beginning; ``parties`` gives each one's share.

    No STOP of the party ``punctual`` is late: usage reported after the end is charged even where
    the money is gone, and would take its wallet below zero.
    """
    random_ = random.Random(seed)  # noqa: S311 (a simulation, which must be repeatable)
    at, number = 0.0, 0
    codes, shares = list(parties), list(parties.values())
    while True:
        at += random_.expovariate(calls_per_second)
        if at >= seconds:
            return
        number += 1
        (party,) = random_.choices(codes, shares)
        call = one_call(numbers, number, at, party, random_)
        late = call.fate is Fate.LATE and party == punctual
        yield replace(call, fate=Fate.NONE) if late else call


def one_call(
    numbers: Numbers,
    number: int,
    at: float,
    party: str,
    random_: random.Random,
    *,
    talk_seconds: int | None = None,
) -> PlannedCall:
    """Plan one call; with ``talk_seconds`` it is answered, lasts so long and nothing goes wrong."""
    answered = random_.random() < _ANSWERED_SHARE
    talk = min(_TALK_MAX_SECONDS, 1 + int(random_.expovariate(1 / _TALK_MEAN_SECONDS)))
    (fate,) = random_.choices(list(Fate), (95.0, 2.0, 1.0, 2.0))
    if fate is Fate.LATE:
        talk = 1 + talk // 4  # its STOP comes long after: let it be over when all others are
    if talk_seconds is not None:
        answered, talk, fate = True, talk_seconds, Fate.NONE
    return PlannedCall(
        number=number,
        at=at,
        party=party,
        caller=_filled("4420", 12, random_),
        called=numbers.draw(random_),
        ring_seconds=random_.randint(*_RING_SECONDS),
        talk_seconds=talk if answered else 0,
        fate=fate,
        slips=random_.randrange(2**32),
    )


def slips_of(call: PlannedCall) -> Iterator[Slip]:
    """What goes wrong with the messages of a call, one after the other, without end."""
    random_ = random.Random(call.slips)  # noqa: S311 (as above)
    while True:
        (slip,) = random_.choices(list(Slip), (94.0, 2.0, 2.0, 2.0))
        yield slip
