"""What switches say on their control ports: how it is read, and what to begin with."""

from __future__ import annotations

from typing import Any

from tests.fuzz.reading import each, same_in_pieces

# --- FreeSWITCH, Kamailio, Asterisk -------------------------------------------------------------


def esl_decode(m: Any, data: bytes) -> Any:
    frames = same_in_pieces(m.esl_codec.MalformedEsl, m.esl_codec.Decoder, data)

    def event(frame: Any) -> Any:
        found = m.esl_codec.parse_event(frame)
        return found.name, found.uuid, found.all("variable_a"), found.number("Caller-Answered-Time")

    readers = [lambda frame=frame: event(frame) for frame in frames[:50]]
    readers += [lambda frame=frame: (frame.text, frame.reply) for frame in frames[:50]]
    for table in (data, *(frame.body for frame in frames[:5])):
        readers += [
            lambda body=table: m.esl_tables.parse_channels(body),
            lambda body=table: m.esl_tables.parse_tasks(body),
            lambda body=table: m.esl_codec.parse_plain(body),
            lambda body=table: sorted(m.esl_dialplan.parse_form(body).items()),
        ]
    return each(m.esl_codec.MalformedEsl, *readers)


def esl_seeds(m: Any) -> dict[str, bytes]:
    plain = (
        b"Event-Name: CHANNEL_HANGUP_COMPLETE\nUnique-ID: 3f2a-1\nvariable_billsec: 12\n"
        b"variable_a: ARRAY::one|:two%20three\nCaller-Answered-Time: 1700000000000000\n\n"
    )
    json = b'{"Event-Name":"CHANNEL_PARK","Unique-ID":"3f2a-1","variable_a":["x","y"],"_body":"z"}'

    def frame(kind: str, body: bytes) -> bytes:
        return f"Content-Length: {len(body)}\nContent-Type: {kind}\n\n".encode() + body

    return {
        "greeting": b"Content-Type: auth/request\n\n",
        "reply": b"Content-Type: command/reply\nReply-Text: +OK accepted\n\n",
        "plain": frame("text/event-plain", plain),
        "nested": frame("text/event-plain", plain[:-1] + b"Content-Length: 3\n\nabc"),
        "json": frame("text/event-json", json),
        "channels": frame(
            "api/response", b'{"row_count":1,"rows":[{"uuid":"3f2a-1","dest":"44"}]}'
        ),
        "tasks": frame(
            "api/response", b'{"row_count":1,"rows":[{"task_id":"7","task_group":"x"}]}'
        ),
        "form": b"section=dialplan&Hunt-Context=a%20b&variable_x=%ff+y",
        "api": frame("api/response", b"uuid,name\n3f2a-1,sofia/x\n")
        + frame("api/response", b"+OK"),
        "end": frame("text/disconnect-notice", b"Disconnected, goodbye.\n"),
    }


def form_decode(m: Any, data: bytes) -> Any:
    fields = m.esl_dialplan.parse_form(data)
    return tuple(fields.items())


def form_seeds(m: Any) -> dict[str, bytes]:
    return {
        "dialplan": b"section=dialplan&Caller-Destination-Number=442071838750&Unique-ID=3f2a-1"
        b"&variable_sip_from_uri=sip%3Abob%40x&a=1&a=2&empty=",
    }


def evapi_decode(m: Any, data: bytes) -> Any:
    error = m.kamailio_evapi.MalformedEvapi
    frames = same_in_pieces(error, m.kamailio_evapi.Framer, data)[:50]

    def report(frame: bytes) -> Any:
        message = m.kamailio_evapi.decode(frame)
        m.kamailio_evapi.instant(getattr(message, "at", ""))
        if isinstance(message, m.kamailio_evapi.Report):
            each(error, lambda: m.kamailio_evapi.call_of(message))
        return message

    return each(
        error,
        *(lambda frame=frame: report(frame) for frame in frames),
        *(lambda frame=frame: m.kamailio_evapi.decode_ours(frame) for frame in frames),
    )


def evapi_encode(m: Any, record: Any) -> bytes:
    return b"".join(m.kamailio_evapi.encode(one) for one in record if not isinstance(one, str))


def evapi_seeds(m: Any) -> dict[str, bytes]:
    e = m.kamailio_evapi
    call = e.Call("c1@x", "t1", "12025550100", "442071838750", "192.0.2.1", "acme", "1700000000.5")
    told = {"id": "9", "at": "1700000001.25", "call_id": "c1@x", "from_tag": "t1", "session": "s1"}
    return {
        "authorise": e.encode(e.Authorise(12, 345, call)),
        "start": e.encode(e.Started(**told)),
        "stop": e.encode(
            e.Stopped(**told, answered="1700000000.75", open=1, call='{"call_id":"c"}')
        ),
        "failed": e.encode(e.Failed(**told, code=487, method="INVITE")),
        "several": e.encode(e.ByeSent(**told)) + e.encode(e.Done("9", 1, "1700000002")),
        "ours": e.encode(e.Answer(12, 345, 1, 60, "s1")) + e.encode(e.Limit("8", 1, 2, 60)),
    }


