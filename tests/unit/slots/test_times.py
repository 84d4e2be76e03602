"""Which times hold for a slot."""

from typing import Any

import pytest

from hal0.db import Database
from hal0.settings import Settings
from hal0.slots.times import times_of
from tests.rows import make_slot

SETTINGS = {
    "idle_after_s": 11.0,
    "unload_after_s": 12.0,
    "load_timeout_s": 13.0,
    "load_timeout_s_per_gb": 14.0,
}


@pytest.mark.parametrize("own", SETTINGS)
def test_what_a_slot_says_itself_holds_also_when_it_is_0_and_the_settings_for_the_rest(
    db: Database, settings: Settings, own: str
) -> None:
    values: dict[str, Any] = {own: 0.0}
    slot = make_slot(db, **values)
    times = times_of(slot, settings.model_copy(update=SETTINGS))
    expected = {**SETTINGS, own: 0.0}
    assert {name: getattr(times, name) for name in expected} == expected


def test_a_load_may_take_its_base_and_so_much_for_each_gb(db: Database, settings: Settings) -> None:
    times = times_of(make_slot(db, load_timeout_s=60.0, load_timeout_s_per_gb=2.0), settings)
    assert times.load_limit_s(0) == 60.0
    assert times.load_limit_s(35_000_000_000) == 130.0
