"""A scan against a real server: what is adopted, lost, brought back; what is left alone."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import update

from hal0.db import Database
from hal0.jobs.ledger.orders import cancel
from hal0.states import Desired, JobKind, SlotState
from hal0.tables import slots
from tests.fakes.lemond import Lemond
from tests.ledger import ADOPTED, eventually, history, incident_kinds, the_lanes, unfinished
from tests.rows import OPERATOR, ask_load, ask_unload, slot_now
from tests.unit.jobs.conftest import MakeWorker
from tests.worker import (
    Worker,
    equip,
    load_all,
    load_there,
    loads,
    look,
    the_lemond,
    unload_in_vain,
    unloads,
)


@pytest.fixture
def worker(make_worker: MakeWorker) -> Worker:
    return make_worker(engine_grace_s=0.5, load_timeout_s=15)


# -- adoption --------------------------------------------------------------------------------------


def test_what_somebody_loaded_in_the_engine_is_adopted_and_nothing_is_sent(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    equip(db, "chat")
    load_there(lemond, "m-chat")
    sent = len(loads(lemond))
    assert look(db, worker) == 1
    assert history(db) == ADOPTED
    slot = slot_now(db)
    assert (slot.desired, slot.generation, slot.engine_model) == (Desired.UNLOADED, 1, "m-chat")
    assert slot.holds(slot.wanted_model_id, slot.options)
    assert len(loads(lemond)) == sent
    assert look(db, worker) == 0


def test_what_was_loaded_with_other_options_is_held_so_and_a_load_reloads_it(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    equip(db, "chat")
    load_there(lemond, "m-chat", ctx_size=512)
    look(db, worker)
    assert slot_now(db).state is SlotState.READY
    assert (slot_now(db).held_options or {})["ctx_size"] == 512
    ask_load(db)
    worker.work()
    assert (slot_now(db).held_options or {})["ctx_size"] == 4096


def test_what_somebody_reloaded_with_other_options_is_not_taken_for_what_was_wanted(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    load_all(db, worker, "chat")
    load_there(lemond, "m-chat", ctx_size=512)
    look(db, worker)
    assert (slot_now(db).state, len(history(db))) == (SlotState.READY, 3), "no change of state"
    ask_load(db)
    worker.work()
    assert history(db)[3:5] == ["ready>unloading replaced", "unloading>offline unloaded"]
    assert (slot_now(db).held_options or {})["ctx_size"] == 4096


def test_a_model_whose_backend_does_not_answer_is_not_adopted(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    """L-5"""
    equip(db, "chat")
    load_there(lemond, "m-chat")
    lemond.script(models={"m-chat": {"backend": "refuse"}})
    assert look(db, worker) == 0
    assert slot_now(db).state is SlotState.OFFLINE


def test_backends_are_asked_all_at_once(db: Database, lemond: Lemond, worker: Worker) -> None:
    """One after the other, those that hang would hold up the whole look."""
    names = ["one", "two", "three"]
    equip(db, *names)
    for name in names:
        load_there(lemond, f"m-{name}")
    lemond.script(models={f"m-{name}": {"backend": "hang"} for name in names})
    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look, db, worker)
        eventually(lambda: len(lemond.state()["probed"]) == 3)
        lemond.script(models={f"m-{name}": None for name in names})
        assert looking.result() == 3


def test_another_file_of_the_same_name_is_a_stranger_and_never_touched(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    """D16"""
    equip(db, "chat")
    lemond.script(models={"m-chat": {"checkpoint": "/elsewhere/m-chat.gguf"}})
    load_there(lemond, "m-chat")
    assert look(db, worker) == 0
    assert slot_now(db).state is SlotState.OFFLINE
    assert unloads(lemond) == []


def test_a_strangers_model_is_told_and_never_touched(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    load_all(db, worker, "chat")
    equip(db, "other")
    with db.write() as tx:
        tx.execute(update(slots).where(slots.c.name == "other").values(wanted_model_id=None))
    load_there(lemond, "m-other")
    assert look(db, worker) == 0
    seen = the_lemond(db).seen or {}
    assert (seen["strangers"], seen["models"]) == (["m-other"], ["m-chat", "m-other"])
    assert unloads(lemond) == []


def test_a_load_that_timed_out_is_not_adopted_by_a_machine_but_by_an_operators_load(
    db: Database, lemond: Lemond, make_worker: MakeWorker
) -> None:
    worker = make_worker(load_timeout_s=0.5)
    equip(db, "chat")
    lemond.script(models={"m-chat": {"load": "hang"}})
    ask_load(db)
    worker.work()
    assert (slot_now(db).error or {})["code"] == "preload.load_timeout"
    lemond.script(models={"m-chat": None})
    eventually(lambda: unloads(lemond))
    ask_unload(db)
    eventually(lambda: worker.work() or slot_now(db).state is SlotState.OFFLINE)
    load_there(lemond, "m-chat")
    probed = lemond.state()["probed"]
    assert look(db, worker) == 0
    assert lemond.state()["probed"] == probed, "nobody waits for what is not adopted"
    sent = len(loads(lemond))
    ask_load(db)
    worker.work()
    assert history(db)[-3:] == ADOPTED
    assert len(loads(lemond)) == sent


def test_a_load_of_what_is_listed_and_does_not_answer_unloads_it_first_and_is_sent_once(
    db: Database, lemond: Lemond, make_worker: MakeWorker
) -> None:
    worker = make_worker(load_timeout_s=2)
    equip(db, "chat")
    load_there(lemond, "m-chat")
    lemond.script(models={"m-chat": {"backend": "refuse"}})
    ask_load(db)
    worker.work()
    assert (slot_now(db).error or {})["code"] == "engine.backend_not_answering"
    assert unloads(lemond)[0] == "m-chat"
    assert len(loads(lemond)) == 2, "somebody's, and ours"
    assert slot_now(db).unload_job_id is None


# -- losses ----------------------------------------------------------------------------------------


def test_what_a_person_unloads_there_stays_unloaded_and_is_adopted_when_they_load_it_again(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    load_all(db, worker, "chat", "other")
    lemond.post("/v1/unload", {"model_name": "m-chat"}).raise_for_status()
    assert look(db, worker) == 1
    assert history(db)[-1] == "ready>offline unloaded_elsewhere"
    look(db, worker)
    assert (slot_now(db).desired, incident_kinds(db)) == (Desired.UNLOADED, [])
    assert unfinished(db) == []
    load_there(lemond, "m-chat")
    look(db, worker)
    assert history(db)[-3:] == ADOPTED
    assert slot_now(db, "other").state is SlotState.READY


def test_several_that_were_unloaded_there_are_one_incident(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    load_all(db, worker, "one", "two", "three")
    lemond.post("/v1/unload", {})
    assert look(db, worker) == 3
    assert incident_kinds(db) == ["unloaded_elsewhere"]
    look(db, worker)
    assert {slot_now(db, name).desired for name in ("one", "two", "three")} == {"unloaded"}


def test_a_restarted_engine_gets_back_what_is_wanted_the_most_important_first(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    load_all(db, worker, "low", "high")
    with db.write() as tx:
        tx.execute(update(slots).where(slots.c.name == "high").values(priority=5))
    lemond.kill()
    lemond.start()
    assert look(db, worker) == 2
    assert incident_kinds(db) == ["engine_restarted"]
    assert history(db, "low")[-1] == "ready>offline engine_restarted"
    before = len(loads(lemond))
    worker.work()
    assert loads(lemond)[before:] == ["m-high", "m-low"]
    assert slot_now(db, "high").state is SlotState.IDLE, "nobody waits for it"


def test_what_a_full_engine_dropped_for_another_client_is_marked_and_not_brought_back(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    lemond.script(max_loaded_models=1)
    load_all(db, worker, "chat")
    equip(db, "stranger")
    load_there(lemond, "m-stranger")
    look(db, worker)
    assert history(db)[-1] == "ready>offline evicted_by_engine"
    assert (slot_now(db).desired, incident_kinds(db)) == (Desired.LOADED, ["load_made_room"])
    look(db, worker)
    assert unfinished(db) == []


@pytest.mark.parametrize("health", ["refuse", "no_list", "garbage"])
def test_an_engine_that_does_not_say_what_it_has_changes_nothing(
    db: Database, lemond: Lemond, worker: Worker, health: str
) -> None:
    """C8"""
    load_all(db, worker, "chat")
    lemond.drop("m-chat")
    lemond.script(health=health)
    assert look(db, worker) == 0
    assert slot_now(db).state is SlotState.READY


def test_a_person_s_unload_after_a_restart_nobody_saw_is_not_undone(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    """The engine had the model again before anyone looked: another process is another story."""
    load_all(db, worker, "chat")
    lemond.kill()
    lemond.start()
    load_there(lemond, "m-chat")
    assert look(db, worker) == 1
    assert history(db)[-4:] == ["ready>offline engine_restarted", *ADOPTED]
    assert incident_kinds(db) == ["engine_restarted"]
    lemond.post("/v1/unload", {"model_name": "m-chat"}).raise_for_status()
    look(db, worker)
    assert history(db)[-1] == "ready>offline unloaded_elsewhere"
    assert unfinished(db) == []


def test_what_another_process_lists_and_does_not_serve_is_loaded_again(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    load_all(db, worker, "chat")
    lemond.kill()
    lemond.start()
    load_there(lemond, "m-chat")
    lemond.script(models={"m-chat": {"backend": "refuse"}})
    assert look(db, worker) == 1
    assert history(db)[-1] == "ready>offline engine_restarted"
    assert len(unfinished(db)) == 4


def _fail_to_unload(db: Database, lemond: Lemond, worker: Worker) -> None:
    """Leave a slot in error whose model the engine still has."""
    load_all(db, worker, "chat")
    unload_in_vain(db, lemond, worker)
    lemond.script(models={"m-chat": None})


@pytest.mark.parametrize(
    "entry", [{"is_busy": True}, {"is_busy": None}, {"checkpoint": "/elsewhere/m-chat.gguf"}]
)
def test_what_a_slot_in_error_left_is_not_unloaded_while_it_is_used_or_may_be_another_s(
    db: Database, lemond: Lemond, worker: Worker, entry: dict[str, object]
) -> None:
    _fail_to_unload(db, lemond, worker)
    lemond.script(models={"m-chat": {"entry": entry}})
    look(db, worker)
    assert unfinished(db) == []


def test_what_another_process_has_is_not_what_a_slot_in_error_left(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    _fail_to_unload(db, lemond, worker)
    lemond.kill()
    lemond.start()
    load_there(lemond, "m-chat")
    look(db, worker)
    assert unfinished(db) == []


def test_what_a_person_loads_after_a_load_that_timed_out_is_not_unloaded(
    db: Database, lemond: Lemond, make_worker: MakeWorker
) -> None:
    """Its late answer was an error, and the engine has it no more: then it is another's."""
    worker = make_worker(load_timeout_s=0.5)
    equip(db, "chat")
    lemond.script(models={"m-chat": {"load": "hang"}})
    ask_load(db)
    worker.work()
    lemond.script(models={"m-chat": {"load": "ok", "load_fail": "no", "load_evicts": False}})
    eventually(lambda: not the_lanes(db))
    lemond.script(models={"m-chat": None})
    load_there(lemond, "m-chat")
    look(db, worker)
    assert unfinished(db) == []
    assert unloads(lemond) == []


