"""The load that a request set going, run by a worker against an engine: what it is, and is not."""

import pytest
from sqlalchemy import select

from hal0.db import Database
from hal0.jobs.ledger.intake import Accepted, Wish, add_chain
from hal0.jobs.ledger.rows import By
from hal0.jobs.wakes import request_wake
from hal0.slots.transitions import Act, move
from hal0.states import Cause, JobKind, Origin, SlotState
from hal0.tables import breakers
from tests.fakes.lemond import Lemond
from tests.ledger import RESTORE, history, job
from tests.rows import ask_load, slot_now
from tests.worker import Worker, equip, loads, unloads

WAKE = By("somebody", "request-7", Origin.WAKE)


def _wake(db: Database, slot: str = "chat") -> Accepted:
    with db.write() as tx:
        accepted = request_wake(tx, slot_now(db, slot), WAKE)
    assert accepted is not None
    return accepted


def _counted(db: Database) -> int:
    with db.read() as tx:
        return sum(tx.execute(select(breakers.c.sent)).scalars())


def test_a_wake_ends_ready_for_somebody_waits(db: Database, lemond: Lemond, worker: Worker) -> None:
    equip(db, "chat")
    _wake(db)
    worker.work()
    assert history(db)[-1] == "warming>ready loaded"
    assert (loads(lemond), slot_now(db).desired) == (["m-chat"], "loaded")
    assert _counted(db) == 1


@pytest.mark.parametrize(("by", "state"), [(WAKE, "ready"), (RESTORE, "idle")])
def test_a_wake_that_finds_an_idle_slot_loaded_makes_it_ready(
    db: Database, lemond: Lemond, worker: Worker, by: By, state: str
) -> None:
    equip(db, "chat")
    ask_load(db)
    worker.work()
    with db.write() as tx:
        slot = move(tx, slot_now(db), SlotState.IDLE, Cause.DEMOTED, Act("scan"))
        wish = Wish(JobKind.LOAD, slot.model_id, slot.held_options)
        accepted = add_chain(tx, slot, wish, by)
    worker.work()
    assert job(db, accepted.job_ids[-1]).outcome == "skipped"
    assert (slot_now(db).state, loads(lemond)) == (state, ["m-chat"])


def test_a_wake_never_takes_the_model_of_another_slot_away(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    equip(db, "chat", "other")
    lemond.script(max_loaded_models=1)
    ask_load(db, "other")
    worker.work()
    accepted = _wake(db)
    worker.work()
    load = job(db, accepted.job_ids[-1])
    assert (load.outcome, loads(lemond), unloads(lemond)) == ("skipped", ["m-other"], [])
    assert "model limit" in str(load.result)
    assert history(db)[-1] == "starting>offline cancelled"
    assert slot_now(db, "other").state is SlotState.READY


def test_what_an_operator_asks_for_meanwhile_does_not_give_way(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    equip(db, "chat", "other")
    lemond.script(max_loaded_models=1)
    ask_load(db, "other")
    worker.work()
    _wake(db)
    held = worker.work_up_to(JobKind.LOAD)
    assert ask_load(db).deduplicated
    worker.run(held)
    assert loads(lemond) == ["m-other", "m-chat"]
    assert (slot_now(db).state, _counted(db)) == (SlotState.READY, 0)


def test_a_wake_that_the_engine_could_not_load_is_not_sent_again(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    equip(db, "chat")
    lemond.script(models={"m-chat": {"load_fail": "llama-server failed to start"}})
    _wake(db)
    worker.work()
    assert slot_now(db).state is SlotState.ERROR
    with db.write() as tx:
        assert request_wake(tx, slot_now(db), WAKE) is None
    assert loads(lemond) == ["m-chat"]
