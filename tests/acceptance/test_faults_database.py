"""A database that another program, or a process of hal0 that lies stopped, does not let go of.

Up to the busy timeout nothing is noticed; beyond it changes are refused, and what is under way is
kept. Nobody is declared dead for it, except who lies stopped in the middle of a transaction.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.acceptance.house import House
from tests.acceptance.seen import (
    IS_FULL_LENGTH,
    add_slots,
    check_nobody_died,
    jobs_of,
    loads_sent,
    locked,
    outcomes,
)
from tests.fakes.lemond import Lemond
from tests.fakes.source import Manner, Source
from tests.faulty import Faulty
from tests.tiny_gguf import tiny_gguf_bytes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600 if IS_FULL_LENGTH else 120)]

DEFAULTS = {"HAL0_BUSY_TIMEOUT_S": "5", "HAL0_BEAT_S": "10", "HAL0_SILENCE_S": "30"}
TENTH = {"HAL0_BUSY_TIMEOUT_S": "0.5", "HAL0_BEAT_S": "1", "HAL0_SILENCE_S": "3"}
LOCKED_S = 60 if IS_FULL_LENGTH else 6
"""Twice the silence limit, and twelve times the busy timeout."""


@pytest.fixture
def in_proportion(tmp_path: Path, lemond: Lemond) -> Iterator[House]:
    """A house whose times have the proportions of the defaults."""
    times = DEFAULTS if IS_FULL_LENGTH else TENTH
    with House(tmp_path, lemond.url, HAL0_LOAD_TIMEOUT_S="120", **times) as house:
        yield house


def test_a_database_that_is_locked_for_a_second_is_waited_for(house: House) -> None:
    house.start_api()
    house.start_worker()
    add_slots(house, "one")
    with ThreadPoolExecutor(1) as other:
        with locked(house):
            asked = other.submit(house.load, "one")
            time.sleep(1)  # the lock itself is tested
            assert not asked.done()
        house.wait_until("ready", "one")
    assert asked.result()["deduplicated"] is False
    assert "another process holds" not in house.log.read_text()
    check_nobody_died(house, 2)


def test_a_database_that_is_locked_for_a_minute_costs_nothing_but_the_minute(
    in_proportion: House, lemond: Lemond
) -> None:
    """A load and a download end meanwhile, another load waits; there are two workers to judge."""
    house, go_on = in_proportion, threading.Event()
    with Source() as source:
        source.put("three.gguf", tiny_gguf_bytes(seed=3))
        source.script("three.gguf", Manner(hold=go_on, method="GET"))
        house.start_api()
        house.start_worker()
        house.start_worker()
        add_slots(house, "one", "two")
        body = {"name": "m-three", "source": source.url("three.gguf")}
        house.post("/api/v1/models", body, status=201)
        house.add_slot("three", "m-three")
        lemond.script(models={"m-one": {"load": "hang"}})
        load = house.load("one")["jobs"][-1]
        house.wait_until("warming", "one")
        waits = house.load("two")["jobs"][-1]
        pull = house.post("/api/v1/slots/three/pull")["jobs"][0]
        house.wait_for((house.models / "m-three.gguf.part").exists)
        house.wait_for(lambda: jobs_of(house, "queued") == [waits])
        house.wait_for(lambda: jobs_of(house, "running") == [load, pull])
        with locked(house):
            lemond.script(models={"m-one": {"load": "ok"}})
            go_on.set()
            check_changes_are_refused(house)
            assert jobs_of(house, "running") == [load, pull]
        house.wait_for(lambda: house.client.get("/readyz").status_code == 200)
        for slot, state in (("one", "ready"), ("two", "ready"), ("three", "offline")):
            house.wait_until(state, slot)
        house.wait_settled()
        assert [outcomes(house, job) for job in (load, pull)] == [["done"], ["done"]]
        assert loads_sent(lemond) == ["m-one", "m-two"]
        assert len([one for one in source.requests if one["method"] == "GET"]) == 1
        assert jobs_of(house, "failed", "cancelled") == []
        check_nobody_died(house, 3)
        house.check_audit()


def check_changes_are_refused(house: House) -> None:
    until = time.monotonic() + LOCKED_S
    while time.monotonic() < until:
        refused = house.client.post("/api/v1/slots/one/unload", json={})
        assert (refused.status_code, refused.json()["code"]) == (503, "db.locked")
        assert int(refused.headers["retry-after"]) >= 1
        ready = house.client.get("/readyz")
        assert (ready.status_code, ready.json()["code"]) == (503, "db.locked")
        assert house.is_up()
        assert house.slot("one")["state"] == "warming"


def test_a_worker_that_cannot_begin_is_started_again_until_it_can(
    tmp_path: Path, lemond: Lemond
) -> None:
    """It says why and ends; `hal0 up` keeps it, and so does systemd."""
    with House(tmp_path, lemond.url, HAL0_BUSY_TIMEOUT_S="0.2") as house:
        up = house.start("-m", "hal0", "up")
        house.wait_for(house.is_up)
        house.wait_for(lambda: house.get("/readyz")["workers"])
        add_slots(house, "one")
        (worker,) = house.get("/readyz")["workers"]
        with locked(house):
            os.kill(worker["pid"], signal.SIGKILL)
            house.wait_for(lambda: "hal0 worker: db.locked" in house.log.read_text())
        house.load("one")
        house.wait_until("ready", "one")
        assert house.stop(up) == 0


def test_an_api_that_lies_stopped_in_a_transaction_is_killed_and_work_goes_on(
    tmp_path: Path, lemond: Lemond, faulty: Faulty
) -> None:
    """It holds the lock that everybody waits for, and owns no job that could fall silent."""
    with House(tmp_path, lemond.url, HAL0_BUSY_TIMEOUT_S="0.5") as house:
        plain = dict(house.env)
        house.env |= faulty.env
        api = house.start_api()
        house.env = plain
        worker = house.start_worker()
        add_slots(house, "one", "two")
        lemond.script(models={"m-one": {"load": "hang"}})
        load = house.load("one")["jobs"][-1]
        house.wait_until("warming", "one")
        faulty.order("sync", act=signal.SIGSTOP)
        key = {"Idempotency-Key": "key-1"}
        with pytest.raises(httpx.TransportError):
            house.client.post("/api/v1/slots/two/load", json={}, headers=key)
        assert api.wait(0.1) == -signal.SIGKILL
        lemond.script(models={"m-one": {"load": "ok"}})
        house.start_api()
        for _ in range(2):
            asked = house.client.post("/api/v1/slots/two/load", json={}, headers=key)
            assert asked.status_code == 202
        for name in ("one", "two"):
            house.wait_until("ready", name)
        house.wait_settled()
        assert worker.poll() is None
        assert outcomes(house, load) == ["done"]
        assert loads_sent(lemond) == ["m-one", "m-two"]
        assert house.sql("SELECT kind FROM owners WHERE ended_at IS NOT NULL") == [("api",)]
        house.check_audit()
