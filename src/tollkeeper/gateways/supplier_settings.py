"""What must be known of a supplier's HTTP interface: paths, bodies, and how its answers are read.

The reference of the fields is docs/how-to/connect-a-supplier.md.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec

from tollkeeper.errors import InvalidInput

OPERATIONS = ("order", "status", "cancel", "activate", "release", "lookup", "search")
"""What a supplier can be asked for. All but ``order`` may be asked twice without harm."""

PLACEHOLDERS = frozenset(
    ("order_id", "number", "item", "called", "kind", "party", "reference", "secret", "query")
)
"""What templates may hold in braces."""

SUPPLIER_KINDS = ("esim", "lookup", "did", "sms")
NULL_URL = "null:"
"""The address of a supplier that is not there: answers are made up. For trying out and demonstrations."""

BODY_DEPTH_MAX = 20
_BRACED = re.compile(r"\{([^{}]*)\}")

Pointer = Annotated[str, msgspec.Meta(pattern=r"^(/.*)?$", max_length=200)]
Status = Annotated[int, msgspec.Meta(ge=100, le=599)]
Template = Annotated[str, msgspec.Meta(max_length=2000)]
Seconds = Annotated[int, msgspec.Meta(ge=1, le=31 * 86_400)]


class Operation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One request, and how its answer is read.

    ``path``, ``query``, ``headers`` and ``body`` are templates. The outcome is that of the HTTP status
    where one of the lists of statuses names it; else, for a 2xx, what stands at the JSON pointer
    ``outcome`` (RFC 6901) decides by the lists of values, and without a pointer the order is done.
    ``answer`` names what is kept of the answer, ``reason`` points to why something is refused.
    ``idempotent`` says that the supplier takes a repeated order_id for the same order.
    """

    path: Template
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    query: dict[str, Template] = {}
    headers: dict[str, Template] = {}
    body: Any = None
    idempotent: bool = False
    done_statuses: tuple[Status, ...] = ()
    pending_statuses: tuple[Status, ...] = (202,)
    refused_statuses: tuple[Status, ...] = ()
    absent_statuses: tuple[Status, ...] = ()
    outcome: Pointer = ""
    done: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    reason: Pointer = ""
    answer: dict[str, Pointer] = {}


