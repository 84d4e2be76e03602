"""An unload against a real server: marked before it is sent, asked by name, confirmed (D6)."""

from collections.abc import Callable

import pytest
from sqlalchemy import update

from hal0 import points
from hal0.clock import utc_now
from hal0.db import Database
from hal0.errors import EngineRefused
from hal0.jobs import settle
from hal0.jobs.ledger.intake import Accepted, Wish, add_chain
from hal0.slots.transitions import Act, move
from hal0.states import Cause, JobKind, SlotState
from hal0.tables import slots
from tests.fakes.lemond import Lemond
from tests.ledger import (
    IDLE,
    die,
    eventually,
    fail,
    history,
    job,
    make_slots,
    outcomes,
    the_lanes,
    unfinished,
)
from tests.rows import ask_load, ask_unload, claim_next, slot_now
from tests.worker import Worker, equip, loads, unloads

UNLOADED = ["ready>unloading operator_unload", "unloading>offline unloaded"]


def _loaded(db: Database, worker: Worker) -> None:
    equip(db, "chat")
    ask_load(db)
    worker.work()
    assert slot_now(db).state is SlotState.READY


def _idle_unload(db: Database) -> Accepted:
    """What the idle scan does: demote, then enqueue with what it saw."""
    with db.soft() as tx:
        slot = move(tx, slot_now(db), SlotState.IDLE, Cause.DEMOTED, Act("scan"))
    wish = Wish(JobKind.UNLOAD, guard=(slot.generation, slot.last_used_at))
    with db.write() as tx:
        return add_chain(tx, slot, wish, IDLE)


def _use(db: Database) -> None:
    with db.soft() as tx:
        tx.execute(update(slots).values(last_used_at=utc_now()))


