"""The generated page of the HTTP API, from the OpenAPI document."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, cast

from tollkeeper.servers.api import charging_openapi
from tollkeeper.servers.api.app import create_app
from tollkeeper.servers.api.context import Services
from tools.pages import page, table

_INTRO = """\
The server describes itself at `GET /openapi.json`, without a key; this page is made from that
document. How to use it: [connect a switch](../how-to/connect-a-switch-over-http.md).

Requests carry `Authorization: Bearer tk_...`. A key has scopes: `charge` (sessions and quotes), `read`
(look at everything), `manage` (everything). Bodies are JSON; money is a decimal string in both
directions; times are RFC 3339 in UTC. Errors are `application/problem+json`; [errors](errors.md) lists
their codes, [reasons](reasons.md) the reasons of a refusal. Lists are read page by page: `next` of a
page is `after` of the following one. `party` is the code of a party everywhere."""


_FIRST = {
    name: place
    for place, name in enumerate(("charging", "sessions", "parties", "wallets", "plans", "rates"))
} | {"process": 99}
"""Where a group of routes stands on the page; the others are between, by name."""


def http_api() -> str:
    """The page of all routes, from the OpenAPI document."""
    nothing = cast("Any", None)
    app = create_app(Services(nothing, cast("Any", _NoKeys()), nothing, lambda: datetime.now(UTC)))
    document = app.openapi()
    # The framework keeps each router whole inside of the application.
    routers = [route.original_router for route in app.routes if hasattr(route, "original_router")]
    scopes = {
        (method.lower(), re.sub(r":\w+}", "}", route.path)): scope
        for route in [*app.routes, *(route for router in routers for route in router.routes)]
        if (scope := _scope_of(route)) is not None
        for method in getattr(route, "methods", ())
    }
    scopes["get", "/healthz"] = ""
    scopes["get", "/v1/events"] = "charge`, `read` or `manage"  # what is told depends on the key
    for path in charging_openapi.openapi_part()[0]:
        scopes["post", path] = "charge` or `read" if path == "/v1/quote" else "charge"
    lines: list[str] = []
    tags = {
        tag: None
        for operations in document["paths"].values()
        for operation in operations.values()
        for tag in operation.get("tags", ())
    }
    for tag in sorted(tags, key=lambda tag: (_FIRST.get(tag, 50), tag)):
        lines += [f"## {tag.capitalize()}", ""]
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                if operation.get("tags") == [tag]:
                    lines += [*_operation(method, path, operation, scopes[method, path]), ""]
    lines += ["## Records", ""]
    for name, schema in sorted(document["components"]["schemas"].items()):
        lines += [*_schema(name, schema), ""]
    return page("HTTP API", _INTRO, lines)


class _NoKeys:
    """Stands where the directory of keys stands in a running server; the document needs none."""

    def key(self, _: bytes) -> None:
        """No key is known."""


def _scope_of(route: Any) -> str | None:
    """The scope that a route's dependency asks for."""
    for dependency in getattr(getattr(route, "dependant", None), "dependencies", ()):
        if inspect.isfunction(dependency.call):
            held = inspect.getclosurevars(dependency.call).nonlocals
            if isinstance(held.get("scope"), str):
                return str(held["scope"])
    return None


def _operation(method: str, path: str, operation: dict[str, Any], scope: str) -> Iterator[str]:
    yield f"### {method.upper()} {path}"
    yield ""
    text = " ".join(str(operation.get("description") or operation.get("summary", "")).split())
    needs = f"Scope: `{scope}`." if scope else "Needs no key."
    yield f"{text.rstrip('.')}. {needs}"
    bodies = operation.get("requestBody", {}).get("content", {})
    answers = {
        status: answer["content"]["application/json"]["schema"]
        for status, answer in operation["responses"].items()
        if status.startswith("2") and "application/json" in answer.get("content", {})
    }
    yield ""
    if "application/json" in bodies:
        yield f"- body: {_type(bodies['application/json']['schema'])}"
    elif bodies:
        yield f"- body: {', '.join(f'`{kind}`' for kind in bodies)}"
    for status in (status for status in operation["responses"] if status.startswith("2")):
        yield f"- answer {status}: {_type(answers[status]) if status in answers else 'no JSON body'}"
    errors_ = [status for status in operation["responses"] if not status.startswith("2")]
    yield f"- errors: {', '.join(errors_)}"
    parameters = [p for p in operation.get("parameters", []) if p["in"] != "path"]
    if parameters:
        yield ""
        rows = [
            [
                f"`{p['name']}`" + (" (required)" if p.get("required") else ""),
                p["in"],
                _type(p["schema"]),
                _meaning({**p["schema"], **p}),
            ]
            for p in parameters
        ]
        yield from table(["parameter", "in", "type", "meaning"], rows)


def _schema(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield f"### {name}"
    yield ""
    if schema.get("description"):
        yield " ".join(schema["description"].split())
        yield ""
    required = schema.get("required", [])
    rows = [
        [f"`{field}`" + (" (required)" if field in required else ""), _type(about), _meaning(about)]
        for field, about in schema.get("properties", {}).items()
    ]
    if rows:
        yield from table(["field", "type", "meaning"], rows)
    else:
        yield f"One of {_type(schema)}." if "enum" in schema else "No fields."


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for many in ("anyOf", "oneOf"):
        if many in schema:
            return " or ".join(_type(one) for one in schema[many])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`" if schema["const"] != "" else "empty"
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    kind = str(schema.get("type", "any"))
    if "format" in schema:
        kind += f" ({schema['format']})"
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is not None and most is not None:
        kind += f", {least} to {most}"
    elif least is not None:
        kind += f", {least} or more"
    if "maxLength" in schema:
        kind += f", at most {schema['maxLength']} characters"
    return kind


def _meaning(schema: dict[str, Any]) -> str:
    parts = [str(schema.get("description", ""))]
    default = schema.get("default", schema.get("schema", {}).get("default"))
    if default not in (None, "", [], {}):
        parts.append(f"Default `{_json(default)}`.")
    return " ".join(part for part in parts if part)


def _json(value: object) -> str:
    return json.dumps(value) if isinstance(value, list | bool) else str(value)