def rpc_decode(m: Any, data: bytes) -> Any:
    rpc = m.kamailio_rpc

    def listed() -> list[tuple[str, str]]:
        return [(dialog.call_id, dialog.variable("session")) for dialog in rpc.dialogs(data)]

    return each(rpc.MalformedRpc, listed, lambda: rpc.done(data))


def rpc_seeds(m: Any) -> dict[str, bytes]:
    dialog = b'{"h_entry":1,"h_id":2,"call-id":"c1","state":4,"caller":{"tag":"t"},"variables":[{"session":"s"}]}'
    return {
        "list": b'{"jsonrpc":"2.0","result":[%b,%b],"id":1}' % (dialog, dialog),
        "none": b'{"jsonrpc":"2.0","result":[],"id":1}',
        "error": b'{"jsonrpc":"2.0","error":{"code":404,"message":"Not found"},"id":1}',
        "ask": m.kamailio_rpc.request("dlg.list"),
    }


def agi_decode(m: Any, data: bytes) -> Any:
    records = same_in_pieces(m.asterisk_agi.MalformedAgi, m.asterisk_agi.Decoder, data)
    for record in records[:50]:
        if isinstance(record, m.asterisk_agi.Environment):
            assert isinstance(record.script, str)
            assert len(record.arguments) <= len(record.values)
    m.asterisk_agi.words_of(data.decode("utf-8", "replace"))
    return records


def agi_seeds(m: Any) -> dict[str, bytes]:
    begin = m.asterisk_agi.environment_bytes(
        [
            ("network_script", "authorise?x=1"),
            ("uniqueid", "1700000000.12"),
            ("callerid", "unknown"),
            ("arg_1", "442071838750"),
            ("arg_2", "acme"),
        ]
    )
    usage = (
        b"520-Invalid command syntax.  Proper usage follows:\nUsage: X\n520 End of proper usage.\n"
    )
    replies = (
        b"200 result=1 (442071838750)\n200 result=0 endpos=0\n510 Invalid or unknown command\n"
    )
    return {
        "begin": begin,
        "replies": begin + replies,
        "hangup": begin + b"HANGUP\n511 Command Not Permitted on a dead channel\n",
        "usage": begin + usage + b"200 result=-1\n",
    }


def ami_decode(m: Any, data: bytes) -> Any:
    records = same_in_pieces(m.asterisk_ami.MalformedAmi, m.asterisk_ami.Decoder, data)
    listing = m.asterisk_ami.ChannelList("a1")
    for record in records:
        if isinstance(record, m.asterisk_ami.Message):
            listing.take(record)
            record.variable("TOLLKEEPER")
    return records, listing


def ami_seeds(m: Any) -> dict[str, bytes]:
    hello = b"Asterisk Call Manager/7.0.3\r\n"
    channel = [
        ("Event", "CoreShowChannel"),
        ("ActionID", "a1"),
        ("Channel", "PJSIP/acme-00000001"),
        ("ChannelState", "6"),
        ("Uniqueid", "1700000000.12"),
        ("Linkedid", "1700000000.12"),
        ("Duration", "00:01:05"),
        ("BridgeId", "b1"),
        ("ChanVariable", "TOLLKEEPER=s1"),
    ]
    last = [
        ("Event", "CoreShowChannelsComplete"),
        ("ActionID", "a1"),
        ("EventList", "Complete"),
        ("ListItems", "1"),
    ]
    answer = m.asterisk_ami.message_bytes([("Response", "Success"), ("ActionID", "a1")])
    listing = m.asterisk_ami.message_bytes(channel) + m.asterisk_ami.message_bytes(last)
    return {
        "login": hello + answer,
        "list": hello + answer + listing,
        "refused": hello
        + m.asterisk_ami.message_bytes([("Response", "Error"), ("ActionID", "a1")]),
        "follows": hello + b"Response: Follows\r\nno header\n--END COMMAND--\r\n\r\n",
    }


# --- VOS3000's web interface ---------------------------------------------------------------------


def vos3000_decode(m: Any, data: bytes) -> Any:
    vos = m.vos3000
    try:
        answer = vos.read_answer(data)
    except vos.VosRefused as refused:
        return str(refused)
    readers = (vos.accounts_of, vos.payments_of, vos.calls_of)
    return each(vos.MalformedVos, *(lambda read=read: read(answer) for read in readers))


def vos3000_seeds(m: Any) -> dict[str, bytes]:
    return {
        "accounts": b'{"retCode":0,"infoCustomers":[{"account":"1","money":1.5,"limitMoney":0}]}',
        "payments": b'{"retCode":0,"infoPayHistorys":[{"account":"1","fee":-2,"memo":"m",'
        b'"customerMoney":1e2}]}',
        "calls": b'{"retCode":0,"infoCurrentCalls":[{"callId":7,"callerE164":"1","calleeE164":"2",'
        b'"keepTime":-1}]}',
        "refused": b'{"retCode":-10007,"exception":"Not found, operation failed."}',
    }
