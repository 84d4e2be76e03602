"""A load of what the engine lists already: taken over, or its place freed if it does not answer."""

import pytest
from sqlalchemy import update

from hal0.db import Database
from hal0.jobs.engine_wait import waited_s_of
from hal0.jobs.ledger.intake import Wish, machine_load
from hal0.jobs.ledger.rows import Claim
from hal0.jobs.settle import settle_unload
from hal0.states import JobKind, SlotState
from hal0.tables import engines
from tests.fakes.lemond import Lemond
from tests.ledger import RESTORE, eventually, history, job, try_claim, unfinished
from tests.rows import ask_load, slot_now
from tests.unit.jobs.conftest import MakeWorker
from tests.worker import (
    Worker,
    equip,
    load_all,
    load_there,
    loads,
    look,
    the_lemond,
    unloads,
)


@pytest.fixture
def worker(make_worker: MakeWorker) -> Worker:
    return make_worker(load_timeout_s=15, drain_timeout_s=0.3)


def _listed(lemond: Lemond, backend: str, **more: object) -> None:
    """Let somebody have loaded `m-chat` in the engine's app, with a backend like this."""
    load_there(lemond, "m-chat")
    lemond.script(models={"m-chat": {"backend": backend, **more}})


def _restored(db: Database) -> int:
    """Let a machine want `chat` loaded; return the job of the load."""
    slot = slot_now(db)
    with db.write() as tx:
        wish = Wish(JobKind.LOAD, slot.wanted_model_id, slot.options)
        accepted = machine_load(tx, slot, wish, RESTORE)
    assert accepted is not None
    return accepted.job_ids[-1]


def _claimed_again(worker: Worker) -> Claim:
    """Claim a load that was put back, when its time has come."""
    found: list[Claim | None] = [None]

    def is_claimed() -> bool:
        found[0] = try_claim(worker.db, worker.id)
        return found[0] is not None

    eventually(is_claimed)
    assert found[0] is not None
    return found[0]


@pytest.mark.slow
def test_one_that_hangs_is_unloaded_and_loaded_once(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    """A probe that has no answer in its time is an answer: no."""
    equip(db, "chat")
    _listed(lemond, "hang")
    ask_load(db)
    with worker.running(worker.work_up_to(JobKind.LOAD)):
        eventually(lambda: unloads(lemond))
        lemond.script(models={"m-chat": None})
    assert slot_now(db).state is SlotState.READY
    assert (unloads(lemond), loads(lemond)) == (["m-chat"], ["m-chat", "m-chat"])


@pytest.mark.parametrize("is_busy", [True, None])
def test_one_that_is_in_use_or_may_be_is_left_alone_by_a_machine(
    db: Database, lemond: Lemond, worker: Worker, is_busy: bool | None
) -> None:
    equip(db, "chat", desired="loaded")
    _listed(lemond, "refuse", entry={"is_busy": is_busy})
    load = _restored(db)
    worker.work()
    assert (job(db, load).outcome, unloads(lemond)) == ("skipped", [])
    assert "in use" in str(job(db, load).result)
    assert history(db)[-1] == "starting>offline cancelled"


def test_one_that_nobody_uses_is_freed_by_a_machine(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    equip(db, "chat", desired="loaded")
    _listed(lemond, "refuse")
    load = _restored(db)
    with worker.running(worker.work_up_to(JobKind.LOAD)):
        eventually(lambda: unloads(lemond))
        lemond.script(models={"m-chat": None})
    assert job(db, load).outcome == "done"
    assert slot_now(db).state is SlotState.IDLE


def test_an_operators_load_waits_for_its_requests_to_end(
    db: Database, lemond: Lemond, make_worker: MakeWorker
) -> None:
    worker = make_worker(load_timeout_s=15, drain_timeout_s=60)
    equip(db, "chat")
    _listed(lemond, "refuse", entry={"is_busy": True})
    ask_load(db)
    held = worker.work_up_to(JobKind.LOAD)
    worker.run(held)
    assert (job(db, held.job.id).outcome, unloads(lemond)) == ("deferred", [])
    lemond.script(models={"m-chat": {"backend": "ok", "entry": {}}})
    worker.run(_claimed_again(worker))
    assert history(db)[-1] == "warming>ready adopted"
    assert unloads(lemond) == []


def test_an_operators_load_waits_no_longer_than_the_limit(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    equip(db, "chat")
    _listed(lemond, "refuse", entry={"is_busy": True})
    ask_load(db)
    worker.run(worker.work_up_to(JobKind.LOAD))
    assert unloads(lemond) == []
    with worker.running(_claimed_again(worker)):
        eventually(lambda: unloads(lemond))
        lemond.script(models={"m-chat": None})
    assert slot_now(db).state is SlotState.READY


def test_the_time_that_an_operators_load_waited_for_its_engine_is_nobodys_time_to_end(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    equip(db, "chat")
    ask_load(db)
    held = worker.work_up_to(JobKind.LOAD)
    lemond.kill()
    worker.run(held)
    eventually(lambda: waited_s_of(job(db, held.job.id)) > worker.ctx.settings.drain_timeout_s)
    lemond.start()
    _listed(lemond, "refuse", entry={"is_busy": True})
    worker.run(_claimed_again(worker))
    assert (job(db, held.job.id).outcome, unloads(lemond)) == ("deferred", [])


def test_one_that_answers_is_taken_over_by_a_machine_with_the_options_that_somebody_gave_it(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    """A restart lost it, and a person was faster than the restore."""
    load_all(db, worker, "chat")
    lemond.kill()
    lemond.start()
    look(db, worker)
    assert len(unfinished(db)) == 4
    load_there(lemond, "m-chat", ctx_size=512)
    lemond.script(models={"m-chat": {"entry": {"is_busy": True}}})
    worker.work()
    assert (history(db)[-1], loads(lemond)) == ("warming>ready adopted", ["m-chat", "m-chat"])
    assert (slot_now(db).held_options or {})["ctx_size"] == 512


def test_one_with_other_options_is_reloaded_by_an_operator(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    equip(db, "chat")
    load_there(lemond, "m-chat", ctx_size=512)
    ask_load(db)
    worker.work()
    assert (history(db)[-1], loads(lemond)) == ("warming>ready loaded", ["m-chat", "m-chat"])
    assert (slot_now(db).held_options or {})["ctx_size"] == 4096


def test_the_mark_names_the_process_that_was_asked(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    """The row may know one from before a restart; the mark would go with the request open."""
    equip(db, "chat")
    _listed(lemond, "refuse", unload="hang")
    ask_load(db)
    held = worker.work_up_to(JobKind.LOAD)
    with db.soft() as tx:
        tx.execute(update(engines).values(process="1-1"))
    with worker.running(held):
        eventually(lambda: unloads(lemond))
        settle_unload(worker.ctx, slot_now(db).id)
        marked = slot_now(db)
        lemond.script(models={"m-chat": None})
    assert (marked.unload_job_id, marked.unload_process) == (held.job.id, the_lemond(db).process)
