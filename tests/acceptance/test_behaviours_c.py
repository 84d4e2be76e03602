"""Behaviours C, idle unload, through real processes with short times: what follows, in which order.

C1   test_first_sight_never_unloads_whatever_the_engine_says_of_the_last_use
C2   test_unused_for_less_than_the_limit_is_not_idle
     test_not_a_millisecond_before_the_full_time
C3   test_what_nobody_uses_is_idle_then_unloaded_and_all_else_stays
C4   test_what_nobody_uses_is_idle_then_unloaded_and_all_else_stays
     test_a_use_past_hal0_restarts_the_window
C5   test_a_model_gone_and_back_with_the_same_number_begins_a_window
C6   test_what_nobody_uses_is_idle_then_unloaded_and_all_else_stays
C7   test_what_nobody_uses_is_idle_then_unloaded_and_all_else_stays
C8   test_an_engine_that_does_not_say_what_it_has_costs_no_slot_its_model
C9   test_an_unload_that_fails_keeps_no_other_from_being_tried
C10  test_a_clock_that_is_set_unloads_nothing_early_and_keeps_nothing_for_ever
C11  test_a_request_that_comes_before_the_unload_is_sent_wins
C12  test_what_is_pinned_is_unloaded_by_an_operator_alone_who_says_so
C13  test_times_that_would_unload_before_they_demote_are_refused_with_both_names
     test_a_slots_own_times_hold
C14  test_a_long_stream_past_hal0_keeps_it_and_its_end_is_the_last_use
C15  test_a_worker_that_was_away_unloads_nothing_until_the_full_time_has_passed_again
C16  test_a_request_that_comes_before_the_unload_is_sent_wins
C17  test_a_chain_under_way_on_an_unused_slot_is_left_alone_and_its_model_stays

Those that are not here are of rules and rows, with clocks that they set themselves:
`tests/unit/slots/test_idle.py`, `tests/unit/jobs/test_idle_scan.py`.
"""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.house import House
from tests.acceptance.seen import add_slots, outcomes
from tests.acceptance.shared_house import clear, loads_of, scans_pass, shared_house, unloads_of
from tests.fakes.lemond import Lemond
from tests.fakes.source import Manner, Source
from tests.faulty import Faulty
from tests.tiny_gguf import tiny_gguf_bytes

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("behaviours_c")]
IDLE_S = 1
UNLOAD_S = 2
SCAN_S = 0.9  # each tick of a second, not each other one
SCANS = 3
"""So many scans take longer than `UNLOAD_S`."""
TIMES = {
    "HAL0_IDLE_AFTER_S": str(IDLE_S),
    "HAL0_UNLOAD_AFTER_S": str(UNLOAD_S),
    "HAL0_SCAN_S": str(SCAN_S),
}
NEVER = {"idle_after_s": 0, "unload_after_s": 0}
A_DAY = {"idle_after_s": 86_400, "unload_after_s": 86_430}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, Lemond]]:
    with shared_house(tmp_path_factory.mktemp("c"), **TIMES) as both:
        yield both


@pytest.fixture
def shared(running: tuple[House, Lemond]) -> Iterator[House]:
    yield running[0]
    clear(*running)


@pytest.fixture
def engine(running: tuple[House, Lemond]) -> Lemond:
    return running[1]


def loaded(house: House, name: str, **body: Any) -> None:
    """Make a slot with a model of its own, and load it."""
    add_slots(house, name, **body)
    house.load(name)
    house.wait_for(lambda: "ready" in house.path_of(name))


def begin_to_count(house: House, *names: str) -> None:
    """Let the times of this file hold for slots that were never to be unloaded."""
    for name in names:
        times = {"idle_after_s": None, "unload_after_s": None}
        house.client.patch(f"/api/v1/slots/{name}", json=times).raise_for_status()


def chat(lemond: Lemond, model: str, **body: Any) -> int:
    """Ask a model past hal0; return the status."""
    words = [{"role": "user", "content": "hello"}]
    return lemond.post(
        "/v1/chat/completions", {"model": model, "messages": words, **body}
    ).status_code


