"""Jobs and operators, deaths and silences, with real processes: behaviours D and E."""

import shutil
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.house import House
from tests.fakes.lemond import Lemond

pytestmark = pytest.mark.slow


@pytest.fixture
def running(house: House) -> House:
    house.start_api()
    house.start_worker()
    house.add_model()
    house.add_slot()
    return house


def loads_sent(lemond: Lemond) -> int:
    return len(lemond.calls("/v1/load"))


def state_of(house: House, job_id: int) -> str:
    return str(house.get(f"/api/v1/jobs/{job_id}")["state"])


def outcomes(house: House, job_id: int) -> list[str]:
    return [attempt["outcome"] for attempt in house.get(f"/api/v1/jobs/{job_id}")["attempts"]]


@contextmanager
def locked(house: House) -> Iterator[None]:
    """Hold the database's write lock as another program would."""
    connection = sqlite3.connect(house.home / "hal0.db", isolation_level=None, timeout=20)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


def test_jobs_of_a_slot_run_one_after_another_and_slots_beside_each_other(
    house: House, lemond: Lemond
) -> None:
    lemond.script(models={"*": {"load_delay_s": 0.2, "unload_delay_s": 0.2}})
    house.start_api()
    house.start_worker()
    house.start_worker()
    for number in range(4):
        house.add_model(f"m{number}", seed=number)
        house.add_slot(f"s{number}", f"m{number}")
    for number in range(4):
        house.load(f"s{number}")
    house.wait_settled(60)
    for number in range(4):
        house.post(f"/api/v1/slots/s{number}/unload")
    house.wait_settled(60)
    runs = house.sql(
        "SELECT slot_id, kind, a.started_at, a.ended_at FROM job_attempts a "
        "JOIN jobs ON jobs.id = job_id ORDER BY a.started_at"
    )
    spans = house.sql(
        "SELECT jobs.slot_id, a.started_at, a.ended_at, jobs.position, jobs.step "
        "FROM job_attempts a JOIN jobs ON jobs.id = a.job_id ORDER BY a.started_at"
    )
    assert len(runs) == 20
    for slot_id in {row[0] for row in spans}:
        mine = [row for row in spans if row[0] == slot_id]
        assert all(one[2] <= two[1] for one, two in pairwise(mine))
        assert [row[3:] for row in mine] == sorted(row[3:] for row in mine)
    assert any(one[0] != two[0] and one[1] < two[1] < one[2] for one in spans for two in spans), (
        "no two slots were ever worked on at once"
    )
    assert [house.slot(f"s{n}")["state"] for n in range(4)] == ["offline"] * 4
    loads = [row for row in runs if row[1] == "load"]
    assert all(one[3] <= two[2] for one, two in pairwise(loads))


def test_the_same_load_twice_is_one_chain_and_a_load_after_an_unload_is_a_new_one(
    running: House, lemond: Lemond
) -> None:
    lemond.script(models={"tiny": {"load_delay_s": 1}})
    first = running.load()
    second = running.load()
    assert (second["deduplicated"], second["jobs"]) == (True, first["jobs"])
    running.wait_until("warming")
    running.post("/api/v1/slots/chat/unload")
    third = running.load()
    assert third["deduplicated"] is False
    running.wait_settled()
    assert running.slot()["state"] == "ready"
    running.check_audit()


def test_an_unload_asked_while_the_load_is_at_the_engine_follows_it(
    running: House, lemond: Lemond
) -> None:
    lemond.script(models={"tiny": {"load_delay_s": 1}})
    running.load()
    running.wait_until("warming")
    running.post("/api/v1/slots/chat/unload")
    running.wait_settled()
    assert running.path_of()[-4:] == ["warming", "ready", "unloading", "offline"]
    assert lemond.state()["loaded"] == []


def test_an_unload_asked_while_the_file_is_checked_supersedes_the_load(
    house: House, lemond: Lemond
) -> None:
    house.start_api()
    house.add_model()
    house.add_slot()
    worker = house.start_worker("validate.hashed:sleep=3")
    jobs = house.load()["jobs"]
    house.wait_until("starting")
    house.post("/api/v1/slots/chat/unload")
    house.wait_until("offline")
    house.wait_settled()
    assert outcomes(house, jobs[1]) == ["superseded"]
    assert [state_of(house, job) for job in jobs[1:]] == ["cancelled"] * 3
    house.wait_for(lambda: "the claim is another's now" in house.log.read_text())
    assert loads_sent(lemond) == 0
    assert house.stop(worker) == 0


