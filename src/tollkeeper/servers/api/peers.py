"""Routes of peers and of the user names that call through them. The operator's only."""

from __future__ import annotations

from fastapi import APIRouter

from tollkeeper.servers.api import peer_schemas as schemas
from tollkeeper.servers.api.auth import DOCUMENTED, ManageKey, actor_of
from tollkeeper.servers.api.context import Context
from tollkeeper.servers.api.schemas import AfterCode, AfterNumber, PageLimit
from tollkeeper.servers.api.supply_schemas import PartyFilter
from tollkeeper.services import credentials, peers

router = APIRouter(prefix="/v1", dependencies=DOCUMENTED, tags=["peers"])


@router.post("/peers", status_code=201)
async def create_peer(body: schemas.NewPeer, context: Context, key: ManageKey) -> schemas.PeerMade:
    """Add a peer. A secret made here is in this answer and nowhere else."""
    made, secret = await peers.create_peer(context.database, body.peer(), actor=actor_of(key))
    return schemas.PeerMade.made(made, secret)


@router.get("/peers")
async def list_peers(
    context: Context,
    _: ManageKey,
    limit: PageLimit = 100,
    after: AfterCode = "",
    kind: schemas.KindFilter = "",
) -> schemas.PeerList:
    """List peers in the order of their codes."""
    found = await peers.list_peers(context.database, kind=kind, after=after, limit=limit + 1)
    items = [schemas.PeerOut.of(peer) for peer in found[:limit]]
    return schemas.PeerList(items=items, next=items[-1].code if len(found) > limit else None)


@router.get("/peers/{code}")
async def get_peer(code: schemas.PeerPath, context: Context, _: ManageKey) -> schemas.PeerOut:
    """Show a peer, without its secrets."""
    return schemas.PeerOut.of(await peers.get_peer(context.database, code))


@router.patch("/peers/{code}")
async def change_peer(
    code: schemas.PeerPath, body: schemas.PeerChange, context: Context, key: ManageKey
) -> schemas.PeerOut:
    """Change a peer. It is in force a moment later; calls that are up go on."""
    changed = await peers.change_peer(context.database, code, body.changes(), actor=actor_of(key))
    return schemas.PeerOut.of(changed)


@router.delete("/peers/{code}", status_code=204)
async def delete_peer(code: schemas.PeerPath, context: Context, key: ManageKey) -> None:
    """Delete a peer: nothing that it sends is taken any more."""
    await peers.delete_peer(context.database, code, actor=actor_of(key))


@router.post("/credentials", status_code=201)
async def create_credential(
    body: schemas.NewCredential, context: Context, key: ManageKey
) -> schemas.CredentialOut:
    """Add a user name that may call for a party."""
    made = await credentials.create_credential(
        context.database, body.entry(), password=body.password, ha1=body.ha1, actor=actor_of(key)
    )
    return schemas.CredentialOut.of(made)


@router.get("/credentials")
async def list_credentials(
    context: Context,
    _: ManageKey,
    limit: PageLimit = 100,
    after: AfterNumber = 0,
    party: PartyFilter = "",
) -> schemas.CredentialList:
    """List user names in the order in which they were added."""
    found = await credentials.list_credentials(
        context.database, party=party, after=after, limit=limit + 1
    )
    items = [schemas.CredentialOut.of(entry) for entry in found[:limit]]
    return schemas.CredentialList(items=items, next=items[-1].id if len(found) > limit else None)


@router.get("/credentials/{credential_id}")
async def get_credential(
    credential_id: schemas.CredentialPath, context: Context, _: ManageKey
) -> schemas.CredentialOut:
    """Show a user name."""
    found = await credentials.get_credential(context.database, credential_id)
    return schemas.CredentialOut.of(found)


@router.patch("/credentials/{credential_id}")
async def change_credential(
    credential_id: schemas.CredentialPath,
    body: schemas.CredentialChange,
    context: Context,
    key: ManageKey,
) -> schemas.CredentialOut:
    """Change whose it is, its password, or whether it may call."""
    changed = await credentials.change_credential(
        context.database, credential_id, body.changes(), actor=actor_of(key)
    )
    return schemas.CredentialOut.of(changed)


@router.delete("/credentials/{credential_id}", status_code=204)
async def delete_credential(
    credential_id: schemas.CredentialPath, context: Context, key: ManageKey
) -> None:
    """Delete a user name; calls that are up go on."""
    await credentials.delete_credential(context.database, credential_id, actor=actor_of(key))
