"""Disks that are full or fail under the database, with real processes.

A change that cannot be written is refused and has changed nothing; what an engine has answered is
kept until it can be written; reading goes on; nobody is declared dead; all of it passes by itself.
"""

import errno
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.house import House
from tests.acceptance.seen import (
    add_slots,
    check_nobody_died,
    jobs_of,
    loads_sent,
    outcomes,
)
from tests.fakes.lemond import Lemond
from tests.fakes.source import Source
from tests.faulty import Faulty
from tests.rows import contents
from tests.small_disk import MIB, filled, small_disk
from tests.tiny_gguf import tiny_gguf_bytes

pytestmark = pytest.mark.slow
LONGER_THAN_SILENCE_S = 4


def post(house: House, path: str, key: str) -> httpx.Response:
    return house.client.post(path, json={}, headers={"Idempotency-Key": key})


def check_only_reads(house: House, status: int, code: str) -> None:
    """The process lives, tells what it knows, and says that and why it takes no change."""
    ready = house.client.get("/readyz")
    assert (ready.status_code, ready.json()["code"]) == (status, code)
    assert house.is_up()
    assert house.get("/api/v1/slots")["items"]


def is_ready(house: House) -> bool:
    return house.client.get("/readyz").status_code == 200


@pytest.fixture
def cramped(tmp_path: Path) -> Iterator[tuple[House, Lemond]]:
    """A home on a disk of its own; the models are elsewhere."""
    models = tmp_path / "models"
    models.mkdir()
    with (
        small_disk(tmp_path / "home", 6 * MIB),
        Lemond(models, call_log=tmp_path / "calls.ndjson") as lemond,
        House(tmp_path, lemond.url, HAL0_MODELS_DIR=str(models)) as house,
    ):
        yield house, lemond


def test_a_full_disk_refuses_changes_keeps_results_and_passes_by_itself(
    cramped: tuple[House, Lemond],
) -> None:
    house, lemond = cramped
    house.start_api()
    house.start_worker()
    house.start_worker()
    add_slots(house, "one", "two")
    lemond.script(models={"m-one": {"load": "hang"}})
    jobs = house.load("one")["jobs"]
    house.wait_until("warming", "one")
    waits = house.load("two")["jobs"][-1]
    house.wait_for(lambda: jobs_of(house, "running", "queued") == [jobs[-1], waits])
    with filled(house.home):
        answer = post(house, "/api/v1/slots/one/unload", "key-1")
        assert (answer.status_code, answer.json()["code"]) == (507, "db.full")
        assert answer.json()["detail"].endswith("; make room on its disk")
        before = contents(house.home / "hal0.db")
        lemond.script(models={"m-one": {"load": "ok"}})
        house.wait_for(lambda: "m-one" in lemond.state()["loaded"])
        house.wait_for(lambda: "not written yet" in house.log.read_text())
        until = time.monotonic() + LONGER_THAN_SILENCE_S
        while time.monotonic() < until:
            check_only_reads(house, 507, "db.full")
            assert post(house, "/api/v1/slots/one/unload", "key-1").status_code == 507
        assert contents(house.home / "hal0.db") == before
        assert house.slot("one")["state"] == "warming"
    house.wait_for(lambda: is_ready(house))
    house.wait_until("ready", "one")
    house.wait_until("ready", "two")
    house.wait_settled()
    assert outcomes(house, jobs[-1]) == ["done"]
    assert loads_sent(lemond) == ["m-one", "m-two"]
    assert jobs_of(house, "failed", "cancelled") == []
    check_nobody_died(house, 3)
    again = post(house, "/api/v1/slots/one/unload", "key-1")
    assert again.status_code == 202
    assert "idempotent-replayed" not in again.headers, "a refusal uses up no key"
    house.wait_until("offline", "one")
    house.check_audit()


def test_an_api_that_starts_on_a_full_disk_tells_what_it_can_read(
    cramped: tuple[House, Lemond],
) -> None:
    house, _ = cramped
    first = house.start_api()
    add_slots(house, "one")
    first.kill()
    first.wait()
    with filled(house.home):
        house.start_api()
        check_only_reads(house, 507, "db.full")
    house.wait_for(lambda: is_ready(house))


def test_who_cannot_start_for_want_of_room_says_so_and_can_when_there_is_some(
    cramped: tuple[House, Lemond],
) -> None:
    """Who came last took SQLite's own files along, and new ones cannot be made."""
    house, _ = cramped
    first = house.start_api()
    add_slots(house, "one")
    house.stop(first)
    assert not (house.home / "hal0.db-wal").exists()
    with filled(house.home):
        both = [house.start("-m", "workers"), house.start("-m", "hal0", "api")]
        assert [process.wait(30) for process in both] == [1, 1]
    log = house.log.read_text()
    assert f"hal0 worker: db.full: no room for {house.home}/hal0.db" in log
    assert "; make room on its disk [db.full]" in log
    house.start_api()


