"""What a machine loads again meets: an engine that is not itself yet, downloads, old failures."""

import pytest

from hal0.db import Database
from hal0.jobs.settle import settle_all
from hal0.slots.transitions import Act, move
from hal0.states import Cause, JobKind, SlotState
from tests.fakes.lemond import Lemond
from tests.ledger import eventually, has_failed_key, job, the_lanes
from tests.rows import ask_load, slot_now
from tests.unit.jobs.conftest import MakeWorker
from tests.worker import Worker, equip, load_all, load_there, look


def _restart(lemond: Lemond) -> None:
    lemond.kill()
    lemond.start()


@pytest.mark.parametrize("unwell", [{"health": "refuse"}, {"health": "garbage"}])
def test_a_restore_waits_for_an_engine_that_does_not_say_what_it_has_yet(
    db: Database, lemond: Lemond, worker: Worker, unwell: dict[str, str]
) -> None:
    load_all(db, worker, "chat")
    _restart(lemond)
    look(db, worker)
    lemond.script(**unwell)
    done = worker.work()
    assert job(db, done[-1].job.id).outcome == "deferred"
    assert slot_now(db).state is SlotState.STARTING
    lemond.script(health="ok")
    eventually(lambda: worker.work() and slot_now(db).state is SlotState.IDLE)


def test_a_restore_waits_for_an_engine_that_does_not_know_its_models_yet(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    load_all(db, worker, "chat")
    _restart(lemond)
    look(db, worker)
    lemond.script(describe="refuse")
    done = worker.work()
    assert (done[-1].job.kind, job(db, done[-1].job.id).outcome) == (JobKind.VALIDATE, "deferred")
    lemond.script(describe="ok")
    eventually(lambda: worker.work() and slot_now(db).state is SlotState.IDLE)


def test_a_restore_that_waited_in_vain_for_such_an_engine_is_made_up_for_when_it_is_well(
    db: Database, lemond: Lemond, make_worker: MakeWorker
) -> None:
    worker = make_worker(load_timeout_s=15, engine_wait_s=0)
    load_all(db, worker, "chat")
    _restart(lemond)
    look(db, worker)
    lemond.script(health="refuse")
    worker.work()
    assert (slot_now(db).error or {})["code"] == "engine.unreachable"
    lemond.script(health="ok")
    look(db, worker)
    worker.work()
    assert slot_now(db).state is SlotState.IDLE


@pytest.mark.parametrize("unwell", [{"health": "garbage"}, {"describe": "refuse"}])
def test_an_operator_is_told_at_once_that_the_engine_is_not_well(
    db: Database, lemond: Lemond, worker: Worker, unwell: dict[str, str]
) -> None:
    equip(db, "chat")
    lemond.script(**unwell)
    ask_load(db)
    worker.work()
    assert (slot_now(db).error or {})["code"] in ("engine.bad_answer", "engine.refused")


def test_a_model_of_another_type_has_room_of_its_own(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    lemond.script(max_loaded_models=1)
    load_all(db, worker, "chat", "embed")
    _restart(lemond)
    lemond.script(max_loaded_models=1)
    look(db, worker)
    worker.work()
    assert {slot_now(db, name).state for name in ("chat", "embed")} == {SlotState.IDLE}


def test_what_failed_and_then_served_all_the_same_is_loaded_again_after_a_restart(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    """A person had more luck with it in the engine's own app."""
    equip(db, "chat")
    lemond.script(models={"m-chat": {"load": "die"}})
    ask_load(db)
    worker.work()
    assert (slot_now(db).state, has_failed_key(db)) == (SlotState.OFFLINE, True)
    lemond.start()
    load_there(lemond, "m-chat")
    look(db, worker)
    assert (slot_now(db).state, has_failed_key(db)) == (SlotState.READY, False)
    _restart(lemond)
    look(db, worker)
    worker.work()
    assert slot_now(db).state is SlotState.IDLE


def test_what_timed_out_is_not_loaded_by_a_machine_though_a_new_process_serves_it(
    db: Database, lemond: Lemond, make_worker: MakeWorker
) -> None:
    worker = make_worker(load_timeout_s=0.5)
    equip(db, "chat")
    lemond.script(models={"m-chat": {"load": "hang"}})
    ask_load(db)
    worker.work()
    _restart(lemond)
    lemond.script(models={"m-chat": None})
    settle_all(worker.ctx)
    eventually(lambda: not the_lanes(db))
    with db.write() as tx:
        move(tx, slot_now(db), SlotState.OFFLINE, Cause.CLEARED, Act("local"))
    load_there(lemond, "m-chat")
    look(db, worker)
    assert (slot_now(db).state, has_failed_key(db)) == (SlotState.READY, True)
