"""Write the generated pages of docs/reference, or with --check say which are not current.

    python tools/docs.py            write them
    python tools/docs.py --check    change nothing; end with 1 if a page differs

Every page is made from what the program itself uses: the OpenAPI document, the command line, the
tables of reasons and errors, the transition table. So a page cannot say what the code does not do.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

from msgspec.structs import replace

from tollkeeper import errors, settings
from tollkeeper.cli.main import COMMANDS, make_app
from tollkeeper.core import records
from tollkeeper.core.rating import Tariff
from tollkeeper.core.reasons import MEANINGS
from tollkeeper.core.session import TRANSITIONS, View, decide
from tollkeeper.errors import TollkeeperError
from tollkeeper.servers.api import charging, guard, problems
from tollkeeper.servers.api.app import create_app
from tollkeeper.servers.api.context import Services

ROOT = Path(__file__).parents[1]
if not __package__:
    sys.path.insert(0, str(ROOT))  # run as a script

from tools import docs_records  # noqa: E402 (only now can they be found)
from tools.pages import page, table  # noqa: E402

REFERENCE = ROOT / "docs" / "reference"
SOURCE = ROOT / "src" / "tollkeeper"
# --- http-api.md ---------------------------------------------------------------------------------

_INTRO = """\
The server describes itself at `GET /openapi.json`, without a key; this page is made from that
document. How to use it: [connect a switch](../how-to/connect-a-switch-over-http.md).

Requests carry `Authorization: Bearer tk_...`. A key has scopes: `charge` (sessions and quotes), `read`
(look at everything), `manage` (everything). Bodies are JSON; money is a decimal string in both
directions; times are RFC 3339 in UTC. Errors are `application/problem+json`; [errors](errors.md) lists
their codes, [reasons](reasons.md) the reasons of a refusal. Lists are read page by page: `next` of a
page is `after` of the following one. `party` is the code of a party everywhere."""


def http_api() -> str:
    """The page of all routes, from the OpenAPI document."""
    nothing = cast("Any", None)
    app = create_app(Services(nothing, cast("Any", _NoKeys()), nothing, lambda: datetime.now(UTC)))
    document = app.openapi()
    # The framework keeps each router whole inside of the application.
    routers = [route.original_router for route in app.routes if hasattr(route, "original_router")]
    scopes = {
        (method.lower(), route.path): scope
        for route in [*app.routes, *(route for router in routers for route in router.routes)]
        if (scope := _scope_of(route)) is not None
        for method in getattr(route, "methods", ())
    }
    scopes["get", "/healthz"] = ""
    for path in charging.openapi_part()[0]:
        scopes["post", path] = "charge` or `read" if path == "/v1/quote" else "charge"
    lines: list[str] = []
    for tag in (
        "charging",
        "sessions",
        "parties",
        "wallets",
        "plans",
        "rates",
        "keys",
        "switches",
        "process",
    ):
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


# --- cli.md --------------------------------------------------------------------------------------


def cli() -> str:
    """The page of all commands, from the command line itself."""
    app = make_app([])
    for name, (place, _) in COMMANDS.items():
        # Here every command speaks for itself, at full length.
        del app[name]
        app.command(place, name=name)
    text = app.generate_docs(output_format="markdown", recursive=True, heading_level=1)
    body = text.partition("\n")[2].strip().replace("```console", "```text")
    # The usage lines name the module that Python was started with, if it was started with one.
    body = re.sub(r"^(tollkeeper(?: [a-z]+)*) -m [\w.]+", r"\1", body, flags=re.MULTILINE)
    outro = """\
Settings come from the environment or `tollkeeper.toml`; see [settings](settings.md). Every command but
`serve` works on the database directly, so the server need not run. A command ends with 0 when it is
done, 1 on an error, 2 on a wrong set-up, 3 when `verify` found something, 130 when interrupted."""
    return page("Command line", outro, body)


# --- reasons.md ----------------------------------------------------------------------------------


def reasons() -> str:
    """The page of reasons, from core/reasons.py."""
    rows = [
        [
            f"`{reason.value}`" if reason.value else "(empty)",
            about.text,
            str(about.sip),
            str(about.q850),
            str(about.diameter),
            "yes" if about.stop_hunting else "no",
        ]
        for reason, about in MEANINGS.items()
    ]
    intro = """\
