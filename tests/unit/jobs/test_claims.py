"""Which job a worker gets, and that only its owner writes how it ends.

Owner ids stand for workers. Each test of a rule is the model's shortest trace for it.
"""

from collections.abc import Callable

import pytest
from sqlalchemy import update

from hal0.db import Database
from hal0.errors import ClaimLost, EngineRefused
from hal0.jobs.ledger import claims
from hal0.jobs.ledger.claims import wait_for_place
from hal0.jobs.ledger.intake import Wish, machine_load, request_check
from hal0.jobs.ledger.lane import clear_unload_mark, mark_load_sent
from hal0.jobs.ledger.rows import Claim
from hal0.jobs.ledger.runnable import is_work_waiting
from hal0.jobs.queries import job_detail
from hal0.slots.queries import slot_named
from hal0.states import Cause, Desired, JobKind, JobState, Origin, Outcome, SlotState
from hal0.tables import jobs, slots
from tests.ledger import (
    RESTORE,
    SENDING,
    add_far_engine,
    begin_pull,
    begin_validate,
    die,
    end,
    fail,
    free_lane,
    job,
    make_slots,
    mark_sent,
    the_lanes,
    try_claim,
    unfinished,
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
    skip_to_load,
    slot_now,
)

LOAD_STEPS = [JobKind.PULL, JobKind.VALIDATE, JobKind.UNLOAD, JobKind.LOAD]


def _finish_late(db: Database, held: Claim) -> None:
    end(db, held)


def _fail_late(db: Database, held: Claim) -> None:
    fail(db, held)


def _put_back_late(db: Database, held: Claim) -> None:
    with db.write() as tx:
        claims.put_back(tx, held, Outcome.INTERRUPTED)


def _check_late(db: Database, held: Claim) -> None:
    with db.write() as tx:
        claims.check(tx, held)


LATE = [_finish_late, _fail_late, _put_back_late, _check_late]


@pytest.mark.parametrize("write", LATE)
@pytest.mark.parametrize("successor", ["owner-1", "owner-2"])
def test_an_owner_that_lost_its_claim_writes_nothing(
    db: Database, write: Callable[[Database, Claim], None], successor: str
) -> None:
    """fence: also not when the next attempt is its own."""
    make_slots(db, "chat")
    ask_load(db)
    stale = claim_next(db, "owner-1")
    die(db, stale)
    fresh = claim_next(db, successor)
    assert (fresh.job.id, fresh.job.attempt) == (stale.job.id, 2)
    with pytest.raises(ClaimLost):
        write(db, stale)
    assert job(db, fresh.job.id) == fresh.job
    end(db, fresh)
    assert job(db, fresh.job.id).state is JobState.SUCCEEDED


def test_an_owner_that_lost_its_claim_marks_no_load_as_sent(db: Database) -> None:
    """fence: the sent commit names owner and attempt, so the lane stays free."""
    make_slots(db, "chat")
    ask_load(db)
    stale = skip_to_load(db)
    die(db, stale)
    with pytest.raises(ClaimLost), db.write() as tx:
        mark_load_sent(tx, stale, SENDING)
    assert the_lanes(db) == []
    assert slot_now(db).state is SlotState.OFFLINE


def test_an_owner_whose_job_was_cancelled_fails_nothing(db: Database) -> None:
    """fence: a newer intent took the claim; the slot is offline and stays so."""
    make_slots(db, "chat")
    ask_load(db)
    end(db, claim_next(db))
    stale = claim_next(db)
    begin_validate(db, stale)
    ask_unload(db)
    with pytest.raises(ClaimLost):
        fail(db, stale)
    assert slot_now(db).state is SlotState.OFFLINE


def test_a_slot_runs_one_job_at_a_time_however_many_ask(db: Database) -> None:
    """one_running"""
    make_slots(db, "chat")
    ask_load(db)
    with db.write() as tx:
        request_check(tx, slot_now(db), Wish(JobKind.VALIDATE), OPERATOR)
    claim_next(db, "owner-1")
    assert try_claim(db, "owner-2") is None
    assert try_claim(db, "owner-1") is None


def test_the_jobs_of_a_slot_come_in_the_order_of_chain_and_step(db: Database) -> None:
    make_slots(db, "chat")
    ask_load(db)
    with db.write() as tx:
        check = request_check(tx, slot_now(db), Wish(JobKind.VALIDATE), OPERATOR)
    kinds, ids = [], []
    while (held := try_claim(db)) is not None:
        kinds.append(held.job.kind)
        ids.append(held.job.id)
        end(db, held, Outcome.SKIPPED)
    assert kinds == [*LOAD_STEPS, JobKind.VALIDATE]
    assert ids == sorted(ids)
    assert ids[-1:] == list(check.job_ids)


