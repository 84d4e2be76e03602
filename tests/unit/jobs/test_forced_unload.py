"""An unload that waits for no request: leases go first, and those who forward see it in time."""

from collections.abc import Callable

from hal0.clock import monotonic_ms
from hal0.db import Database
from hal0.jobs.queries import job_detail
from hal0.states import Outcome, SlotState
from tests.apis import the_leases
from tests.fakes.lemond import Lemond
from tests.ledger import die, eventually, history, job, never, outcomes, serve
from tests.rows import ask_load, ask_unload, slot_now
from tests.worker import Worker, equip, unloads

FORCED = ["serving>unloading forced", "unloading>offline unloaded"]
NO_LIMIT_S = 600.0


def _attempts(db: Database, job_id: int) -> list[str]:
    with db.read() as tx:
        return [one.outcome for one in job_detail(tx, job_id).attempts]


def test_a_forced_unload_takes_the_leases_in_the_commit_that_marks_it(
    db: Database, lemond: Lemond, serving: Worker
) -> None:
    """Whoever reads the slot then finds neither a state nor a lease to forward under."""
    serving.ctx.cut_s = 30.0
    (unload,) = ask_unload(db, force=True).job_ids
    held = serving.claim()
    with serving.running(held):
        eventually(lambda: slot_now(db).state is SlotState.UNLOADING)
        slot = slot_now(db)
        assert (slot.cause, slot.unload_job_id, len(the_leases(db))) == ("forced", unload, 0)
        never(lambda: unloads(lemond), for_s=0.5)
        serving.ctx.stopping.set()
    assert unloads(lemond) == [], "told to stop, it sends nothing"
    assert _attempts(db, unload) == ["interrupted"]


def test_the_next_attempt_of_a_forced_unload_goes_on_and_sends_once(
    db: Database, lemond: Lemond, serving: Worker, make_worker: Callable[..., Worker]
) -> None:
    serving.ctx.cut_s = 3.0
    successor = make_worker()
    successor.ctx.cut_s = 0.0
    ask_unload(db, force=True)
    held = serving.claim()
    with serving.running(held):
        eventually(lambda: slot_now(db).state is SlotState.UNLOADING)
        die(db, held)
        successor.work()
        assert history(db)[-2:] == FORCED
        assert unloads(lemond) == ["m-chat"]
    assert unloads(lemond) == ["m-chat"], "the first one has lost its claim"
    assert outcomes(db, (held.job.id,)) == [Outcome.DONE]


def test_the_pause_before_a_forced_unload_is_not_taken_from_its_time_to_answer(
    db: Database, lemond: Lemond, make_worker: Callable[..., Worker]
) -> None:
    worker = make_worker(unload_timeout_s=5.0)
    equip(db, "chat")
    ask_load(db)
    worker.work()
    serve(db)
    ask_unload(db, force=True)
    held, before_ms = worker.claim(), monotonic_ms()
    worker.run(held)
    assert (job(db, held.job.id).deadline_ms or 0) - before_ms >= 6000
    assert slot_now(db).state is SlotState.OFFLINE


def test_a_forced_unload_takes_the_place_of_one_that_waits(
    db: Database, lemond: Lemond, serving: Worker
) -> None:
    (patient,) = ask_unload(db, drain_timeout_s=NO_LIMIT_S).job_ids
    assert serving.work() == []
    ask_unload(db, force=True)
    serving.work()
    assert outcomes(db, (patient,)) == ["superseded"]
    assert history(db)[-2:] == FORCED