def test_a_failed_check_is_retried_by_an_operator_and_keeps_its_first_attempt(
    running: House,
) -> None:
    source = running.sources / "tiny.gguf"
    good = source.read_bytes()
    source.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    jobs = running.load()["jobs"]
    running.wait_until("error")
    source.write_bytes(good)
    answer = running.post(f"/api/v1/jobs/{jobs[1]}/retry")
    assert answer["jobs"] == jobs[1:]
    running.wait_until("ready")
    assert outcomes(running, jobs[1]) == ["failed", "done"]
    assert running.slot()["error"] is None


def test_a_retry_is_refused_while_a_newer_chain_is_unfinished(
    running: House, lemond: Lemond
) -> None:
    source = running.sources / "tiny.gguf"
    good = source.read_bytes()
    source.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    jobs = running.load()["jobs"]
    running.wait_until("error")
    source.write_bytes(good)
    lemond.script(models={"tiny": {"load_delay_s": 1}})
    newer = running.load()["jobs"]
    answer = running.post(f"/api/v1/jobs/{jobs[1]}/retry", status=409)
    assert answer["code"] == "job.superseded"
    assert answer["evidence"]["job_id"] in newer


def test_a_slot_in_error_is_emptied_without_asking_when_the_engine_has_nothing_of_it(
    running: House, lemond: Lemond
) -> None:
    lemond.script(models={"tiny": {"load_fail": "llama-server failed to start"}})
    running.load()
    running.wait_until("error")
    running.post("/api/v1/slots/chat/unload")
    running.wait_until("offline")
    assert running.edges()[-1] == ("error", "offline", "cleared")
    assert lemond.calls("/v1/unload") == []


def test_a_slot_in_error_whose_load_left_nothing_is_emptied_without_asking(
    tmp_path: Path, lemond: Lemond
) -> None:
    lemond.script(models={"tiny": {"load": "hang"}})
    with House(tmp_path, lemond.url, HAL0_LOAD_TIMEOUT_S="1", HAL0_ENGINE_SETTLE_S="2") as house:
        house.start_api()
        house.start_worker()
        house.add_model()
        house.add_slot()
        house.load()
        house.wait_until("error")
        house.wait_settled()  # by its time: the engine never answered
        house.post("/api/v1/slots/chat/unload")
        house.wait_until("offline")
        assert house.edges()[-1] == ("error", "offline", "cleared")
        assert not lemond.calls("/v1/unload"), "what has this name now would be somebody else's"


def test_a_queued_job_can_be_cancelled_and_a_sent_load_cannot(
    running: House, lemond: Lemond
) -> None:
    lemond.script(models={"tiny": {"load_delay_s": 2}})
    jobs = running.load()["jobs"]
    running.wait_until("warming")
    refused = running.post(f"/api/v1/jobs/{jobs[3]}/cancel", status=409)
    assert refused["code"] == "job.already_sent"
    unload = running.post("/api/v1/slots/chat/unload")["jobs"]
    running.post(f"/api/v1/jobs/{unload[0]}/cancel")
    running.wait_settled()
    assert running.slot()["state"] == "ready"
    assert state_of(running, unload[0]) == "cancelled"


def test_a_claim_whose_body_never_begins_is_taken_up_again_under_a_living_owner(
    house: House, lemond: Lemond
) -> None:
    house.start_api()
    house.add_model()
    house.add_slot()
    house.start_worker("queue.claimed:sleep=9")
    jobs = house.load()["jobs"]
    house.wait_until("ready")
    assert outcomes(house, jobs[0]) == ["interrupted", "done"]
    house.wait_for(lambda: "the claim is another's now" in house.log.read_text())
    assert loads_sent(lemond) == 1