Why a session is refused or ended: `reason` in an answer. SIP codes follow RFC 3261, causes ITU-T
Q.850, result codes RFC 8506 section 9. "Stop hunting" means that another route would not help."""
    return page(
        "Reasons",
        intro,
        table(["reason", "says", "SIP", "Q.850", "Diameter", "stop hunting"], rows),
    )


# --- errors.md -----------------------------------------------------------------------------------


def error_page() -> str:
    """The page of error codes, from every place in the source that raises one."""
    found: dict[tuple[int, str], str] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        for status, code, text in _raised(ast.parse(path.read_text(encoding="utf-8"))):
            found.setdefault((status, code), text)
    for status, code in problems._CODES.items():  # noqa: SLF001 - the page shows all codes
        found.setdefault((status, code), problems._SENTENCES.get(status, "the body cannot be read"))  # noqa: SLF001
    rows = [
        [str(status), f"`{code}`", text or _PLAIN.get(code, "")]
        for (status, code), text in sorted(found.items())
    ]
    intro = """\
An error is an `application/problem+json` document (RFC 9457):

```json
{"type": "urn:tollkeeper:problem:unknown_party", "title": "Not Found", "status": 404,
 "detail": "there is no party \\"nobody\\"", "code": "unknown_party", "field": "party"}
```

`code` is stable and for programs; `detail` is one sentence for people and may change; `field` names
the field at fault where there is one. A refusal of credit is not an error: it is an answer with status
200 and a [reason](reasons.md). A quote without a price is 404 with the reason as its code.

What to do: 4xx, change the request; 503, send the same request again after `Retry-After` or route the
call elsewhere; 500, something is wrong inside and the log says what. The sentences below are shown as
the code has them, with `...` for what is filled in."""
    return page("Errors", intro, table(["status", "code", "says"], rows))


_OWN = {"TooLarge": charging.TooLarge, "BadJson": charging.BadJson, "WrongType": guard.WrongType}
_INTERNAL = {"SetupError"}
_PLAIN = {"header_missing": "a header that must be given is missing"}


def _error_class(name: str) -> type[TollkeeperError] | None:
    made = _OWN.get(name) or getattr(errors, name, None)
    known = isinstance(made, type) and issubclass(made, TollkeeperError) and name not in _INTERNAL
    return cast("type[TollkeeperError]", made) if known else None


def _raised(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """Status, code and sentence of each error that is made, and of each problem that is written."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            code = next((c for c in map(_code_of_class, node.body) if c), None)
            if node.name in _OWN and code:
                yield _OWN[node.name].http_status, code, ast.get_docstring(node) or ""
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name = ast.unparse(node.func).rpartition(".")[2]
        given = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
        made = _error_class(name)
        if made is not None and name not in _OWN:
            code = given.get(
                "code", made.code if "code" not in {k.arg for k in node.keywords} else None
            )
            if isinstance(code, str):
                shown = _sentence(node.args[0])
                yield made.http_status, code, shown if "code" in given else (made.__doc__ or "")
        elif name == "problem" and len(node.args) >= 2:
            status, code_node = node.args[0], node.args[1]
            if isinstance(status, ast.Constant) and isinstance(code_node, ast.Constant):
                shown = _sentence(node.args[2]) if len(node.args) > 2 else ""
                yield cast("int", status.value), str(code_node.value), shown


def _code_of_class(node: ast.stmt) -> str | None:
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "code":
        return str(ast.literal_eval(node.value))
    return None