def test_an_unload_is_asked_once_by_name_and_confirmed(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    _loaded(db, worker)
    ask_unload(db)
    worker.work()
    assert history(db)[-2:] == UNLOADED
    assert unloads(lemond) == ["m-chat"]
    slot = slot_now(db)
    assert (slot.model_id, slot.held_options, slot.unload_job_id) == (None, None, None)


def test_an_error_that_never_reached_the_engine_is_cleared_without_asking(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    """D6: cleared"""
    equip(db, "chat")
    (db.path.parent / "models" / "m-chat.gguf").unlink()
    ask_load(db)
    worker.work()
    assert slot_now(db).state is SlotState.ERROR
    ask_unload(db)
    worker.work()
    assert history(db)[-1] == "error>offline cleared"
    assert unloads(lemond) == []


@pytest.mark.parametrize("is_there", [False, True])
def test_an_error_that_reached_the_engine_is_confirmed_by_it(
    db: Database, lemond: Lemond, worker: Worker, is_there: bool
) -> None:
    """D6: unload_confirmed, also when the engine answers 404."""
    equip(db, "chat")
    ask_load(db)
    worker.work()
    lemond.script(models={"m-chat": {"unload": "fail"}})
    ask_unload(db)
    worker.work()
    assert slot_now(db).state is SlotState.ERROR
    lemond.script(models={"m-chat": None})
    if not is_there:
        lemond.drop("m-chat")
    accepted = ask_unload(db)
    worker.work()
    assert history(db)[-1] == "error>offline unload_confirmed"
    assert job(db, accepted.job_ids[0]).result == {"was_loaded": is_there}
    assert slot_now(db).error is None
    assert lemond.state()["loaded"] == []


def test_a_machines_unload_is_skipped_when_the_slot_was_used_meanwhile(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    """machine_guard (C16)"""
    _loaded(db, worker)
    accepted = _idle_unload(db)
    _use(db)
    worker.work()
    assert outcomes(db, accepted.job_ids) == ["skipped"]
    assert slot_now(db).state is SlotState.IDLE
    assert unloads(lemond) == []
    assert slot_now(db).desired == "loaded"


def test_a_machines_unload_is_skipped_when_another_load_came_meanwhile(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    """machine_guard: what was decided for one generation never touches another."""
    _loaded(db, worker)
    accepted = _idle_unload(db)
    with db.soft() as tx:
        tx.execute(update(slots).values(generation=7))
    worker.work()
    assert outcomes(db, accepted.job_ids) == ["skipped"]
    assert unloads(lemond) == []


def test_a_machines_unload_of_what_nobody_used_is_done_and_wanted(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    _loaded(db, worker)
    _idle_unload(db)
    worker.work()
    assert history(db)[-2:] == ["idle>unloading idle_unload", "unloading>offline unloaded"]
    assert slot_now(db).desired == "unloaded"


def test_an_operators_unload_has_no_guard(db: Database, lemond: Lemond, worker: Worker) -> None:
    """dedup_takes_over: the machine's job is the operator's now, used meanwhile or not."""
    _loaded(db, worker)
    idle = _idle_unload(db)
    assert ask_unload(db).job_ids == idle.job_ids
    _use(db)
    worker.work()
    assert history(db)[-2:] == ["idle>unloading operator_unload", "unloading>offline unloaded"]


def test_an_operators_unload_has_no_guard_though_it_was_claimed_before(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    """dedup_takes_over: the operator was told "deduplicated" while the job was claimed."""
    _loaded(db, worker)
    _idle_unload(db)
    held = worker.claim()
    assert ask_unload(db).deduplicated
    _use(db)
    worker.run(held)
    assert slot_now(db).state is SlotState.OFFLINE


def test_an_unload_that_is_not_answered_keeps_its_mark_until_it_is_settled(
    db: Database, lemond: Lemond, make_worker: Callable[..., Worker]
) -> None:
    """unload_unsettled: a load of the slot waits, or the late unload would take it away."""
    worker = make_worker(unload_timeout_s=0.4)
    _loaded(db, worker)
    lemond.script(models={"m-chat": {"unload": "hang"}})
    accepted = ask_unload(db)
    worker.work()
    error = job(db, accepted.job_ids[0]).error
    assert error is not None
    assert error["code"] == "engine.unload_timeout"
    assert history(db)[-1] == "unloading>error deadline_passed"
    ask_load(db)
    worker.work()
    settle.settle_all(worker.ctx)
    assert len(unfinished(db)) == 1, "the load waits for the mark"
    lemond.kill()
    lemond.start()
    settle.settle_all(worker.ctx)
    assert slot_now(db).unload_job_id is None
    lemond.script(models={"m-chat": None})
    worker.work()
    assert slot_now(db).state is SlotState.READY


def test_an_engine_that_is_gone_holds_nothing(db: Database, lemond: Lemond, worker: Worker) -> None:
    _loaded(db, worker)
    lemond.kill()
    accepted = ask_unload(db)
    worker.work()
    assert history(db)[-1] == "unloading>offline engine_restarted"
    assert outcomes(db, accepted.job_ids) == ["done"]


def test_an_engine_that_dies_over_the_unload_holds_nothing(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    _loaded(db, worker)
    lemond.script(models={"m-chat": {"unload": "die"}})
    ask_unload(db)
    worker.work()
    assert history(db)[-1] == "unloading>offline engine_restarted"
    assert slot_now(db).unload_job_id is None


def test_an_unload_that_the_engine_refuses_is_a_failure_and_no_mark_stays(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    _loaded(db, worker)
    lemond.script(models={"m-chat": {"unload": "fail"}})
    ask_unload(db)
    worker.work()
    assert history(db)[-1] == "unloading>error job_failed"
    assert slot_now(db).unload_job_id is None


def test_a_rescued_unload_is_taken_up_again(
    db: Database, lemond: Lemond, make_worker: Callable[..., Worker]
) -> None:
    first, second = make_worker(), make_worker()
    _loaded(db, first)
    lemond.script(models={"m-chat": {"unload": "hang"}})
    ask_unload(db)
    held = first.claim()
    with first.running(held):
        eventually(lambda: unloads(lemond))
        die(db, held)
        assert slot_now(db).state is SlotState.UNLOADING
        lemond.script(models={"m-chat": None})
        second.work()
    assert history(db)[-2:] == UNLOADED
    assert outcomes(db, (held.job.id,)) == ["done"]


def test_an_unload_that_waits_for_the_lane_asks_when_the_load_is_settled(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    """unload_waits_for_lane: asked earlier, the engine would say "not loaded" and load on."""
    equip(db, "chat", load_timeout_s=0.5)
    lemond.script(models={"m-chat": {"load": "hang"}})
    ask_load(db)
    worker.work()
    ask_unload(db)
    worker.work()
    assert unloads(lemond) == []
    lemond.script(models={"m-chat": None})
    eventually(lambda: the_lanes(db) == [])
    worker.work()
    assert slot_now(db).state is SlotState.OFFLINE
    assert lemond.state()["loaded"] == []
    assert loads(lemond) == ["m-chat"]


def test_the_mark_of_an_unload_is_committed_before_the_request(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    """waits_for_sent_only: whoever dies between the two has sent nothing that is not marked."""
    _loaded(db, worker)
    points.arm("unload.marked:sleep=1")
    ask_unload(db)
    held = worker.claim()
    with worker.running(held):
        eventually(lambda: slot_now(db).state is SlotState.UNLOADING)
        assert slot_now(db).unload_job_id == held.job.id
        assert unloads(lemond) == []
    assert unloads(lemond) == ["m-chat"]


def test_a_slot_in_error_without_an_engine_is_cleared_too(db: Database, worker: Worker) -> None:
    """D6: nobody listens at the engine of this slot."""
    make_slots(db, "chat")
    ask_load(db)
    fail(db, claim_next(db), EngineRefused("no"))
    assert ask_unload(db).already, "it never left offline"
