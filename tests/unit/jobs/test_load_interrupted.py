"""A load whose worker or engine goes, or whose limit passes: never sent twice (ADR-0007)."""

from collections.abc import Callable

import pytest

from hal0 import points
from hal0.clock import monotonic_ms
from hal0.db import Database
from hal0.states import JobKind, SlotState
from tests.fakes.lemond import Lemond
from tests.ledger import (
    die,
    eventually,
    has_failed_key,
    history,
    job,
    the_lanes,
    unfinished,
)
from tests.rows import ask_load, slot_now
from tests.worker import Worker, equip, loads

LOADED = ["offline>starting checked", "starting>warming load_sent", "warming>ready loaded"]


def _code(db: Database, job_id: int) -> str:
    error = job(db, job_id).error
    assert error is not None
    return str(error["code"])


def test_a_rescued_load_that_was_sent_sends_nothing_and_watches(
    db: Database, lemond: Lemond, make_worker: Callable[..., Worker]
) -> None:
    """watch: the first owner's late writes are lost, the second sees the model come."""
    first, second = make_worker(), make_worker()
    equip(db, "chat")
    lemond.script(models={"m-chat": {"load": "hang"}})
    ask_load(db)
    held = first.work_up_to(JobKind.LOAD)
    with first.running(held):
        eventually(lambda: lemond.state()["loading"])
        die(db, held)
        again = second.claim()
        assert (again.job.id, again.job.was_sent) == (held.job.id, True)
        with second.running(again):
            lemond.script(models={"m-chat": None})
    assert history(db) == LOADED
    assert loads(lemond) == ["m-chat"]
    assert the_lanes(db) == []
    assert job(db, held.job.id).attempt == 2


def test_a_worker_told_to_stop_leaves_its_sent_load_to_the_next(
    db: Database, lemond: Lemond, make_worker: Callable[..., Worker]
) -> None:
    """watch, by SIGTERM: the attempt ends interrupted, which is no failure."""
    first, second = make_worker(), make_worker()
    equip(db, "chat")
    lemond.script(models={"m-chat": {"load": "hang"}})
    ask_load(db)
    held = first.work_up_to(JobKind.LOAD)
    with first.running(held):
        eventually(lambda: lemond.state()["loading"])
        first.ctx.stopping.set()
    now = job(db, held.job.id)
    assert (now.state, now.outcome, now.crashes) == ("queued", "interrupted", 0)
    assert slot_now(db).state is SlotState.WARMING
    assert len(the_lanes(db)) == 1
    lemond.script(models={"m-chat": None})
    second.work()
    assert history(db) == LOADED
    assert loads(lemond) == ["m-chat"]


@pytest.mark.parametrize("how", ["hang", "dribble"])
def test_a_load_ends_at_its_wall_clock_limit_and_the_lane_stays(
    db: Database, lemond: Lemond, worker: Worker, how: str
) -> None:
    """B10, lane_outlives_job: a server that dribbles bytes does not stretch the limit."""
    equip(db, "chat", load_timeout_s=0.6)
    lemond.script(models={"m-chat": {"load": how}})
    accepted = ask_load(db)
    held = worker.work_up_to(JobKind.LOAD)
    begun_ms = monotonic_ms()
    worker.run(held)
    assert 600 <= monotonic_ms() - begun_ms < 6000
    assert _code(db, accepted.job_ids[-1]) == "preload.load_timeout"
    assert history(db)[-1] == "warming>error deadline_passed"
    assert [lane.job_id for lane in the_lanes(db)] == [held.job.id]
    assert has_failed_key(db)
    assert loads(lemond) == ["m-chat"]


def test_a_rescued_load_keeps_its_first_deadline(
    db: Database, lemond: Lemond, make_worker: Callable[..., Worker]
) -> None:
    """watch, crash_limit: dying does not buy time."""
    first, second = make_worker(), make_worker()
    equip(db, "chat", load_timeout_s=1.5)
    lemond.script(models={"m-chat": {"load": "hang"}})
    ask_load(db)
    held = first.work_up_to(JobKind.LOAD)
    begun_ms = monotonic_ms()
    with first.running(held):
        eventually(lambda: lemond.state()["loading"])
        first.ctx.stopping.set()
    second.work()
    assert 1500 <= monotonic_ms() - begun_ms < 9000
    assert _code(db, held.job.id) == "preload.load_timeout"
    assert len(the_lanes(db)) == 1


def test_a_load_waits_for_an_engine_that_is_not_there(
    db: Database, lemond: Lemond, make_worker: Callable[..., Worker]
) -> None:
    """refused_has_a_state: not sent, so it is queued again; then given up, in error."""
    worker = make_worker(engine_wait_s=0.3)
    equip(db, "chat")
    ask_load(db)
    held = worker.work_up_to(JobKind.LOAD)
    lemond.stop()
    worker.run(held)
    assert job(db, held.job.id).outcome == "deferred"
    assert (the_lanes(db), slot_now(db).state) == ([], SlotState.STARTING)

    def is_given_up() -> bool:
        worker.work()
        return not unfinished(db)

    eventually(is_given_up)
    assert _code(db, held.job.id) == "engine.unreachable"
    assert slot_now(db).state is SlotState.ERROR
    assert not has_failed_key(db)


def test_a_load_refused_after_its_mark_was_not_sent(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    """refused_has_a_state: mark and lane go, the slot is offline, the job waits its turn."""
    equip(db, "chat")
    accepted = ask_load(db)
    held = worker.work_up_to(JobKind.LOAD)
    points.arm("load.marked:sleep=2")
    with worker.running(held):
        eventually(lambda: slot_now(db).state is SlotState.WARMING)
        lemond.kill()
    now = job(db, held.job.id)
    assert (now.state, now.outcome, now.sent_attempt) == ("queued", "deferred", None)
    assert the_lanes(db) == []
    assert history(db)[-1] == "warming>offline engine_restarted"
    assert not has_failed_key(db)
    lemond.start()
    eventually(lambda: worker.work() and not unfinished(db))
    assert job(db, accepted.job_ids[-1]).outcome == "done"
    assert slot_now(db).state is SlotState.READY


def test_an_engine_that_dies_over_a_load_leaves_the_slot_offline(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    """settle_marks_lost: the request died with its process; no machine sends it again."""
    equip(db, "chat")
    lemond.script(models={"m-chat": {"load": "die"}})
    accepted = ask_load(db)
    worker.work()
    assert _code(db, accepted.job_ids[-1]) == "engine.restarted"
    assert history(db)[-1] == "warming>offline engine_restarted"
    assert the_lanes(db) == []
    assert has_failed_key(db)


def test_a_watched_load_ends_when_its_engine_is_another_process(
    db: Database, lemond: Lemond, make_worker: Callable[..., Worker]
) -> None:
    """watch: nobody loads it any more, and nothing is sent to the new process."""
    first, second = make_worker(), make_worker()
    equip(db, "chat")
    lemond.script(models={"m-chat": {"load": "hang"}})
    ask_load(db)
    held = first.work_up_to(JobKind.LOAD)
    with first.running(held):
        eventually(lambda: lemond.state()["loading"])
        first.ctx.stopping.set()
    lemond.kill()
    lemond.start()
    second.work()
    assert _code(db, held.job.id) == "engine.restarted"
    assert history(db)[-1] == "warming>offline engine_restarted"
    assert the_lanes(db) == []
    assert loads(lemond) == ["m-chat"]
