"""The command ``demo``: simulated traffic against prepaid wallets, then the proof of the books."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from tollkeeper.cli.common import console


def demo(
    *,
    seconds: Annotated[int, Parameter(validator=Number(gte=3, lte=3600))] = 45,
    speed: Annotated[int, Parameter(validator=Number(gte=5, lte=100))] = 20,
    calls_per_second: Annotated[int, Parameter(validator=Number(gte=2, lte=500))] = 80,
    seed: int = 1,
    keep: bool = False,
    sip: bool = False,
) -> int:
    """Watch calls being charged against wallets, one wallet run dry, and the books proven.

    Works on a database of its own, tollkeeper_demo, which is made anew each time. Ends with 1 if
    the books do not hold.

    Args:
        seconds: How long calls are begun; they end and are settled a little later.
        speed: How fast the clock of the demonstration runs: at 20 a call of a minute takes 3 seconds.
        calls_per_second: Calls begun in each second of real time.
        seed: The same seed makes the same calls.
        keep: Leave the database, to look around in it.
        sip: Make three real SIP calls through Kamailio instead, where it is installed.
    """
    if sip:
        from tollkeeper.cli.demo.kamailio import check  # noqa: PLC0415 - as below

        check()
        from tollkeeper.cli.demo.run import run_sip_demo  # noqa: PLC0415 - as below

        return run_sip_demo(keep=keep)
    console().print("reading the names of the world's prefixes ...")
    # The names and places of the world's prefixes take a second to load; only this command needs them.
    from tollkeeper.cli.demo.run import Options, run_demo  # noqa: PLC0415

    return run_demo(
        Options(
            seconds=seconds, speed=speed, calls_per_second=calls_per_second, seed=seed, keep=keep
        )
    )
