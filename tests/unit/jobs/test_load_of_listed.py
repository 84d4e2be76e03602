"""A load of what the engine lists already and whose backend does not answer: its place is freed."""

import pytest
from sqlalchemy import update

from hal0.db import Database
from hal0.jobs.ledger.intake import Wish, machine_load
from hal0.jobs.ledger.rows import Claim
from hal0.jobs.settle import settle_unload
from hal0.states import JobKind, SlotState
from hal0.tables import engines
from tests.fakes.lemond import Lemond
from tests.ledger import RESTORE, eventually, history, job, try_claim
from tests.rows import ask_load, slot_now
from tests.unit.jobs.conftest import MakeWorker
from tests.worker import Worker, equip, loads, the_lemond, unloads


@pytest.fixture
def worker(make_worker: MakeWorker) -> Worker:
    return make_worker(load_timeout_s=15, drain_timeout_s=0.3)


def _listed(lemond: Lemond, backend: str, **more: object) -> None:
    """Let somebody have loaded `m-chat` in the engine's app, with a backend like this."""
    lemond.post("/v1/load", {"model_name": "m-chat"}).raise_for_status()
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


def test_one_that_is_in_use_is_left_alone_by_a_machine(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    equip(db, "chat", desired="loaded")
    _listed(lemond, "refuse", entry={"is_busy": True})
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