def test_what_a_slot_in_error_left_is_another_s_once_a_look_has_missed_it(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    """A person unloads it in the engine's own app, and loads it there again."""
    _fail_to_unload(db, lemond, worker)
    lemond.post("/v1/unload", {"model_name": "m-chat"}).raise_for_status()
    sent = len(unloads(lemond))
    look(db, worker)
    assert (slot_now(db).state, slot_now(db).engine_model) == (SlotState.ERROR, None)
    load_there(lemond, "m-chat")
    look(db, worker)
    worker.work()
    assert len(unloads(lemond)) == sent


def test_a_slot_does_not_keep_another_file_that_came_under_its_model_s_name(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    load_all(db, worker, "chat")
    lemond.script(models={"m-chat": {"entry": {"checkpoint": "/elsewhere/m-chat.gguf"}}})
    assert look(db, worker) == 1
    assert history(db)[-1] == "ready>offline unloaded_elsewhere"


def test_a_slot_keeps_its_file_by_whatever_path_the_engine_calls_it(
    db: Database, lemond: Lemond, worker: Worker, tmp_path: Path
) -> None:
    load_all(db, worker, "chat")
    link = tmp_path / "a link"
    link.symlink_to(db.path.parent / "models" / "m-chat.gguf")
    lemond.script(models={"m-chat": {"entry": {"checkpoint": str(link)}}})
    assert look(db, worker) == 0
    assert slot_now(db).state is SlotState.READY


def test_a_slot_without_a_model_that_has_a_name_at_its_engine_ends_no_look(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    """Its load was cancelled behind what an unload had left, and then its model taken away."""
    _fail_to_unload(db, lemond, worker)
    lemond.script(models={"m-chat": {"entry": {"checkpoint": None}}})
    ask_load(db)
    held = worker.work_up_to(JobKind.LOAD)
    with db.write() as tx:
        cancel(tx, held.job.id, OPERATOR)
        tx.execute(update(slots).values(wanted_model_id=None))
    assert (slot_now(db).state, slot_now(db).engine_model) == (SlotState.OFFLINE, "m-chat")
    assert look(db, worker) == 0
