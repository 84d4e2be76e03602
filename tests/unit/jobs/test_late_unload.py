"""An unload that the engine answers after its limit, and whose mark it is (ADR-0007)."""

from collections.abc import Callable

from hal0.db import Database
from hal0.jobs.ledger.lane import clear_unload_mark, mark_unload_sent
from hal0.states import SlotState
from tests.fakes.lemond import Lemond
from tests.ledger import SENDING, die, eventually, history, make_slots, mark_sent
from tests.rows import ask_load, ask_unload, claim_next, run_load, slot_now
from tests.worker import Worker, equip, unloads

MakeWorker = Callable[..., Worker]


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
