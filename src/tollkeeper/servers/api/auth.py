"""Who calls: ``Authorization: Bearer tk_...`` is looked up, and each route asks for a scope."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Annotated, Protocol

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer

from tollkeeper.errors import Forbidden, Unauthorised
from tollkeeper.services.keys import ApiKey, allows, hash_key

SCOPE_KEY = "tollkeeper.key"
"""Where the guard leaves the caller's key in the ASGI scope."""

_SECRET_MAX = 256


class KeyBook(Protocol):
    """Where valid keys are looked up; the directory is one."""

    def key(self, token_hash: bytes) -> ApiKey | None:
        """Return the key whose secret has this SHA-256."""


def authenticate(book: KeyBook, header: str | None) -> ApiKey:
    """Return the key that an Authorization header names.

    The secret is hashed before it is looked up, so the time of the lookup tells nothing of it.

    Switches that cannot send a bearer token send the key as the password of the basic scheme.

    Raises:
        Unauthorised: no header, another scheme, or a key that is unknown or revoked.
    """
    scheme, _, secret = (header or "").partition(" ")
    secret = secret.strip()
    if scheme.lower() == "basic":
        secret = _password(secret)
    elif scheme.lower() != "bearer":
        secret = ""
    if not secret:
        raise Unauthorised(
            'an API key is needed: send the header "Authorization: Bearer tk_..."',
            code="unauthorised",
        )
    key = book.key(hash_key(secret)) if len(secret) <= _SECRET_MAX else None
    if key is None:
        raise Unauthorised("this API key is unknown or revoked", code="invalid_key")
    return key


def _password(text: str) -> str:
    """The password in the credentials of the basic scheme (RFC 7617); "" if they are none."""
    try:
        pair = base64.b64decode(text[: 4 * _SECRET_MAX], validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
    return pair.partition(":")[2]


def require(key: ApiKey, scope: str) -> ApiKey:
    """Return the key if it has the scope.

    Raises:
        Forbidden: it has not.
    """
    if not allows(key, scope):
        raise Forbidden(
            f'this API key may not do that: it lacks the scope "{scope}"', code="scope_missing"
        )
    return key


def actor_of(key: ApiKey) -> str:
    """Return the name under which the audit trail remembers what a key did."""
    return f"key {key.id} ({key.name})"


def scope_of(key: ApiKey) -> int | None:
    """Return the party that a key is bounded to, for ``Database.read(scope=...)``; None is the operator."""
    return key.party_id


_bearer = HTTPBearer(
    auto_error=False, scheme_name="apiKey", description="An API key, `tk_...`, as a bearer token."
)


def _needs(scope: str) -> Callable[[Request], ApiKey]:
    def check(request: Request) -> ApiKey:
        key: ApiKey = request.scope[SCOPE_KEY]
        return require(key, scope)

    return check


DOCUMENTED = [Security(_bearer)]
"""The guard has read the header already; this only writes the scheme into the OpenAPI document."""

ReadKey = Annotated[ApiKey, Depends(_needs("read"))]
"""The type of a route's argument that lets only keys with the scope ``read`` in."""
ManageKey = Annotated[ApiKey, Depends(_needs("manage"))]
"""As :data:`ReadKey`, for the scope ``manage``."""
ChargeKey = Annotated[ApiKey, Depends(_needs("charge"))]
"""As :data:`ReadKey`, for the scope ``charge``."""