class CatalogueItem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something that can be ordered.

    ``rate_key`` are the digits by which rate cards price it (they are compared with the cards' prefixes);
    ``supplier_item`` is the supplier's own name of it. An eSIM may be used for ``days`` from its
    activation on; with ``data_bytes`` it brings that volume, which counts as the package ``package`` of
    the data plan that its party has. Without, its data is paid for as it is used.
    """

    rate_key: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,15}$")]
    name: Annotated[str, msgspec.Meta(max_length=200)] = ""
    supplier_item: Annotated[str, msgspec.Meta(max_length=200)] = ""
    data_bytes: Annotated[int, msgspec.Meta(ge=1, le=2**53)] | None = None
    package: Annotated[str, msgspec.Meta(max_length=63)] = ""
    days: Annotated[int, msgspec.Meta(ge=1, le=3660)] = 30


class LookupRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which questions a supplier answers, and what they cost.

    Answers are kept for ``ttl_seconds`` (0: not at all). ``charge_cached``: an answer from there costs
    as much as a fresh one (``yes``), nothing (``no``), or what the service ``lookup_cached`` costs
    (``separately``). ``refund_not_found``: a number that the supplier does not know costs nothing.
    """

    kinds: tuple[Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_]{1,20}$")], ...] = ("hlr",)
    ttl_seconds: Annotated[int, msgspec.Meta(ge=0, le=366 * 86_400)] = 86_400
    charge_cached: Literal["yes", "no", "separately"] = "yes"
    refund_not_found: bool = True


class SupplierSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of it. ``retries`` are of one call, for what may be asked twice; the pause doubles from ``backoff_ms``.

    An order of which nothing is known after ``give_up_seconds`` is cancelled, or left to a human.
    """

    operations: dict[str, Operation] = {}
    headers: dict[str, Template] = {}
    timeout_seconds: Annotated[int, msgspec.Meta(ge=1, le=15)] = 10
    retries: Annotated[int, msgspec.Meta(ge=0, le=3)] = 2
    backoff_ms: Annotated[int, msgspec.Meta(ge=1, le=2000)] = 200
    poll_seconds: Seconds = 15
    give_up_seconds: Seconds = 3600
    items: dict[Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")], CatalogueItem] = {}  # fmt: skip
    lookup: LookupRules = LookupRules()


class SupplierConfig(msgspec.Struct, frozen=True):
    """A supplier as a gateway is told of it. ``secret`` is never shown, not even by repr."""

    code: str
    kind: str
    base_url: str
    secret: str
    settings: SupplierSettings

    def __repr__(self) -> str:
        """Show everything but the secret."""
        return f"SupplierConfig({self.code!r}, {self.kind!r}, {self.base_url!r})"

    def offers(self, operation: str) -> bool:
        """Tell whether the supplier can be asked for this; one that is not there can do everything."""
        return operation in self.settings.operations or self.base_url == NULL_URL

    def may_repeat(self, operation: str) -> bool:
        """Tell whether asking twice does no harm."""
        if operation != "order" or self.base_url == NULL_URL:
            return True
        return self.settings.operations["order"].idempotent


def read_supplier_settings(given: Mapping[str, Any]) -> SupplierSettings:
    """Return settings, complete and checked.

    Raises:
        InvalidInput: one is missing, unknown, of the wrong type or out of bounds; names it.
    """
    try:
        settings = msgspec.convert(dict(given), SupplierSettings)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$")
        field = "settings" + place.rstrip("`")
        raise InvalidInput(f"{field}: {message[:1].lower()}{message[1:]}", field=field) from error
    for name, template in _headers("settings.headers", settings.headers):
        _check_template(name, template)
    for name, operation in settings.operations.items():
        if name not in OPERATIONS:
            raise InvalidInput(
                f"settings.operations: choose from {', '.join(OPERATIONS)}",
                field="settings.operations",
            )
        _check_operation(f"settings.operations.{name}", operation)
    for name, item in settings.items.items():
        if bool(item.package) != (item.data_bytes is not None):
            field = f"settings.items.{name}.package"
            raise InvalidInput(
                f"{field}: name the package that the volume counts as if, and only if, there is data_bytes",
                field=field,
            )
    return settings


def check_base_url(url: str) -> str:
    """Return the address that a supplier's paths are put behind, without a slash at its end.

    Raises:
        InvalidInput: neither http nor https, no host, a query, or credentials in it.
    """
    if url == NULL_URL:
        return url
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        good = good and not parts.query and not parts.fragment and parts.username is None
    except ValueError:
        good = False
    if not good or len(url) > 1000 or not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidInput(
            "base_url: give an address such as https://api.supplier.example/v2, without credentials "
            f'(they are the secret), or "{NULL_URL}" for a supplier that only pretends',
            field="base_url",
        )
    return url.rstrip("/")


def _check_operation(field: str, operation: Operation) -> None:
    if not operation.path.startswith("/"):
        raise InvalidInput(f"{field}.path: begin it with a slash", field=f"{field}.path")
    _check_template(f"{field}.path", operation.path)
    for name, template in operation.query.items():
        _check_template(f"{field}.query.{name}", template)
    for name in ("path", "query"):
        if "{secret}" in str(getattr(operation, name)):
            raise InvalidInput(
                f"{field}.{name}: addresses are written to logs; put the secret into a header or the body",
                field=f"{field}.{name}",
            )
    for name, template in _headers(f"{field}.headers", operation.headers):
        _check_template(name, template)
    if not _sound(operation.body):
        raise InvalidInput(
            f"{field}.body: JSON at most {BODY_DEPTH_MAX} levels deep, with numbers that are some",
            field=f"{field}.body",
        )
    for template in _texts(operation.body):
        _check_template(f"{field}.body", template)
    values = (*operation.done, *operation.pending, *operation.refused, *operation.absent)
    if values and not operation.outcome:
        raise InvalidInput(
            f"{field}.outcome: say where in the answer the values stand, such as /status",
            field=f"{field}.outcome",
        )
    if operation.outcome and not operation.done:
        raise InvalidInput(
            f"{field}.done: name the values at {operation.outcome} that mean success",
            field=f"{field}.done",
        )


def _headers(field: str, headers: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, template in headers.items():
        good = re.fullmatch(r"[A-Za-z0-9-]{1,60}", name) is not None
        if not good or not template.isascii() or not template.isprintable():
            shown = "".join(c for c in name if c.isprintable())[:60]
            raise InvalidInput(f"{field}.{shown}: this is no HTTP header", field=field)
        yield f"{field}.{name}", template


def _sound(body: Any, depth: int = 0) -> bool:
    """Tell whether a template can be kept and sent: JSON has no infinity, and must not be a pit."""
    if depth > BODY_DEPTH_MAX:
        return False
    if isinstance(body, float):
        return math.isfinite(body)
    inner = body.values() if isinstance(body, Mapping) else body if isinstance(body, list) else ()
    return all(_sound(value, depth + 1) for value in inner)


def _texts(body: Any) -> Iterator[str]:
    if isinstance(body, str):
        yield body
    elif isinstance(body, Mapping):
        for value in body.values():
            yield from _texts(value)
    elif isinstance(body, list):
        for value in body:
            yield from _texts(value)


def _check_template(field: str, template: str) -> None:
    for name in _BRACED.findall(template):
        if name not in PLACEHOLDERS:
            known = ", ".join(sorted(PLACEHOLDERS))
            raise InvalidInput(
                f'{field}: there is no "{{{name[:40]}}}"; there are {known}', field=field
            )


def fill(template: str, values: Mapping[str, str]) -> str:
    """A template with its placeholders replaced, once: what stands in a value is not looked at again."""
    return _BRACED.sub(lambda found: values.get(found[1], ""), template)


def fill_all(body: Any, values: Mapping[str, str]) -> Any:
    """A JSON document with all its texts filled."""
    if isinstance(body, str):
        return fill(body, values)
    if isinstance(body, Mapping):
        return {name: fill_all(value, values) for name, value in body.items()}
    if isinstance(body, list):
        return [fill_all(value, values) for value in body]
    return body


def at(document: Any, pointer: str) -> Any:
    """What a JSON pointer (RFC 6901) points to; None where there is nothing."""
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(document, Mapping):
            document = document.get(name)
        elif isinstance(document, list) and name.isascii() and name.isdigit():
            index = int(name[:19])
            document = document[index] if index < len(document) else None
        else:
            return None
    return document
