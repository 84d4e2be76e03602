"""A wall clock that is set, by an hour, forth and back, under real processes.

Whatever is compared or counted down uses the monotonic clock; wall time is for people.
"""

import time
from datetime import datetime

import pytest

from hal0.audit_views import VIEWS
from hal0.clock import utc_now
from tests.acceptance.house import House
from tests.acceptance.seen import add_slots, check_nobody_died, loads_sent
from tests.fakes.lemond import Lemond
from tests.faulty import Faulty

pytestmark = pytest.mark.slow
HOUR_S = 3600


def ahead_s(house: House) -> float:
    """How far the clock of the newest row of the audit is ahead of the true one, in seconds."""
    ((at,),) = house.sql("SELECT at FROM transitions ORDER BY id DESC LIMIT 1")
    return (datetime.fromisoformat(at) - utc_now()).total_seconds()


def load_that_hangs(house: House, lemond: Lemond, limit_s: int) -> int:
    """Have a load of slot two sent, and return its job."""
    changed = house.client.patch("/api/v1/slots/two", json={"load_timeout_s": limit_s})
    assert changed.status_code == 200
    lemond.script(models={"m-two": {"load": "hang"}})
    load = int(house.load("two")["jobs"][-1])
    house.wait_until("warming", "two")
    return load


def check_limit(house: House, lemond: Lemond, faulty: Faulty, by_s: int) -> None:
    """A load has been sent when the clock is set: it ends at its limit, not before."""
    load = load_that_hangs(house, lemond, limit_s=3)
    ((deadline_ms,),) = house.sql("SELECT deadline_ms FROM jobs WHERE id = ?", load)
    faulty.set_clock(by_s)
    house.wait_for(lambda: house.slot("two")["state"] != "warming")
    assert time.monotonic() * 1000 >= deadline_ms
    assert house.slot("two")["error"]["code"] == "preload.load_timeout"
    assert by_s - 60 < ahead_s(house) <= by_s + 60, "the clock of the worker was set"
    lemond.script(models={"m-two": {"load": "ok"}})
    house.wait_settled()


def check_load(house: House, lemond: Lemond, faulty: Faulty) -> None:
    """A load goes well over which the clock is put right."""
    load = load_that_hangs(house, lemond, limit_s=30)
    faulty.set_clock(0)
    lemond.script(models={"m-two": {"load": "ok"}})
    house.wait_until("ready", "two")
    house.wait_settled()
    ((load_s,),) = house.sql("SELECT json_extract(result, '$.load_s') FROM jobs WHERE id = ?", load)
    assert load_s >= 0
    house.post("/api/v1/slots/two/unload")
    house.wait_until("offline", "two")


def check_restart_is_noticed(house: House, lemond: Lemond) -> None:
    """What is done again and again is still done: the engine lost a slot, which comes back."""
    loads = len(loads_sent(lemond))
    lemond.kill()
    lemond.start()
    house.wait_for(lambda: len(loads_sent(lemond)) > loads)
    house.wait_until("idle", "one")


def check_views_tell_no_negative_times(house: House) -> None:
    for view in VIEWS:
        columns = [row[1] for row in house.sql(f"PRAGMA table_info({view})")]
        times = [name for name in columns if name == "seconds" or name.endswith("_s")]
        for name in times:
            assert house.sql(f"SELECT * FROM {view} WHERE {name} < 0") == []


def test_a_clock_that_is_set_by_an_hour_moves_no_deadline_and_kills_nobody(
    house: House, lemond: Lemond, faulty: Faulty
) -> None:
    house.unchecked = "the times of its rows go forth and back"
    house.env |= faulty.env | {"HAL0_SCAN_S": "0.5"}
    house.start_api()
    house.start_worker()
    house.start_worker()
    add_slots(house, "one", "two")
    key = {"Idempotency-Key": "key-1"}
    first = house.client.post("/api/v1/slots/one/load", json={}, headers=key).json()
    house.wait_until("ready", "one")
    for by_s in (HOUR_S, -HOUR_S):
        check_limit(house, lemond, faulty, by_s)
        check_restart_is_noticed(house, lemond)
        check_load(house, lemond, faulty)
        again = house.client.post("/api/v1/slots/one/load", json={}, headers=key)
        assert again.headers["idempotent-replayed"] == "true"
        assert again.json() == first
    check_views_tell_no_negative_times(house)
    check_nobody_died(house, 3)
    house.check_audit()