@contextmanager
def talking(lemond: Lemond, model: str) -> Iterator[None]:
    """Keep talking to a model past hal0."""
    is_over = threading.Event()

    def talk() -> None:
        while not is_over.wait(0.3):
            chat(lemond, model)

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def test_what_nobody_uses_is_idle_then_unloaded_and_all_else_stays(
    shared: House, engine: Lemond
) -> None:
    loaded(shared, "never", **NEVER)
    loaded(shared, "day", **A_DAY)
    engine.script(models={"m-mute": {"entry_without": ["last_use"]}})
    loaded(shared, "mute")
    loaded(shared, "busy")
    engine.script(models={"m-busy": {"entry": {"is_busy": True}}})
    loaded(shared, "talked-to")
    with talking(engine, "m-talked-to"):
        loaded(shared, "unused")
        shared.wait_until("offline", "unused")
    assert shared.edges("unused")[-3:] == [
        ("ready", "idle", "demoted"),
        ("idle", "unloading", "idle_unload"),
        ("unloading", "offline", "unloaded"),
    ]
    assert shared.slot("unused")["desired"] == "unloaded"
    assert unloads_of(engine, "m-unused") == 1
    for name in ("never", "day", "mute"):
        assert shared.path_of(name)[-1] == "ready", name
    for name in ("busy", "talked-to"):
        assert "unloading" not in shared.path_of(name), name
    rows = shared.get("/api/v1/transitions", slot="unused", cause="demoted")["items"]
    assert [row["actor"] for row in rows] == ["scan"]


def test_an_engine_that_does_not_say_what_it_has_costs_no_slot_its_model(
    shared: House, engine: Lemond
) -> None:
    loaded(shared, "here", **NEVER)
    loaded(shared, "gone", **NEVER)
    for health in ("refuse", "no_list"):
        engine.script(health=health)
        engine.drop("m-gone")
        begin_to_count(shared, "here", "gone")
        scans_pass(shared, engine, SCANS)
        for name in ("here", "gone"):
            assert shared.path_of(name)[-1] == "ready"
    assert unloads_of(engine, "m-here") == 0
    assert "Traceback" not in shared.log.read_text()
    engine.script(health="ok")
    shared.wait_until("offline", "gone")
    assert shared.edges("gone")[-1][2] == "unloaded_elsewhere"
    shared.wait_until("offline", "here")
    assert shared.edges("here")[-1] == ("unloading", "offline", "unloaded")


def test_an_unload_that_fails_keeps_no_other_from_being_tried(
    shared: House, engine: Lemond
) -> None:
    engine.script(models={"m-fails": {"unload": "fail"}})
    loaded(shared, "fails")
    loaded(shared, "goes")
    shared.wait_until("error", "fails")
    shared.wait_until("offline", "goes")
    assert shared.edges("fails")[-1] == ("unloading", "error", "job_failed")
    shared.wait_for(lambda: unloads_of(engine, "m-fails") == 2)
    scans_pass(shared, engine, 2)
    assert unloads_of(engine, "m-fails") == 2, "once more by a machine, and no more"
    assert unloads_of(engine, "m-goes") == 1


def test_what_is_pinned_is_unloaded_by_an_operator_alone_who_says_so(
    shared: House, engine: Lemond
) -> None:
    loaded(shared, "pinned", pinned=True)
    shared.wait_until("idle", "pinned")
    scans_pass(shared, engine, SCANS)
    assert shared.slot("pinned")["state"] == "idle"
    refused = shared.post("/api/v1/slots/pinned/unload", status=409)
    assert refused["code"] == "slot.pinned"
    assert unloads_of(engine, "m-pinned") == 0
    shared.post("/api/v1/slots/pinned/unload", {"even_if_pinned": True})
    shared.wait_until("offline", "pinned")


def test_times_that_would_unload_before_they_demote_are_refused_with_both_names(
    shared: House,
) -> None:
    add_slots(shared, "timed")
    times = {"idle_after_s": 10, "unload_after_s": 5}
    changed = shared.client.patch("/api/v1/slots/timed", json=times)
    assert changed.status_code == 422
    assert "idle_after_s" in changed.json()["detail"]
    assert "unload_after_s" in changed.json()["detail"]
    made = shared.client.post("/api/v1/slots", json={"name": "other", **times})
    assert made.status_code == 422


