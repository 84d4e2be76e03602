"""A load against a real server: sent once, validated before, and what it may cost others."""

import pytest

from hal0 import points
from hal0.db import Database
from hal0.jobs.ledger.intake import Wish, machine_load
from hal0.settings import Settings
from hal0.states import JobKind, SlotState
from tests.fakes.lemond import Lemond
from tests.ledger import (
    RESTORE,
    eventually,
    has_failed_key,
    history,
    job,
    outcomes,
    the_lanes,
    unfinished,
)
from tests.rows import ask_load, make_model, options, slot_now
from tests.tiny_gguf import write_tiny_gguf
from tests.worker import Worker, equip, loads

LOADED = ["offline>starting checked", "starting>warming load_sent", "warming>ready loaded"]


def _code(db: Database, job_id: int) -> str:
    error = job(db, job_id).error
    assert error is not None
    return str(error["code"])


def test_a_good_load_is_sent_once_and_ends_ready(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    equip(db, "chat")
    accepted = ask_load(db)
    worker.work()
    assert history(db) == LOADED
    assert outcomes(db, accepted.job_ids) == ["skipped", "done", "skipped", "done"]
    assert loads(lemond) == ["m-chat"]
    assert the_lanes(db) == []
    assert slot_now(db).engine_process is not None


def test_what_is_there_already_is_not_loaded_again(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    """B14: also when a rehash was asked for."""
    equip(db, "chat")
    ask_load(db)
    worker.work()
    accepted = ask_load(db, rehash=True)
    worker.work()
    assert outcomes(db, accepted.job_ids) == ["skipped", "done", "skipped", "skipped"]
    assert loads(lemond) == ["m-chat"]
    assert history(db) == LOADED


def test_other_options_unload_and_load_again(db: Database, lemond: Lemond, worker: Worker) -> None:
    """B14"""
    equip(db, "chat")
    ask_load(db)
    worker.work()
    ask_load(db, options=options({"ctx_size": 512}))
    worker.work()
    assert history(db)[3:] == ["ready>unloading replaced", "unloading>offline unloaded", *LOADED]
    assert len(lemond.calls("/v1/load")) == 2
    assert slot_now(db).generation == 2


def test_a_file_replaced_after_validation_is_not_loaded(
    db: Database, settings: Settings, lemond: Lemond, worker: Worker
) -> None:
    """B12"""
    equip(db, "chat")
    accepted = ask_load(db)
    held = worker.work_up_to(JobKind.LOAD)
    write_tiny_gguf(settings.models / "new.gguf", seed=9).rename(settings.models / "m-chat.gguf")
    worker.run(held)
    assert _code(db, accepted.job_ids[-1]) == "preload.file_changed"
    assert slot_now(db).state is SlotState.ERROR
    assert lemond.calls("/v1/load") == []
    assert not has_failed_key(db), "it was not sent"


def test_a_bad_new_model_does_not_cost_the_old_one(
    db: Database, settings: Settings, lemond: Lemond, worker: Worker
) -> None:
    """B15"""
    equip(db, "chat")
    ask_load(db)
    worker.work()
    write_tiny_gguf(settings.models / "bad.gguf", broken="magic")
    accepted = ask_load(db, model_id=make_model(db, "bad").id)
    worker.work()
    assert _code(db, accepted.job_ids[1]) == "preload.not_a_gguf"
    assert history(db) == LOADED
    assert lemond.calls("/v1/unload") == []
    assert lemond.state()["loaded"] == ["m-chat"]


def test_a_failed_load_marks_what_it_cost_and_brings_it_back(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    """evicted_marked, restore (B11): the lost slot comes back idle, the culprit never."""
    equip(db, "good", "bad")
    ask_load(db, "good")
    worker.work()
    lemond.script(models={"m-bad": {"load_fail": "llama-server failed to start"}})
    accepted = ask_load(db, "bad")
    worker.run(worker.work_up_to(JobKind.LOAD))
    assert slot_now(db, "bad").state is SlotState.ERROR
    assert _code(db, accepted.job_ids[-1]) == "engine.refused"
    assert history(db, "good")[-1] == "ready>offline evicted_by_engine"
    with db.read() as tx:
        sql = "SELECT i.kind, i.job_id, t.slot_id FROM incidents i JOIN transitions t "
        rows = tx.exec_driver_sql(sql + "ON t.incident_id = i.id").all()
    assert rows == [("load_failed", accepted.job_ids[-1], slot_now(db, "good").id)]
    restore = unfinished(db, "good")
    assert len(restore) == 4
    assert unfinished(db, "bad") == []
    worker.work()
    assert history(db, "good")[-1] == "warming>idle loaded"
    assert loads(lemond) == ["m-good", "m-bad", "m-good"]


def test_a_model_dropped_to_make_room_is_marked_and_not_brought_back(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    """lru_not_restored: two slots would evict each other for ever."""
    lemond.script(max_loaded_models=1)
    equip(db, "one", "two")
    ask_load(db, "one")
    worker.work()
    ask_load(db, "two")
    worker.work()
    assert slot_now(db, "two").state is SlotState.READY
    assert history(db, "one")[-1] == "ready>offline evicted_by_engine"
    assert slot_now(db, "one").desired == "loaded"
    assert unfinished(db, "one") == []
    assert len(lemond.calls("/v1/load")) == 2


def test_a_machines_load_never_evicts(db: Database, lemond: Lemond, worker: Worker) -> None:
    """restore_needs_room"""
    lemond.script(max_loaded_models=1)
    equip(db, "one", "two", desired="loaded")
    ask_load(db, "one")
    worker.work()
    slot = slot_now(db, "two")
    with db.write() as tx:
        wish = Wish(JobKind.LOAD, slot.wanted_model_id, slot.options)
        accepted = machine_load(tx, slot, wish, RESTORE)
    assert accepted is not None
    worker.work()
    assert outcomes(db, accepted.job_ids)[-1] == "skipped"
    assert history(db, "two")[-1] == "starting>offline cancelled"
    assert slot_now(db, "one").state is SlotState.READY
    assert lemond.state()["loaded"] == ["m-one"]


def test_a_model_of_another_type_takes_no_place_of_a_machines_load(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    """Lemonade counts each type against a limit of its own."""
    lemond.script(max_loaded_models=1, models={"m-other": {"type": "embedding"}})
    equip(db, "chat", "other", desired="loaded")
    lemond.post("/v1/load", {"model_name": "m-other"}).raise_for_status()
    slot = slot_now(db)
    with db.write() as tx:
        machine_load(tx, slot, Wish(JobKind.LOAD, slot.wanted_model_id, slot.options), RESTORE)
    worker.work()
    assert slot_now(db).state is SlotState.IDLE
    assert lemond.state()["loaded"] == ["m-other", "m-chat"]


def test_a_machines_load_that_an_operator_took_over_may_evict(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    """dedup_takes_over: the operator was told "deduplicated" while the load was claimed."""
    lemond.script(max_loaded_models=1)
    equip(db, "one", "two", desired="loaded")
    ask_load(db, "one")
    worker.work()
    slot = slot_now(db, "two")
    with db.write() as tx:
        machine_load(tx, slot, Wish(JobKind.LOAD, slot.wanted_model_id, slot.options), RESTORE)
    held = worker.work_up_to(JobKind.LOAD)
    assert held.job.id in ask_load(db, "two").job_ids
    worker.run(held)
    assert slot_now(db, "two").state is SlotState.READY


def test_a_success_that_health_does_not_confirm_is_a_failure(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    equip(db, "chat", load_timeout_s=1.5)
    lemond.script(models={"m-chat": {"in_health": False}})
    accepted = ask_load(db)
    worker.work()
    assert _code(db, accepted.job_ids[-1]) == "engine.bad_answer"
    assert slot_now(db).state is SlotState.ERROR


def test_a_file_replaced_after_the_mark_is_not_loaded(
    db: Database, settings: Settings, lemond: Lemond, worker: Worker
) -> None:
    """B12: the commit of the mark may have waited long for the database."""
    equip(db, "chat")
    accepted = ask_load(db)
    held = worker.work_up_to(JobKind.LOAD)
    points.arm("load.marked:sleep=1")
    with worker.running(held):
        eventually(lambda: slot_now(db).state is SlotState.WARMING)
        new = write_tiny_gguf(settings.models / "new.gguf", seed=9)
        new.rename(settings.models / "m-chat.gguf")
    assert _code(db, accepted.job_ids[-1]) == "preload.file_changed"
    assert history(db)[-1] == "warming>error job_failed"
    assert lemond.calls("/v1/load") == []
    assert (the_lanes(db), has_failed_key(db)) == ([], False)
    assert slot_now(db).engine_model is None


@pytest.mark.parametrize("is_registered", [False, True])
def test_a_projector_that_nobody_registered_is_not_opened(
    db: Database, settings: Settings, lemond: Lemond, worker: Worker, is_registered: bool
) -> None:
    """B5: the engine would open a file that was never checked."""
    equip(db, "chat")
    main = settings.models / "m-chat.gguf"
    other = main if is_registered else write_tiny_gguf(settings.models / "mmproj.gguf", seed=5)
    lemond.script(models={"m-chat": {"others": {"mmproj": str(other)}}})
    accepted = ask_load(db)
    worker.work()
    if is_registered:
        assert outcomes(db, accepted.job_ids)[-1] == "done"
        return
    assert _code(db, accepted.job_ids[1]) == "preload.engine_file_differs"
    assert str(other) in str(job(db, accepted.job_ids[1]).error)
    assert lemond.calls("/v1/load") == []


def test_a_machines_load_waits_while_the_engine_does_not_say_what_it_has(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    """restore_needs_room: a list that is missing is unknown, not empty."""
    lemond.script(max_loaded_models=1)
    equip(db, "one", "two", desired="loaded")
    ask_load(db, "one")
    worker.work()
    slot = slot_now(db, "two")
    with db.write() as tx:
        machine_load(tx, slot, Wish(JobKind.LOAD, slot.wanted_model_id, slot.options), RESTORE)
    held = worker.work_up_to(JobKind.LOAD)
    lemond.script(health="no_list")
    worker.run(held)
    now = job(db, held.job.id)
    assert (now.state, now.outcome) == ("queued", "deferred")
    assert lemond.state()["loaded"] == ["m-one"]
    assert loads(lemond) == ["m-one"]


def test_a_load_of_what_the_engine_lost_meanwhile_is_sent(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    """The row says ready; a chain that runs all the same, as with rehash, asks the engine."""
    equip(db, "chat")
    ask_load(db)
    worker.work()
    lemond.drop("m-chat")
    eventually(lambda: lemond.state()["loaded"] == [])
    ask_load(db, rehash=True)
    worker.work()
    assert slot_now(db).state is SlotState.READY
    assert lemond.state()["loaded"] == ["m-chat"]
    assert "ready>offline unloaded_elsewhere" in history(db)
