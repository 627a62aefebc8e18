"""The web interface of a VOS3000 for third parties: JSON bodies over HTTP POST, as pure records.

Source: the vendor's "Web interface manual", document version 05 of 2022-10-19 (sections 3.4 GetCustomer,
3.21 GetCurrentCall, 3.22 Pay, 3.46 GetPayHistory, 3.82 DisconnectCurrentCall). ``retCode`` 0 is success.
It knows no StopCall: calls are ended by DisconnectCurrentCall. Money is a number of JSON there; it is read
and written digit by digit here, never as a float.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

ACCOUNT: Final = 2
"""``ownerType`` of an account."""
SUCCESS: Final = 0
AMOUNT_MAX: Final = Decimal(10) ** 12
ROWS_MAX: Final = 100_000
TEXT_MAX: Final = 255
"""``String`` of the manual."""
CALLS_MAX: Final = 100
_STAMP: Final = "%Y%m%d%H%M%S"
_NUMBER = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,3})?")


class MalformedVos(ValueError):
    """What was answered is none of the interface's answers."""


class VosRefused(Exception):
    """The platform says no: ``retCode`` is not 0."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"retCode {code}: {reason}" if reason else f"retCode {code}")
        self.code = code


@dataclass(frozen=True, slots=True)
class Account:
    """A customer account: ``money`` may be spent down to minus ``limit``."""

    account: str
    money: Decimal
    limit: Decimal
    locked: bool = False

    @property
    def spendable(self) -> Decimal:
        """What calls may still cost."""
        return self.money + self.limit


@dataclass(frozen=True, slots=True)
class Payment:
    """One line of an account's payments; ``fee`` as written, whatever its sign means there."""

    account: str
    fee: Decimal
    memo: str
    money_after: Decimal


@dataclass(frozen=True, slots=True)
class CurrentCall:
    """A call that is up; ``keep_ms`` below 0 is a state of its set-up."""

    call_id: int
    caller: str
    called: str
    keep_ms: int


# --- what is asked -------------------------------------------------------------------------------


def get_customer(accounts: Sequence[str]) -> bytes:
    """GetCustomer of accounts by their numbers."""
    return _body({"accounts": [_text(one) for one in accounts]})


def pay(account: str, money: Decimal, memo: str) -> bytes:
    """Pay: money for an account, or less of it where it is negative.

    Raises:
        ValueError: no amount, or more than anybody pays.
    """
    if not money.is_finite() or not money or abs(money) > AMOUNT_MAX:
        raise ValueError(f"{money} cannot be paid")
    body = _body({"ownerName": _text(account), "ownerType": ACCOUNT, "memo": _text(memo)})
    return body[:-1] + f', "money": {money:f}}}'.encode()


def get_pay_history(account: str, begin: datetime, end: datetime) -> bytes:
    """GetPayHistory of an account; both times by the clock of the platform, without a zone."""
    return _body(
        {
            "account": _text(account),
            "beginTime": begin.strftime(_STAMP),
            "endTime": end.strftime(_STAMP),
        }
    )


def get_current_call() -> bytes:
    """GetCurrentCall: all calls. The manual asks not to do this often."""
    return _body({})


def disconnect(call_ids: Sequence[int]) -> bytes:
    """DisconnectCurrentCall of calls by what GetCurrentCall says they are.

    Raises:
        ValueError: none, or very many.
    """
    if not 1 <= len(call_ids) <= CALLS_MAX:
        raise ValueError(f"from 1 to {CALLS_MAX} calls are ended at once")
    return _body({"callIds": list(call_ids)})


def _body(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False).encode()


def _text(value: str) -> str:
    if not value or len(value) > TEXT_MAX or not value.isprintable():
        raise ValueError(f"{value[:40]!r} is no text that the platform takes")
    return value


# --- what is answered ----------------------------------------------------------------------------


def read_answer(data: bytes) -> dict[str, Any]:
    """The fields of an answer that says success.

    Raises:
        VosRefused: it says no. MalformedVos: it says neither.
    """
    try:
        found = json.loads(data, parse_float=_decimal, parse_constant=_no_number)
    except (ValueError, RecursionError, InvalidOperation) as error:
        raise MalformedVos("the answer is no JSON") from error
    if not isinstance(found, dict):
        raise MalformedVos("the answer is no JSON object")
    code = found.get("retCode")
    if not isinstance(code, int) or isinstance(code, bool):
        raise MalformedVos("the answer has no retCode")
    if code != SUCCESS:
        reason = found.get("exception")
        shown = reason[:200] if isinstance(reason, str) else ""
        raise VosRefused(code, "".join(c if c.isprintable() else " " for c in shown))
    return found


def accounts_of(answer: dict[str, Any]) -> list[Account]:
    """The accounts of GetCustomer; raises MalformedVos."""
    return [
        Account(
            _string(row, "account"),
            _money(row, "money"),
            _money(row, "limitMoney"),
            locked=row.get("lockType") == 1,
        )
        for row in _rows(answer, "infoCustomers")
    ]


def payments_of(answer: dict[str, Any]) -> list[Payment]:
    """The payments of GetPayHistory; raises MalformedVos."""
    return [
        Payment(
            _string(row, "account"),
            _money(row, "fee"),
            _string(row, "memo"),
            _money(row, "customerMoney"),
        )
        for row in _rows(answer, "infoPayHistorys")
    ]


def calls_of(answer: dict[str, Any]) -> list[CurrentCall]:
    """The calls of GetCurrentCall; raises MalformedVos."""
    return [
        CurrentCall(
            _integer(row, "callId"),
            _string(row, "callerE164"),
            _string(row, "calleeE164"),
            _integer(row, "keepTime"),
        )
        for row in _rows(answer, "infoCurrentCalls")
    ]


def _rows(answer: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = answer.get(name)
    if found is None:
        return []  # left out where there are none
    if not isinstance(found, list) or len(found) > ROWS_MAX:
        raise MalformedVos(f"{name} is no list")
    if not all(isinstance(row, dict) for row in found):
        raise MalformedVos(f"{name} is no list of records")
    return found


def _string(row: dict[str, Any], name: str) -> str:
    value = row.get(name, "")
    if value is None:
        return ""
    if not isinstance(value, str):
        raise MalformedVos(f"{name} is no text")
    return value


def _integer(row: dict[str, Any], name: str) -> int:
    value = row.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise MalformedVos(f"{name} is no whole number")
    return value


def _money(row: dict[str, Any], name: str) -> Decimal:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise MalformedVos(f"{name} is no amount")
    amount = Decimal(value)
    if abs(amount) > AMOUNT_MAX:
        raise MalformedVos(f"{name} is beyond all amounts")
    return amount


def _decimal(text: str) -> Decimal:
    if _NUMBER.fullmatch(text) is None:
        raise ValueError("a number too long")
    return Decimal(text)


def _no_number(text: str) -> Decimal:
    raise ValueError(f"{text} is no number")
