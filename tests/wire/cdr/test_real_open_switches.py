"""Files of FreeSWITCH, Asterisk, Kamailio and plain CSV as they came, checked by hand."""

from __future__ import annotations

import io

from tests.wire.cdr.shared import FILES, file, items, needs_files, sure, us, usages
from tollkeeper.core.usage import Half, Item, Refused, Skipped, Usage
from tollkeeper.wire.cdr import asterisk, freeswitch_event, freeswitch_json, kamailio
from tollkeeper.wire.cdr.format import ReadOptions
from tollkeeper.wire.cdr.formats import FORMATS
from tollkeeper.wire.cdr.mapping import load_mapping
from tollkeeper.wire.cdr.rows import read_rows
from tollkeeper.wire.cdr.sniff import sniff

pytestmark = needs_files


def by_mapping(data: bytes, mapping: dict[str, object]) -> list[Item]:
    return list(read_rows(io.BytesIO(data), ReadOptions(mapping=load_mapping(mapping))))


def test_json_cdr_is_read_with_its_microseconds() -> None:
    """The field billusec 67539896 is 67540 ms; the first ringing came 60 ms after the setup."""
    (found,) = items(freeswitch_json.FORMAT, file("freeswitch/json_cdr_full.json"))
    assert found == Usage(
        line=1,
        call_id="3da8bf84-c133-4959-9e24-e72875cb33a1",
        start=us(2018, 1, 11, 10, 25, 44, 534_355),
        answer=us(2018, 1, 11, 10, 25, 47, 954_373),
        end=us(2018, 1, 11, 10, 26, 55, 494_269),
        duration_ms=67_540,
        caller="1001",
        called="1002",
        ip_in="10.10.10.100",
        ip_out="10.10.10.100",
        sip=200,
        q850=16,
        pdd_ms=60,
        mos=450,
    )


def test_hangup_event_is_read_through_its_percent_coding() -> None:
    (found,) = items(freeswitch_event.FORMAT, file("freeswitch/esl_01_hangupEv.txt"))
    assert found == Usage(
        line=1,
        call_id="e3133bf7-dcde-4daf-9663-9a79ffcef5ad",
        start=us(2015, 7, 7, 14, 52, 8, 471_153),
        answer=us(2015, 7, 7, 14, 52, 8, 971_147),
        end=us(2015, 7, 7, 14, 53, 14, 10_851),
        duration_ms=65_040,
        caller="1001",
        called="1003",
        account="1001",
        ip_in="127.0.0.1",
        ip_out="127.0.0.1",
        sip=200,
        q850=16,
        mos=450,
    )


def test_master_csv_in_the_order_of_cdr_custom_is_read() -> None:
    """14 rows, three without an answer. Its unique ids, seconds in UTC, say three hours before."""
    found = usages(asterisk.FORMAT, file("asterisk/Master_lab_pjsip.csv"), timezone="Europe/Moscow")
    assert len(found) == 14
    assert found[0] == Usage(
        line=1,
        call_id="1690325492.2",
        start=us(2023, 7, 25, 22, 51, 32),
        answer=us(2023, 7, 25, 22, 51, 50),
        end=us(2023, 7, 25, 22, 52, 4),
        duration_ms=13_000,
        leg="2",
        caller="client1",
        called="6789",
        trunk_in="client1",
        trunk_out="client2",
        sip=200,
        q850=16,
    )
    missed = [one for one in found if one.answer is None]
    assert [(one.line, one.duration_ms, one.sip, one.q850) for one in missed] == [
        (2, 0, 480, 19),
        (5, 0, 480, 19),
        (10, 0, 480, 19),
    ]
    assert sum(one.duration_ms for one in found) == 78_000


