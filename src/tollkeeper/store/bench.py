"""SQL of the benchmarks: seeding, and the baseline of one ordinary transaction per operation.

The baseline does what a well-written program without a lane does: it locks the wallet's row,
decides, writes the same rows as the lane, and commits.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from tollkeeper.core.records import Session
from tollkeeper.store.db import Connection, queries

_SQL = queries("bench")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Session).decode


async def seed_parties(connection: Connection, count: int, money: Decimal) -> None:
    """Make ``count`` parties on the plan ``bench``, each with a funded wallet and its top-up entry."""
    await connection.execute(_SQL["parties"], {"count": count, "money": money})


async def baseline_open(connection: Connection, session: Session) -> bool:
    """One transaction: lock the wallet, check, hold, store; False when the money does not cover it."""
    wallet_id, held = session.legs[0].wallet_id, session.legs[0].held
    async with connection.transaction():
        row = await (await connection.execute(_SQL["baseline_lock"], (wallet_id,))).fetchone()
        if row is None or row["available"] < held:
            return False
        day, body = session.opened_at.date(), _encode(session).decode()
        values = (session.key, session.id, session.party_id, day, session.expires_at, body)
        await connection.execute(_SQL["baseline_open"], values)
        await connection.execute(_SQL["baseline_hold"], (held, wallet_id))
        await connection.execute(_SQL["baseline_message"], (day, session.id, 1, "authorise"))
    return True


async def baseline_close(connection: Connection, key: str, charge: Decimal) -> None:
    """One transaction: lock the wallet, settle, release, store."""
    async with connection.transaction():
        row = await (await connection.execute(_SQL["baseline_take"], (key,))).fetchone()
        assert row is not None
        session = _decode(row["body"])
        leg = session.legs[0]
        await connection.execute(_SQL["baseline_lock"], (leg.wallet_id,))
        day = session.opened_at.date()
        values = (day, session.id, key, session.party_id, charge, row["body"])
        await connection.execute(_SQL["baseline_close"], values)
        entry = {"amount": charge, "session": session.id, "wallet": leg.wallet_id}
        await connection.execute(_SQL["baseline_entry"], entry)
        await connection.execute(_SQL["baseline_settle"], (leg.held, charge, leg.wallet_id))
        await connection.execute(_SQL["baseline_message"], (day, session.id, 2, "stop"))


async def slow_commits(connection: Connection, microseconds: int) -> None:
    """Make each commit of later connections wait before it is flushed, as a slower disk would."""
    await connection.execute(_SQL["slow_commit"].replace("DELAY", str(int(microseconds))))
