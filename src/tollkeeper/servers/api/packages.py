"""Routes of packages: buy one of a party's plan, see what is left of it, let it end."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from tollkeeper.servers.api import package_schemas as schemas
from tollkeeper.servers.api.auth import DOCUMENTED, ManageKey, ReadKey, actor_of, scope_of
from tollkeeper.servers.api.context import Context, Services
from tollkeeper.servers.api.replay import RequiredKey
from tollkeeper.servers.api.schemas import ID_MAX, CodePath
from tollkeeper.services.packages import Packages

router = APIRouter(prefix="/v1/parties/{code}/packages", dependencies=DOCUMENTED, tags=["packages"])

SaleId = Annotated[int, Path(ge=1, le=ID_MAX, description="Id of the purchase.")]


def _packages(context: Services) -> Packages:
    return Packages(context.database, context.directory, context.charging, context.clock)


@router.post("", status_code=201)
async def buy_package(
    code: CodePath,
    body: schemas.PackagePurchase,
    context: Context,
    key: ManageKey,
    idempotency_key: RequiredKey,
) -> schemas.PackageOut:
    """Buy a package, exactly once for each Idempotency-Key; `status` tells whether the money covered it."""
    sale = await _packages(context).buy(
        party=code,
        package=body.package,
        actor=actor_of(key),
        request=f"{key.id}:{idempotency_key}",
        scope=scope_of(key),
    )
    return schemas.PackageOut.of(sale)


@router.get("")
async def list_packages(
    code: CodePath,
    context: Context,
    key: ReadKey,
    ended: Annotated[bool, Query(description="Also those that are over.")] = False,  # noqa: FBT002 - a query parameter has a name
) -> schemas.PackageList:
    """Show the packages that a party has bought, with what is left of them."""
    found = await _packages(context).sales(party=code, ended=ended, scope=scope_of(key))
    return schemas.PackageList(items=[schemas.PackageOut.of(sale) for sale in found])


@router.patch("/{sale_id}")
async def renew_package(
    code: CodePath,
    sale_id: SaleId,
    body: schemas.PackageRenewal,
    context: Context,
    key: ManageKey,
) -> schemas.PackageOut:
    """Say whether a package is bought again at the end of its term."""
    sale = await _packages(context).set_renew(
        party=code, sale_id=sale_id, renew=body.renew, actor=actor_of(key), scope=scope_of(key)
    )
    return schemas.PackageOut.of(sale)