def test_answered_and_ended_transactions_are_calls() -> None:
    """Four calls of 2, 4, 4 and 2 seconds."""
    found = items(kamailio.FORMAT, file("opensips_kamailio/fullSuccessfull.csv"))
    calls, waiting = kamailio.join(one for one in found if isinstance(one, Half))
    assert len(found) == 8
    assert waiting == []
    assert [(one.line, one.duration_ms, one.caller, one.called) for one in calls] == [
        (2, 2_000, "1001", "1002"),
        (4, 4_000, "1002", "1001"),
        (6, 4_000, "1001", "1002"),
        (8, 2_000, "1001", "1002"),
    ]
    assert calls[0] == Usage(
        line=2,
        call_id="dd0c4c617a9919d29a6175cdff223a9e@0:0:0:0:0:0:0:0",
        start=us(2015, 7, 9, 15, 6, 48),
        answer=us(2015, 7, 9, 15, 6, 48),
        end=us(2015, 7, 9, 15, 6, 50),
        duration_ms=2_000,
        caller="1001",
        called="1002",
        account="1001",
        sip=200,
        q850=16,
    )


def test_an_invite_without_time_begins_at_its_ack() -> None:
    """The same four calls, begun by the ACK."""
    found = items(kamailio.FORMAT, file("opensips_kamailio/ackSuccessfull.csv"))
    calls, waiting = kamailio.join(one for one in found if isinstance(one, Half))
    assert waiting == []
    assert [type(one) for one in found] == [Skipped, Half, Half] * 4
    assert [one.duration_ms for one in calls] == [2_000, 4_000, 4_000, 2_000]


def test_refused_invites_are_whole_records() -> None:
    found = items(kamailio.FORMAT, file("opensips_kamailio/fullMissed.csv"))
    assert [
        (one.line, one.sip, one.q850, one.answer) for one in found if isinstance(one, Usage)
    ] == [
        (1, 487, None, None),
        (2, 404, 1, None),
        (3, 486, 17, None),
    ]
    assert found[0].start == us(2015, 7, 9, 15, 10, 43)  # type: ignore[union-attr]


def test_csv_with_a_header_is_read_by_a_mapping() -> None:
    found = by_mapping(
        file("cdr-stats/CDRImport-2015-10-26.csv"),
        {
            "fields": {
                "call_id": "callid",
                "start": {"column": "starting_date", "time": "%Y-%m-%d %H:%M:%S"},
                "duration": "billsec",
                "caller": "caller_id_number",
                "called": {"column": "destination_number", "strip": "+"},
                "account": "accountcode",
                "q850": "hangup_cause_id",
            }
        },
    )
    assert isinstance(found[0], Skipped)
    assert found[1] == Usage(
        line=2,
        call_id="96aa82fe-7bd1-11e5-a230-5c514f6a0f72",
        start=us(2015, 10, 21, 12, 13, 10),
        answer=us(2015, 10, 21, 12, 13, 10),
        duration_ms=50_000,
        caller="904151440",
        called="34798400122",
        account="1000",
        q850=16,
    )
    assert [one.duration_ms for one in found if isinstance(one, Usage)] == [
        50_000, 10_000, 34_000, 11_000, 5_000,
    ]  # fmt: skip


def test_a_negative_duration_is_refused_and_the_other_99_rows_are_read() -> None:
    found = by_mapping(
        file("cdr-stats/import_cdr_100.txt"),
        {
            "header": False,
            "columns": 8,
            "fields": {
                "call_id": "c7",
                "start": {"column": "c8", "time": "epoch"},
                "duration": "c5",
                "caller": "c1",
                "called": "c3",
                "q850": "c6",
            },
        },
    )
    good = [one for one in found if isinstance(one, Usage)]
    (bad,) = [one for one in found if isinstance(one, Refused)]
    assert len(good) == 99
    assert sum(one.duration_ms for one in good) == 13_842_000
    assert (bad.line, bad.field, bad.value) == (37, "duration", "-6")
    assert good[0].called == "650200000"
    assert good[0].start == us(2012, 5, 4, 3, 24, 2)


