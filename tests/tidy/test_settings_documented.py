"""Every setting is explained, and the reference page says what the program does."""

from __future__ import annotations

from tests.tidy.sources import ROOT
from tollkeeper.settings import Settings, reference


def test_each_setting_has_a_description_that_is_a_sentence() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


def test_the_reference_page_is_up_to_date() -> None:
    """Mend it with: python -m tollkeeper.settings > docs/reference/settings.md."""
    assert (ROOT / "docs/reference/settings.md").read_text() == reference()
