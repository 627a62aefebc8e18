"""Which protocols there are: a line for each listener and each kind of agent.

A protocol is imported when it is used: most processes speak one or two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from tollkeeper.servers.switchboard import Switchboard
from tollkeeper.settings import Settings
from tollkeeper.store.peers import Peer

if TYPE_CHECKING:
    from tollkeeper.servers.agents import Agent
    from tollkeeper.servers.network import Listener


def make_listeners(board: Switchboard, settings: Settings) -> list[Listener]:
    """The listeners that the settings ask for."""
    made: list[Listener] = []
    return made


AGENTS: Mapping[str, Callable[[Switchboard, Peer], Agent]] = {}
"""Who talks to a switch of each kind."""
