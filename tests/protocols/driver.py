"""What the common scenarios ask of each protocol: a switch that makes calls through Tollkeeper.

A driver stands for one switch (a real one where there is one) that speaks its protocol with the house.
Where ``real_time`` is true a second of a call is a second; else the driver only says that it passed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from tests.protocols.house import House
from tests.support import World

SLICE = 4
"""Seconds of a slice (peer option ``slice``) that every driver sets: short, so that calls are renewed."""


@dataclass(frozen=True)
class Begun:
    """How a call began; ``granted`` seconds where the protocol tells them; ``code`` of a refusal."""

    allowed: bool
    granted: int | None = None
    code: str = ""


class Driver(ABC):
    """One switch. Made by ``Driver(number)``: number 1, 2 ... keeps two of them apart (codes, ports, addresses)."""

    name: ClassVar[str]
    real_time: ClassVar[bool] = False
    extends: ClassVar[bool] = True
    """Whether a call that is up gets more time by itself after a top-up."""
    ended_by_us: ClassVar[bool] = True
    """Whether we can end a call; else only the limit given at its beginning does."""
    keeps_calls: ClassVar[bool] = False
    """Whether calls outlive a restart of the switch."""

    def __init__(self, number: int = 1) -> None:
        self.number = number

    @classmethod
    def missing(cls) -> str:
        """Why this cannot run on this machine; "" if it can."""
        return ""

    @property
    def switch(self) -> str:
        """The code of its peer, and of the switch."""
        return f"{self.name}-{self.number}"

    def settings(self) -> dict[str, Any]:
        """Settings that the house needs (listen addresses on free ports); asked of number 1 alone."""
        return {}

    @abstractmethod
    async def open(self, house: House, world: World, trunk: str) -> None:
        """Add the peer (with ``trunk`` as its trunk and the option ``slice`` = SLICE) and connect to the running house.

        For number 2 ``house.given`` has the settings of number 1. Returns when calls can be made.
        """

    @abstractmethod
    async def close(self) -> None:
        """End everything that was started, whatever its state."""

    @abstractmethod
    async def begin(self, call: str, called: str) -> Begun:
        """Make a call and, if allowed, have it answered. ``call`` names it in this driver alone."""

    @abstractmethod
    async def talk(self, call: str, seconds: int) -> None:
        """The call is up until ``seconds`` after its answer; interim reports are sent where it is usual."""

    @abstractmethod
    async def hang_up(self, call: str) -> int:
        """The caller hangs up and the switch tells us; returns the call's milliseconds as the switch told them."""

    @abstractmethod
    async def lose_stop(self, call: str) -> None:
        """The call ends at the switch, and its end is never told."""

    @abstractmethod
    async def ended(self, call: str, *, within: float) -> bool:
        """Wait until the call was ended at the switch by its limit or by our request, and that was told."""

    @abstractmethod
    async def repeat(self) -> None:
        """Say the last message once more, as after a lost answer."""

    @abstractmethod
    async def restart(self) -> None:
        """The switch restarts; returns when it is up again. Its calls are gone unless ``keeps_calls``."""
