"""What a slot is while its engine is away, and what comes back with it, or after a boot."""

import pytest
from sqlalchemy import update

from hal0.db import Database
from hal0.engines.options import as_held
from hal0.jobs.boot import first_act
from hal0.jobs.losses import lose_engine
from hal0.jobs.restore import restore_of
from hal0.jobs.settle import settle_all
from hal0.registry.catalog import model_named
from hal0.states import SlotState
from hal0.tables import boots, engines, periodic, slots
from tests.fakes.lemond import Lemond
from tests.ledger import ADOPTED, eventually, history, incident_kinds, the_lanes, unfinished
from tests.rows import ask_load, ask_unload, make_model, options, slot_now
from tests.unit.jobs.conftest import MakeWorker
from tests.worker import (
    Worker,
    equip,
    load_all,
    load_there,
    loads,
    look,
    the_lemond,
)


@pytest.fixture
def worker(make_worker: MakeWorker) -> Worker:
    return make_worker(engine_grace_s=0.5, load_timeout_s=15)


# -- an engine that is away ------------------------------------------------------------------------


def test_an_engine_that_stays_away_costs_its_slots_and_gives_them_back_when_it_returns(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    load_all(db, worker, "chat", "other")
    lemond.kill()
    assert look(db, worker) == 0, "not within its grace"
    assert slot_now(db).state is SlotState.READY
    eventually(lambda: look(db, worker) == 2)
    assert history(db)[-1] == "ready>error engine_lost"
    error = slot_now(db).error or {}
    assert error["code"] == "engine.lost"
    assert lemond.url in error["detail"]
    assert incident_kinds(db) == ["engine_lost"], "one, not one a slot"
    assert look(db, worker) == 0
    lemond.start()
    assert look(db, worker) == 2
    assert history(db)[-1] == "error>offline engine_returned"
    worker.work()
    assert slot_now(db).state is SlotState.IDLE


def test_an_engine_that_stays_away_costs_its_slots_also_while_it_owes_a_load(
    db: Database, lemond: Lemond, make_worker: MakeWorker
) -> None:
    """Who waits for the lane would wait for an engine that never comes back."""
    worker = make_worker(engine_grace_s=0.5, load_timeout_s=0.5)
    load_all(db, worker, "chat")
    equip(db, "other")
    lemond.script(models={"m-other": {"load": "hang"}})
    ask_load(db, "other")
    worker.work()
    assert len(the_lanes(db)) == 1
    lemond.kill()
    eventually(lambda: look(db, worker) == 1)
    assert history(db)[-1] == "ready>error engine_lost"
    lemond.start()
    settle_all(worker.ctx)
    eventually(lambda: not the_lanes(db))
    look(db, worker)
    worker.work()
    assert slot_now(db).state is SlotState.IDLE


def test_what_was_held_comes_back_not_what_was_asked_for_in_vain(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    """B15: a bad new model never got as far as the engine; the old one served on."""
    load_all(db, worker, "chat")
    held = slot_now(db).model_id
    make_model(db, "bad", db.path.parent / "models" / "bad.gguf")
    (db.path.parent / "models" / "bad.gguf").write_bytes(b"no model")
    with db.read() as tx:
        bad = model_named(tx, "bad")
    ask_load(db, model_id=bad.id)
    worker.work()
    assert slot_now(db).state is SlotState.READY
    lemond.kill()
    eventually(lambda: look(db, worker) == 1)
    lemond.start()
    look(db, worker)
    worker.work()
    assert (slot_now(db).state, slot_now(db).model_id) == (SlotState.IDLE, held)


def test_an_answer_of_any_kind_ends_an_absence(
    db: Database, lemond: Lemond, make_worker: MakeWorker
) -> None:
    worker = make_worker(engine_grace_s=3600)
    load_all(db, worker, "chat")
    lemond.kill()
    look(db, worker)
    assert the_lemond(db).away_ms is not None
    lemond.start()
    lemond.script(health="refuse")
    look(db, worker)
    assert the_lemond(db).away_ms is None


def test_an_absence_that_nobody_looked_at_for_long_begins_anew(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    """The workers were away: nobody knows who was there meanwhile."""
    load_all(db, worker, "chat")
    lemond.kill()
    look(db, worker)
    an_hour = 3_600_000
    with db.write() as tx:
        tx.execute(
            update(engines).values(
                unreachable_ms=engines.c.unreachable_ms - an_hour,
                unreachable_seen_ms=engines.c.unreachable_seen_ms - an_hour,
            )
        )
    assert look(db, worker) == 0
    assert slot_now(db).state is SlotState.READY


def test_an_engine_that_came_back_while_this_waited_for_the_database_is_not_lost(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    load_all(db, worker, "chat")
    with db.write() as tx:
        assert lose_engine(tx, the_lemond(db).id, grace_ms=0) == 0


def test_an_engine_that_hung_and_goes_on_has_its_models_adopted(
    db: Database, lemond: Lemond, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hal0.jobs.scan.HEALTH_S", 0.3)
    load_all(db, worker, "chat")
    with db.write() as tx:
        tx.execute(update(engines).values(unreachable_boot=None, unreachable_ms=None))
    lemond.script(health="hang", live="hang")
    before = len(loads(lemond))
    eventually(lambda: look(db, worker) == 1, limit_s=60)
    assert history(db)[-1] == "ready>error engine_lost"
    lemond.script(health="ok", live="ok")
    look(db, worker)
    assert history(db)[-4:] == ["error>offline engine_returned", *ADOPTED]
    assert len(loads(lemond)) == before


def test_a_slow_health_is_not_a_dead_server(
    db: Database, lemond: Lemond, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """18 s were seen while a busy model was unloaded; /live decides."""
    monkeypatch.setattr("hal0.jobs.scan.HEALTH_S", 0.3)
    load_all(db, worker, "chat")
    lemond.script(health="hang")
    for _ in range(4):
        assert look(db, worker) == 0
    assert the_lemond(db).away_ms is None
    assert slot_now(db).state is SlotState.READY


def test_a_load_that_waited_in_vain_for_its_engine_is_made_up_for_when_that_returns(
    db: Database, lemond: Lemond, make_worker: MakeWorker
) -> None:
    worker = make_worker(engine_wait_s=0)
    equip(db, "chat")
    lemond.kill()
    ask_load(db)
    worker.work()
    assert (slot_now(db).error or {})["code"] == "engine.unreachable"
    lemond.start()
    look(db, worker)
    worker.work()
    assert slot_now(db).state is SlotState.IDLE


# -- boot ------------------------------------------------------------------------------------------


@pytest.fixture
def rebooted(db: Database, lemond: Lemond, worker: Worker) -> Worker:
    """The host was started again with two slots loaded, one that is not wanted, and no engine."""
    load_all(db, worker, "chat", "other", "unwanted")
    ask_unload(db, "unwanted")
    worker.work()
    lemond.kill()
    first_act(db, "worker")
    with db.write() as tx:
        tx.execute(update(boots).values(boot_id="another boot"))
        tx.execute(periodic.delete())
        tx.execute(update(slots).where(slots.c.name == "other").values(priority=1))
    assert first_act(db, "worker") == 2
    return worker


def test_after_a_reboot_what_is_wanted_is_loaded_once_the_engine_is_well(
    db: Database, lemond: Lemond, rebooted: Worker
) -> None:
    """D14"""
    assert history(db)[-1] == "ready>offline host_rebooted"
    assert unfinished(db) == []
    assert look(db, rebooted) == 0, "no engine yet"
    assert unfinished(db) == []
    lemond.start()
    before = len(loads(lemond))
    assert look(db, rebooted) == 2
    rebooted.work()
    assert loads(lemond)[before:] == ["m-other", "m-chat"]
    assert slot_now(db, "unwanted").state is SlotState.OFFLINE


def test_after_a_reboot_what_the_engine_has_already_is_adopted(
    db: Database, lemond: Lemond, rebooted: Worker
) -> None:
    """D14: in any order of engine, API, worker."""
    lemond.start()
    load_there(lemond, "m-chat")
    before = len(loads(lemond))
    look(db, rebooted)
    rebooted.work()
    assert history(db)[-3:] == ADOPTED
    assert loads(lemond)[before:] == ["m-other"]
    assert restore_of(slot_now(db)) is None


def test_two_slots_and_room_for_one_settle(db: Database, lemond: Lemond, worker: Worker) -> None:
    """Two slots that evict each other for ever would load for ever."""
    lemond.script(max_loaded_models=1)
    load_all(db, worker, "one", "two")
    assert incident_kinds(db) == ["load_made_room"]
    lemond.kill()
    lemond.start()
    lemond.script(max_loaded_models=1)
    before = len(loads(lemond))
    for _ in range(6):
        look(db, worker)
        worker.work()
    assert loads(lemond)[before:] == ["m-two"]
    states = {name: slot_now(db, name).state for name in ("one", "two")}
    assert states == {"one": SlotState.OFFLINE, "two": SlotState.IDLE}


def test_wishes_are_no_ones_options() -> None:
    """What the slot leaves to the engine is as wanted, and so is what an engine does not tell."""
    wanted = options({"llamacpp_args": "--threads 4"})
    listed = {"ctx_size": 512, "llamacpp_backend": "cpu", "llamacpp_args": "--threads  4"}
    assert as_held(wanted, listed) == {**wanted, "ctx_size": 512}
    assert as_held(wanted, {}) == wanted
    assert as_held({}, listed) == {}
