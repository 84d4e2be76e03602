"""An operator cancels a job, or deletes a slot that has jobs (D7, D8)."""

import pytest

from hal0.db import Database
from hal0.errors import (
    ClaimLost,
    JobAlreadySent,
    JobFinished,
    SlotBusy,
)
from hal0.jobs.ledger.intake import Wish, request_check
from hal0.jobs.ledger.orders import cancel
from hal0.jobs.ledger.rows import Job
from hal0.jobs.setup import delete_slot
from hal0.states import JobKind, SlotState
from tests.ledger import (
    begin_pull,
    begin_validate,
    claim_kind,
    die,
    end,
    fail,
    free_lane,
    history,
    job,
    job_states,
    make_slots,
    outcomes,
)
from tests.rows import (
    OPERATOR,
    ask_load,
    ask_unload,
    claim_next,
    make_model,
    make_slot,
    run_load,
    send_load,
    slot_now,
)


def _cancel(db: Database, job_id: int) -> list[Job]:
    with db.write() as tx:
        return cancel(tx, job_id, OPERATOR)


def _causes(db: Database, slot_id: int) -> list[str]:
    with db.read() as tx:
        sql = "SELECT cause FROM transitions WHERE slot_id = ? ORDER BY id"
        return list(tx.exec_driver_sql(sql, (slot_id,)).scalars())


@pytest.mark.parametrize("step", [0, 3])
def test_a_cancel_takes_the_rest_of_the_chain(db: Database, step: int) -> None:
    make_slots(db, "chat")
    accepted = ask_load(db)
    cancelled = _cancel(db, accepted.job_ids[step])
    assert [one.id for one in cancelled] == list(accepted.job_ids)
    assert outcomes(db, accepted.job_ids) == ["cancelled"] * 4
    assert slot_now(db).desired == "unloaded"


def test_a_cancelled_pull_leaves_the_slot_offline_at_once(db: Database) -> None:
    """cancel_moves_slot, D8"""
    make_slots(db, "chat")
    ask_load(db)
    held = claim_next(db)
    begin_pull(db, held)
    _cancel(db, held.job.id)
    assert slot_now(db).state is SlotState.OFFLINE
    assert history(db)[-1] == "pulling>offline cancelled"
    with pytest.raises(ClaimLost):
        end(db, held)


def test_a_cancel_between_two_steps_moves_the_slot_too(db: Database) -> None:
    """cancel_moves_slot: a queued job owns its chain's transient state."""
    make_slots(db, "chat")
    accepted = ask_load(db)
    held = claim_kind(db, JobKind.VALIDATE)
    begin_validate(db, held)
    end(db, held)
    _cancel(db, accepted.job_ids[-1])
    assert history(db)[-1] == "starting>offline cancelled"


def test_a_cancel_of_a_chain_that_waits_moves_nothing(db: Database) -> None:
    """cancel_moves_slot: the state belongs to the chain before it."""
    make_slots(db, "chat")
    ask_load(db)
    held = claim_kind(db, JobKind.VALIDATE)
    begin_validate(db, held)
    with db.write() as tx:
        check = request_check(tx, slot_now(db), Wish(JobKind.PULL), OPERATOR)
    _cancel(db, check.job_ids[0])
    assert slot_now(db).state is SlotState.STARTING
    end(db, held)


def test_a_cancel_sets_desired_back_to_what_is_held(db: Database) -> None:
    make_slots(db, "chat")
    ask_load(db)
    run_load(db)
    unload = ask_unload(db)
    _cancel(db, unload.job_ids[0])
    now = slot_now(db)
    assert (now.state, now.desired, now.desired_by) == ("ready", "loaded", "operator")


def test_a_sent_load_cannot_be_cancelled_and_says_why(db: Database) -> None:
    """D8"""
    make_slots(db, "chat")
    ask_load(db)
    sent = send_load(db)
    with pytest.raises(JobAlreadySent) as caught:
        _cancel(db, sent.job.id)
    assert caught.value.evidence is not None
    assert caught.value.evidence["job_id"] == sent.job.id
    assert caught.value.evidence["deadline_at"]
    die(db, sent)
    with pytest.raises(JobAlreadySent):
        _cancel(db, sent.job.id)
    assert slot_now(db).state is SlotState.WARMING


def test_what_is_finished_cannot_be_cancelled(db: Database) -> None:
    make_slots(db, "chat")
    accepted = ask_load(db)
    end(db, claim_next(db))
    with pytest.raises(JobFinished):
        _cancel(db, accepted.job_ids[0])
    assert job_states(db, accepted.job_ids[1:]) == ["queued"] * 3


def test_a_cancelled_job_is_not_rescued(db: Database) -> None:
    """Rescue honours a cancel: the owner that dies later has no claim any more."""
    make_slots(db, "chat")
    ask_load(db)
    held = claim_next(db)
    _cancel(db, held.job.id)
    with pytest.raises(ClaimLost):
        die(db, held)
    assert job(db, held.job.id).state == "cancelled"


def test_a_slot_with_a_running_job_is_deleted_only_by_force(db: Database) -> None:
    """D7"""
    make_slots(db, "chat")
    accepted = ask_load(db)
    begin_pull(db, claim_next(db))
    with pytest.raises(SlotBusy), db.write() as tx:
        delete_slot(tx, slot_now(db), OPERATOR)
    slot = slot_now(db)
    with db.write() as tx:
        delete_slot(tx, slot, OPERATOR, force=True)
    assert job_states(db, accepted.job_ids) == ["cancelled"] * 4
    assert _causes(db, slot.id)[-1] == "cancelled"


def test_a_slot_whose_load_was_sent_is_not_deleted_even_by_force(db: Database) -> None:
    """D7, D8"""
    make_slots(db, "chat")
    ask_load(db)
    sent = send_load(db)
    with pytest.raises(JobAlreadySent), db.write() as tx:
        delete_slot(tx, slot_now(db), OPERATOR, force=True)
    fail(db, sent)
    with pytest.raises(SlotBusy), db.write() as tx:
        delete_slot(tx, slot_now(db), OPERATOR, force=True)
    free_lane(db, sent)
    with pytest.raises(SlotBusy, match="tiny still"), db.write() as tx:
        delete_slot(tx, slot_now(db), OPERATOR)
    with db.write() as tx:
        delete_slot(tx, slot_now(db), OPERATOR, force=True)


def test_a_cancelled_unload_behind_a_sent_load_leaves_the_slot_wanted(db: Database) -> None:
    """What is left over is the load, and it goes on."""
    make_slots(db, "chat")
    ask_load(db)
    send_load(db)
    accepted = ask_unload(db)
    assert slot_now(db).desired == "unloaded"
    _cancel(db, accepted.job_ids[0])
    assert slot_now(db).desired == "loaded"


def test_a_cancelled_check_says_nothing_about_what_is_wanted(db: Database) -> None:
    make_model(db, "m")
    make_slot(db, "chat", "m", desired="loaded")
    with db.write() as tx:
        accepted = request_check(tx, slot_now(db), Wish(JobKind.VALIDATE), OPERATOR)
    _cancel(db, accepted.job_ids[0])
    assert slot_now(db).desired == "loaded"
