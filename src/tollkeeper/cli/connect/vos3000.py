"""The command ``connect vos3000``: what is to be allowed there, and whether its accounts are found."""

from __future__ import annotations

import asyncio
from decimal import Decimal

from tollkeeper.cli.common import console, run, table
from tollkeeper.cli.connect.common import find_peer
from tollkeeper.errors import Busy, InvalidInput
from tollkeeper.gateways.kill import KillFailed
from tollkeeper.gateways.vos3000 import DISCONNECT, PATH, VosUnknown
from tollkeeper.servers.vos3000 import gateway_of
from tollkeeper.store.balance_push import Spendable, read_spendable
from tollkeeper.store.db import Database
from tollkeeper.store.peers import Peer
from tollkeeper.wire.vos3000 import Account, VosRefused

OPERATIONS = ("GetCustomer", "Pay", "GetPayHistory", "GetCurrentCall")


def vos3000(peer: str, /, *, check: bool = False) -> None:
    """Say what to set in a VOS3000 so that its calls are ended and its accounts follow wallets.

    Args:
        peer: Code of the peer (kind vos3000).
        check: Ask it for the accounts now, and show them beside the wallets; nothing is changed.
    """
    found = find_peer(peer, "vos3000")
    for line in _steps(found):
        console().print(line, markup=False, soft_wrap=True)
    if check:
        _show(found)


def _steps(peer: Peer) -> list[str]:
    path = "/" + (peer.text("path") or PATH).strip("/")
    operations = (*OPERATIONS, peer.text("disconnect") or DISCONNECT)
    source = (
        f"tollkeeper cdr source add {peer.code} --kind mysql --switch {peer.switch} --format vos3000 "
        f"--timezone {peer.timezone} --set host=<it> --set user=cdr_reader --set database=vos3000db "
        "--set since=<day> --secret-file=-"
    )
    return [
        "1. In the client, Interface management > Web access control, allow the address of this machine for:",
        *(f"     {path}/{name}" for name in operations),
        "   Allow them one by one: the whole folder would let this address change everything there.",
        "2. Call records: a MySQL user of its own that can only read, then the source that collects them:",
        "     CREATE USER 'cdr_reader'@'<this machine>' IDENTIFIED BY '<password>';",
        "     GRANT SELECT ON vos3000db.* TO 'cdr_reader'@'<this machine>';",
        f"     {source}",
        "3. Balances: options accounts, currency and push of this peer; see docs/how-to/connect-vos3000.md",
    ]


def _show(peer: Peer) -> None:
    parties = {
        str(row.get("account", "")): str(row.get("party", "")) for row in peer.rows("accounts")
    }
    if not parties:
        raise InvalidInput(
            "the peer's option accounts is empty: there is nothing to check", field="accounts"
        )
    accounts = asyncio.run(_accounts(peer, list(parties)))

    async def wallets(database: Database) -> dict[str, Spendable]:
        async with database.read() as connection:
            return await read_spendable(connection, list(parties.values()), peer.text("currency"))

    ours = run(wallets)
    rows = [
        (account, party, _amount(accounts, account), _available(ours, party))
        for account, party in parties.items()
    ]
    columns = ("account", "party", "spendable there>", "available here>")
    console().print(table(f"accounts of {peer.code}", columns, rows))


async def _accounts(peer: Peer, names: list[str]) -> dict[str, Decimal]:
    try:
        gateway = gateway_of(peer)
        try:
            found: list[Account] = await gateway.accounts(names)
        finally:
            await gateway.close()
    except (KillFailed, VosUnknown, VosRefused) as error:
        raise Busy(f"the platform of {peer.code} does not answer as it should: {error}") from error
    return {one.account: one.spendable for one in found}


def _amount(accounts: dict[str, Decimal], account: str) -> str:
    return f"{accounts[account]:f}" if account in accounts else "no such account"


def _available(wallets: dict[str, Spendable], party: str) -> str:
    if party not in wallets:
        return "no such wallet"
    shown = f"{wallets[party].available:f}"
    return f"{shown} (barred)" if wallets[party].barred else shown
