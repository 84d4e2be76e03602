"""How the lane goes: only when the engine has settled its load, and never a model left behind."""

import pytest
from sqlalchemy import update

from hal0.clock import monotonic_ms
from hal0.db import Database
from hal0.jobs import settle
from hal0.jobs.ledger.lane import release
from hal0.jobs.ledger.orders import retry
from hal0.jobs.owners import note_end
from hal0.states import JobKind, SlotState
from hal0.tables import engine_lane, slots
from tests.fakes.lemond import Lemond
from tests.ledger import eventually, history, job, never, the_lanes, unfinished
from tests.rows import OPERATOR, ask_load, slot_now
from tests.unit.jobs.conftest import MakeWorker
from tests.worker import Worker, equip, loads, unloads


def _incidents(db: Database) -> list[str]:
    with db.read() as tx:
        return list(tx.exec_driver_sql("SELECT kind FROM incidents ORDER BY id").scalars())


def _time_out(db: Database, lemond: Lemond, worker: Worker, slot: str = "chat") -> int:
    """Let a load hang beyond its limit; its job is over, the engine is still at it."""
    with db.write() as tx:
        tx.execute(update(slots).where(slots.c.name == slot).values(load_timeout_s=0.4))
    lemond.script(models={f"m-{slot}": {"load": "hang"}})
    ask_load(db, slot)
    held = worker.work_up_to(JobKind.LOAD)
    worker.run(held)
    assert slot_now(db, slot).state is SlotState.ERROR
    return held.job.id


def _abandoned(db: Database, lemond: Lemond, make_worker: MakeWorker, slot: str = "chat") -> Worker:
    """A load that timed out and whose worker has died since; return another worker."""
    first, second = make_worker(), make_worker()
    _time_out(db, lemond, first, slot)
    first.ctx.stopping.set()
    with db.write() as tx:
        note_end(tx, first.id)
    first.ctx.owner.close()
    return second


def _settle(worker: Worker) -> bool:
    settle.settle_all(worker.ctx)
    return not the_lanes(worker.db)


def _overdue(db: Database) -> None:
    with db.write() as tx:
        tx.execute(update(engine_lane).values(settle_ms=monotonic_ms()))


