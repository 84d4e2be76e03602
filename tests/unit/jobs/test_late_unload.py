"""An unload that the engine answers after its limit, and whose mark it is (ADR-0007)."""

from hal0.db import Database
from hal0.jobs import settle
from hal0.jobs.ledger.lane import clear_unload_mark, mark_unload_sent
from hal0.states import SlotState
from tests.fakes.lemond import Lemond
from tests.ledger import SENDING, die, eventually, history, make_slots, mark_sent
from tests.rows import ask_load, ask_unload, claim_next, run_load, slot_now
from tests.unit.jobs.conftest import MakeWorker
from tests.worker import equip, load_all, load_there, the_lemond, unloads


def test_a_late_answer_to_an_unload_takes_the_mark_off_and_empties_the_slot(
    db: Database, lemond: Lemond, make_worker: MakeWorker
) -> None:
    worker = make_worker(unload_timeout_s=0.4)
    equip(db, "chat")
    ask_load(db)
    worker.work()
    lemond.script(models={"m-chat": {"unload": "hang"}})
    held = ask_unload(db)
    worker.work()
    assert slot_now(db).state is SlotState.ERROR
    assert slot_now(db).unload_job_id == held.job_ids[0]
    lemond.script(models={"m-chat": None})
    eventually(lambda: slot_now(db).unload_job_id is None)
    slot = slot_now(db)
    assert (slot.state, slot.engine_model, slot.error) == ("offline", None, None)
    assert history(db)[-1] == "error>offline unload_confirmed"
    assert unloads(lemond) == ["m-chat"]


def test_the_mark_names_the_process_that_was_asked_and_not_the_one_that_the_slot_knows(
    db: Database, lemond: Lemond, make_worker: MakeWorker
) -> None:
    """Else it is settled at once, a new load ends ready, and then the old unload strikes."""
    worker = make_worker(unload_timeout_s=0.4, load_timeout_s=15)
    load_all(db, worker, "chat")
    lemond.kill()
    lemond.start()
    load_there(lemond, "m-chat")
    lemond.script(models={"m-chat": {"unload": "hang"}})
    (unload,) = ask_unload(db).job_ids
    worker.work()
    assert slot_now(db).state is SlotState.ERROR
    settle.settle_all(worker.ctx)
    marked = slot_now(db)
    assert (marked.unload_job_id, marked.unload_process) == (unload, the_lemond(db).process)
    ask_load(db)
    worker.work()
    assert slot_now(db).state is not SlotState.READY, "the engine has the unload still"
    lemond.script(models={"m-chat": None})
    eventually(lambda: worker.work() and slot_now(db).state is SlotState.READY)
    assert lemond.state()["loaded"] == ["m-chat"]


def test_an_engine_that_does_not_say_which_process_it_is_keeps_the_mark(
    db: Database, lemond: Lemond, make_worker: MakeWorker
) -> None:
    worker = make_worker(unload_timeout_s=0.4)
    load_all(db, worker, "chat")
    lemond.kill()
    lemond.start()
    load_there(lemond, "m-chat")
    lemond.script(health="refuse", models={"m-chat": {"unload": "hang"}})
    ask_unload(db)
    worker.work()
    lemond.script(health="ok")
    settle.settle_all(worker.ctx)
    assert slot_now(db).unload_job_id is not None


def test_the_mark_of_a_later_attempt_is_left_alone(db: Database) -> None:
    """A late hand of attempt 1 must not let a load pass while attempt 2 waits for its answer."""
    make_slots(db, "chat")
    ask_load(db)
    run_load(db)
    ask_unload(db)
    first = mark_sent(db, claim_next(db))
    die(db, first)
    again = claim_next(db)
    with db.write() as tx:
        mark_unload_sent(tx, again, SENDING)
    with db.write() as tx:
        assert not clear_unload_mark(tx, again.job.slot_id, again.job.id, first.job.attempt)
    assert slot_now(db).unload_attempt == again.job.attempt == 2
    with db.write() as tx:
        assert clear_unload_mark(tx, again.job.slot_id, again.job.id, again.job.attempt)
    assert slot_now(db).unload_job_id is None