def test_the_slot_that_asked_first_is_served_first(db: Database) -> None:
    make_slots(db, "one", "two", "three")
    for name in ("two", "three", "one"):
        ask_load(db, name)
    claimed = [claim_next(db, f"owner-{n}").job.slot_id for n in range(3)]
    assert claimed == [slot_now(db, name).id for name in ("two", "three", "one")]


def test_a_claim_says_who_when_and_which_attempt(db: Database) -> None:
    make_slots(db, "chat")
    ask_load(db)
    held = claim_next(db, "owner-7")
    assert (held.job.owner_id, held.job.attempt, held.job.state) == ("owner-7", 1, "running")
    assert held.job.started_at is not None
    assert job(db, held.job.id) == held.job


def test_a_load_waits_while_another_load_is_in_the_lane(db: Database) -> None:
    """claim_waits_for_lane: claimed, it would be put back again and again."""
    make_slots(db, "one", "two")
    ask_load(db, "one")
    first = send_load(db)
    ask_load(db, "two")
    for _ in range(3):
        end(db, claim_next(db, "owner-2"), Outcome.SKIPPED)
    assert try_claim(db, "owner-2") is None
    fail(db, first)
    assert try_claim(db, "owner-2") is None, "the job is over, the engine is not done"
    free_lane(db, first)
    assert claim_next(db, "owner-2").job.kind is JobKind.LOAD


def test_a_load_waits_while_another_load_of_its_engine_runs(db: Database) -> None:
    """claim_waits_for_lane: what is claimed is about to take the lane."""
    make_slots(db, "one", "two")
    ask_load(db, "one")
    first = skip_to_load(db)
    ask_load(db, "two")
    for _ in range(3):
        end(db, claim_next(db, "owner-2"), Outcome.SKIPPED)
    assert try_claim(db, "owner-2") is None
    end(db, first, Outcome.SKIPPED)
    assert claim_next(db, "owner-2").job.kind is JobKind.LOAD


def test_a_load_waits_while_an_unload_of_its_engine_runs(db: Database) -> None:
    """claim_waits_for_unloads: the load's clock must not run behind another's request."""
    make_slots(db, "one", "two")
    ask_load(db, "one")
    run_load(db)
    ask_unload(db, "one")
    unload = claim_next(db, "owner-1")
    assert unload.job.kind is JobKind.UNLOAD
    ask_load(db, "two")
    for _ in range(3):
        end(db, claim_next(db, "owner-2"), Outcome.SKIPPED)
    assert try_claim(db, "owner-2") is None
    end(db, unload)
    assert claim_next(db, "owner-2").job.kind is JobKind.LOAD


def test_an_unload_of_another_engine_holds_no_load_up(db: Database) -> None:
    add_far_engine(db)
    make_model(db, "m-far")
    make_slot(db, "far", "m-far", engine="far")
    ask_load(db, "far")
    run_load(db)
    ask_unload(db, "far")
    assert claim_next(db).job.kind is JobKind.UNLOAD
    make_slots(db, "near")
    ask_load(db, "near")
    assert skip_to_load(db, "owner-2").job.kind is JobKind.LOAD


def test_a_load_waits_until_the_engine_settled_the_slots_last_unload(db: Database) -> None:
    """unload_unsettled: a late unload would take the new model away."""
    make_slots(db, "chat")
    ask_load(db)
    run_load(db)
    ask_unload(db)
    unload = mark_sent(db, claim_next(db))
    with db.write() as tx:
        claims.fail(tx, unload, EngineRefused("no answer"), Cause.DEADLINE_PASSED)
    ask_load(db)
    for _ in range(3):
        end(db, claim_next(db), Outcome.SKIPPED)
    assert try_claim(db) is None
    with db.write() as tx:
        clear_unload_mark(tx, slot_now(db).id, unload.job.id, unload.job.attempt)
    assert claim_next(db).job.kind is JobKind.LOAD


def test_an_unload_waits_while_the_lane_names_its_slot(db: Database) -> None:
    """unload_waits_for_lane: "not loaded" would be believed, and the model arrive after."""
    make_slots(db, "one", "two")
    ask_load(db, "two")
    run_load(db)
    ask_load(db, "one")
    late = send_load(db)
    fail(db, late)
    assert slot_now(db, "one").state is SlotState.ERROR
    ask_unload(db, "one")
    assert try_claim(db) is None
    ask_unload(db, "two")
    other = claim_next(db)
    assert other.job.slot_id == slot_now(db, "two").id, "the lane names another slot"
    end(db, other)
    free_lane(db, late)
    assert claim_next(db).job.slot_id == slot_now(db, "one").id


def test_a_load_that_was_sent_is_claimed_at_once_to_be_watched(db: Database) -> None:
    """watch: its own lane does not hold it up, and its mark says that nothing may be sent."""
    make_slots(db, "chat")
    ask_load(db)
    sent = send_load(db)
    before = job(db, sent.job.id)
    die(db, sent)
    again = claim_next(db, "owner-2")
    assert (again.job.id, again.job.attempt, again.job.sent_attempt) == (sent.job.id, 2, 1)
    assert again.job.deadline_ms == before.deadline_ms
    assert slot_now(db).state is SlotState.WARMING


