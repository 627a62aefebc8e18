"""The management side of the API: FastAPI behind the guard, described by one OpenAPI document."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from tollkeeper import __version__
from tollkeeper.errors import InvalidInput
from tollkeeper.servers.api import (
    bonuses,
    cards,
    cdr,
    cdr_sources,
    charging_openapi,
    commissions,
    dids,
    esims,
    fees,
    freeswitch,
    fx,
    keys,
    lookups,
    packages,
    parties,
    peers,
    plans,
    problems,
    purchases,
    rates,
    reconcile,
    schemas,
    sessions,
    stream,
    suppliers,
    switches,
    transfers,
    trunks,
    usage,
    vouchers,
    wallets,
    webhooks,
)
from tollkeeper.servers.api.auth import DOCUMENTED, ReadKey
from tollkeeper.servers.api.context import Context, Services
from tollkeeper.servers.api.guard import Guard
from tollkeeper.servers.api.scope import within_bounds
from tollkeeper.servers.problem import PROBLEM_TYPE
from tollkeeper.telemetry import METRICS_CONTENT_TYPE, metrics_page

DESCRIPTION = """\
Money is a decimal string in both directions. Times are RFC 3339 in UTC. Errors are
application/problem+json: `code` is stable, `detail` one sentence. Lists are read page by page:
`next` of one page is `after` of the following one."""

ERRORS = {
    "400": "The body is not JSON, or a header is missing.",
    "401": "No valid API key.",
    "403": "The API key lacks the scope.",
    "404": "What the address names does not exist.",
    "409": "The state of things forbids this, or an id was used with other content.",
    "413": "The body is too large.",
    "415": "The body has the wrong content type.",
    "422": "A field or parameter is wrong; `field` names it.",
    "503": "Overloaded, or the database is away: try again.",
}
_ALWAYS = ("401", "403", "422", "503")
_CHANGING = ("post", "put", "patch", "delete")


def create_app(services: Services) -> FastAPI:
    """Return the management application for these services."""
    app = FastAPI(
        title="Tollkeeper",
        version=__version__,
        description=DESCRIPTION,
        # Their pages load scripts from elsewhere, which no page of ours may.
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(within_bounds), Depends(_known_parameters)],
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.services = services
    problems.install(app)
    for router in (
        packages.router,
        parties.router,
        wallets.router,
        rates.router,
        plans.router,
        fx.router,
        sessions.router,
        keys.router,
        switches.router,
        freeswitch.router,
        peers.router,
        trunks.router,
        cdr.router,
        cdr_sources.router,
        reconcile.router,
        usage.router,
        suppliers.router,
        purchases.router,
        lookups.router,
        esims.router,
        dids.router,
        fees.router,
        transfers.router,
        bonuses.router,
        vouchers.router,
        cards.router,
        commissions.router,
        webhooks.router,
        stream.router,
        _plain,
    ):
        app.include_router(router)
    app.add_middleware(Guard, book=services.directory)
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]  # FastAPI's own way
    return app


def _known_parameters(request: Request) -> None:
    """Refuse a parameter that the route does not know or that is there twice: it would be ignored."""
    route = request.scope.get("route")
    if not isinstance(route, APIRoute):
        return
    known = _parameters(route)
    seen: set[str] = set()
    for name, _ in request.query_params.multi_items():
        shown = "".join(c for c in name if c.isprintable())[:60]
        if name not in known:
            raise InvalidInput(f"{shown}: there is no such parameter", field=shown)
        if name in seen:
            raise InvalidInput(f"{shown}: this parameter is given twice", field=shown)
        seen.add(name)


def _parameters(route: APIRoute) -> set[str]:
    """The names of a route's query parameters; those of a model stand for themselves."""
    known: set[str] = set()
    for param in route.dependant.query_params:
        model = param.field_info.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            known |= {field.alias or name for name, field in model.model_fields.items()}
        else:
            known.add(param.alias)
    return known


# --- plain pages ---------------------------------------------------------------------------------

_plain = APIRouter(tags=["process"])


@_plain.get("/healthz")
async def healthz(context: Context) -> dict[str, str]:
    """Tell whether this process can reach its database. Needs no key."""
    await context.database.ping()
    return {"status": "ok"}


@_plain.get(
    "/metrics",
    dependencies=DOCUMENTED,
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(_: ReadKey) -> Response:
    """Show this process's metrics in the text format of Prometheus."""
    return Response(metrics_page(), media_type=METRICS_CONTENT_TYPE)


# --- OpenAPI -------------------------------------------------------------------------------------


def _document(app: FastAPI) -> dict[str, Any]:
    """The whole API, charging routes included; made once."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        paths, components = document["paths"], document.setdefault("components", {})
        for path, operations in paths.items():
            for method, operation in operations.items():
                _add_errors(path, method, operation)
        known = components.setdefault("schemas", {})
        for unused in ("HTTPValidationError", "ValidationError"):
            known.pop(unused, None)
        _, problem = models_json_schema([(schemas.Problem, "serialization")])
        known["Problem"] = next(iter(problem["$defs"].values()))
        more_paths, more_schemas = charging_openapi.openapi_part()
        for path, operations in more_paths.items():
            paths.setdefault(path, {}).update(operations)
        known.update(more_schemas)
        app.openapi_schema = document
    return app.openapi_schema


_NAMING = (
    "/v1/calling-card-access",
    "/v1/calling-card-batches",
    "/v1/calling-cards",
    "/v1/cards",
    "/v1/cdr",
    "/v1/commissions",
    "/v1/commitments",
    "/v1/credentials",
    "/v1/did-inventory",
    "/v1/did-orders",
    "/v1/dids",
    "/v1/esims",
    "/v1/fees",
    "/v1/freeswitch",
    "/v1/keys",
    "/v1/lookups",
    "/v1/parties",
    "/v1/peers",
    "/v1/plans",
    "/v1/purchases",
    "/v1/reconcile",
    "/v1/suppliers",
    "/v1/transfers",
    "/v1/usage",
    "/v1/vouchers",
    "/v1/webhooks",
)
"""Below these, parties, files, cards and more are named by the query or the body, too."""


def _add_errors(path: str, method: str, operation: dict[str, Any]) -> None:
    """Document every problem that an operation can answer with."""
    statuses = {"503"} if path == "/healthz" else set(_ALWAYS)
    if "requestBody" in operation:
        statuses |= {"400", "413", "415"}
    if "{" in path or path.startswith(_NAMING):
        statuses.add("404")
    if method in _CHANGING:
        statuses.add("409")
    content = {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for status in statuses:
        operation["responses"][status] = {"description": ERRORS[status], "content": content}
    operation["responses"] = dict(sorted(operation["responses"].items()))
