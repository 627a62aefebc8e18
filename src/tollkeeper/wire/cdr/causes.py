"""Why calls end: SIP status, ITU-T Q.850 cause and the names that switches use, one to another.

Sources: RFC 3398 sections 7.2.4.1 (ISUP cause to SIP) and 8.2.6.1 (SIP to ISUP cause), ITU-T Q.850,
the causes of FreeSWITCH's ``switch_types.h`` and what its ``mod_sofia`` answers for them,
Asterisk's ``cdr.h``, Cisco's "RADIUS VSA Voice Implementation Guide" (disconnect cause in hex).
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple


class Cause(NamedTuple):
    """The end of a call twice: ``sip`` 100 to 699, ``q850`` 1 to 127; None where it says nothing."""

    sip: int | None
    q850: int | None


NO_CAUSE: Final = Cause(None, None)
NORMAL_CLEARING: Final = 16

_SIP_OF_Q850: Final = {
    1: 404, 2: 404, 3: 404, 17: 486, 18: 408, 19: 480, 20: 480, 21: 403, 22: 410, 23: 410, 26: 404,
    27: 502, 28: 484, 29: 501, 31: 480, 34: 503, 38: 503, 41: 503, 42: 503, 47: 503, 55: 403,
    57: 403, 58: 503, 65: 488, 70: 488, 79: 501, 87: 403, 88: 503, 102: 504, 111: 500, 127: 500,
}  # fmt: skip
_Q850_OF_SIP: Final = {
    400: 41, 401: 21, 402: 21, 403: 21, 404: 1, 405: 63, 406: 79, 407: 21, 408: 102, 410: 22,
    413: 127, 414: 127, 415: 79, 416: 127, 420: 127, 421: 127, 423: 127, 480: 18, 481: 41, 482: 25,
    483: 25, 484: 28, 485: 1, 486: 17, 500: 41, 501: 79, 502: 38, 503: 41, 504: 102, 505: 127,
    513: 127, 600: 17, 603: 21, 604: 1,
}  # fmt: skip
# The caller gave up (487), and two that only a Warning header would explain.
_SIP_WITHOUT_Q850: Final = frozenset({487, 488, 606})

_FREESWITCH: Final = {
    "UNALLOCATED_NUMBER": 1, "NO_ROUTE_TRANSIT_NET": 2, "NO_ROUTE_DESTINATION": 3,
    "CHANNEL_UNACCEPTABLE": 6, "CALL_AWARDED_DELIVERED": 7, "NORMAL_CLEARING": 16, "USER_BUSY": 17,
    "NO_USER_RESPONSE": 18, "NO_ANSWER": 19, "SUBSCRIBER_ABSENT": 20, "CALL_REJECTED": 21,
    "NUMBER_CHANGED": 22, "REDIRECTION_TO_NEW_DESTINATION": 23, "EXCHANGE_ROUTING_ERROR": 25,
    "DESTINATION_OUT_OF_ORDER": 27, "INVALID_NUMBER_FORMAT": 28, "FACILITY_REJECTED": 29,
    "RESPONSE_TO_STATUS_ENQUIRY": 30, "NORMAL_UNSPECIFIED": 31, "NORMAL_CIRCUIT_CONGESTION": 34,
    "NETWORK_OUT_OF_ORDER": 38, "NORMAL_TEMPORARY_FAILURE": 41, "SWITCH_CONGESTION": 42,
    "ACCESS_INFO_DISCARDED": 43, "REQUESTED_CHAN_UNAVAIL": 44, "PRE_EMPTED": 45,
    "FACILITY_NOT_SUBSCRIBED": 50, "OUTGOING_CALL_BARRED": 52, "INCOMING_CALL_BARRED": 54,
    "BEARERCAPABILITY_NOTAUTH": 57, "BEARERCAPABILITY_NOTAVAIL": 58, "SERVICE_UNAVAILABLE": 63,
    "BEARERCAPABILITY_NOTIMPL": 65, "CHAN_NOT_IMPLEMENTED": 66, "FACILITY_NOT_IMPLEMENTED": 69,
    "SERVICE_NOT_IMPLEMENTED": 79, "INVALID_CALL_REFERENCE": 81, "INCOMPATIBLE_DESTINATION": 88,
    "INVALID_MSG_UNSPECIFIED": 95, "MANDATORY_IE_MISSING": 96, "MESSAGE_TYPE_NONEXIST": 97,
    "WRONG_MESSAGE": 98, "IE_NONEXIST": 99, "INVALID_IE_CONTENTS": 100, "WRONG_CALL_STATE": 101,
    "RECOVERY_ON_TIMER_EXPIRE": 102, "MANDATORY_IE_LENGTH_ERROR": 103, "PROTOCOL_ERROR": 111,
    "INTERWORKING": 127,
}  # fmt: skip
_FREESWITCH_NAMES: Final = {number: name for name, number in _FREESWITCH.items()}
# FreeSWITCH's own causes over 127. What ended an answered call in an ordinary way is 16.
_FREESWITCH_OWN: Final = {
    "ORIGINATOR_CANCEL": Cause(487, None),
    "BLIND_TRANSFER": Cause(None, 16),
    "ATTENDED_TRANSFER": Cause(None, 16),
    "ALLOTTED_TIMEOUT": Cause(None, 16),
    "MANAGER_REQUEST": Cause(None, 16),
    "PICKED_OFF": Cause(None, 16),
    "USER_NOT_REGISTERED": Cause(480, 20),
    "PROGRESS_TIMEOUT": Cause(480, 18),
    "MEDIA_TIMEOUT": Cause(None, 41),
    "GATEWAY_DOWN": Cause(503, 38),
    "INVALID_GATEWAY": Cause(503, 38),
    "BUSY_EVERYWHERE": Cause(600, 17),
    "DECLINE": Cause(603, 21),
    "DOES_NOT_EXIST_ANYWHERE": Cause(604, 1),
    "NOT_ACCEPTABLE": Cause(606, None),
    "UNWANTED": Cause(607, 21),
}
_ASTERISK: Final = {
    "ANSWERED": Cause(200, 16),
    "BUSY": Cause(486, 17),
    "NO ANSWER": Cause(480, 19),
    "CONGESTION": Cause(503, 34),
}
_HEX: Final = re.compile(r"(?:0x)?[0-9a-f]{1,8}", re.IGNORECASE)
_SIGNED: Final = re.compile(r"-?[0-9]{1,9}")


def sip_of_q850(cause: int | None) -> int | None:
    """Return the SIP status of a cause (RFC 3398 7.2.4.1); None for none and for 16, a plain end.

    A cause that the table does not have is 500, as the RFC says; over 127 there is no Q.850.
    """
    if cause is None or cause == NORMAL_CLEARING or not 1 <= cause <= 127:
        return None
    return _SIP_OF_Q850.get(cause, 500)


def q850_of_sip(status: int | None) -> int | None:
    """Return the cause of a final SIP failure (RFC 3398 8.2.6.1).

    None for what is no failure, and for 487, 488 and 606, to which the RFC gives no fixed cause.
    A status that the table does not have counts as x00 of its class (RFC 3261 8.1.3.2).
    """
    if status is None or status in _SIP_WITHOUT_Q850 or not 400 <= status <= 699:
        return None
    return _Q850_OF_SIP.get(status) or _Q850_OF_SIP[status // 100 * 100]


def q850_of_hex(text: str) -> int | None:
    """Return the cause of Cisco's ``h323-disconnect-cause``, written in hex: "10" is 16.

    None when empty, 0, not hex, or over 127 (a cause of the gateway's own).
    """
    text = text.strip()
    if not _HEX.fullmatch(text):
        return None
    return standard_q850(int(text, 16))


def standard_q850(cause: int) -> int | None:
    """Return ``cause`` when it is one of Q.850 (1 to 127), else None: a cause of a vendor's own."""
    return cause if 1 <= cause <= 127 else None


def of_freeswitch(name: str) -> Cause:
    """Return what FreeSWITCH's ``hangup_cause`` means: a name, or the number of a Q.850 cause.

    ``Cause(None, None)`` for names it does not know ("NONE", "UNSPECIFIED", a module's own).
    """
    name = name.strip().upper()
    own = _FREESWITCH_OWN.get(name)
    if own is not None:
        return own
    q850 = _FREESWITCH.get(name)
    if q850 is None and name.isascii() and name.isdigit():
        q850 = standard_q850(int(name[:9]))
    return Cause(sip_of_q850(q850), q850)


def freeswitch_of_q850(cause: int) -> str:
    """Return FreeSWITCH's name of a cause; NORMAL_UNSPECIFIED where it has none."""
    return _FREESWITCH_NAMES.get(cause, "NORMAL_UNSPECIFIED")


def of_asterisk(disposition: str) -> Cause:
    """Return what Asterisk's ``disposition`` means.

    "FAILED" hides the cause, so it has none; "NO ANSWER" is also a caller who gave up.
    """
    return _ASTERISK.get(disposition.strip().upper().replace("_", " "), NO_CAUSE)


def of_vos3000(reason: str) -> Cause:
    """Return what VOS3000's ``endReason`` means.

    Positive numbers are those of the far end: 1 to 127 the cause of H.323, 400 to 699 the status of
    SIP. Negative ones (and 0) are the server's own, of which published lists contradict each other:
    they have no cause here.
    """
    reason = reason.strip()
    if not _SIGNED.fullmatch(reason):
        return NO_CAUSE
    number = int(reason)
    if 1 <= number <= 127:
        return Cause(sip_of_q850(number), number)
    if 400 <= number <= 699:
        return Cause(number, q850_of_sip(number))
    return NO_CAUSE
