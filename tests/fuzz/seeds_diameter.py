"""Diameter messages to begin with."""

from __future__ import annotations

from decimal import Decimal
from typing import Any


def diameter_seeds(m: Any) -> dict[str, bytes]:
    """One message of each kind that is spoken."""
    base, credit, codes = m.diameter_base, m.diameter_credit, m.diameter_codes
    names = ("ocs.example.net;1;2", "gw.example.net", "example.net")
    units = credit.Units(time=60, total=10_000, money=credit.Money(Decimal("1.25"), 840))

    def request(kind: int, number: int, **more: Any) -> bytes:
        record = credit.CreditRequest(
            *names, "example.net", "32260@3gpp.org", credit.Kind(kind), number,
            subscribers=((0, "12025550100"), (2, "sip:bob@example.net")), **more,
        )  # fmt: skip
        return bytes(
            m.diameter_credit_encode.encode_request(record, 1, 2, retransmitted=number > 0)
        )

    control = credit.Control(rating_group=1, services=(7,), requested=credit.Units(), used=(units,))
    granted = credit.Control(rating_group=1, granted=units, validity=60, result=2001)
    first = request(1, 0, multiple=True, controls=(control,))
    answer = credit.CreditAnswer(names[0], 2001, *names[1:], 1, 0, controls=(granted,))
    session = (names[0], names[1], names[2], "example.net", "gw.example.net")
    return {
        "initial": first,
        "update": request(2, 1, requested=units, used=(units,), called_station="442071838750"),
        "event": request(4, 0, action=credit.Action(0), requested=units),
        "answer": m.diameter_credit_encode.encode_credit_answer(answer, m.diameter_codec.decode_header(first)),
        "capabilities": base.encode_capabilities(
            base.Capabilities(
                *names[1:], ("192.0.2.1",), 10415, auth_applications=(4,),
                vendor_applications=((10415, 4),),
            ), 1, 2,
        ),
        "watchdog": base.encode_link(base.Link(*names[1:], 9), 1, 2),
        "leave": base.encode_link(base.Link(*names[1:], None, 0), 1, 2),
        "reauth": base.encode_session_request(
            base.SessionRequest(codes.Command.RE_AUTH, *session, 1), 1, 2
        ),
        "result": base.encode_answer(
            base.Answer(5030, *names[1:], names[0], error="no such user"),
            command=272, application=4, hop_by_hop=1, end_to_end=2,
        ),
    }  # fmt: skip
