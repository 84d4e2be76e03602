"""An operator retries a failed job: at the tail, from `validate` on, attempts kept (D3)."""

import pytest
from sqlalchemy import update

from hal0.db import Database
from hal0.errors import (
    JobNotFailed,
    JobNotFound,
    JobSuperseded,
    ModelTaken,
)
from hal0.jobs.ledger.orders import retry
from hal0.jobs.ledger.rows import Job
from hal0.registry.roster import engine_named
from hal0.states import JobKind, Outcome
from hal0.tables import slots
from tests.ledger import (
    add_far_engine,
    claim_kind,
    end,
    fail,
    free_lane,
    has_failed_key,
    job,
    job_states,
    make_slots,
    mark_sent,
    outcomes,
    try_claim,
    unfinished,
)
from tests.rows import (
    OPERATOR,
    ask_load,
    ask_unload,
    claim_next,
    make_model,
    options,
    run_load,
    send_load,
    slot_now,
)


def _retry(db: Database, job_id: int) -> list[Job]:
    with db.write() as tx:
        return retry(tx, job_id, OPERATOR)


@pytest.mark.parametrize(
    ("failing", "again"),
    [
        (JobKind.PULL, ["queued", "queued", "queued", "queued"]),
        (JobKind.VALIDATE, ["succeeded", "queued", "queued", "queued"]),
        (JobKind.UNLOAD, ["succeeded", "queued", "queued", "queued"]),
        (JobKind.LOAD, ["succeeded", "queued", "queued", "queued"]),
    ],
)
def test_a_retry_runs_validate_and_all_after_it_again(
    db: Database, failing: JobKind, again: list[str]
) -> None:
    """D3: the pull too, if that failed."""
    make_slots(db, "chat")
    accepted = ask_load(db)
    held = claim_kind(db, failing)
    fail(db, held)
    queued = _retry(db, held.job.id)
    assert job_states(db, accepted.job_ids) == again
    assert [one.id for one in queued] == unfinished(db)
    assert claim_next(db).job.attempt == 2


def test_a_retry_keeps_the_earlier_attempts(db: Database) -> None:
    make_slots(db, "chat")
    ask_load(db)
    held = claim_next(db)
    fail(db, held)
    _retry(db, held.job.id)
    end(db, claim_next(db, "owner-2"))
    with db.read() as tx:
        sql = "SELECT attempt, owner_id, outcome FROM job_attempts ORDER BY attempt"
        rows = tx.exec_driver_sql(sql).all()
    assert rows == [(1, "owner-1", "failed"), (2, "owner-2", "done")]
    assert job(db, held.job.id).error is None


def test_a_retried_chain_goes_to_the_tail(db: Database) -> None:
    make_slots(db, "one", "two")
    ask_load(db, "one")
    held = claim_next(db)
    fail(db, held)
    ask_load(db, "two")
    _retry(db, held.job.id)
    assert claim_next(db).job.slot_id == slot_now(db, "two").id


def test_a_retry_is_refused_while_a_newer_chain_is_unfinished(db: Database) -> None:
    """retry_409"""
    make_slots(db, "chat")
    ask_load(db)
    held = claim_next(db)
    fail(db, held)
    newer = ask_load(db, options=options({"ctx_size": 512}))
    with pytest.raises(JobSuperseded):
        _retry(db, held.job.id)
    assert unfinished(db) == list(newer.job_ids)
    assert job(db, held.job.id).state == "failed"


def test_only_a_failed_job_can_be_retried(db: Database) -> None:
    make_slots(db, "chat")
    accepted = ask_load(db)
    for job_id in accepted.job_ids:
        with pytest.raises(JobNotFailed):
            _retry(db, job_id)
    with pytest.raises(JobNotFound):
        _retry(db, 4711)


def test_a_retry_wants_again_what_its_chain_wanted(db: Database) -> None:
    make_slots(db, "chat")
    other = make_model(db, "other")
    wanted = options({"ctx_size": 512})
    ask_load(db, model_id=other.id, options=wanted)
    held = claim_next(db)
    fail(db, held)
    ask_load(db, model_id=1)
    fail(db, claim_next(db))
    ask_unload(db)
    _retry(db, held.job.id)
    now = slot_now(db)
    assert (now.desired, now.wanted_model_id, now.options) == ("loaded", other.id, wanted)


def test_a_retry_of_a_model_that_another_slot_took_meanwhile_is_refused(db: Database) -> None:
    """D2"""
    make_slots(db, "one", "two")
    spare, taken = make_model(db, "spare"), make_model(db, "taken")
    ask_load(db, "one", model_id=taken.id)
    held = claim_next(db)
    fail(db, held)
    ask_load(db, "one", model_id=spare.id)
    fail(db, claim_next(db))
    ask_load(db, "two", model_id=taken.id)
    with pytest.raises(ModelTaken):
        _retry(db, held.job.id)
    assert unfinished(db, "one") == []


def test_a_retried_load_is_sent_anew_and_machines_may_repeat_it_again(db: Database) -> None:
    """bad_key: cleared by the operator; the mark of the first send is gone."""
    make_slots(db, "chat")
    ask_load(db)
    sent = send_load(db)
    fail(db, sent)
    free_lane(db, sent)
    _retry(db, sent.job.id)
    assert not has_failed_key(db)
    again = job(db, sent.job.id)
    assert (again.sent_attempt, again.deadline_ms, again.crashes) == (None, None, 0)


def test_a_retried_load_waits_for_the_lane_that_its_first_attempt_holds(db: Database) -> None:
    """lane_names_attempt"""
    make_slots(db, "chat")
    ask_load(db)
    sent = send_load(db)
    fail(db, sent)
    _retry(db, sent.job.id)
    end(db, claim_next(db))
    assert try_claim(db) is None, "its unload, too, waits: the model may still arrive"
    free_lane(db, sent)
    end(db, claim_next(db), Outcome.SKIPPED)
    assert claim_next(db).job.id == sent.job.id


def test_a_retried_unload_wants_the_slot_unloaded(db: Database) -> None:
    """`desired` is written when a request is accepted."""
    make_slots(db, "chat")
    ask_load(db)
    run_load(db)
    ask_unload(db)
    unload = mark_sent(db, claim_next(db))
    fail(db, unload)
    ask_load(db)
    fail(db, claim_next(db))
    _retry(db, unload.job.id)
    assert slot_now(db).desired == "unloaded"


def test_a_retried_unload_whose_load_was_superseded_loads_nothing(db: Database) -> None:
    """The chain ended at its sent unload; the load behind it is not validated any more."""
    make_slots(db, "chat")
    ask_load(db)
    run_load(db)
    replaced = ask_load(db, options=options({"ctx_size": 512}))
    unload = mark_sent(db, claim_kind(db, JobKind.UNLOAD))
    ask_unload(db)
    fail(db, unload)
    fail(db, claim_next(db))
    _retry(db, unload.job.id)
    assert unfinished(db) == [unload.job.id]
    assert outcomes(db, replaced.job_ids)[-1] == "superseded"


def test_a_job_of_an_engine_that_its_slot_has_left_is_not_run_again(db: Database) -> None:
    make_slots(db, "chat")
    add_far_engine(db)
    asked = ask_load(db)
    fail(db, send_load(db))
    with db.write() as tx:
        far = engine_named(tx, "far")
        tx.execute(update(slots).values(engine_id=far.id))
    with pytest.raises(JobSuperseded, match="another engine"), db.write() as tx:
        retry(tx, asked.job_ids[3], OPERATOR)
    assert unfinished(db) == []
