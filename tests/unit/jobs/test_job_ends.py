"""How a claimed job ends, and what its failure leaves of its chain and its slot (B15)."""

import pytest

from hal0.db import Database
from hal0.errors import EngineRefused, Hal0Error
from hal0.jobs.ledger import claims
from hal0.states import Outcome, SlotState
from tests.ledger import (
    begin_validate,
    end,
    fail,
    history,
    job,
    make_slots,
    outcomes,
)
from tests.rows import (
    ask_load,
    claim_next,
    make_model,
    run_load,
    slot_now,
)


def test_finishing_writes_one_attempt_and_its_end(db: Database) -> None:
    make_slots(db, "chat")
    accepted = ask_load(db)
    held = claim_next(db)
    with db.write() as tx:
        claims.finish(tx, held, result={"found": 1})
    ended = job(db, held.job.id)
    assert (ended.state, ended.outcome, ended.result) == ("succeeded", "done", {"found": 1})
    assert ended.owner_id is None
    assert ended.ended_at is not None
    assert outcomes(db, accepted.job_ids) == ["done", None, None, None]
    with db.read() as tx:
        rows = tx.exec_driver_sql("SELECT job_id, attempt, owner_id FROM job_attempts").all()
    assert rows == [(held.job.id, 1, "owner-1")]


@pytest.mark.parametrize("step", range(4))
def test_a_failure_takes_the_rest_of_its_chain_along(db: Database, step: int) -> None:
    make_slots(db, "chat")
    accepted = ask_load(db)
    for _ in range(step):
        end(db, claim_next(db), Outcome.SKIPPED)
    error: Hal0Error = EngineRefused("no")
    fail(db, claim_next(db), error)
    done = ["skipped"] * step
    assert outcomes(db, accepted.job_ids) == [*done, "failed", *["cancelled"] * (3 - step)]
    last = job(db, accepted.job_ids[-1])
    assert last.error is not None
    assert (last.error["code"], last.error["job_id"]) == ("engine.refused", accepted.job_ids[step])


def test_a_failure_leaves_a_slot_that_still_serves_as_it_is(db: Database) -> None:
    """B15: a bad new model does not cost the old one."""
    make_slots(db, "chat")
    make_model(db, "bad")
    ask_load(db)
    run_load(db)
    before = slot_now(db)
    ask_load(db, model_id=2)
    end(db, claim_next(db))
    fail(db, claim_next(db))
    after = slot_now(db)
    assert (after.state, after.model_id, after.since) == ("ready", before.model_id, before.since)


def test_a_failure_in_a_transient_state_is_kept_on_the_slot(db: Database) -> None:
    make_slots(db, "chat")
    ask_load(db)
    end(db, claim_next(db))
    held = claim_next(db)
    begin_validate(db, held)
    fail(db, held)
    after = slot_now(db)
    assert after.state is SlotState.ERROR
    assert after.error is not None
    assert (after.error["code"], after.error["job_id"]) == ("engine.refused", held.job.id)
    assert history(db)[-1] == "starting>error job_failed"
