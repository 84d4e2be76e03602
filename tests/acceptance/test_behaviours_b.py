"""Behaviours B, preload validation and load, each line through REST with real processes.

B1   test_a_file_on_disk_is_loaded_once_and_never_shown_as_pulling
B2   test_a_bad_file_is_refused_and_the_engine_never_hears_of_it
     test_a_file_that_may_not_be_read_is_refused_as_unreadable
B3   test_a_file_that_is_a_byte_too_long_or_too_short_is_refused_with_both_sizes
B4   test_checks_that_could_not_be_made_are_named_in_the_row
B5   test_a_bad_file_is_refused_and_the_engine_never_hears_of_it
B6   test_a_file_that_is_as_registered_and_no_gguf_is_refused
B7   test_a_file_whose_content_is_wrong_is_refused_although_nothing_was_registered_of_it
B8   test_checks_that_could_not_be_made_are_named_in_the_row
B9   test_a_corrupt_file_for_one_slot_leaves_the_other_serving
B10  test_a_load_ends_at_its_wall_clock_limit_and_what_comes_late_is_unloaded
     test_what_arrives_late_is_unloaded_and_an_incident_tells_of_it
     test_a_limit_may_be_a_base_and_so_much_for_each_gigabyte
     test_three_loads_wait_for_a_lane_that_hangs_and_none_of_them_times_out
B11  test_a_load_that_cost_three_slots_their_models_is_one_incident_and_they_come_back_in_turn
     test_two_wanted_slots_and_room_for_one_settle
B12  test_a_file_replaced_between_validation_and_load_is_refused
B13  test_an_unchanged_file_is_not_read_again_unless_told_to
B14  test_what_is_loaded_already_needs_no_job_and_other_options_reload_it
B15  test_a_bad_model_for_a_slot_that_serves_another_never_moves_it

Those that are not here are in `test_loads.py` and `test_jobs.py`.
"""

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.house import ROOT, House
from tests.acceptance.seen import add_slots, loads_sent
from tests.acceptance.shared_house import (
    clear,
    loads_of,
    restores_asked,
    scans_pass,
    shared_house,
    unloads_of,
)
from tests.fakes.lemond import Lemond
from tests.tiny_gguf import Broken, tiny_gguf_bytes, write_tiny_gguf

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("behaviours_b")]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, Lemond]]:
    with shared_house(tmp_path_factory.mktemp("b"), HAL0_SCAN_S="0.9") as both:
        yield both


@pytest.fixture
def house(running: tuple[House, Lemond]) -> Iterator[House]:
    yield running[0]
    clear(*running)


@pytest.fixture
def lemond(running: tuple[House, Lemond]) -> Lemond:
    return running[1]


def refused(house: House, model: str) -> Any:
    """Ask for a load that must fail before the engine is asked; return the slot's error."""
    house.add_slot("bad", model)
    house.load("bad")
    slot = house.wait_until("error", "bad")
    assert house.path_of("bad")[-1] == "error"
    return slot["error"]


def is_readable_to_a_worker(file: Path) -> bool:
    asked = f"import os; print(os.access({str(file)!r}, os.R_OK))"
    command = [sys.executable, "-m", "tests.powerless", "-c", asked]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout == b"True\n"


def test_a_file_that_may_not_be_read_is_refused_as_unreadable(house: House, lemond: Lemond) -> None:
    file = write_tiny_gguf(house.models / "secret.gguf")
    file.chmod(0)
    if is_readable_to_a_worker(file):
        pytest.skip("this root cannot give up its powers, so nothing is unreadable to it")
    house.post("/api/v1/models", {"name": "secret", "files": [{"role": "main"}]}, status=201)
    error = refused(house, "secret")
    assert error["code"] == "preload.file_unreadable"
    assert error["evidence"]["path"] == str(file)
    assert loads_of(lemond, "secret") == 0


@pytest.mark.parametrize("more", [1, -1])
def test_a_file_that_is_a_byte_too_long_or_too_short_is_refused_with_both_sizes(
    house: House, lemond: Lemond, more: int
) -> None:
    size = len(tiny_gguf_bytes())
    name = f"more{more}"
    place = house.models / f"{name}.gguf"
    place.write_bytes((tiny_gguf_bytes() + b"!")[: size + more])
    file = {"role": "main", "size_bytes": size}
    house.post("/api/v1/models", {"name": name, "files": [file]}, status=201)
    error = refused(house, name)
    assert error["code"] == "preload.size_mismatch"
    evidence = error["evidence"]
    assert (evidence["expected"], evidence["found"]) == (size, size + more)
    assert loads_of(lemond, name) == 0


@pytest.mark.parametrize("broken", ["magic", "version"])
def test_a_file_that_is_as_registered_and_no_gguf_is_refused(
    house: House, lemond: Lemond, broken: Broken
) -> None:
    name = f"wrong-{broken}"
    content = write_tiny_gguf(house.models / f"{name}.gguf", broken=broken).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    file = {"role": "main", "size_bytes": len(content), "sha256": digest}
    house.post("/api/v1/models", {"name": name, "files": [file]}, status=201)
    assert refused(house, name)["code"] == "preload.not_a_gguf"
    assert loads_of(lemond, name) == 0