def test_a_worker_that_was_away_unloads_nothing_until_the_full_time_has_passed_again(
    shared: House, engine: Lemond
) -> None:
    loaded(shared, "away", **NEVER)
    scans_pass(shared, engine, 1)
    (worker,) = [one for one in shared.processes[1:] if one.poll() is None]
    shared.stop(worker)
    times = {"idle_after_s": IDLE_S, "unload_after_s": 4}  # a window that went on is over sooner
    shared.client.patch("/api/v1/slots/away", json=times).raise_for_status()
    time.sleep(4 * SCAN_S)  # nobody looks meanwhile
    begun = time.monotonic()
    shared.start_worker()
    shared.wait_until("offline", "away")
    assert time.monotonic() - begun >= times["unload_after_s"]
    assert shared.edges("away")[-1] == ("unloading", "offline", "unloaded")


def test_a_chain_under_way_on_an_unused_slot_is_left_alone_and_its_model_stays(
    shared: House, engine: Lemond
) -> None:
    loaded(shared, "chat")
    go_on = threading.Event()
    with Source() as source:
        source.put("next.gguf", tiny_gguf_bytes(seed=9))
        source.script("next.gguf", Manner(hold=go_on, method="GET"))
        body = {"name": "next", "source": source.url("next.gguf")}
        shared.post("/api/v1/models", body, status=201)
        asked = shared.load(model="next")["jobs"]
        shared.wait_for((shared.models / "next.gguf.part").exists)
        seen = len(engine.calls("/v1/health"))
        shared.wait_for(lambda: len(engine.calls("/v1/health")) > seen + SCANS)
        assert unloads_of(engine, "m-chat") == 0
        assert shared.sql("SELECT max(id) FROM jobs") == [(asked[-1],)], "nothing is enqueued"
        go_on.set()
        shared.wait_for(lambda: shared.slot()["model"] == "next")
    assert shared.edges()[-1][2] == "loaded"
    scans_pass(shared, engine, 1)
    assert "unloading" not in shared.path_of()[shared.path_of().index("unloading") + 1 :]
    assert unloads_of(engine, "next") == 0
    assert loads_of(engine, "next") == 1


def test_a_request_that_comes_before_the_unload_is_sent_wins(
    tmp_path: Path, lemond: Lemond
) -> None:
    """The unload is claimed and waits for nothing any more, when somebody talks to the model."""
    with House(tmp_path, lemond.url, **TIMES) as house:
        house.start_api()
        add_slots(house, "chat", **NEVER)
        first = house.start_worker()
        house.load()
        house.wait_until("ready")
        house.stop(first)
        begin_to_count(house, "chat")
        worker = house.start_worker("unload.begun:stop")
        house.wait_for(lambda: Path(f"/proc/{worker.pid}/stat").read_text().split()[2] == "T")
        ((unload,),) = house.sql("SELECT max(id) FROM jobs")
        assert house.get(f"/api/v1/jobs/{unload}")["kind"] == "unload"
        assert house.slot()["state"] == "idle"
        assert chat(lemond, "m-chat") == 200
        worker.send_signal(signal.SIGCONT)
        house.wait_for(lambda: outcomes(house, unload) == ["skipped"])
        house.wait_until("ready")
        assert house.edges()[-1] == ("idle", "ready", "used_elsewhere")
        assert lemond.calls("/v1/unload") == []


def test_a_clock_that_is_set_unloads_nothing_early_and_keeps_nothing_for_ever(
    house: House, lemond: Lemond, faulty: Faulty
) -> None:
    house.unchecked = "the times of its rows go forth and back"
    house.env |= faulty.env | TIMES
    house.start_api()
    house.start_worker()
    add_slots(house, "chat")
    for times, by_s in enumerate((3600, -3600), 1):
        begun = time.monotonic()
        house.load()
        wait_for(house, "ready", times)
        faulty.set_clock(by_s)
        wait_for(house, "idle", times)
        assert time.monotonic() - begun >= IDLE_S
        wait_for(house, "unloading", times)
        house.wait_until("offline")
        assert time.monotonic() - begun >= UNLOAD_S
        assert house.edges()[-1] == ("unloading", "offline", "unloaded")


def wait_for(house: House, state: str, times: int) -> None:
    """Wait until the slot was in this state so often, however short a time."""
    house.wait_for(lambda: house.path_of().count(state) == times)
