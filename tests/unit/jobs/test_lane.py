"""What an engine still owes: the lane of a sent load, the mark of a sent unload."""

import pytest
from sqlalchemy import update

from hal0.clock import boot_id, monotonic_ms
from hal0.db import Database
from hal0.errors import LaneTaken
from hal0.jobs.ledger import claims
from hal0.jobs.ledger.claims import running_claim
from hal0.jobs.ledger.lane import (
    Sending,
    clear_unload_mark,
    is_unload_overdue,
    mark_load_sent,
    release,
    unmark_load,
)
from hal0.jobs.ledger.orders import retry
from hal0.jobs.ledger.rows import Claim
from hal0.states import JobKind, Outcome, SlotState
from hal0.tables import engine_lane, jobs
from tests.ledger import (
    SENDING,
    add_far_engine,
    claim_kind,
    die,
    end,
    fail,
    free_lane,
    history,
    job,
    make_slots,
    mark_sent,
    the_lanes,
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


def _two_loads(db: Database) -> tuple[Claim, Claim]:
    """Two loads of one engine that both run, as no claim would give them."""
    make_slots(db, "one", "two")
    ask_load(db, "one")
    first = skip_to_load(db, "owner-1")
    accepted = ask_load(db, "two")
    for _ in range(3):
        end(db, claim_next(db), Outcome.SKIPPED)
    by_force = update(jobs).where(jobs.c.id == accepted.job_ids[-1])
    with db.write() as tx:
        tx.execute(by_force.values(state="running", owner_id="owner-2", attempt=1))
        return first, running_claim(tx, accepted.job_ids[-1])


def test_a_sent_load_is_marked_in_one_commit(db: Database) -> None:
    make_slots(db, "chat")
    ask_load(db)
    held = skip_to_load(db)
    before_ms = monotonic_ms()
    held = mark_sent(db, held)
    (lane,) = the_lanes(db)
    assert (lane.job_id, lane.attempt, lane.owner_id) == (held.job.id, 1, "owner-1")
    assert (lane.settle_boot, lane.process) == (boot_id(), "1-1")
    slot = slot_now(db)
    assert (slot.state, slot.generation, slot.engine_model) == ("warming", 1, "tiny")
    assert (held.job.sent_attempt, held.job.deadline_boot) == (1, boot_id())
    assert 59_000 <= (held.job.deadline_ms or 0) - before_ms <= 70_000
    assert history(db) == ["offline>starting checked", "starting>warming load_sent"]


def test_the_second_load_of_an_engine_cannot_be_marked_as_sent(db: Database) -> None:
    """lane_key: whoever cannot insert the lane's row writes nothing at all."""
    first, second = _two_loads(db)
    mark_sent(db, first)
    with pytest.raises(LaneTaken):
        mark_sent(db, second)
    assert slot_now(db, "two").state is SlotState.OFFLINE
    assert slot_now(db, "two").generation == 0
    assert job(db, second.job.id).sent_attempt is None
    assert [lane.job_id for lane in the_lanes(db)] == [first.job.id]


def test_each_engine_has_a_lane_of_its_own(db: Database) -> None:
    add_far_engine(db)
    make_slots(db, "near")
    make_model(db, "m-far")
    make_slot(db, "far", "m-far", engine="far")
    ask_load(db, "near")
    send_load(db)
    ask_load(db, "far")
    send_load(db)
    assert len(the_lanes(db)) == 2


@pytest.mark.parametrize("deaths", [0, 1])
def test_the_lane_outlives_its_job(db: Database, deaths: int) -> None:
    """lane_outlives_job: after a timeout the engine may still be at it."""
    first, second = _two_loads(db)
    sent = mark_sent(db, first)
    for _ in range(deaths):
        die(db, sent)
        sent = claim_next(db, "owner-3")
    fail(db, sent)
    assert job(db, first.job.id).state == "failed"
    assert [lane.job_id for lane in the_lanes(db)] == [first.job.id]
    with pytest.raises(LaneTaken):
        mark_sent(db, second)


def test_a_late_hand_does_not_free_what_a_newer_attempt_holds(db: Database) -> None:
    """lane_names_attempt: a retried job keeps its id, so the id alone names nothing."""
    make_slots(db, "chat")
    ask_load(db)
    first = send_load(db)
    fail(db, first)
    assert free_lane(db, first)
    with db.write() as tx:
        retry(tx, first.job.id, OPERATOR)
    for _ in range(2):
        end(db, claim_next(db), Outcome.SKIPPED)
    second = mark_sent(db, claim_next(db))
    assert (second.job.id, second.job.attempt) == (first.job.id, 2)
    assert not free_lane(db, first)
    assert [lane.attempt for lane in the_lanes(db)] == [2]
    assert free_lane(db, second)


@pytest.mark.parametrize(("engine", "job_off", "attempt_off"), [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_the_lane_goes_only_by_its_whole_name(
    db: Database, engine: int, job_off: int, attempt_off: int
) -> None:
    make_slots(db, "chat")
    ask_load(db)
    sent = send_load(db).job
    with db.write() as tx:
        assert not release(
            tx, sent.engine_id + engine, sent.id + job_off, sent.attempt + attempt_off
        )
    assert len(the_lanes(db)) == 1


def test_a_rescued_load_keeps_lane_mark_deadline_and_state(db: Database) -> None:
    make_slots(db, "chat")
    ask_load(db)
    sent = send_load(db)
    before = job(db, sent.job.id)
    die(db, sent)
    after = job(db, sent.job.id)
    assert (after.state, after.sent_attempt) == ("queued", 1)
    assert (after.deadline_ms, after.deadline_at) == (before.deadline_ms, before.deadline_at)
    assert slot_now(db).state is SlotState.WARMING
    assert len(the_lanes(db)) == 1


def test_a_mark_taken_back_leaves_nothing_owed(db: Database) -> None:
    """refused_has_a_state, its first half: the engine never got the request."""
    make_slots(db, "chat")
    ask_load(db)
    sent = send_load(db)
    with db.write() as tx:
        unmark_load(tx, sent)
    assert the_lanes(db) == []
    now = job(db, sent.job.id)
    assert (now.sent_attempt, now.deadline_ms) == (None, None)


def test_a_load_that_replaces_counts_a_new_generation_and_holds_nothing(db: Database) -> None:
    make_slots(db, "chat")
    ask_load(db)
    run_load(db)
    ask_unload(db)
    mark_sent(db, claim_next(db))
    slot = slot_now(db)
    assert (slot.state, slot.generation) == ("unloading", 1)
    assert (slot.unload_job_id, slot.unload_attempt) == (5, 1)
    assert not is_unload_overdue(slot)


def test_an_unloads_mark_outlives_its_job_and_goes_by_its_name(db: Database) -> None:
    """unload_unsettled"""
    make_slots(db, "chat")
    ask_load(db)
    run_load(db)
    ask_unload(db)
    unload = mark_sent(db, claim_next(db))
    fail(db, unload)
    slot = slot_now(db)
    assert slot.unload_job_id == unload.job.id
    with db.write() as tx:
        clear_unload_mark(tx, slot.id, unload.job.id + 1, unload.job.attempt)
        clear_unload_mark(tx, slot.id, unload.job.id, unload.job.attempt + 1)
    assert slot_now(db).unload_job_id == unload.job.id
    with db.write() as tx:
        clear_unload_mark(tx, slot.id, unload.job.id, unload.job.attempt)
    assert slot_now(db).unload_job_id is None
    assert slot_now(db).unload_settle_ms is None


def test_an_unloads_mark_is_overdue_when_its_time_is_over(db: Database) -> None:
    make_slots(db, "chat")
    ask_load(db)
    run_load(db)
    ask_unload(db)
    mark_sent(db, claim_kind(db, JobKind.UNLOAD), Sending("tiny", "1-1", timeout_s=1, settle_s=0))
    assert is_unload_overdue(slot_now(db))


def test_a_lane_is_overdue_after_its_time_or_after_a_reboot(db: Database) -> None:
    make_slots(db, "chat")
    ask_load(db)
    held = skip_to_load(db)
    with db.write() as tx:
        mark_load_sent(tx, held, SENDING)
    assert not the_lanes(db)[0].is_overdue
    with db.write() as tx:
        tx.execute(update(engine_lane).values(settle_boot="another boot"))
    assert the_lanes(db)[0].is_overdue
    with db.write() as tx:
        tx.execute(update(engine_lane).values(settle_boot=boot_id(), settle_ms=monotonic_ms()))
    assert the_lanes(db)[0].is_overdue


def test_the_deadline_is_read_again_with_the_claim(db: Database) -> None:
    make_slots(db, "chat")
    ask_load(db)
    held = skip_to_load(db)
    assert held.job.deadline_ms is None
    with db.write() as tx:
        mark_load_sent(tx, held, SENDING)
        assert claims.renewed(tx, held).job.deadline_ms is not None


def test_only_waiting_for_an_engine_or_its_requests_starts_the_waiting_time(db: Database) -> None:
    """A lane that is taken, or a worker's end, must not use up `engine_wait_s`."""
    make_slots(db, "chat")
    ask_load(db)
    held = skip_to_load(db)
    for outcome in (Outcome.DEFERRED, Outcome.INTERRUPTED):
        with db.write() as tx:
            claims.put_back(tx, held, outcome)
        assert job(db, held.job.id).deferred_ms is None
        held = claim_next(db)
    with db.write() as tx:
        claims.wait_on(tx, held, Outcome.DEFERRED, after_s=0)
    since = job(db, held.job.id)
    assert (since.deferred_boot, since.deferred_ms is None) == (boot_id(), False)
    held = claim_next(db)
    with db.write() as tx:
        claims.wait_on(tx, held, Outcome.DEFERRED, after_s=0)
    assert job(db, held.job.id).deferred_ms == since.deferred_ms, "the first time counts"
    mark_sent(db, claim_next(db))
    assert job(db, held.job.id).deferred_ms is None