def test_what_arrives_late_is_unloaded_and_an_incident_tells_of_it(
    house: House, lemond: Lemond
) -> None:
    add_slots(house, "late", load_timeout_s=1)
    lemond.script(models={"m-late": {"load": "hang"}})
    load = house.load("late")["jobs"][-1]
    house.wait_until("error", "late")
    assert house.edges("late")[-1] == ("warming", "error", "deadline_passed")
    lemond.script(models={"m-late": {"load": "ok"}})
    house.wait_settled()
    house.wait_for(lambda: lemond.state()["loaded"] == [])
    (incident,) = house.get("/api/v1/incidents", slot="late")["items"]
    assert incident["kind"] == "late_arrival"
    assert incident["culprit"] == {"slot": "late", "model": "m-late", "job_id": load}
    assert loads_of(lemond, "m-late") == 1
    assert unloads_of(lemond, "m-late") == 1
    assert house.edges("late")[-1] == ("warming", "error", "deadline_passed"), "never adopted"
    scans_pass(house, lemond)
    assert house.slot("late")["state"] == "error"
    assert loads_of(lemond, "m-late") == 1


def test_a_limit_may_be_a_base_and_so_much_for_each_gigabyte(house: House, lemond: Lemond) -> None:
    size = len(tiny_gguf_bytes())
    per_gb = 1e9 / size
    add_slots(house, "sized", load_timeout_s=1, load_timeout_s_per_gb=per_gb)
    lemond.script(models={"m-sized": {"load": "hang"}})
    load = house.load("sized")["jobs"][-1]
    house.wait_until("warming", "sized")
    ((began_ms, deadline_ms),) = house.sql(
        "SELECT settle_ms - settle_s * 1000, deadline_ms FROM jobs "
        "JOIN engine_lane ON job_id = jobs.id JOIN engines ON engines.id = engine_lane.engine_id "
        "WHERE jobs.id = ?",
        load,
    )
    assert deadline_ms - began_ms == pytest.approx(2000, abs=500)
    error = house.wait_until("error", "sized")["error"]
    assert error["evidence"]["limit_s"] == pytest.approx(2)


def test_a_load_that_cost_three_slots_their_models_is_one_incident_and_they_come_back_in_turn(
    house: House, lemond: Lemond
) -> None:
    names = ["one", "two", "three"]
    add_slots(house, *names, "culprit")
    house.client.patch("/api/v1/slots/three", json={"priority": 5}).raise_for_status()
    for name in names:
        house.load(name)
        house.wait_until("ready", name)
    lemond.script(models={"m-culprit": {"load_fail": "llama-server failed to start"}})
    before = len(loads_sent(lemond))
    load = house.load("culprit")["jobs"][-1]
    error = house.wait_until("error", "culprit")["error"]
    assert (error["code"], error["job_id"]) == ("engine.refused", load)
    assert "llama-server failed to start" in error["detail"]
    for name in names:
        house.wait_until("idle", name)
    (incident,) = house.get("/api/v1/incidents", slot="culprit")["items"]
    assert (incident["kind"], incident["culprit"]["job_id"]) == ("load_failed", load)
    assert sorted(moved["slot"] for moved in incident["slots"]) == sorted(names)
    for name in names:
        (row,) = house.get("/api/v1/transitions", slot=name, cause="evicted_by_engine")["items"]
        assert (row["incident_id"], row["job_id"]) == (incident["id"], load)
    assert restores_asked(house)[-3:] == ["three", "one", "two"], "by priority"
    scans_pass(house, lemond)
    culprit, *again = loads_sent(lemond)[before:]
    assert culprit == "m-culprit"
    assert sorted(again) == ["m-one", "m-three", "m-two"], "each once, the culprit never"
    assert house.slot("culprit")["state"] == "error"


def test_two_wanted_slots_and_room_for_one_settle(house: House, lemond: Lemond) -> None:
    """Each could evict the other for ever."""
    lemond.script(max_loaded_models=1)
    add_slots(house, "first", "second")
    house.load("first")
    house.wait_until("ready", "first")
    house.load("second")
    house.wait_until("ready", "second")
    house.wait_until("offline", "first")
    assert house.edges("first")[-1] == ("ready", "offline", "evicted_by_engine")
    (incident,) = house.get("/api/v1/incidents", slot="first")["items"]
    assert incident["kind"] == "load_made_room"
    assert {house.slot(name)["desired"] for name in ("first", "second")} == {"loaded"}
    scans_pass(house, lemond)
    assert (loads_of(lemond, "m-first"), loads_of(lemond, "m-second")) == (1, 1)
    assert house.slot("second")["state"] == "ready"
