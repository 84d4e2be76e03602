"""An owner that lives and does not do its work: killed, or left alone (D12)."""

import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from signal import SIGKILL, SIGSTOP

import freezegun
import pytest
from sqlalchemy import insert

from hal0.clock import boot_id, utc_now
from hal0.db import Database
from hal0.jobs.ledger.lane import Sending
from hal0.jobs.ledger.rows import Claim
from hal0.jobs.rescue import Watch, beat, look_after, rescue_dead, rescue_silent, sweep_deadlines
from hal0.processes import is_stopped, start_ticks
from hal0.settings import Settings
from hal0.tables import owners
from tests.ledger import job, make_slots, mark_sent, never, sleeping_owner
from tests.rows import ask_load, claim_next, skip_to_load
from tests.worker import Worker

OTHER = "worker-of-a-test"
LONG_AGO = Sending("tiny", "1-1", timeout_s=-60, settle_s=60)


@pytest.fixture
def sleeper(db: Database, settings: Settings) -> Iterator["subprocess.Popen[bytes]"]:
    """The process of owner OTHER, which may be killed and does nothing."""
    process = sleeping_owner(settings.run, OTHER)
    row = {"id": OTHER, "kind": "worker", "boot_id": boot_id(), "pid": process.pid}
    now = {"started_at": utc_now(), "seen_at": utc_now()}
    with db.write() as tx:
        tx.execute(insert(owners).values(**row, **now, pid_start=start_ticks(process.pid)))
    yield process
    process.kill()
    process.wait()


def _overdue_load(db: Database, owner_id: str) -> Claim:
    make_slots(db, "chat")
    ask_load(db)
    return mark_sent(db, skip_to_load(db, owner_id), LONG_AGO)


def _look(worker: Worker, watch: Watch) -> None:
    beat(worker.ctx, watch)
    rescue_silent(worker.ctx, watch)


def test_nobody_is_silent_at_the_first_look_after_a_freeze(
    db: Database, sleeper: "subprocess.Popen[bytes]", make_worker: Callable[..., Worker]
) -> None:
    """This process was stopped, or its host: so were the others, and nobody wrote a beat."""
    worker, watch = make_worker(silence_s=2), Watch()
    make_slots(db, "chat")
    ask_load(db)
    held = claim_next(db, OTHER)
    with freezegun.freeze_time("2026-01-01") as clock:
        for gap_s in (0.5, 0.5, 60, 1.2, 60):
            clock.tick(gap_s)
            _look(worker, watch)
    never(lambda: sleeper.poll() is not None, for_s=0.3)
    with freezegun.freeze_time("2026-01-02") as clock:
        for _ in range(4):
            _look(worker, watch)
            clock.tick(0.5)
    never(lambda: sleeper.poll() is not None, for_s=0.3)
    with freezegun.freeze_time("2026-01-02T00:00:02") as clock:
        for _ in range(3):
            _look(worker, watch)
            clock.tick(0.5)
    assert sleeper.wait(10) == -SIGKILL, "it stayed silent"
    assert job(db, held.job.id).state == "running", "first it must be dead"
    assert rescue_dead(worker.ctx) == 1
    assert job(db, held.job.id).state == "queued"


def test_who_lives_far_past_its_jobs_deadline_is_killed_before_the_job_is_taken(
    db: Database, sleeper: "subprocess.Popen[bytes]", worker: Worker
) -> None:
    """Its thread may be about to send: no fence reaches a request on a socket."""
    held = _overdue_load(db, OTHER)
    watch = Watch()
    with freezegun.freeze_time("2026-01-01") as clock:
        sweep_deadlines(worker.ctx, watch)
        assert sleeper.poll() is None, "it may have taken this over a moment ago, to end it"
        clock.tick(16)
        sweep_deadlines(worker.ctx, watch)
    assert sleeper.wait(10) == -SIGKILL
    assert job(db, held.job.id) == held.job, "not failed under a thread that may have lived"
    assert rescue_dead(worker.ctx) == 1
    after = job(db, held.job.id)
    assert (after.state, after.was_sent) == ("queued", True)


def test_a_job_of_this_process_far_past_its_deadline_fails(db: Database, worker: Worker) -> None:
    held = _overdue_load(db, worker.id)
    watch = Watch()
    with freezegun.freeze_time("2026-01-01") as clock:
        sweep_deadlines(worker.ctx, watch)
        clock.tick(16)
        sweep_deadlines(worker.ctx, watch)
    error = job(db, held.job.id).error
    assert error is not None
    assert error["code"] == "preload.load_timeout"


def test_an_owner_that_was_stopped_in_a_transaction_is_killed_although_nobody_can_write(
    db: Database, sleeper: "subprocess.Popen[bytes]", make_worker: Callable[..., Worker]
) -> None:
    """Who waits for the lock is as silent as who holds it; that one is stopped can be seen."""
    worker, watch = make_worker(silence_s=2, busy_timeout_s=0.02), Watch()
    with (
        closing(sqlite3.connect(db.path)) as holder,
        freezegun.freeze_time("2026-01-01") as clock,
    ):
        holder.execute("BEGIN IMMEDIATE")
        for gap_s in (0.5, 0.5, 3600, 0.5, 0.5):  # it runs: nobody is killed
            clock.tick(gap_s)
            look_after(worker.ctx, watch, bodies_beat=True)
        sleeper.send_signal(SIGSTOP)
        while not is_stopped(sleeper.pid, start_ticks(sleeper.pid) or 0):
            pass  # the clock stands still: pytest's own limit ends this
        for gap_s in (3600, 0.5, 0.5):  # our own long absence does not count as its
            clock.tick(gap_s)
            look_after(worker.ctx, watch, bodies_beat=True)
        assert sleeper.poll() is None
        for _ in range(4):
            clock.tick(0.5)
            look_after(worker.ctx, watch, bodies_beat=True)
        assert sleeper.wait(10) == -SIGKILL


def test_a_copied_home_kills_nobody_and_takes_over_what_its_rows_say_runs(
    db: Database, settings: Settings, sleeper: "subprocess.Popen[bytes]"
) -> None:
    """Its rows name living processes of the home that it was copied from, and so do its locks."""
    make_slots(db, "chat")
    ask_load(db)
    held = claim_next(db, OTHER)
    home = settings.home.with_name("copied")
    shutil.copytree(settings.home, home)
    copied = Settings(home=home, beat_s=0.5, silence_s=2, busy_timeout_s=0.02)
    opened = Database(copied.database)
    worker, watch = Worker(opened, copied), Watch()
    with freezegun.freeze_time("2026-01-01") as clock:
        for _ in range(8):
            _look(worker, watch)
            clock.tick(0.5)
        with closing(sqlite3.connect(worker.ctx.db.path)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            sleeper.send_signal(SIGSTOP)
            for _ in range(8):
                look_after(worker.ctx, watch, bodies_beat=False)
                clock.tick(0.5)
    never(lambda: sleeper.poll() is not None, for_s=0.3)
    assert rescue_dead(worker.ctx) == 1, "it is of no process of this home"
    assert job(worker.ctx.db, held.job.id).state == "queued"
    assert job(db, held.job.id).state == "running"
    worker.close()
    opened.close()
