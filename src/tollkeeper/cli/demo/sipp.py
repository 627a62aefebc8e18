"""SIPp as telephones: callers and an answering gateway, with what each call lived through.

A scenario is put together from the pieces here; each call's line (who, to whom, how long) comes from a table, and
what happens to it is written into a log that :func:`calls_of` reads back.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tollkeeper.cli.demo.kamailio import free_port, program
from tollkeeper.errors import SetupError

GIVE_UP_MS = 20_000
"""Longest that a caller waits for the end of its call."""
REFUSALS = (402, 403, 404, 408, 480, 486, 487, 488, 500, 503)

_HEAD = '<?xml version="1.0" encoding="UTF-8" ?>\n<scenario name="{name}">\n'
_SDP = """Content-Type: application/sdp
Content-Length: [len]

v=0
o=- 1 {version} IN IP4 [local_ip]
s=-
c=IN IP4 [local_ip]
t=0 0
m=audio [media_port] RTP/AVP 8
a=rtpmap:8 PCMA/8000
"""
_INVITE = (
    """<send retrans="500" start_rtd="true"><![CDATA[
INVITE sip:[field1]@[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=z9hG4bK[pid]x[call_number]
From: <sip:[field0]@[local_ip]:[local_port]>;tag=c[pid]x[call_number]
To: <sip:[field1]@[remote_ip]:[remote_port]>
Call-ID: [call_id]
CSeq: 1 INVITE
Contact: <sip:[field0]@[local_ip]:[local_port]>
Max-Forwards: 70
"""
    + _SDP.format(version=1)
    + "]]></send>\n"
)
_ACK_REFUSAL = """<send next="over"><![CDATA[
ACK sip:[field1]@[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=z9hG4bK[pid]x[call_number]
[last_From:]
[last_To:]
Call-ID: [call_id]
CSeq: 1 ACK
Max-Forwards: 70
Content-Length: 0

]]></send>
"""
_REQUEST = """<send{retrans}><![CDATA[
{method} [next_url] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
[last_From:]
[last_To:]
[routes]
Call-ID: [call_id]
CSeq: {cseq} {method}
Contact: <sip:[field0]@[local_ip]:[local_port]>
Max-Forwards: 70
{body}]]></send>
"""
_CANCEL = """<send retrans="500"><![CDATA[
CANCEL sip:[field1]@[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=z9hG4bK[pid]x[call_number]
From: <sip:[field0]@[local_ip]:[local_port]>;tag=c[pid]x[call_number]
To: <sip:[field1]@[remote_ip]:[remote_port]>
Call-ID: [call_id]
CSeq: 1 CANCEL
Max-Forwards: 70
Content-Length: 0

]]></send>
<recv response="200" optional="true"/>
"""
_NO_BODY = "Content-Length: 0\n\n"
_OK = """<send{next}><![CDATA[
SIP/2.0 {status}
[last_Via:]
[last_From:]
[last_To:]{tag}
[last_Call-ID:]
[last_CSeq:]
{routes}Contact: <sip:[local_ip]:[local_port]>
{body}]]></send>
"""
_RINGING = """<recv request="CANCEL" timeout="{ring_ms}" ontimeout="answer"/>
"""
_BYE = """<label id="hangup"/>
<send retrans="500"><![CDATA[
BYE [next_url] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
From: <sip:[field0]@[local_ip]:[local_port]>;tag=c[pid]x[call_number]
To: <sip:[field1]@[remote_ip]:[remote_port]>[peer_tag_param]
[routes]
Call-ID: [call_id]
CSeq: 99 BYE
Max-Forwards: 70
Content-Length: 0

]]></send>
<recv response="200" next="over">{said}</recv>
"""
_NUDGE = """INFO sip:caller@127.0.0.1 SIP/2.0
Via: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bKnudge
From: <sip:user@127.0.0.1>
To: <sip:caller@127.0.0.1>
Call-ID: {call_id}
CSeq: 1 INFO
Content-Length: 0

"""
_WAIT = """<label id="wait"/>
{nudged}<recv request="OPTIONS" optional="true" next="alive"/>
<recv request="INVITE" optional="true" next="again"/>
<recv request="BYE" timeout="{give_up}" ontimeout="stuck">{heard}</recv>
{answer}<nop next="over"/>
<label id="alive"/>
{alive}<label id="again"/>
{again}<recv request="ACK" next="wait"/>
{bye}<label id="stuck"/>
{stuck}<label id="over"/>
</scenario>
"""


def _say(word: str) -> str:
    return f'<action><log message="[call_id] [field0] [field1] {word} [clock_tick]"/></action>'


def _ok(
    *,
    after: str = "",
    status: str = "200 OK",
    tag: str = "",
    routes: str = "",
    body: str = _NO_BODY,
) -> str:
    next_ = f' next="{after}"' if after else ""
    return _OK.format(next=next_, status=status, tag=tag, routes=routes, body=body)


def _answers(refused: str = "") -> str:
    """What may come as an answer to an INVITE; a refusal is acknowledged and ends the scenario."""
    provisional = '<recv response="100" optional="true"/>\n'
    provisional += "".join(
        f'<recv response="{code}" optional="true" rtd="true"/>\n' for code in (180, 183)
    )
    refusals = "".join(
        f'<recv response="{code}" optional="true" next="no">{_say(f"refused-{code}")}</recv>\n'
        for code in REFUSALS
    )
    return provisional + refusals + refused


def _caller(name: str, course: str) -> str:
    """A caller: INVITE, answer, ``course``, and an acknowledgement of a refusal at any time."""
    return (
        _HEAD.format(name=name)
        + f"<nop>{_say('begun')}</nop>\n"
        + _INVITE
        + course
        + '<nop next="over"/>\n<label id="no"/>\n'
        + _ACK_REFUSAL
    )


def _answered() -> str:
    ack = _REQUEST.format(retrans="", method="ACK", cseq=1, body=_NO_BODY)
    return f'{_answers()}<recv response="200" rrs="true">{_say("answered")}</recv>\n{ack}'


def _pause(milliseconds: int) -> str:
    return f'<pause milliseconds="{milliseconds}"/>\n'


_CALLER_END = '<label id="over"/>\n</scenario>\n'


def talking() -> str:
    """Scenario: the caller hangs up after the milliseconds of its third column."""
    bye = _REQUEST.format(retrans=' retrans="500"', method="BYE", cseq=2, body=_NO_BODY)
    wait = (
        '<nop><action><assignstr assign_to="text" value="[field2]"/>'
        '<todouble assign_to="talk" variable="text"/></action></nop>\n<pause variable="talk"/>\n'
    )
    course = f'{_answered()}{wait}{bye}<recv response="200">{_say("ended")}</recv>\n'
    return _caller("talking", course) + _CALLER_END


def holding(*, answer_bye_after_ms: int = 20, reinvites: Sequence[int] = ()) -> str:
    """Scenario: the caller stays until it is cut off, with a re-INVITE after each of these milliseconds.

    It hangs up when it is nudged: :meth:`Sipp.hang_up`.
    """
    course = _answered()
    for number, after in enumerate(reinvites, 2):
        again = _REQUEST.format(
            retrans=' retrans="500"', method="INVITE", cseq=number, body=_SDP.format(version=number)
        )
        ack = _REQUEST.format(retrans="", method="ACK", cseq=number, body=_NO_BODY)
        course += f'{_pause(after)}{again}<recv response="100" optional="true"/>\n<recv response="200"/>\n{ack}'
    return _caller("holding", course + '<nop next="wait"/>\n').replace(
        '<nop next="over"/>\n<label id="no"/>', '<label id="no"/>'
    ) + _waiting(answer_bye_after_ms, caller=True)


def _waiting(answer_bye_after_ms: int, *, caller: bool = False) -> str:
    delay = _pause(answer_bye_after_ms) if answer_bye_after_ms else ""
    return _WAIT.format(
        nudged='<recv request="INFO" optional="true" next="hangup"/>\n' if caller else "",
        bye=_BYE.format(said=_say("ended")) if caller else "",
        give_up=GIVE_UP_MS,
        heard=_say("cut"),
        answer=delay + _ok(),
        alive=_ok(after="wait"),
        again=_ok(body=_SDP.format(version=9)),
        stuck=f"<nop>{_say('stuck')}</nop>\n",
    )


def cancelling(after_ms: int) -> str:
    """Scenario: the caller gives up before an answer."""
    ended = _answers()
    ringing = f'<recv response="180" timeout="{after_ms}" ontimeout="cancel"/>\n'
    course = (
        f'<recv response="100"/>\n{ringing}{_pause(after_ms)}<label id="cancel"/>\n{_CANCEL}'
        f'{ended}<recv response="200"/>\n'
    )
    return _caller("cancelling", course) + _CALLER_END


def answering(*, ring_ms: int = 50, answer_bye_after_ms: int = 20) -> str:
    """Scenario of the gateway: rings, answers, and stays until the call ends."""
    tag = ";tag=g[pid]x[call_number]"
    routes = "[last_Record-Route:]\n"
    begin = (
        _HEAD.format(name="answering")
        + '<recv request="INVITE" rrs="true"/>\n'
        + _ok(status="180 Ringing", tag=tag, routes=routes)
        + _RINGING.format(ring_ms=ring_ms)
        + _ok()
        + _ok(status="487 Request Terminated", tag=tag).replace("[last_CSeq:]", "CSeq: 1 INVITE")
        + '<recv request="ACK" next="over"/>\n<label id="answer"/>\n'
        + _ok(tag=tag, routes=routes, body=_SDP.format(version=1)).replace(
            "<send>", '<send retrans="500">'
        )
        + '<recv request="ACK"/>\n'
    )
    said = _waiting(answer_bye_after_ms).replace("[field0] [field1]", "- -")
    return begin + said


@dataclass(slots=True)
class SippCall:
    """What one caller saw; moments are milliseconds of SIPp's own clock, -1 where there was none."""

    call_id: str
    caller: str
    called: str
    moments: dict[str, int] = field(default_factory=dict)

    @property
    def refused(self) -> int:
        """The SIP code of the refusal; 0 if there was none."""
        return next((int(word[8:]) for word in self.moments if word.startswith("refused-")), 0)

    @property
    def seconds(self) -> float:
        """From answer to end, whoever ended it; 0 without either."""
        end = self.moments.get("cut", self.moments.get("ended"))
        if end is None or "answered" not in self.moments:
            return 0.0
        return (end - self.moments["answered"]) / 1000

    @property
    def waited(self) -> float:
        """Seconds from the INVITE to the answer or the refusal."""
        ends = [
            at
            for word, at in self.moments.items()
            if word == "answered" or word.startswith("refused-")
        ]
        return (ends[0] - self.moments["begun"]) / 1000 if ends else 0.0


class Sipp:
    """One SIPp process with a scenario."""

    def __init__(
        self,
        folder: Path,
        name: str,
        scenario: str,
        *,
        port: int = 0,
        target: int = 0,
        lines: Sequence[Sequence[object]] = (),
        rate: int = 50,
        calls: int = 0,
        seconds: int = 30,
        options: Sequence[str] = (),
    ) -> None:
        """Prepare it: a gateway where there is no ``target`` port, else a caller of one call a line."""
        self.folder = folder / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = port or free_port()
        self.log = self.folder / "calls.log"
        self.log.unlink(missing_ok=True)
        (self.folder / "scenario.xml").write_text(scenario)
        self._command = [
            program("sipp") or "sipp", "-sf", "scenario.xml", "-i", "127.0.0.1", "-p", str(self.port),
            "-mi", "127.0.0.1", "-nostdin", "-trace_logs", "-log_file", "calls.log", "-trace_err",
            "-error_file", "errors.log", "-timeout", f"{seconds}s", *options,
        ]  # fmt: skip
        if target:
            table = "SEQUENTIAL\n" + "".join(";".join(map(str, line)) + "\n" for line in lines)
            (self.folder / "calls.csv").write_text(table)
            self._command += [
                f"127.0.0.1:{target}",
                "-inf",
                "calls.csv",
                "-m",
                str(calls or len(lines)),
            ]
            self._command += ["-r", str(rate), "-l", "10000"]
        self._target = target
        self._process: subprocess.Popen[bytes] | None = None
        self._began = 0.0

    def start(self) -> None:
        """Start it; a gateway listens when this returns."""
        self._began = time.monotonic()
        with (self.folder / "out.log").open("wb") as out:
            self._process = subprocess.Popen(  # noqa: S603 - our own arguments
                self._command, cwd=self.folder, stdout=out, stderr=out, start_new_session=True
            )
        deadline = time.monotonic() + 10
        while not self._target and not _bound(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise SetupError(
                    f"SIPp did not start: {(self.folder / 'out.log').read_text()[-500:]}"
                )
            time.sleep(0.01)

    @property
    def running(self) -> bool:
        """Whether it is still at work."""
        return self._process is not None and self._process.poll() is None

    def wait(self, seconds: float = 40.0) -> list[SippCall]:
        """Wait until all of its calls are over; what became of them."""
        assert self._process is not None
        try:
            self._process.wait(seconds)
        finally:
            self.stop()
        return self.calls()

    def calls(self) -> list[SippCall]:
        """What its callers saw until now."""
        return calls_of(self.log.read_text(errors="replace")) if self.log.exists() else []

    def errors(self) -> str:
        """What SIPp found unexpected."""
        path = self.folder / "errors.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def setup_ms(self) -> list[float]:
        """Milliseconds from INVITE to the first ringing, of each call; needs the option ``-trace_rtt``."""
        found: list[float] = []
        for path in self.folder.glob("*_rtt.csv"):
            for line in path.read_text().splitlines()[1:]:
                parts = line.split(";")
                if len(parts) >= 2:
                    found.append(float(parts[1]))
        return found

    def talked(self) -> float:
        """Seconds since its first call was answered."""
        answered = [call.moments["answered"] for call in self.calls() if "answered" in call.moments]
        return time.monotonic() - self._began - answered[0] / 1000 if answered else 0.0

    def hang_up(self) -> None:
        """Have the callers hang up who wait for the end of their calls."""
        with socket.socket(type=socket.SOCK_DGRAM) as sender:
            for call in self.calls():
                nudge = _NUDGE.format(call_id=call.call_id).replace("\n", "\r\n")
                sender.sendto(nudge.encode(), ("127.0.0.1", self.port))

    def stop(self) -> None:
        """End it at once."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def calls_of(log: str) -> list[SippCall]:
    """Read a log of the scenarios here."""
    found: dict[str, SippCall] = {}
    for line in log.splitlines():
        parts = line.split()
        if len(parts) == 5 and parts[4].isdigit():
            call = found.setdefault(parts[0], SippCall(parts[0], parts[1], parts[2]))
            call.moments.setdefault(parts[3], int(parts[4]))
    return list(found.values())


@contextmanager
def gateway(
    folder: Path, *, ring_ms: int = 50, answer_bye_after_ms: int = 20, seconds: int = 120
) -> Iterator[Sipp]:
    """A gateway that answers every call while the block lasts."""
    scenario = answering(ring_ms=ring_ms, answer_bye_after_ms=answer_bye_after_ms)
    sipp = Sipp(folder, "gateway", scenario, seconds=seconds)
    sipp.start()
    try:
        yield sipp
    finally:
        sipp.stop()


def _bound(port: int) -> bool:
    """Whether a UDP port of loopback is taken."""
    wanted = f"0100007F:{port:04X}"
    return any(wanted in line for line in Path("/proc/net/udp").read_text().splitlines())