def test_rows_without_a_header_are_read_by_number() -> None:
    found = by_mapping(
        file("cdr-stats/import_cdr.txt"),
        {
            "header": False,
            "fields": {
                "call_id": 8,
                "start": {"column": 10, "time": "epoch"},
                "answer": {"column": 11, "time": "epoch"},
                "end": {"column": 12, "time": "epoch"},
                "duration": 5,
                "caller": 1,
                "called": {"column": 3, "strip": "0032", "prefix": "32"},
                "ip_in": 9,
                "q850": 6,
            },
        },
    )
    assert found[0] == Usage(
        line=1,
        call_id="3e308846-9036-11e1-964f-000c296bd875",
        start=us(2012, 1, 25, 20, 6, 6),
        answer=us(2012, 1, 25, 20, 6, 6),
        end=us(2012, 1, 25, 20, 6, 6),
        duration_ms=11_000,
        caller="1773500",
        called="32065350450",
        ip_in="192.168.1.21",
        q850=16,
    )
    assert found[2].called == "32135940"  # type: ignore[union-attr]


def test_a_report_without_call_ids_is_read_and_its_cut_row_refused() -> None:
    found = by_mapping(
        file("cdr-stats/import_voipcall_report.txt"),
        {
            "header": False,
            "columns": 7,
            "fields": {
                "call_id": {"columns": [7, 1, 2]},
                "start": {"column": 7, "time": "%Y-%m-%d %H:%M:%S"},
                "duration": 5,
                "caller": 1,
                "called": 2,
                "sip": {
                    "column": 3,
                    "values": {"ANSWER": "200", "BUSY": 486, "NOANSWER": 480, "NOROUTE": 404},
                },
            },
        },
    )
    assert len(found) == 10
    assert isinstance(found[9], Refused)
    assert "cut off" in found[9].reason
    first, second = found[:2]
    assert isinstance(first, Usage)
    assert isinstance(second, Usage)
    assert first.call_id == "2011-04-04 11:12:11-44650355212-32650781232"
    assert (first.caller, first.called, first.duration_ms) == ("44650355212", "32650781232", 12_000)
    assert (first.sip, second.sip) == (200, 486)


def test_every_file_is_recognised_as_what_it_is() -> None:
    """The files of this module by their own format, tables as tables with a whole mapping."""
    expected = {
        "asterisk/Master_lab_pjsip.csv": "asterisk-csv",
        "cdr-stats/CDRImport-2015-10-26.csv": "csv",
        "cdr-stats/import_cdr.txt": "csv",
        "cdr-stats/import_cdr_100.txt": "csv",
        "cdr-stats/import_voipcall_report.txt": "csv",
        "freeswitch/esl_01_hangupEv.txt": "freeswitch-event",
        "freeswitch/json_cdr_full.json": "freeswitch-json",
        "opensips_kamailio/ackSuccessfull.csv": "kamailio-acc",
        "opensips_kamailio/fullMissed.csv": "kamailio-acc",
        "opensips_kamailio/fullSuccessfull.csv": "kamailio-acc",
    }
    for name, code in expected.items():
        guess = sniff(file(name)[:65_536], name, FORMATS)
        assert guess.format == code, name
        assert (guess.mapping is not None) == (code == "csv"), name
        assert guess.rows, name
        assert not any(isinstance(one, Refused) for one in guess.rows), name


def test_no_codec_is_sure_of_the_file_of_another() -> None:
    for path in sorted(FILES.glob("*/*")):
        data = path.read_bytes()
        claims = [form.code for form in FORMATS.values() if sure(form, data) >= 50]
        assert len(claims) <= 1, (path.name, claims)


def test_the_proposed_mapping_takes_the_right_columns() -> None:
    guess = sniff(file("cdr-stats/CDRImport-2015-10-26.csv"), "x.csv", FORMATS)
    assert guess.mapping is not None
    proposed = guess.mapping.to_dict()["fields"]
    assert proposed == {
        "call_id": "callid",
        "start": {"column": "starting_date", "time": "%Y-%m-%d %H:%M:%S"},
        "duration": {"column": "billsec", "unit": "s"},
        "caller": "caller_id_number",
        "called": "destination_number",
        "account": "accountcode",
        "q850": "hangup_cause_id",
    }
    first = guess.rows[0]
    assert isinstance(first, Usage)
    assert first.duration_ms == 50_000
