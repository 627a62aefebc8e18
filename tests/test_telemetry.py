"""Logs are one JSON object a line where a machine reads them, and hold no secrets."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tollkeeper import telemetry


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_events_are_json_with_time_level_and_component(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure_logging("info", "json")
    log = telemetry.logger("lane")
    log.info("batch_applied", size=3)
    log.debug("not shown")
    logging.getLogger("library").warning("from outside")
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert first["event"] == "batch_applied"
    assert (first["level"], first["component"], first["size"]) == ("info", "lane", 3)
    assert first["timestamp"].endswith("Z")
    assert (second["event"], second["level"]) == ("from outside", "warning")


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_a_traceback_shows_no_local_variables(
    log_format: telemetry.LogFormat, capsys: pytest.CaptureFixture[str]
) -> None:
    telemetry.configure_logging("info", log_format)
    api_key = "hu" + "sh"
    try:
        _ = [][len(api_key)]
    except IndexError:
        telemetry.logger("api").exception("broken")
    shown = capsys.readouterr().err
    assert "IndexError" in shown
    assert "hush" not in shown


def test_metrics_are_named_after_the_program_and_their_unit() -> None:
    telemetry.counter("test_things", "Things counted by a test.", ["kind"]).labels("good").inc(2)
    telemetry.histogram("test_seconds", "Durations of a test.").observe(0.004)
    page = telemetry.metrics_page().decode()
    assert 'tollkeeper_test_things_total{kind="good"} 2.0' in page
    assert 'tollkeeper_test_seconds_bucket{le="0.005"} 1.0' in page
    assert 'tollkeeper_test_seconds_bucket{le="0.003"} 0.0' in page


def test_a_process_that_died_has_nothing_waiting_but_its_counts_stay(tmp_path: Path) -> None:
    """With several workers: one is killed and another takes its place; the sums must stay true."""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}

    def process(code: str) -> str:
        program = f"from tollkeeper import telemetry; {code}"
        command = [sys.executable, "-c", program]
        return subprocess.run(command, env=environment, check=True, stdout=-1, text=True).stdout

    tell = "telemetry.LaneMeter().tell({}, batches={}, operations=9, stale=0, shed=0, replays=0)"
    process(f"{tell.format(7, 2)}; telemetry.count_refusal('no_rate')")
    page = process(f"{tell.format(3, 1)}; print(telemetry.metrics_page().decode())")
    assert "tollkeeper_lane_waiting 3.0" in page
    assert "tollkeeper_lane_batches_total 3.0" in page
    assert 'tollkeeper_refusals_total{reason="no_rate"} 1.0' in page
