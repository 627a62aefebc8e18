"""Settings come from the command line, the environment, a TOML file, and then the defaults."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from tollkeeper.core.records import Policy, SilentTail
from tollkeeper.errors import SetupError
from tollkeeper.settings import load_settings
from tollkeeper.wiring import policy_of


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_defaults_serve_this_machine_only() -> None:
    settings = load_settings()
    assert (settings.host, settings.port, settings.workers) == ("127.0.0.1", 8080, 1)
    assert settings.database_url is None
    assert settings.data_dir.is_absolute()


def test_the_command_line_beats_the_environment_which_beats_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tollkeeper.toml").write_text("port = 1001\nworkers = 2\nlane_queue_max = 7\n")
    monkeypatch.setenv("TOLLKEEPER_PORT", "1002")
    monkeypatch.setenv("TOLLKEEPER_WORKERS", "3")
    settings = load_settings(port=1003)
    assert (settings.port, settings.workers, settings.lane_queue_max) == (1003, 3, 7)


def test_the_file_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other.toml").write_text("port = 1004\n")
    monkeypatch.setenv("TOLLKEEPER_CONFIG", str(tmp_path / "other.toml"))
    assert load_settings().port == 1004
    monkeypatch.setenv("TOLLKEEPER_CONFIG", str(tmp_path / "missing.toml"))
    with pytest.raises(SetupError, match=r"missing\.toml, which is not a file"):
        load_settings()


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_settings().port = 1  # type: ignore[misc]


def test_a_misspelt_variable_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLKEEPER_PROT", "80")
    with pytest.raises(SetupError, match="No such setting: TOLLKEEPER_PROT"):
        load_settings()


def test_a_misspelt_line_of_the_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "tollkeeper.toml").write_text("prot = 80\n")
    with pytest.raises(SetupError, match="prot: Extra inputs"):
        load_settings()


def test_a_file_that_is_no_toml_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "tollkeeper.toml").write_text("port: 80\n")
    with pytest.raises(SetupError, match=r"tollkeeper\.toml is not valid TOML"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value"), [("PORT", "70000"), ("WORKERS", "0"), ("LOG_LEVEL", "loud"), ("PORT", "x")]
)
def test_a_value_out_of_bounds_is_an_error_that_names_the_setting(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"TOLLKEEPER_{name}", value)
    with pytest.raises(SetupError, match=name.lower()):
        load_settings()


def test_the_timers_of_the_credit_control_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Left alone they are those that the core has itself."""
    assert policy_of(load_settings()) == Policy()
    monkeypatch.setenv("TOLLKEEPER_SILENT_TAIL", "grant_end")
    monkeypatch.setenv("TOLLKEEPER_ANSWER_WINDOW_SECONDS", "90")
    monkeypatch.setenv("TOLLKEEPER_GRACE_SECONDS", "0")
    set_ = Policy(answer_window=90, grace=0, silent_tail=SilentTail.GRANT_END)
    assert policy_of(load_settings()) == set_
    monkeypatch.setenv("TOLLKEEPER_SILENT_TAIL", "nothing")
    with pytest.raises(SetupError, match="silent_tail"):
        load_settings()


def test_the_database_password_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLKEEPER_DATABASE_URL", "postgresql://me:hush@host/db")
    settings = load_settings()
    assert "hush" not in repr(settings)
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == "postgresql://me:hush@host/db"
    monkeypatch.setenv("TOLLKEEPER_DATABASE_URL", "mysql://me:hush@host/db")
    with pytest.raises(SetupError) as caught:
        load_settings()
    assert "postgresql://" in str(caught.value)
    assert "hush" not in str(caught.value)
