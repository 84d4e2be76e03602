"""A process and its own bodies: a thread or a claim lost, a result unwritten (D8, D11)."""

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing

import freezegun
import pytest

from hal0.db import Database
from hal0.errors import DatabaseLocked
from hal0.jobs.ledger import claims
from hal0.jobs.ledger.orders import cancel
from hal0.jobs.rescue import (
    Watch,
    beat,
    look_after,
    notice_lost_claims,
    rescue_bodiless,
)
from hal0.settings import Settings
from hal0.states import Outcome
from hal0.tables import job_beats
from tests.ledger import (
    LIMIT_S,
    job,
    make_slots,
    never,
    outcomes,
    try_claim,
)
from tests.rows import OPERATOR, ask_load
from tests.worker import Worker


def _pull(db: Database) -> tuple[str, str | None, int]:
    pull = job(db, 1)
    return pull.state, pull.outcome, pull.crashes


def test_only_a_body_whose_thread_lives_beats(db: Database, worker: Worker) -> None:
    """D11: a thread that is gone cannot vouch for its job."""
    make_slots(db, "one", "two")
    ask_load(db, "one")
    ask_load(db, "two")
    living, lost = worker.claim(), worker.claim()
    bodies = [worker.ctx.body(living), worker.ctx.body(lost)]
    bodies[0].__enter__()
    thread = threading.Thread(target=bodies[1].__enter__)
    thread.start()
    thread.join()
    beat(worker.ctx, Watch())
    with db.read() as tx:
        ids = tx.execute(job_beats.select()).scalars().all()
    assert ids == [living.job.id]
    for body in bodies:
        body.__exit__(None, None, None)


def test_a_claim_whose_body_never_began_goes_back(db: Database, worker: Worker) -> None:
    """D11: the row says running and nothing runs; should it begin after all, the fence stops it."""
    make_slots(db, "chat")
    ask_load(db)
    held = worker.claim()
    watch = Watch()
    with freezegun.freeze_time() as frozen:
        rescue_bodiless(worker.ctx, watch)
        assert job(db, held.job.id).state == "running"
        frozen.tick(6)
        rescue_bodiless(worker.ctx, watch)
    assert _pull(db) == ("queued", "interrupted", 0)
    again = worker.claim()
    worker.run(held)
    assert job(db, held.job.id) == again.job


def test_the_body_of_an_earlier_attempt_does_not_stand_for_one_that_never_began(
    db: Database, worker: Worker
) -> None:
    """D11: the job failed over a stuck thread and was retried, or its claim was taken."""
    make_slots(db, "chat")
    ask_load(db)
    earlier = worker.claim()
    watch = Watch()
    with worker.ctx.body(earlier), freezegun.freeze_time() as frozen:
        with db.write() as tx:
            claims.put_back(tx, earlier, Outcome.INTERRUPTED)
        assert worker.claim().job.attempt == 2
        rescue_bodiless(worker.ctx, watch)
        frozen.tick(6)
        rescue_bodiless(worker.ctx, watch)
    assert _pull(db) == ("queued", "interrupted", 0)


def test_a_body_learns_that_its_claim_was_cancelled(db: Database, worker: Worker) -> None:
    """D8: a running pull stops within a second."""
    make_slots(db, "chat")
    ask_load(db)
    held = worker.claim()
    with worker.ctx.body(held) as body:
        notice_lost_claims(worker.ctx)
        assert not worker.ctx.should_stop(body)
        with db.write() as tx:
            cancel(tx, held.job.id, OPERATOR)
        notice_lost_claims(worker.ctx)
        assert worker.ctx.should_stop(body)


def test_supervision_of_a_locked_database_waits_and_raises_nothing(
    db: Database, settings: Settings, make_worker: Callable[..., Worker]
) -> None:
    worker = make_worker(busy_timeout_s=0.05)
    with closing(sqlite3.connect(settings.database)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        look_after(worker.ctx, Watch(), bodies_beat=True)
    look_after(worker.ctx, Watch(), bodies_beat=True)


def test_a_result_that_cannot_be_written_is_kept_until_it_can(
    db: Database, settings: Settings, make_worker: Callable[..., Worker]
) -> None:
    """D11"""
    worker = make_worker(busy_timeout_s=0.05)
    make_slots(db, "chat")
    ask_load(db)
    held = worker.claim()
    with closing(sqlite3.connect(settings.database)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with worker.running(held) as thread:
            never(lambda: not thread.is_alive(), for_s=0.5)
            holder.rollback()
    assert outcomes(db, (held.job.id,)) == ["skipped"]


def test_a_process_that_must_exit_leaves_what_it_cannot_write_to_rescue(
    db: Database, settings: Settings, make_worker: Callable[..., Worker]
) -> None:
    worker = make_worker(busy_timeout_s=0.05)
    make_slots(db, "chat")
    ask_load(db)
    held = worker.claim()
    worker.ctx.giving_up.set()
    with closing(sqlite3.connect(settings.database)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseLocked):
            worker.ctx.commit(lambda tx: claims.finish(tx, held))
        worker.run(held)
    assert job(db, held.job.id) == held.job
    assert try_claim(db) is None


def test_a_job_whose_end_could_not_be_written_goes_back(db: Database, worker: Worker) -> None:
    """D11: its thread has gone on to other jobs, its row says running for ever."""
    make_slots(db, "chat")
    ask_load(db)
    held = worker.claim()
    with db.write() as tx:
        tx.exec_driver_sql(
            "CREATE TRIGGER refuse_all BEFORE INSERT ON job_attempts "
            "BEGIN SELECT RAISE(ABORT, 'not now'); END"
        )
    worker.run(held)
    with db.write() as tx:
        tx.exec_driver_sql("DROP TRIGGER refuse_all")
    assert job(db, held.job.id) == held.job
    watch = Watch()
    with freezegun.freeze_time() as frozen:
        look_after(worker.ctx, watch, bodies_beat=True)
        assert _pull(db)[0] == "running"
        frozen.tick(6)
        look_after(worker.ctx, watch, bodies_beat=True)
    assert _pull(db) == ("queued", "interrupted", 0)
    assert worker.claim().job.attempt == 2


def test_a_result_is_kept_while_the_database_is_unreachable(
    db: Database, settings: Settings, worker: Worker
) -> None:
    """D11: its disk is away for a moment; nobody calls the job failed for it."""
    make_slots(db, "chat")
    ask_load(db)
    held = worker.claim()
    thread = threading.Thread(
        target=worker.ctx.commit, args=(lambda tx: claims.finish(tx, held, Outcome.SKIPPED),)
    )
    away = settings.home.rename(settings.home.with_name("away"))
    try:
        thread.start()
        never(lambda: not thread.is_alive(), for_s=0.5)
    finally:
        away.rename(settings.home)
        thread.join(LIMIT_S)
    assert not thread.is_alive()
    assert outcomes(db, (held.job.id,)) == ["skipped"]
