"""The codecs that are fuzzed: how each is called, and the packets to begin with.

To add one, write a :class:`~tests.fuzz.fuzzer.Target` into ``TARGETS``:

* ``modules``: its modules below ``tollkeeper.wire``; the functions get ``radius.packet`` as ``m.radius_packet``;
* ``malformed``: its own error, ``module.Name``;
* ``decode(m, data)``: reads as deep as a server would, and returns what was read. Where one
  packet has several readers, give each its try by :func:`~tests.fuzz.reading.each`, so that the refusal of one does
  not hide the others;
* ``encode(m, record)``: writes what ``decode`` returned; leave it out where there is no writer;
* ``seeds(m)``: some packets made by our own encoders, by name. ``python -m tests.fuzz --seeds``
  writes them to ``seeds/<codec>/``. Any other file ``*.bin`` put there is a seed as well.

Everything is bytes: for a stream, ``decode`` feeds its decoder twice, whole and in pieces, and the
frames must be the same (:func:`~tests.fuzz.reading.same_in_pieces`).
"""

from __future__ import annotations

from tests.fuzz.fuzzer import Target
from tests.fuzz.packets import (
    diameter_decode,
    diameter_encode,
    radius_decode,
    radius_seeds,
    sip_decode,
    sip_encode,
    sip_seeds,
    smpp_decode,
    smpp_encode,
    smpp_seeds,
)
from tests.fuzz.seeds_diameter import diameter_seeds
from tests.fuzz.switches import (
    agi_decode,
    agi_seeds,
    ami_decode,
    ami_seeds,
    esl_decode,
    esl_seeds,
    evapi_decode,
    evapi_encode,
    evapi_seeds,
    form_decode,
    form_seeds,
    rpc_decode,
    rpc_seeds,
    vos3000_decode,
    vos3000_seeds,
)

LINES = (
    b"\r\n",
    b"\n\n",
    b"\n ",
    b": ",
    b"\0",
    b"\xff\xfe",
    b"\xe2\x80\xa8",
    b"%00",
    b"\x85",
    b"\xa0",
)

TARGETS: dict[str, Target] = {
    "radius": Target(
        ("radius.packet", "radius.attributes", "radius.messages", "radius.passwords"),
        "radius_packet.MalformedRadius",
        radius_decode,
        radius_seeds,
        tokens=(b"\x50\x12" + bytes(16), b"\x1a\x08\0\0\0\x09\x01\x02", b"\x21\x03a", b"\x1a\x02"),
    ),
    "diameter": Target(
        (
            "diameter.codec",
            "diameter.base",
            "diameter.codes",
            "diameter.credit",
            "diameter.credit_encode",
        ),
        "diameter_codec.MalformedDiameter",
        diameter_decode,
        diameter_seeds,
        diameter_encode,
        tokens=(b"\0\0\x01\x07\x40\0\0\x09a\0\0\0", b"\0\0\x01\xc8\x40\0\0\x08", b"\x80\0\0\x0c"),
    ),
    "smpp": Target(
        ("smpp.pdu", "smpp.text", "smpp.receipt"),
        "smpp_pdu.MalformedPdu",
        smpp_decode,
        smpp_seeds,
        smpp_encode,
        tokens=(
            b"\x04\x24\0\x01x",
            b"\x05\0\x03\x01\x02\x01",
            b"\x1b",
            b"\0\0\0\x10",
            b"id:1 stat:",
        ),
    ),
    "esl": Target(
        ("esl.codec", "esl.tables", "esl.dialplan"),
        "esl_codec.MalformedEsl",
        esl_decode,
        esl_seeds,
        tokens=(
            *LINES,
            b"Content-Length: 5\n",
            b"Content-Type: api/response\n\n",
            b"[[[[",
            b'{"a":',
        ),
    ),
    "esl_form": Target(
        ("esl.codec", "esl.dialplan"),
        "esl_codec.MalformedEsl",
        form_decode,
        form_seeds,
        tokens=(b"&", b"=", b"%", b"%00", b"%ff", b"+", b"&a=1" * 50, b";"),
    ),
    "evapi": Target(
        ("kamailio.evapi",),
        "kamailio_evapi.MalformedEvapi",
        evapi_decode,
        evapi_seeds,
        evapi_encode,
        tokens=(b"0:,", b"5:{},", b":", b",", b"[[[[[[[[", b'"op":"stop",', b"\\ud800", b"1e400"),
    ),
    "kamailio_rpc": Target(
        ("kamailio.rpc",),
        "kamailio_rpc.MalformedRpc",
        rpc_decode,
        rpc_seeds,
        tokens=(
            b"[[[[[[[[",
            b'"state":',
            b"\\ud800",
            b"1e400",
            b'{"variables":[{}]}',
            b"null",
            b'"',
        ),
    ),
    "agi": Target(
        ("asterisk.agi",),
        "asterisk_agi.MalformedAgi",
        agi_decode,
        agi_seeds,
        tokens=(*LINES, b"HANGUP\n", b"520-x\n", b"agi_arg_3: 1\n", b'"', b"\\", b"200 result="),
    ),
    "ami": Target(
        ("asterisk.ami",),
        "asterisk_ami.MalformedAmi",
        ami_decode,
        ami_seeds,
        tokens=(
            *LINES,
            b"Event: CoreShowChannel\r\n",
            b"ActionID: a1\r\n",
            b"Duration: 99:59:59\r\n",
        ),
    ),
    "vos3000": Target(
        ("vos3000",),
        "vos3000.MalformedVos",
        vos3000_decode,
        vos3000_seeds,
        tokens=(b"1e400", b"-0.0", b"NaN", b"[[[[[[", b"null", b'"retCode":1', b"9" * 40, b"true"),
    ),
    "sip": Target(
        ("sip",),
        "sip.MalformedSip",
        sip_decode,
        sip_seeds,
        sip_encode,
        tokens=(*LINES, b'"', b"<", b">", b";", b",", b"Via: SIP/2.0/UDP a\r\n", b"%", b"\\", b"@"),
    ),
}