def _sentence(node: ast.expr) -> str:
    """The text of a message, with ... where something is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        parts = [str(v.value) if isinstance(v, ast.Constant) else "..." for v in node.values]
        return re.sub(r"(\.\.\.){2,}", "...", "".join(parts))
    if isinstance(node, ast.BinOp):
        return _sentence(node.left) + _sentence(node.right)
    return ""


# --- session-states.md ---------------------------------------------------------------------------

_NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
_PIN = records.Pin(1, "card", 1, 1, "44", "UK", "USD", Tariff(Decimal(1), Decimal(1), 60, 60))
_WALLETS = {1: records.Wallet(1, 1, "USD", credited=Decimal(100))}
_LIMITS = {1: records.Limits()}
_AUTHORISE = records.Authorise(
    "sw/1", 1, "44", offers=(records.Offer(records.Role.CUSTOMER, 1, 1, _PIN),)
)
_COMMANDS: dict[str, records.Command] = {
    "authorise": _AUTHORISE,
    "authorise, no start expected": replace(_AUTHORISE, start_expected=False),
    "start": records.Start("sw/1"),
    "update": records.Update("sw/1", 120_000),
    "stop, used": records.Stop("sw/1", 120_000),
    "stop, nothing used": records.Stop("sw/1", 0),
    "stop, used more than held": records.Stop("sw/1", 400_000),
    "kill": records.Kill("sw/1", "operator"),
    "expire, deadline passed": records.Expire("sw/1"),
}


def _try(
    session: records.Session | None, command: records.Command, *, refused: bool = False
) -> records.Decision | TollkeeperError:
    wallets = {} if refused else _WALLETS
    view = View(wallets or {1: records.Wallet(1, 1, "USD")}, _LIMITS, records.Policy())
    late = timedelta(hours=1) if isinstance(command, records.Expire) else timedelta(seconds=10)
    try:
        return decide(session, command, view, _NOW + late, "id" if session is None else "")
    except TollkeeperError as error:
        return error


def _after(session: records.Session | None, name: str, *, refused: bool = False) -> records.Session:
    decision = _try(session, _COMMANDS[name], refused=refused)
    assert isinstance(decision, records.Decision)
    return decision.session


def _sessions() -> dict[str, records.Session | None]:
    authorised = _after(None, "authorise")
    active = _after(authorised, "start")
    return {
        "(none)": None,
        "authorised": authorised,
        "active": active,
        "closed, settled": _after(active, "stop, used"),
        "closed, expired": _after(active, "expire, deadline passed"),
        "closed, refused": _after(None, "authorise", refused=True),
    }


def _state(session: records.Session) -> str:
    return (
        f"{session.state.value}, {session.ending.value}" if session.ending else session.state.value
    )


def session_states() -> str:
    """The page of the credit session: each state is tried with each command, by the core itself."""
    assert {type(c) for c in _COMMANDS.values()} == {command for _, command in TRANSITIONS}
    rows: list[list[str]] = []
    arrows: dict[tuple[str, str], list[str]] = {("[*]", "closed"): ["authorise, refused"]}
    for state, session in _sessions().items():
        for name, command in _COMMANDS.items():
            done = _try(session, command)
            if isinstance(done, TollkeeperError):
                rows.append([state, name, "unchanged", f"{done.http_status} `{done.code}`", "", ""])
                continue
            changed = done.session is not session
            posted = ", ".join(f"`{posting.code.value}`" for posting in done.postings)
            told = ", ".join(f"`{event.kind}`" for event in done.events)
            answer = f"`{done.reply.outcome.value}`"
            rows.append(
                [
                    state,
                    name,
                    _state(done.session) if changed else "unchanged",
                    answer,
                    posted,
                    told,
                ]
            )
            old = "[*]" if session is None else session.state.value
            if changed and old != done.session.state.value:
                arrows.setdefault((old, done.session.state.value), []).append(name)
    diagram = ["```mermaid", "stateDiagram-v2"]
    diagram += [f"    {a} --> {b}: {' / '.join(names)}" for (a, b), names in arrows.items()]
    diagram += ["    closed --> [*]", "```"]
    intro = """\
The transition table of `core/session.py`, tried with each command. A closed session has an ending:
`refused`, `settled` (something was used), `released` (nothing was), `expired`. The probe is a call of
1.00 per minute at 60/60 with 300 s granted; updates and stops report 120 s unless said otherwise, so on
a session that was settled at 120 s they bring nothing new.

A message that was applied before does not come here: it gets its stored answer. With other content
under the same message id it is `409 message_id_reused`, for an authorisation `session_id_reused`."""
    titles = ["state", "command", "becomes", "answer", "posts", "tells"]
    return page(
        "Session states", intro, diagram, "## Every state, every command", table(titles, rows)
    )


# --- writing -------------------------------------------------------------------------------------


# --- writing -------------------------------------------------------------------------------------


def cdr_formats() -> str:
    """The formats of call records, and what can become of a record."""
    return page(
        "Formats of call records",
        "`tollkeeper cdr sniff FILE` says which one a file is of. Files may be packed by gzip, bzip2, xz or zstd.",
        table(["format", "what", "endings", "how it is read"], docs_records.formats()),
        "For `csv` and `jsonl` a [mapping](cdr-mapping.md) says what is what. It can fill these fields: "
        + docs_records.mapping_fields()
        + ".",
        "## Why a record is put aside",
        table(["reason"], docs_records.quarantine_reasons()),
        "What helps is said in [how records become money](../explanation/how-records-become-money.md).",
        "## What is reported of records in the books",
        table(["mismatch"], docs_records.mismatches()),
    )


PAGES: dict[str, Callable[[], str]] = {
    "http-api.md": http_api,
    "cli.md": cli,
    "settings.md": settings.reference,
    "reasons.md": reasons,
    "errors.md": error_page,
    "session-states.md": session_states,
    "cdr-formats.md": docs_records.cdr_formats,
}


def outdated() -> list[str]:
    """Names of the pages that are not what would be written now."""
    return [
        name
        for name, make in PAGES.items()
        if not (REFERENCE / name).is_file() or (REFERENCE / name).read_text("utf-8") != make()
    ]


def main(arguments: list[str]) -> int:
    """Write the pages, or check them."""
    names = outdated()
    if "--check" in arguments:
        sys.stdout.write("".join(f"docs/reference/{name} is not current\n" for name in names))
        return 1 if names else 0
    for name in names:
        (REFERENCE / name).write_text(PAGES[name](), "utf-8")
        sys.stdout.write(f"wrote docs/reference/{name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