def test_a_result_is_written_when_the_database_lets_it(tmp_path: Path, lemond: Lemond) -> None:
    lemond.script(models={"tiny": {"load_delay_s": 1}})
    with House(tmp_path, lemond.url, HAL0_BUSY_TIMEOUT_S="0.2") as house:
        house.start_api()
        house.start_worker()
        house.start_worker()
        house.add_model()
        house.add_slot()
        jobs = house.load()["jobs"]
        house.wait_until("warming")
        with locked(house):
            house.wait_for(lambda: lemond.state()["loaded"] == ["tiny"])
            house.wait_for(lambda: "not written yet" in house.log.read_text())
            answer = house.client.post("/api/v1/slots/chat/unload", json={})
            assert answer.status_code == 503
            assert answer.json()["code"] == "db.locked"
            assert int(answer.headers["retry-after"]) >= 1
            time.sleep(4)  # the wait itself is tested: longer than the silence limit
        house.wait_until("ready")
        assert outcomes(house, jobs[3]) == ["done"]
        assert loads_sent(lemond) == 1


def test_a_worker_that_hangs_is_killed_before_its_job_is_taken(
    house: House, lemond: Lemond
) -> None:
    house.start_api()
    house.add_model()
    house.add_slot()
    hanging = house.start_worker("load.sent:stop")
    jobs = house.load()["jobs"]
    house.wait_for(lambda: loads_sent(lemond) == 1)
    house.start_worker()
    assert hanging.wait(30) == -signal.SIGKILL
    house.wait_until("ready")
    assert outcomes(house, jobs[3]) == ["interrupted", "done"]
    assert loads_sent(lemond) == 1


def test_a_worker_told_to_stop_in_the_middle_of_a_load_leaves_it_to_the_next(
    running: House, lemond: Lemond
) -> None:
    lemond.script(models={"tiny": {"load_delay_s": 4}})
    jobs = running.load()["jobs"]
    running.wait_until("warming")
    begun = time.monotonic()
    assert running.stop(running.processes[1]) == 0
    assert time.monotonic() - begun < 20
    assert running.slot()["state"] == "warming"
    assert outcomes(running, jobs[3]) == ["interrupted"]
    running.start_worker()
    running.wait_until("ready")
    assert outcomes(running, jobs[3]) == ["interrupted", "done"]
    assert running.sql("SELECT crashes FROM jobs WHERE id = ?", jobs[3]) == [(0,)]
    assert loads_sent(lemond) == 1


def test_jobs_run_although_the_run_folder_was_emptied(running: House) -> None:
    shutil.rmtree(running.home / "run")
    running.load()
    running.wait_until("ready")
    running.wait_for(lambda: running.living_workers() == 1)
    living = "SELECT kind FROM owners WHERE ended_at IS NULL ORDER BY kind"
    assert running.sql(living) == [("api",), ("worker",)]


def test_a_job_that_kills_three_workers_fails_and_other_slots_go_on(
    house: House, lemond: Lemond
) -> None:
    house.start_api()
    house.add_model()
    house.add_slot()
    jobs = house.load()["jobs"]
    for _ in range(3):
        assert house.start_worker("validate.hashed:kill").wait(30) == -signal.SIGKILL
    house.start_worker()
    slot = house.wait_until("error")
    assert slot["error"]["code"] == "job.worker_crashed"
    assert outcomes(house, jobs[1]) == ["interrupted", "interrupted", "failed"]
    house.add_model("other", seed=5)
    house.add_slot("b", "other")
    house.load("b")
    house.wait_until("ready", "b")


def test_a_load_waits_for_an_engine_that_is_down_and_gives_up_in_the_end(
    tmp_path: Path, lemond: Lemond
) -> None:
    with House(tmp_path, lemond.url, HAL0_ENGINE_WAIT_S="3") as house:
        house.start_api()
        house.start_worker()
        house.add_model()
        house.add_slot()
        lemond.kill()
        jobs = house.load()["jobs"]
        slot = house.wait_until("error")
        assert slot["error"]["code"] == "engine.unreachable"
        assert "deferred" in outcomes(house, jobs[1])
        house.post(f"/api/v1/jobs/{jobs[1]}/retry")
        house.wait_until("starting")
        lemond.start()
        house.wait_until("ready")
        assert loads_sent(lemond) == 1


def test_an_engine_that_dies_in_a_load_leaves_the_slot_offline_and_no_machine_loads_again(
    running: House, lemond: Lemond
) -> None:
    lemond.script(models={"tiny": {"load": "die"}})
    jobs = running.load()["jobs"]
    running.wait_for(lambda: state_of(running, jobs[3]) == "failed")
    job = running.get(f"/api/v1/jobs/{jobs[3]}")
    assert job["error"]["code"] == "engine.restarted"
    assert running.edges()[-1] == ("warming", "offline", "engine_restarted")
    lemond.start()
    running.wait_settled()
    running.post(f"/api/v1/jobs/{jobs[3]}/retry")
    running.wait_until("ready")
    assert loads_sent(lemond) == 2