def test_two_pulls_of_one_model_never_run_together(db: Database) -> None:
    """D9: two downloads would write one file."""
    add_far_engine(db)
    make_model(db, "tiny")
    make_slot(db, "near", "tiny")
    make_slot(db, "far", "tiny", engine="far")
    ask_load(db, "near")
    ask_load(db, "far")
    first = claim_next(db, "owner-1")
    assert try_claim(db, "owner-2") is None
    end(db, first)
    assert claim_next(db, "owner-2").job.kind is JobKind.VALIDATE
    assert claim_next(db, "owner-2").job.kind is JobKind.PULL


def test_a_thread_without_room_for_heavy_work_takes_loads_and_unloads_only(db: Database) -> None:
    make_slots(db, "one", "two")
    ask_load(db, "one")
    run_load(db)
    ask_load(db, "two")
    assert try_claim(db, heavy=False) is None
    ask_unload(db, "one")
    held = try_claim(db, heavy=False)
    assert held is not None
    assert held.job.kind is JobKind.UNLOAD


def test_a_job_put_off_is_not_claimed_before_its_time(db: Database) -> None:
    make_slots(db, "chat")
    ask_load(db)
    held = claim_next(db)
    with db.write() as tx:
        claims.put_back(tx, held, Outcome.DEFERRED, after_s=60)
    assert try_claim(db) is None
    with db.soft() as tx:  # as after a reboot, when the monotonic clock began anew
        tx.execute(update(jobs).values(run_after_boot="another boot"))
    assert claim_next(db).job.id == held.job.id


@pytest.mark.parametrize("heavy", [True, False])
def test_looking_and_claiming_agree(db: Database, heavy: bool) -> None:
    make_slots(db, "chat")
    ask_load(db)
    for _ in range(6):
        with db.read() as tx:
            is_waiting = is_work_waiting(tx, heavy=heavy)
        held = try_claim(db, heavy=heavy)
        assert is_waiting == (held is not None)
        if held is None and not (held := try_claim(db)):
            break
        end(db, held)


def _restore(db: Database, *names: str) -> None:
    """Let a machine load these again, in this order."""
    make_slots(db, *names)
    with db.write() as tx:
        tx.execute(update(slots).values(desired=Desired.LOADED))
        for name in names:
            slot = slot_named(tx, name)
            wish = Wish(JobKind.LOAD, slot.wanted_model_id, slot.options)
            assert machine_load(tx, slot, wish, RESTORE) is not None


def test_what_is_restored_waits_for_no_download_of_what_is_restored_before_it(
    db: Database,
) -> None:
    """That one's file is gone, and takes hours to come; this one's is there."""
    _restore(db, "first", "second")
    download = claim_next(db)
    for _ in range(3):
        end(db, claim_next(db), Outcome.SKIPPED)
    assert try_claim(db) is None, "nobody knows yet that there is something to fetch"
    load = unfinished(db, "second")[0]
    with db.read() as tx:
        assert str(job_detail(tx, load).waiting_for).startswith("load of slot first")
    begin_pull(db, download)
    with db.read() as tx:
        assert job_detail(tx, load).waiting_for is None
    assert claim_next(db).job.id == load


def test_what_is_restored_waits_for_none_that_waits_for_another_download_to_end(
    db: Database,
) -> None:
    _restore(db, "first", "second")
    download = claim_next(db)
    with db.write() as tx:
        wait_for_place(tx, download)
    for kind in LOAD_STEPS[:3]:
        held = try_claim(db, fetches=False)
        assert held is not None
        assert held.job.kind is kind
        end(db, held, Outcome.SKIPPED)
    held = try_claim(db, fetches=False)
    assert held is not None
    assert (held.job.kind, held.job.slot_id) == (JobKind.LOAD, slot_now(db, "second").id)


def test_what_is_restored_is_loaded_in_the_order_in_which_it_was_asked_for(db: Database) -> None:
    """D14: with room for one, the most important slot must not come too late for it."""
    _restore(db, "first", "second")
    make_slots(db, "asked")
    validating = [claim_next(db) for _ in range(2)]  # the pulls of both
    for held in validating:
        end(db, held, Outcome.SKIPPED)
    slow, quick = claim_next(db), claim_next(db)
    end(db, quick)
    end(db, claim_next(db))  # its unload
    assert try_claim(db) is None, "its load waits, for the first one's is not sent"
    ask_load(db, "asked")
    for _ in range(3):
        end(db, claim_next(db))
    assert claim_next(db).chain.origin is Origin.OPERATOR, "an operator waits for no machine"
    end(db, slow)
