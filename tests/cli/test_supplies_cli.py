"""The commands of suppliers, orders and eSIMs, with a supplier that only pretends."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.services.supplying import ITEMS, sell
from tests.support import Row, World, tariff


@pytest.fixture
def world(tollkeeper: Command, on_database: str, tmp_path: Path) -> World:
    """acme, a price for eSIMs, and a supplier that pretends."""
    made = World(on_database)
    sell(made, "esim", Row("3005", "5 GB", tariff("9")))
    made.customer("acme")
    settings = tmp_path / "air.json"
    settings.write_text(json.dumps({"items": ITEMS}))
    (tmp_path / "key").write_text("hush-hush\n")
    added = tollkeeper(
        "suppliers", "add", "air", "--kind", "esim", "--base-url", "null:",
        "--settings", str(settings), "--secret-file", str(tmp_path / "key"),
    )  # fmt: skip
    assert (added.code, added.out, added.err) == (0, "supplier air added\n", "")
    return made


def test_an_esim_is_ordered_activated_and_given_back(tollkeeper: Command, world: World) -> None:
    with world:
        assert "eu-5gb" in tollkeeper("esims", "catalogue").out
        ordered = tollkeeper("esims", "order", "eu-5gb", "--party", "acme", "--request-id", "e1")
        assert (ordered.code, ordered.err) == (0, ""), ordered
        assert ": done\n" in ordered.out
        (iccid,) = re.findall(r"eSIM ([0-9]{18,20})", ordered.out)
        assert iccid in tollkeeper("esims", "list", "--party", "acme").out
        active = tollkeeper("esims", "activate", iccid)
        assert "5000000000" in active.out
        assert "released" in tollkeeper("esims", "release", iccid).out
        listed = tollkeeper("purchases", "list", "--status", "done")
        assert "1 orders" in listed.out
        (order_id,) = re.findall(r"order ([0-9a-f-]{36})", ordered.out)
        shown = tollkeeper("purchases", "show", order_id)
        assert "9.00 USD" in shown.out
        resolved = tollkeeper("purchases", "resolve", order_id, "refused")
        assert (resolved.code, resolved.err.count("\n")) == (1, 1)
        assert 'the order is "done"' in resolved.err


def test_a_supplier_is_listed_tried_changed_and_deleted(
    tollkeeper: Command, world: World, tmp_path: Path
) -> None:
    with world:
        tried = tollkeeper("suppliers", "test", "air", "lookup", "--number", "4930123")
        assert (tried.code, tried.err) == (0, "")
        assert "lookup: done" in tried.out
        listed = tollkeeper("suppliers", "list").out + tollkeeper("suppliers", "show", "air").out
        assert "eu-5gb" in listed
        assert "hush-hush" not in listed
        (tmp_path / "new.toml").write_text('[items.mini]\nrate_key = "3005"\n')
        changed = tollkeeper(
            "suppliers", "set", "air", "--settings", str(tmp_path / "new.toml"), "--no-enabled"
        )
        assert (changed.code, changed.err) == (0, "")
        assert "disabled" in tollkeeper("suppliers", "list").out
        assert tollkeeper("suppliers", "remove", "air").code == 0
        assert "0 suppliers" in tollkeeper("suppliers", "list").out


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x = [", "this is neither TOML nor"),
        ("surprise = 1", "settings: object contains unknown field `surprise`"),
        ("[operations.order]\npath = 'x'", "settings.operations.order.path: begin it with a slash"),
    ],
)
def test_a_mistake_in_the_settings_is_one_sentence(
    tollkeeper: Command, world: World, tmp_path: Path, text: str, sentence: str
) -> None:
    with world:
        (tmp_path / "bad.toml").write_text(text)
        ran = tollkeeper("suppliers", "set", "air", "--settings", str(tmp_path / "bad.toml"))
        assert (ran.code, ran.err.count("\n")) == (1, 1), ran
        assert sentence in ran.err
