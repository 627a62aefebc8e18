"""The options of SMPP peers: of an ESME that binds to us, and of an SMSC that we bind to."""

from __future__ import annotations

from tollkeeper.services.peer_option import CONNECT, Option

ESME = (
    Option("system_id", "text", "", "Name that it binds with; its code if empty."),
    Option(
        "upstream",
        "text",
        "",
        "Codes of the SMSCs that its messages are passed on to, with commas between: the first one "
        "that is up is used.",
    ),
    Option("party", "text", "", "Code of the party that pays; else its trunk tells."),
    Option("window", "whole", 100, "Messages that may be unanswered at once.", 1, 10_000),
    Option("rate", "whole", 0, "Messages a second that are taken; 0: any.", 0, 100_000),
    Option("connections", "whole", 4, "Connections that it may have at once.", 1, 100),
    Option("tls", "flag", False, "Whether it must come by the TLS listener."),
    Option(
        "no_money_status",
        "whole",
        0x45,
        "Command status of a message that is not paid for: 69 (0x45, submit failed) or a vendor's "
        "own, such as 1042 (0x412).",
        0x45,
        0x4FF,
    ),
    Option(
        "duplicate_seconds",
        "whole",
        120,
        "For so long a message with the user_message_reference, addresses and text of an earlier "
        "one is that message sent again; 0: never.",
        0,
        86_400,
    ),
    Option(
        "duplicates_by_text",
        "flag",
        False,
        "Whether messages without a user_message_reference are told from each other in that way too.",
    ),
    Option(
        "default_alphabet",
        "text",
        "gsm",
        "What data_coding 0 is.",
        choices=("gsm", "latin1"),
    ),
    Option(
        "enquire_seconds",
        "whole",
        30,
        "After so long a silence it is asked for a sign of life.",
        1,
        3600,
    ),
)

SMSC = (
    CONNECT,
    Option("system_id", "text", "", "Name that we bind with; its code if empty."),
    Option("system_type", "text", "", "Type that we bind with; most SMSCs want none."),
    Option(
        "bind",
        "text",
        "transceiver",
        "How we bind: by one transceiver, or by a transmitter and a receiver of its own.",
        choices=("transceiver", "separate"),
    ),
    Option("window", "whole", 100, "Messages that may be unanswered at once.", 1, 10_000),
    Option("tls", "flag", False, "Whether the connection is encrypted."),
    Option(
        "tls_ca",
        "text",
        "",
        "PEM file with the authorities that it is trusted by; else those of the system.",
    ),
    Option(
        "enquire_seconds",
        "whole",
        30,
        "After so long a silence it is asked for a sign of life.",
        1,
        3600,
    ),
    Option(
        "response_seconds",
        "whole",
        10,
        "It is waited for so long; a message that it did not answer stays charged, since it may have it.",
        1,
        300,
    ),
    Option(
        "message_ids",
        "text",
        "as_is",
        "How it writes ids in responses and receipts, where they are of two kinds.",
        choices=("as_is", "hex_decimal", "decimal_hex"),
    ),
    Option(
        "receipts",
        "flag",
        True,
        "Whether receipts are asked for where the sender wants none: what is undelivered can only be "
        "given back by them.",
    ),
    Option(
        "unheard_hours",
        "whole",
        0,
        "A message that it did not answer is given back so long after, where no receipt said that it was "
        "sent; 0: never. Only for an SMSC that surely sends receipts, within that time.",
        0,
        144,
    ),
)