def test_a_failed_sync_at_any_place_of_a_load_is_tried_again_and_sends_nothing_twice(
    house: House, lemond: Lemond, faulty: Faulty
) -> None:
    """One sync of the log fails, the first one, the second one, until a load has no more."""
    house.start_api()
    add_slots(house, "one")
    house.env |= faulty.env
    house.start_worker()
    nth = 0
    while len(faulty.hits()) == nth:
        nth += 1
        faulty.order("sync", nth=nth)
        house.load("one")
        house.wait_until("ready", "one")
        house.post("/api/v1/slots/one/unload")
        house.wait_until("offline", "one")
        house.wait_settled()
        assert loads_sent(lemond) == ["m-one"] * nth
        assert len(lemond.calls("/v1/unload")) == nth
    assert nth > 6, "each durable commit of a load and an unload is one"
    moves = ["starting", "warming", "ready", "unloading", "offline"]
    assert house.path_of("one") == ["offline", *moves * nth]
    assert jobs_of(house, "failed", "cancelled") == []
    check_nobody_died(house, 2)
    with closing(sqlite3.connect(house.home / "hal0.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_thread_whose_result_cannot_be_written_keeps_it_and_takes_nothing_else(
    tmp_path: Path, lemond: Lemond, faulty: Faulty
) -> None:
    """Claims and beats are soft and go on; only what must be synced fails."""
    with House(tmp_path, lemond.url, HAL0_WORKER_THREADS="2") as house:
        house.start_api()
        add_slots(house, "one", "two", "three")
        house.env |= faulty.env
        house.start_worker()
        house.load("three")
        house.wait_until("ready", "three")
        lemond.script(models={"m-one": {"load": "hang"}})
        load = house.load("one")["jobs"][-1]
        house.wait_until("warming", "one")
        faulty.order("sync", times=0)
        lemond.script(models={"m-one": {"load": "ok"}})
        house.wait_for(faulty.hits)
        pull = house.post("/api/v1/slots/two/pull")["jobs"][0]
        house.wait_for(lambda: jobs_of(house, "running") == [load, pull])
        unload = house.post("/api/v1/slots/three/unload")["jobs"][0]
        until = time.monotonic() + LONGER_THAN_SILENCE_S
        while time.monotonic() < until:
            assert (jobs_of(house, "running"), jobs_of(house, "queued")) == ([load, pull], [unload])
        faulty.heal()
        house.wait_until("ready", "one")
        house.wait_until("offline", "three")
        house.wait_settled()
        ends = [outcomes(house, job) for job in (load, pull, unload)]
        assert ends == [["done"]] * 3
        assert loads_sent(lemond) == ["m-three", "m-one"]
        check_nobody_died(house, 2)
        house.check_audit()


def test_an_api_that_cannot_sync_is_not_ready_until_it_can(house: House, faulty: Faulty) -> None:
    house.env |= faulty.env
    house.start_api()
    add_slots(house, "one")
    before = contents(house.home / "hal0.db", without="owners")
    faulty.order("sync", times=0)
    answer = post(house, "/api/v1/slots/one/pull", "key-1")
    assert (answer.status_code, answer.json()["code"]) == (503, "db.unwritable")
    assert int(answer.headers["retry-after"]) >= 1
    for _ in range(20):  # the pulse tries again meanwhile, and may not take a soft write for one
        check_only_reads(house, 503, "db.unwritable")
        time.sleep(0.1)
    assert contents(house.home / "hal0.db", without="owners") == before
    faulty.heal()
    house.wait_for(lambda: is_ready(house))
    jobs: Any = post(house, "/api/v1/slots/one/pull", "key-1").json()["jobs"]
    assert post(house, "/api/v1/slots/one/pull", "key-1").json()["jobs"] == jobs
    assert jobs_of(house, "queued") == jobs


def test_a_download_whose_sync_failed_is_not_believed_and_comes_anew(
    house: House, faulty: Faulty
) -> None:
    """The next sync of the same bytes would go well, and they may not be on the disk."""
    with Source() as source:
        source.put("tiny.gguf", tiny_gguf_bytes())
        house.start_api()
        house.env |= faulty.env
        house.start_worker()
        body = {"name": "tiny", "source": source.url("tiny.gguf")}
        house.post("/api/v1/models", body, status=201)
        house.add_slot()
        faulty.order("sync", path="/tiny.gguf.part")
        pull = house.post("/api/v1/slots/chat/pull")["jobs"][0]
        error = house.wait_until("error")["error"]
        assert error["code"] == "pull.failed"
        assert error["evidence"] == {"path": f"{house.models}/tiny.gguf", "errno": errno.EIO}
        assert list(house.models.iterdir()) == []
        house.post(f"/api/v1/jobs/{pull}/retry")
        house.wait_until("offline")
        gets = [one for one in source.requests if one["method"] == "GET"]
        assert ["range" in one["headers"] for one in gets] == [False, False]
        assert (house.models / "tiny.gguf").read_bytes() == tiny_gguf_bytes()