def test_a_late_arrival_is_unloaded_while_the_lane_is_held(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    """watcher, late_unload, late_under_lane (B10): the next load finds the engine clean."""
    equip(db, "chat", "next")
    _time_out(db, lemond, worker)
    ask_load(db, "next")
    worker.work()
    assert loads(lemond) == ["m-chat"], "the next load waits for the lane"
    lemond.script(models={"m-chat": {"load": "ok", "unload_delay_s": 0.5}})
    eventually(lambda: unloads(lemond))
    assert len(the_lanes(db)) == 1, "not before the engine has unloaded it"
    eventually(lambda: not the_lanes(db))
    assert lemond.state()["loaded"] == []
    assert _incidents(db) == ["late_arrival"]
    assert slot_now(db).state is SlotState.ERROR
    worker.work()
    assert slot_now(db, "next").state is SlotState.READY


def test_a_late_failure_marks_what_it_cost(db: Database, lemond: Lemond, worker: Worker) -> None:
    """settle_marks_lost: whoever lets the lane go without a success reads health."""
    equip(db, "chat", "good")
    ask_load(db, "good")
    worker.work()
    _time_out(db, lemond, worker)
    assert slot_now(db, "good").state is SlotState.READY
    lemond.script(models={"m-chat": {"load": "ok", "load_fail": "failed to start"}})
    eventually(lambda: not the_lanes(db))
    assert history(db, "good")[-1] == "ready>offline evicted_by_engine"
    assert len(unfinished(db, "good")) == 4, "wanted, so it is brought back"
    assert _incidents(db) == ["load_failed"]


def test_a_dead_owners_late_arrival_is_unloaded_by_another(
    db: Database, lemond: Lemond, make_worker: MakeWorker
) -> None:
    """late_unload, late_under_lane"""
    equip(db, "chat")
    second = _abandoned(db, lemond, make_worker)
    assert not _settle(second), "the engine is still at it"
    lemond.script(models={"m-chat": None})
    eventually(lambda: _settle(second))
    assert unloads(lemond) == ["m-chat"]
    assert lemond.state()["loaded"] == []
    assert slot_now(db).state is SlotState.ERROR, "never adopted"


def test_a_late_arrival_that_cannot_be_unloaded_keeps_the_lane(
    db: Database, lemond: Lemond, make_worker: MakeWorker
) -> None:
    """late_under_lane"""
    equip(db, "chat")
    second = _abandoned(db, lemond, make_worker)
    lemond.script(models={"m-chat": {"load": "ok", "unload": "fail"}})
    eventually(lambda: lemond.state()["loaded"])
    assert not _settle(second)
    lemond.script(models={"m-chat": {"unload": "ok"}})
    assert _settle(second)


def test_the_lane_goes_when_the_engine_is_another_process(
    db: Database, lemond: Lemond, make_worker: MakeWorker
) -> None:
    equip(db, "chat")
    second = _abandoned(db, lemond, make_worker)
    lemond.kill()
    assert not _settle(second), "an engine that is away may be back with it"
    lemond.start()
    assert _settle(second)
    assert unloads(lemond) == []


def test_the_lane_goes_when_its_time_is_over_and_the_engine_is_at_rest(
    db: Database, lemond: Lemond, make_worker: MakeWorker
) -> None:
    equip(db, "chat", "good")
    ask_load(db, "good")
    make_worker().work()
    second = _abandoned(db, lemond, make_worker)
    assert not _settle(second)
    _overdue(db)
    lemond.script(models={"m-good": {"entry": {"is_busy": True}}})
    assert not _settle(second), "a model of the engine is busy"
    lemond.script(models={"m-good": None})
    assert _settle(second)


@pytest.mark.parametrize("health", ["no_list", "refuse", "garbage"])
def test_a_health_that_says_nothing_settles_nothing(
    db: Database, lemond: Lemond, make_worker: MakeWorker, health: str
) -> None:
    equip(db, "chat")
    second = _abandoned(db, lemond, make_worker)
    _overdue(db)
    lemond.script(health=health)
    assert not _settle(second)
    lemond.script(health="ok")
    assert _settle(second)


def test_the_lane_goes_at_another_process_that_gives_no_list(
    db: Database, lemond: Lemond, make_worker: MakeWorker
) -> None:
    equip(db, "chat")
    second = _abandoned(db, lemond, make_worker)
    lemond.kill()
    lemond.start()
    lemond.script(health="no_list")
    assert _settle(second)


def test_the_lane_goes_without_a_list_when_its_time_has_passed_twice(
    db: Database, lemond: Lemond, make_worker: MakeWorker
) -> None:
    equip(db, "chat")
    second = _abandoned(db, lemond, make_worker)
    lemond.script(health="no_list")
    with db.write() as tx:
        tx.execute(update(engine_lane).values(settle_ms=monotonic_ms() - 30_000))
    assert not _settle(second)
    with db.write() as tx:
        tx.execute(update(engine_lane).values(settle_ms=monotonic_ms() - 60_000))
    assert _settle(second)
    assert slot_now(db).engine_model == "m-chat", "it may be there"


def test_a_living_owners_lane_is_left_to_it(
    db: Database, lemond: Lemond, make_worker: MakeWorker
) -> None:
    first, second = make_worker(), make_worker()
    equip(db, "chat")
    _time_out(db, lemond, first)
    _overdue(db)
    assert not _settle(second)
    assert [lane.owner_id for lane in the_lanes(db)] == [first.id]
    assert _settle(first)


def test_the_lane_of_a_running_load_is_nobodys_to_settle(
    db: Database, lemond: Lemond, make_worker: MakeWorker
) -> None:
    """lane_outlives_job, its other half: a watched load keeps it too."""
    first, second = make_worker(), make_worker()
    equip(db, "chat")
    lemond.script(models={"m-chat": {"load": "hang"}})
    ask_load(db)
    held = first.work_up_to(JobKind.LOAD)
    with first.running(held):
        eventually(lambda: lemond.state()["loading"])
        _overdue(db)
        assert not _settle(first)
        assert not _settle(second)
        first.ctx.stopping.set()
    first.ctx.owner.close()
    with db.write() as tx:
        note_end(tx, first.id)
    assert not _settle(second), "queued to be watched"


def test_a_retried_job_does_not_hold_up_the_lane_of_its_first_attempt(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    """lane_names_attempt: a retry keeps the job's id, and waits for that very lane."""
    equip(db, "chat")
    job_id = _time_out(db, lemond, worker)
    with db.write() as tx:
        retry(tx, job_id, OPERATOR)
    with db.write() as tx:
        tx.execute(update(slots).values(load_timeout_s=15))
    worker.work()
    assert loads(lemond) == ["m-chat"]
    lemond.script(models={"m-chat": None})
    eventually(lambda: not the_lanes(db) or _settle(worker))
    worker.work()
    assert slot_now(db).state is SlotState.READY
    assert loads(lemond) == ["m-chat", "m-chat"]
    assert job(db, job_id).attempt == 2


def test_a_late_answer_does_not_free_another_loads_lane(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    """lane_names_attempt: the watcher's own lane went long ago."""
    equip(db, "chat", "next")
    first = job(db, _time_out(db, lemond, worker))
    assert first.sent_attempt is not None
    with db.write() as tx:
        assert release(tx, first.engine_id, first.id, first.sent_attempt)
    second_id = _time_out(db, lemond, worker, "next")
    lemond.script(models={"m-chat": {"load": "ok"}})
    eventually(lambda: "m-chat" in lemond.state()["loaded"])
    never(lambda: not the_lanes(db))
    assert [lane.job_id for lane in the_lanes(db)] == [second_id]


def test_what_a_failed_load_cost_is_not_taken_for_an_operators_act(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    """settle_marks_lost: health cannot be read just then; the lost slot is still wanted."""
    equip(db, "bad", "good")
    ask_load(db, "good")
    worker.work()
    lemond.script(models={"m-bad": {"load_delay_s": 0.5, "load_fail": "failed to start"}})
    ask_load(db, "bad")
    held = worker.work_up_to(JobKind.LOAD)
    with worker.running(held):
        eventually(lambda: lemond.state()["loading"])
        lemond.script(health="refuse")
    assert job(db, held.job.id).state == "failed"
    lemond.script(health="ok")
    settle.settle_all(worker.ctx)
    worker.look_round()
    assert slot_now(db, "good").desired == "loaded"


def test_a_late_answer_is_remembered_though_health_fails_just_then(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    """The engine owes nothing more: the lane need not be held until its settle time."""
    equip(db, "chat")
    _time_out(db, lemond, worker)
    lemond.script(health="refuse", models={"m-chat": {"load": "ok", "load_fail": "no"}})
    eventually(lambda: [lane.is_answered for lane in the_lanes(db)] == [1])
    assert not _settle(worker), "what the load has cost cannot be told yet"
    lemond.script(health="ok")
    assert _settle(worker)


def test_an_answer_in_time_is_remembered_though_health_fails_just_then(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    equip(db, "chat")
    lemond.script(models={"m-chat": {"load_delay_s": 0.5, "load_fail": "no"}})
    ask_load(db)
    with worker.running(worker.work_up_to(JobKind.LOAD)):
        eventually(lambda: lemond.state()["loading"])
        lemond.script(health="refuse")
    assert slot_now(db).state is SlotState.ERROR
    assert [lane.is_answered for lane in the_lanes(db)] == [1]
    lemond.script(health="ok")
    assert _settle(worker)