def test_an_engine_that_restarts_loses_its_slots_and_gets_the_wanted_ones_back(
    tmp_path: Path, lemond: Lemond
) -> None:
    with House(tmp_path, lemond.url, HAL0_SCAN_S="1") as house:
        house.start_api()
        house.start_worker()
        house.add_model()
        house.add_slot()
        house.load()
        house.wait_until("ready")
        lemond.kill()
        lemond.start()
        house.wait_until("idle")
        assert house.edges()[4] == ("ready", "offline", "engine_restarted")
        assert loads_sent(lemond) == 2


def test_a_reboot_of_the_host_puts_every_slot_offline_before_anything_else(
    running: House, lemond: Lemond
) -> None:
    running.load()
    running.wait_until("ready")
    for process in running.processes:
        running.stop(process, signal.SIGKILL)
    connection = sqlite3.connect(running.home / "hal0.db")
    connection.execute("UPDATE boots SET boot_id = 'another boot of this host'")
    connection.execute("UPDATE owners SET boot_id = 'another boot of this host'")
    connection.commit()
    connection.close()
    running.start_api()
    assert running.slot()["state"] == "offline"
    assert running.edges()[-1] == ("ready", "offline", "host_rebooted")
    running.check_audit()


def test_two_slots_cannot_want_one_model_of_one_engine(running: House) -> None:
    body: dict[str, Any] = {"name": "b", "model": "tiny"}
    answer = running.post("/api/v1/slots", body, status=409)
    assert answer["code"] == "slot.model_taken"
    assert answer["evidence"]["slot"] == "chat"


def test_three_loads_wait_for_a_lane_that_hangs_and_none_of_them_times_out(
    house: House, lemond: Lemond
) -> None:
    lemond.script(models={"m0": {"load": "hang"}})
    house.start_api()
    house.start_worker()
    for number in range(4):
        house.add_model(f"m{number}", seed=number)
        house.add_slot(f"s{number}", f"m{number}", load_timeout_s=3)
    house.load("s0")
    house.wait_until("warming", "s0")
    waiting = [house.load(f"s{number}")["jobs"][3] for number in (1, 2, 3)]
    house.wait_until("error", "s0")
    said = [house.get(f"/api/v1/jobs/{job}")["waiting_for"] for job in waiting]
    assert all("s0" in text for text in said if text), said
    assert any(said)
    lemond.script(models={"m0": {"load": "ok"}})
    for number in (1, 2, 3):
        house.wait_until("ready", f"s{number}")
    house.wait_settled()
    assert house.slot("s0")["state"] == "error"
    assert sorted(call["body"]["model_name"] for call in lemond.calls("/v1/load")) == [
        "m0",
        "m1",
        "m2",
        "m3",
    ]
    assert sorted(lemond.state()["loaded"]) == ["m1", "m2", "m3"]


def test_an_engine_whose_health_hangs_holds_up_no_work_of_others(
    tmp_path: Path, lemond: Lemond
) -> None:
    """Each second there is something to settle, for which the engine must be asked."""
    with House(tmp_path, lemond.url, HAL0_WORKER_THREADS="2") as house:
        house.start_api()
        worker = house.start_worker()
        for seed, name in enumerate(("m1", "m2")):
            house.add_model(name, seed=seed)
        house.add_slot("one", "m1", load_timeout_s=1)
        house.add_slot("two", "m2")
        lemond.script(models={"m1": {"load": "hang"}})
        house.load("one")
        house.wait_until("error", "one")
        lemond.script(health="hang")
        seen = len(lemond.calls("/v1/health"))
        house.wait_for(lambda: len(lemond.calls("/v1/health")) > seen)
        time.sleep(2.5)  # as many turns of the periodic work as there are threads
        pull = house.post("/api/v1/slots/two/pull")["jobs"][0]
        house.wait_for(lambda: state_of(house, pull) == "succeeded", limit_s=4)
        begun = time.monotonic()
        assert house.stop(worker) == 0
        assert time.monotonic() - begun < 8, "a process that must exit waits for no engine"
