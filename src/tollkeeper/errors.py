"""The tree of errors that a user, an API client or an operator can meet.

::

    TollkeeperError            base: carries a stable ``code`` and an HTTP status
    +-- InvalidInput           the request is malformed or out of bounds (422)
    +-- NotFound               the thing named does not exist (404)
    +-- Conflict               the same id with other content, or a state that forbids it (409)
    +-- Forbidden              known, but not allowed (403)
    +-- Unauthorised           no valid credentials (401)
    +-- Busy                   overloaded or the database is away: try again (503)
    +-- SetupError             the installation is wrong: says how to mend it
    +-- Breach                 an invariant of the books does not hold

A refusal of credit is *not* an error: it is a value of a decision.
"""

from __future__ import annotations


class TollkeeperError(Exception):
    """Base of every error shown to a user. ``code`` is stable, the text is for people."""

    code = "error"
    http_status = 500

    def __init__(self, detail: str, *, code: str | None = None, field: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field
        if code is not None:
            self.code = code


class InvalidInput(TollkeeperError):
    """The input is malformed, out of bounds or makes no sense."""

    code = "invalid_input"
    http_status = 422


class NotFound(TollkeeperError):
    """Nothing of that name exists."""

    code = "not_found"
    http_status = 404


class Conflict(TollkeeperError):
    """The state of things forbids this, or an id was used again with other content."""

    code = "conflict"
    http_status = 409


class Forbidden(TollkeeperError):
    """The credentials are known but do not allow this."""

    code = "forbidden"
    http_status = 403


class Unauthorised(TollkeeperError):
    """No valid credentials were given."""

    code = "unauthorised"
    http_status = 401


class Busy(TollkeeperError):
    """The service is overloaded or its database is away; the request was not carried out."""

    code = "busy"
    http_status = 503


class SetupError(TollkeeperError):
    """The installation cannot work as it is; the text says how to mend it."""

    code = "setup"


class Breach(TollkeeperError):
    """An invariant of the books does not hold."""

    code = "breach"
