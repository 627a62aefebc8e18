"""Which protocols there are: a line for each listener and each kind of agent.

A protocol is imported when it is used: most processes speak one or two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from tollkeeper.servers.switchboard import Switchboard
from tollkeeper.settings import Settings, listen_address
from tollkeeper.store.peers import Peer


class Stoppable(Protocol):
    """Something that has an end."""

    async def stop(self) -> None:
        """End it."""


if TYPE_CHECKING:
    from tollkeeper.servers.agents import Agent
    from tollkeeper.servers.network import Listener


def make_listeners(board: Switchboard, settings: Settings) -> list[Listener]:
    """The listeners that the settings ask for."""
    made: list[Listener] = []
    if settings.radius_auth_listen or settings.radius_acct_listen:
        from tollkeeper.servers.radius.server import RadiusServer

        auth, acct = settings.radius_auth_listen, settings.radius_acct_listen
        made.append(
            RadiusServer(
                board,
                auth=listen_address(auth) if auth else None,
                acct=listen_address(acct) if acct else None,
                most=settings.network_queue_max,
            )
        )
    if settings.smpp_listen or settings.smpp_tls_listen:
        from tollkeeper.servers.smpp.gateway import SmppGateway

        made.append(SmppGateway(board, settings))
    if settings.agi_listen:
        from tollkeeper.servers.asterisk.server import AgiServer

        host, port = listen_address(settings.agi_listen)
        made.append(AgiServer(board, host, port, most=settings.network_queue_max))
    if settings.sip_listen:
        from tollkeeper.servers.sip.redirect import SipRedirect

        host, port = listen_address(settings.sip_listen)
        made.append(
            SipRedirect(
                board,
                host,
                port,
                most=settings.network_queue_max,
                refuse_unknown=settings.sip_unknown == "refuse",
            )
        )
    if settings.diameter_listen or settings.diameter_tls_listen:
        from tollkeeper.servers.diameter.server import diameter_servers

        made += diameter_servers(board, settings)
    return made


def register_enders(board: Switchboard) -> list[Stoppable]:
    """Who ends calls where no connection is needed, so that every process can; to be stopped at the end."""
    from tollkeeper.servers.radius.ender import RadiusEnder

    radius = RadiusEnder(board)
    board.reach.add_kind("radius", radius)
    from tollkeeper.servers.vos3000 import VosEnder

    board.reach.add_kind("vos3000", VosEnder(board))
    return [radius]


def _freeswitch(board: Switchboard, peer: Peer) -> Agent:
    from tollkeeper.servers.freeswitch.agent import FreeSwitchAgent

    return FreeSwitchAgent(board, peer)


def _asterisk(board: Switchboard, peer: Peer) -> Agent:
    from tollkeeper.servers.asterisk.agent import AsteriskAgent

    return AsteriskAgent(board, peer)


def _kamailio(board: Switchboard, peer: Peer) -> Agent:
    from tollkeeper.servers.kamailio.agent import KamailioAgent
    from tollkeeper.servers.kamailio.simple import SimpleAgent

    return KamailioAgent(board, peer) if peer.text("connect") else SimpleAgent(board, peer)


def _vos3000(board: Switchboard, peer: Peer) -> Agent:
    from tollkeeper.servers.vos3000 import Vos3000Agent

    return Vos3000Agent(board, peer)


AGENTS: Mapping[str, Callable[[Switchboard, Peer], Agent]] = {
    "asterisk": _asterisk,
    "freeswitch": _freeswitch,
    "kamailio": _kamailio,
    "vos3000": _vos3000,
}
"""Who talks to a switch of each kind."""
