"""SIGTERM in the middle of each kind of job: its attempt is interrupted, and the next goes on.

A load that was sent is in test_jobs.py.
"""

import hashlib
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.acceptance.house import House
from tests.fakes.lemond import Lemond
from tests.fakes.source import Manner, Source
from tests.tiny_gguf import tiny_gguf_bytes

pytestmark = pytest.mark.slow

BIG_BYTES = 2**30
BLOCK = bytes(2**24)
IN_TIME_S = 20
"""A body that notices at once takes a second or two, on a busy machine some more."""


def outcomes(house: House, job_id: int) -> list[str]:
    return [attempt["outcome"] for attempt in house.get(f"/api/v1/jobs/{job_id}")["attempts"]]


def stop_in_the_middle_of(house: House, job_id: int) -> None:
    """Stop the worker; the job must be queued again, with nothing held against it."""
    (worker,) = house.processes[1:]
    begun = time.monotonic()
    assert house.stop(worker) == 0
    assert time.monotonic() - begun < IN_TIME_S
    is_left_in_order(house, job_id)


def is_left_in_order(house: House, job_id: int) -> None:
    assert outcomes(house, job_id) == ["interrupted"]
    rows = house.sql("SELECT state, crashes, faults FROM jobs WHERE id = ?", job_id)
    assert rows == [("queued", 0, 0)]
    assert house.sql("SELECT count(*) FROM owners WHERE kind = 'worker' AND ended_at IS NULL") == [
        (0,)
    ]
    assert house.living_workers() == 0
    assert list((house.home / "run" / "owners").glob("worker-*")) == []


def goes_on_to(house: House, state: str, job_id: int) -> None:
    house.start_worker()
    house.wait_until(state)
    house.wait_settled()
    assert outcomes(house, job_id) == ["interrupted", "done"]
    house.check_audit()


@pytest.fixture
def running(house: House) -> House:
    house.start_api()
    house.start_worker()
    return house


def test_a_worker_told_to_stop_in_the_middle_of_a_download_leaves_its_part_to_the_next(
    running: House,
) -> None:
    content = tiny_gguf_bytes()
    half = len(content) // 2
    with Source() as source:
        source.put("tiny.gguf", content)
        source.script("tiny.gguf", Manner(stall_after=half, method="GET", times=1))
        body = {"name": "tiny", "source": source.url("tiny.gguf")}
        running.post("/api/v1/models", body, status=201)
        running.add_slot()
        pull = running.load()["jobs"][0]
        part = running.models / "tiny.gguf.part"
        running.wait_for(lambda: part.exists() and part.stat().st_size >= half)
        stop_in_the_middle_of(running, pull)
        goes_on_to(running, "ready", pull)
        asked = [one["headers"].get("range") for one in source.requests if one["method"] == "GET"]
    assert asked == [None, f"bytes={half}-"]


def zeros(path: Path) -> str:
    """Make a file of 1 GiB that takes no room, and return its sha256."""
    with path.open("wb") as file:
        file.truncate(BIG_BYTES)
    digest = hashlib.sha256()
    for _ in range(BIG_BYTES // len(BLOCK)):
        digest.update(BLOCK)
    return digest.hexdigest()


def test_a_worker_told_to_stop_in_the_middle_of_a_big_file_stops_reading_it(
    running: House, lemond: Lemond
) -> None:
    lemond.script(models={"zeros": {"downloaded": True}})
    file = {"role": "main", "sha256": zeros(running.models / "zeros.gguf")}
    body = {"name": "zeros", "format": "other", "files": [file]}
    running.post("/api/v1/models", body, status=201)
    running.add_slot(model="zeros")
    validate = running.post("/api/v1/slots/chat/validate")["jobs"][0]
    running.wait_for(lambda: running.get(f"/api/v1/jobs/{validate}")["progress"])
    stop_in_the_middle_of(running, validate)
    goes_on_to(running, "offline", validate)


def test_a_worker_told_to_stop_in_the_middle_of_an_unload_leaves_its_mark_to_the_next(
    running: House, lemond: Lemond
) -> None:
    running.add_model()
    running.add_slot()
    running.load()
    running.wait_until("ready")
    lemond.script(models={"tiny": {"unload_delay_s": 4}})
    unload = running.post("/api/v1/slots/chat/unload")["jobs"][0]
    running.wait_for(lambda: lemond.calls("/v1/unload"))
    stop_in_the_middle_of(running, unload)
    assert running.slot()["state"] == "unloading"
    goes_on_to(running, "offline", unload)
    assert lemond.state()["loaded"] == []


def test_a_second_signal_ends_a_worker_at_once_and_loses_nothing_either(
    house: House, lemond: Lemond
) -> None:
    house.start_api()
    house.add_model()
    house.add_slot()
    worker = house.start_worker("validate.hashed:sleep")  # for a minute, whoever tells it to stop
    jobs = house.load()["jobs"]
    house.wait_for(lambda: "validate.hashed reached" in house.log.read_text())
    worker.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        worker.wait(2)
    begun = time.monotonic()
    assert house.stop(worker) == 0
    assert time.monotonic() - begun < 8, "without it, the body is waited for twenty seconds"
    is_left_in_order(house, jobs[1])
    goes_on_to(house, "ready", jobs[1])
    assert len(lemond.calls("/v1/load")) == 1
