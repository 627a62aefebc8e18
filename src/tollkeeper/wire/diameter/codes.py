"""Numbers of Diameter: commands, result codes and AVPs of RFC 6733, RFC 8506 and 3GPP TS 32.299.

An AVP is named by one integer, its code with its vendor above: ``vendor << 32 | code``.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

TGPP: Final = 10415
"""Enterprise number of 3GPP."""
CREDIT_CONTROL: Final = 4
"""Auth-Application-Id of credit control, and so of Ro and Gy."""
RELAY: Final = 0xFFFFFFFF
"""Application id that a relay agent advertises."""


class Command(IntEnum):
    """Commands that are spoken here; request and answer share the number."""

    CAPABILITIES = 257
    RE_AUTH = 258
    CREDIT = 272
    ABORT_SESSION = 274
    WATCHDOG = 280
    DISCONNECT = 282


class Result(IntEnum):
    """Result-Code values (RFC 6733 section 7.1, RFC 8506 section 9)."""

    SUCCESS = 2001
    LIMITED_SUCCESS = 2002
    COMMAND_UNSUPPORTED = 3001
    UNABLE_TO_DELIVER = 3002
    REALM_NOT_SERVED = 3003
    TOO_BUSY = 3004
    LOOP_DETECTED = 3005
    APPLICATION_UNSUPPORTED = 3007
    INVALID_HDR_BITS = 3008
    INVALID_AVP_BITS = 3009
    UNKNOWN_PEER = 3010
    END_USER_SERVICE_DENIED = 4010
    CREDIT_CONTROL_NOT_APPLICABLE = 4011
    CREDIT_LIMIT_REACHED = 4012
    AVP_UNSUPPORTED = 5001
    UNKNOWN_SESSION_ID = 5002
    AUTHORIZATION_REJECTED = 5003
    INVALID_AVP_VALUE = 5004
    MISSING_AVP = 5005
    AVP_OCCURS_TOO_MANY_TIMES = 5009
    NO_COMMON_APPLICATION = 5010
    UNSUPPORTED_VERSION = 5011
    UNABLE_TO_COMPLY = 5012
    INVALID_AVP_LENGTH = 5014
    INVALID_MESSAGE_LENGTH = 5015
    NO_COMMON_SECURITY = 5017
    USER_UNKNOWN = 5030
    RATING_FAILED = 5031


class Kind(IntEnum):
    """CC-Request-Type (RFC 8506 section 8.3)."""

    INITIAL = 1
    UPDATE = 2
    TERMINATION = 3
    EVENT = 4


class Action(IntEnum):
    """Requested-Action of an event (RFC 8506 section 8.41)."""

    DIRECT_DEBITING = 0
    REFUND_ACCOUNT = 1
    CHECK_BALANCE = 2
    PRICE_ENQUIRY = 3


class Subscriber(IntEnum):
    """Subscription-Id-Type (RFC 8506 section 8.47)."""

    E164 = 0
    IMSI = 1
    SIP_URI = 2
    NAI = 3
    PRIVATE = 4


class FailureHandling(IntEnum):
    """Credit-Control-Failure-Handling (RFC 8506 section 8.14): what a client does without our answer."""

    TERMINATE = 0
    CONTINUE = 1
    RETRY_AND_TERMINATE = 2


class Reporting(IntEnum):
    """Reporting-Reason (TS 32.299 section 7.2.175): why a client reports what it used."""

    THRESHOLD = 0
    QHT = 1
    FINAL = 2
    QUOTA_EXHAUSTED = 3
    VALIDITY_TIME = 4
    OTHER_QUOTA_TYPE = 5
    RATING_CONDITION_CHANGE = 6
    FORCED_REAUTHORISATION = 7
    POOL_EXHAUSTED = 8
    UNUSED_QUOTA_TIMER = 9


class Leave(IntEnum):
    """Disconnect-Cause (RFC 6733 section 5.4.3)."""

    REBOOTING = 0
    BUSY = 1
    DO_NOT_WANT_TO_TALK_TO_YOU = 2


ADMINISTRATIVE: Final = 4
"""Termination-Cause DIAMETER_ADMINISTRATIVE."""

# --- AVPs of RFC 6733 ----------------------------------------------------------------------------
USER_NAME: Final = 1
CLASS: Final = 25
SESSION_TIMEOUT: Final = 27
CALLED_STATION_ID: Final = 30
PROXY_STATE: Final = 33
ACCT_MULTI_SESSION_ID: Final = 50
EVENT_TIMESTAMP: Final = 55
HOST_IP_ADDRESS: Final = 257
AUTH_APPLICATION_ID: Final = 258
ACCT_APPLICATION_ID: Final = 259
VENDOR_SPECIFIC_APPLICATION_ID: Final = 260
REDIRECT_HOST_USAGE: Final = 261
REDIRECT_MAX_CACHE_TIME: Final = 262
SESSION_ID: Final = 263
ORIGIN_HOST: Final = 264
SUPPORTED_VENDOR_ID: Final = 265
VENDOR_ID: Final = 266
FIRMWARE_REVISION: Final = 267
RESULT_CODE: Final = 268
PRODUCT_NAME: Final = 269
SESSION_BINDING: Final = 270
SESSION_SERVER_FAILOVER: Final = 271
DISCONNECT_CAUSE: Final = 273
AUTH_REQUEST_TYPE: Final = 274
AUTH_SESSION_STATE: Final = 277
ORIGIN_STATE_ID: Final = 278
FAILED_AVP: Final = 279
PROXY_HOST: Final = 280
ERROR_MESSAGE: Final = 281
ROUTE_RECORD: Final = 282
DESTINATION_REALM: Final = 283
PROXY_INFO: Final = 284
RE_AUTH_REQUEST_TYPE: Final = 285
AUTHORIZATION_LIFETIME: Final = 291
REDIRECT_HOST: Final = 292
DESTINATION_HOST: Final = 293
ERROR_REPORTING_HOST: Final = 294
TERMINATION_CAUSE: Final = 295
ORIGIN_REALM: Final = 296
EXPERIMENTAL_RESULT: Final = 297
INBAND_SECURITY_ID: Final = 299
DRMP: Final = 301
OC_SUPPORTED_FEATURES: Final = 621
OC_OLR: Final = 623

# --- AVPs of RFC 8506 ----------------------------------------------------------------------------
CC_CORRELATION_ID: Final = 411
CC_INPUT_OCTETS: Final = 412
CC_MONEY: Final = 413
CC_OUTPUT_OCTETS: Final = 414
CC_REQUEST_NUMBER: Final = 415
CC_REQUEST_TYPE: Final = 416
CC_SERVICE_SPECIFIC_UNITS: Final = 417
CC_SESSION_FAILOVER: Final = 418
CC_SUB_SESSION_ID: Final = 419
CC_TIME: Final = 420
CC_TOTAL_OCTETS: Final = 421
CHECK_BALANCE_RESULT: Final = 422
COST_INFORMATION: Final = 423
COST_UNIT: Final = 424
CURRENCY_CODE: Final = 425
CC_FAILURE_HANDLING: Final = 427
DIRECT_DEBITING_FAILURE_HANDLING: Final = 428
EXPONENT: Final = 429
FINAL_UNIT_INDICATION: Final = 430
GRANTED_SERVICE_UNIT: Final = 431
RATING_GROUP: Final = 432
REQUESTED_ACTION: Final = 436
REQUESTED_SERVICE_UNIT: Final = 437
SERVICE_IDENTIFIER: Final = 439
SERVICE_PARAMETER_INFO: Final = 440
SUBSCRIPTION_ID: Final = 443
SUBSCRIPTION_ID_DATA: Final = 444
UNIT_VALUE: Final = 445
USED_SERVICE_UNIT: Final = 446
VALUE_DIGITS: Final = 447
VALIDITY_TIME: Final = 448
FINAL_UNIT_ACTION: Final = 449
SUBSCRIPTION_ID_TYPE: Final = 450
TARIFF_TIME_CHANGE: Final = 451
TARIFF_CHANGE_USAGE: Final = 452
G_S_U_POOL_IDENTIFIER: Final = 453
MULTIPLE_SERVICES_INDICATOR: Final = 455
MULTIPLE_SERVICES_CREDIT_CONTROL: Final = 456
G_S_U_POOL_REFERENCE: Final = 457
USER_EQUIPMENT_INFO: Final = 458
SERVICE_CONTEXT_ID: Final = 461
USER_EQUIPMENT_INFO_EXTENSION: Final = 653
SUBSCRIPTION_ID_EXTENSION: Final = 659

# --- AVPs of 3GPP TS 32.299 and TS 29.061 --------------------------------------------------------
_3 = TGPP << 32
SERVICE_INFORMATION: Final = _3 | 873
PS_INFORMATION: Final = _3 | 874
IMS_INFORMATION: Final = _3 | 876
SMS_INFORMATION: Final = _3 | 2000
CALLING_PARTY_ADDRESS: Final = _3 | 831
CALLED_PARTY_ADDRESS: Final = _3 | 832
REQUESTED_PARTY_ADDRESS: Final = _3 | 1251
TRUNK_GROUP_ID: Final = _3 | 851
INCOMING_TRUNK_GROUP_ID: Final = _3 | 852
RECIPIENT_INFO: Final = _3 | 2026
RECIPIENT_ADDRESS: Final = _3 | 1201
ORIGINATOR_RECEIVED_ADDRESS: Final = _3 | 2027
ADDRESS_DATA: Final = _3 | 897
SGSN_MCC_MNC: Final = _3 | 18
REPORTING_REASON: Final = _3 | 872

OTHER_BASE: Final = (
    CLASS, 44, ACCT_MULTI_SESSION_ID, 85, ACCT_APPLICATION_ID, VENDOR_SPECIFIC_APPLICATION_ID,
    VENDOR_ID, 272, AUTH_REQUEST_TYPE, 276, AUTH_SESSION_STATE, 287, AUTHORIZATION_LIFETIME, DRMP,
    480, 483, 485, OC_SUPPORTED_FEATURES,
)  # fmt: skip
"""Of RFC 6733, mostly its accounting: Kamailio writes some into its requests (480, 485)."""
OTHER_CREDIT: Final = (_3 | 1276, _3 | 2055)
"""What 3GPP adds to a request: AF-Correlation-Information, AoC-Request-Type."""
OTHER_CONTROL: Final = tuple(
    _3 | code
    for code in (
        865, 866, 868, 869, 870, 871, 881, 1016, 1226, 1249, 1263, 1264, 1266, 1267, 1268,
        1269, 1270, 1271, 1276, 2022, 3903, 3904, 3915,
    )
)  # fmt: skip
"""What 3GPP adds to a Multiple-Services-Credit-Control: triggers, thresholds, quota mechanisms."""
OTHER_UNITS: Final = tuple(_3 | code for code in (1258, 1259, 2047))
"""What 3GPP adds to a unit: Event-Charging-TimeStamp, Current-Tariff."""
