"""What it means for a slot's wish that a model is gone: a person's unload is told by two looks."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from hal0.db import Database
from hal0.jobs.ledger.intake import machine_unload
from hal0.states import Desired, DesiredBy, SlotState
from tests.fakes.lemond import Lemond
from tests.ledger import IDLE, eventually, history, unfinished
from tests.rows import ask_unload, slot_now
from tests.worker import Worker, equip, load_all, load_there, look

UNLOADED = "ready>offline unloaded_elsewhere"


@contextmanager
def _loading_there(lemond: Lemond, model: str, **more: object) -> Iterator[None]:
    """Let somebody load a model in the engine's own app; it is there when the block is left."""
    lemond.script(models={model: {"load": "hang"}})
    load = threading.Thread(target=load_there, args=(lemond, model), kwargs=more)
    load.start()
    try:
        eventually(lambda: lemond.state()["loading"])
        yield
    finally:
        lemond.script(models={model: None})
        load.join()


def test_what_a_second_look_still_misses_was_unloaded_by_a_person_and_stays_so(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    load_all(db, worker, "chat")
    lemond.post("/v1/unload", {"model_name": "m-chat"}).raise_for_status()
    assert look(db, worker) == 1
    assert (history(db)[-1], slot_now(db).desired) == (UNLOADED, Desired.LOADED)
    look(db, worker)
    assert (history(db)[-1], slot_now(db).desired) == (UNLOADED, Desired.UNLOADED)
    assert slot_now(db).desired_by is DesiredBy.ELSEWHERE
    assert unfinished(db) == []
    assert look(db, worker) == 0


def test_who_unloads_there_what_a_machine_had_unloaded_and_he_loaded_is_believed_too(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    load_all(db, worker, "chat")
    with db.write() as tx:
        machine_unload(tx, slot_now(db), IDLE)
    worker.work()
    load_there(lemond, "m-chat")
    look(db, worker)
    assert (slot_now(db).state, slot_now(db).desired_by) == (SlotState.READY, DesiredBy.IDLE)
    lemond.post("/v1/unload", {"model_name": "m-chat"}).raise_for_status()
    look(db, worker)
    assert (history(db)[-1], slot_now(db).desired_by) == (UNLOADED, DesiredBy.IDLE)
    look(db, worker)
    assert slot_now(db).desired_by is DesiredBy.ELSEWHERE


def test_an_operators_word_between_the_two_looks_stands(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    load_all(db, worker, "chat")
    lemond.post("/v1/unload", {"model_name": "m-chat"}).raise_for_status()
    look(db, worker)
    assert ask_unload(db).already
    look(db, worker)
    assert slot_now(db).desired_by is DesiredBy.OPERATOR


def test_a_model_whose_backend_crashed_and_that_a_request_brought_back_stays_wanted(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    load_all(db, worker, "chat")
    lemond.drop("m-chat")
    look(db, worker)
    assert history(db)[-1] == UNLOADED
    hello = {"model": "m-chat", "messages": [{"role": "user", "content": "hello"}]}
    lemond.post("/v1/chat/completions", hello).raise_for_status()
    look(db, worker)
    assert (slot_now(db).state, slot_now(db).desired) == (SlotState.READY, Desired.LOADED)


def test_a_model_that_a_person_reloads_with_other_options_stays_wanted(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    load_all(db, worker, "chat")
    with _loading_there(lemond, "m-chat", ctx_size=512):
        look(db, worker)
        assert history(db)[-1] == UNLOADED
    look(db, worker)
    assert (slot_now(db).state, slot_now(db).desired) == (SlotState.READY, Desired.LOADED)


def test_a_model_that_made_room_for_one_that_was_still_loading_stays_wanted(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    """Also when that one is gone again: nobody unloaded this one."""
    lemond.script(max_loaded_models=1)
    load_all(db, worker, "chat")
    equip(db, "stranger")
    with _loading_there(lemond, "m-stranger"):
        look(db, worker)
        assert history(db)[-1] == UNLOADED
    look(db, worker)
    assert slot_now(db).desired is Desired.LOADED
    lemond.post("/v1/unload", {"model_name": "m-stranger"}).raise_for_status()
    look(db, worker)
    look(db, worker)
    assert slot_now(db).desired is Desired.LOADED


def test_a_restart_after_the_first_look_leaves_the_wish_as_it_was(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    """Nobody can tell any more whether it would have come back."""
    load_all(db, worker, "chat")
    lemond.drop("m-chat")
    look(db, worker)
    lemond.kill()
    lemond.start()
    look(db, worker)
    assert (slot_now(db).state, slot_now(db).desired) == (SlotState.OFFLINE, Desired.LOADED)
    assert unfinished(db) == []


def test_what_is_no_longer_wanted_is_not_looked_at_twice(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    load_all(db, worker, "chat")
    ask_unload(db)
    worker.work()
    version = slot_now(db).version
    look(db, worker)
    assert (slot_now(db).version, slot_now(db).desired) == (version, Desired.UNLOADED)
