"""No job is lost when its worker dies or hangs; what kills three workers in a row fails (D12)."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import freezegun
import pytest
from sqlalchemy import select

from hal0.db import Database
from hal0.errors import ClaimLost
from hal0.jobs.ledger import claims
from hal0.jobs.ledger.lane import Sending
from hal0.jobs.owners import living_rows, note_end
from hal0.jobs.rescue import (
    Watch,
    beat,
    leave,
    recover_unowned,
    rescue_dead,
    rescue_silent,
    sweep_deadlines,
)
from hal0.settings import Settings
from hal0.slots.transitions import Act, move
from hal0.states import Cause, JobKind, Outcome, SlotState
from hal0.tables import job_beats, owners
from tests.ledger import (
    begin_pull,
    claim_kind,
    die,
    end,
    eventually,
    has_failed_key,
    history,
    job,
    job_states,
    make_slots,
    mark_sent,
    never,
    the_lanes,
)
from tests.rows import ask_load, claim_next, skip_to_load, slot_now
from tests.worker import Worker

ROOT = Path(__file__).parents[3]
OTHER_WORKER = """
import sys
from pathlib import Path
from hal0.db import Database
from hal0.jobs.ledger.claims import claim
from hal0.jobs.owners import Owner
from hal0.settings import Settings
settings = Settings(home=Path(sys.argv[1]))
db = Database(settings.database)
owner = Owner(settings.run, "worker")
with db.write() as tx:
    owner.register(tx)
with db.soft() as tx:
    claim(tx, owner.id)
print(owner.id, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(db: Database, settings: Settings) -> Iterator[subprocess.Popen[str]]:
    """Another worker's process, which has claimed the pull of slot `chat` and does nothing."""
    make_slots(db, "chat")
    ask_load(db)
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER_WORKER, str(settings.home)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("worker-")
    yield process
    process.kill()
    process.communicate()


def _pull(db: Database) -> tuple[str, str | None, int]:
    pull = job(db, 1)
    return pull.state, pull.outcome, pull.crashes


def test_the_job_of_a_dead_worker_goes_back_to_the_queue(
    db: Database, worker: Worker, other: subprocess.Popen[str]
) -> None:
    assert rescue_dead(worker.ctx) == 0, "it lives"
    other.kill()
    other.wait(10)
    assert rescue_dead(worker.ctx) == 1
    assert _pull(db) == ("queued", "interrupted", 1)
    with db.read() as tx:
        assert [row.id for row in living_rows(tx)] == [worker.id]
    assert rescue_dead(worker.ctx) == 0
    assert worker.claim().job.attempt == 2


def test_a_silent_owner_is_killed_before_its_job_is_taken(
    db: Database, other: subprocess.Popen[str], make_worker: Callable[..., Worker]
) -> None:
    """stuck_owner_is_killed: no fence reaches a request that it may have on a socket."""
    worker, watch = make_worker(silence_s=0.4), Watch()
    other.send_signal(signal.SIGSTOP)

    def is_taken() -> bool:
        beat(worker.ctx, watch)
        rescue_silent(worker.ctx, watch)
        count = rescue_dead(worker.ctx)
        assert (count == 1) == (_pull(db)[0] == "queued")
        return count == 1

    eventually(is_taken)
    assert other.wait(0.1) == -signal.SIGKILL, "it was dead before its job was taken"
    assert _pull(db) == ("queued", "interrupted", 1)


def test_nobody_is_silent_whose_job_beats(
    db: Database, other: subprocess.Popen[str], make_worker: Callable[..., Worker]
) -> None:
    worker, watch = make_worker(silence_s=0.4), Watch()
    beats = iter(range(1, 10_000))

    def is_dead() -> bool:
        row = {"job_id": 1, "attempt": 1, "beat": next(beats), "at": job(db, 1).created_at}
        with db.soft() as tx:
            tx.execute(job_beats.delete())
            tx.execute(job_beats.insert(), row)
        beat(worker.ctx, watch)
        rescue_silent(worker.ctx, watch)
        return other.poll() is not None

    never(is_dead, for_s=1.2)


def test_a_worker_is_judged_by_its_own_interval_between_beats(
    db: Database, other: subprocess.Popen[str], make_worker: Callable[..., Worker]
) -> None:
    """Of two workers with settings of their own, the quicker one kills no healthy one."""
    worker, watch = make_worker(silence_s=0.4), Watch()
    with db.write() as tx:
        tx.execute(owners.update().where(owners.c.id != worker.id).values(beat_s=0.6))

    def is_dead() -> bool:
        beat(worker.ctx, watch)
        rescue_silent(worker.ctx, watch)
        return other.poll() is not None

    never(is_dead, for_s=1.2)
    eventually(is_dead)


def test_writes_that_the_fence_stopped_are_told_with_the_next_beat(
    db: Database, worker: Worker
) -> None:
    make_slots(db, "chat")
    ask_load(db)
    held = worker.claim()
    die(db, held)
    for write in (worker.ctx.commit, worker.ctx.write):
        with pytest.raises(ClaimLost):
            write(lambda tx: claims.finish(tx, held))
    beat(worker.ctx, Watch())
    ours = claim_next(db, worker.id)
    worker.ctx.commit(lambda tx: claims.finish(tx, ours))
    beat(worker.ctx, Watch())
    with db.read() as tx:
        told = select(owners.c.fenced_writes).where(owners.c.id == worker.id)
        assert tx.execute(told).scalar_one() == 2


def test_who_cannot_write_itself_calls_nobody_silent(
    db: Database, other: subprocess.Popen[str], make_worker: Callable[..., Worker]
) -> None:
    """A locked database or a suspended host makes nobody look dead."""
    worker, watch = make_worker(silence_s=0.4), Watch()

    def is_dead() -> bool:
        rescue_silent(worker.ctx, watch)
        return other.poll() is not None

    never(is_dead, for_s=1.2)


def test_a_third_death_in_a_row_is_the_jobs_fault(db: Database) -> None:
    """crash_limit, D12: other slots go on."""
    make_slots(db, "chat", "other")
    accepted = ask_load(db)
    ask_load(db, "other")
    for attempt in (1, 2, 3):
        held = claim_next(db, f"owner-{attempt}")
        assert (held.job.id, held.job.attempt) == (accepted.job_ids[0], attempt)
        if attempt == 1:
            begin_pull(db, held)
        die(db, held)
    failed = job(db, accepted.job_ids[0])
    assert failed.error is not None
    assert (failed.state, failed.error["code"]) == ("failed", "job.worker_crashed")
    assert job_states(db, accepted.job_ids[1:]) == ["cancelled"] * 3
    assert history(db)[-1] == "pulling>error worker_lost"
    assert claim_next(db).job.slot_id == slot_now(db, "other").id


def test_deaths_count_only_in_a_row(db: Database) -> None:
    """crash_limit: an attempt that was told to stop is no death and forgets earlier ones."""
    make_slots(db, "chat")
    ask_load(db)
    for _ in range(2):
        die(db, claim_next(db))
    held = claim_next(db)
    with db.write() as tx:
        claims.put_back(tx, held, Outcome.INTERRUPTED)
    for _ in range(2):
        die(db, claim_next(db))
    assert _pull(db) == ("queued", "interrupted", 2)


def test_a_sent_load_that_kills_its_workers_is_not_sent_by_a_machine_again(db: Database) -> None:
    """crash_limit, bad_key, lane_outlives_job"""
    make_slots(db, "chat")
    ask_load(db)
    held = mark_sent(db, skip_to_load(db))
    for _ in range(2):
        die(db, held)
        held = claim_next(db)
        assert held.job.was_sent
    die(db, held)
    assert history(db)[-1] == "warming>error worker_lost"
    assert has_failed_key(db)
    assert len(the_lanes(db)) == 1


def test_a_load_that_nobody_ended_at_its_deadline_is_ended(db: Database, worker: Worker) -> None:
    make_slots(db, "chat")
    ask_load(db)
    held = mark_sent(db, skip_to_load(db), Sending("tiny", "1-1", timeout_s=-10, settle_s=60))
    watch = Watch()
    with freezegun.freeze_time() as frozen:
        sweep_deadlines(worker.ctx, watch)
        frozen.tick(10)
        sweep_deadlines(worker.ctx, watch)
        assert job(db, held.job.id).state == "running", "its body still has some seconds for it"
        frozen.tick(6)
        sweep_deadlines(worker.ctx, watch)
    ended = job(db, held.job.id)
    assert ended.error is not None
    assert ended.error["code"] == "preload.load_timeout"
    assert history(db)[-1] == "warming>error deadline_passed"
    assert len(the_lanes(db)) == 1
    with pytest.raises(ClaimLost):
        end(db, held)


def test_a_transient_state_that_no_job_owns_is_recovered(db: Database, worker: Worker) -> None:
    """unowned_recovered"""
    make_slots(db, "lost", "owned")
    ask_load(db, "owned")
    held = claim_kind(db, JobKind.VALIDATE)
    for name in ("lost", "owned"):
        with db.write() as tx:
            move(tx, slot_now(db, name), SlotState.STARTING, Cause.CHECKED, Act("test"))
    end(db, held)
    recover_unowned(worker.ctx)
    assert history(db, "lost")[-1] == "starting>error worker_lost"
    assert slot_now(db, "owned").state is SlotState.STARTING, "a queued job owns it"
    recover_unowned(worker.ctx)
    assert len(history(db, "lost")) == 2


def test_a_claim_of_another_boot_is_put_back(db: Database, worker: Worker) -> None:
    """D14: its owner's pid means somebody else by now."""
    make_slots(db, "chat")
    ask_load(db)
    earlier = "worker-of-an-earlier-boot"
    with db.write() as tx:
        sql = "INSERT INTO owners VALUES (?, 'worker', 'an earlier boot', 1, 1, ?, ?, NULL, 10, 0)"
        now = "2026-01-02T03:04:05.000000Z"
        tx.exec_driver_sql(sql, (earlier, now, now))
    claim_next(db, earlier)
    assert rescue_dead(worker.ctx) == 1
    assert _pull(db) == ("queued", "interrupted", 1)


def test_a_job_whose_owner_has_ended_by_its_row_is_put_back(
    db: Database, worker: Worker, make_worker: Callable[..., Worker]
) -> None:
    """Its exit came between: the row says ended, its job says running."""
    make_slots(db, "chat")
    ask_load(db)
    gone = make_worker()
    gone.claim()
    with db.write() as tx:
        note_end(tx, gone.id)
    assert rescue_dead(worker.ctx) == 1
    assert _pull(db) == ("queued", "interrupted", 1)
    assert rescue_dead(worker.ctx) == 0


def test_an_owner_that_ends_in_good_order_puts_back_what_it_runs(
    db: Database, worker: Worker
) -> None:
    """It is no crash of the job."""
    make_slots(db, "chat")
    ask_load(db)
    worker.claim()
    with db.write() as tx:
        leave(tx, worker.id)
    assert _pull(db) == ("queued", "interrupted", 0)
    with db.read() as tx:
        assert living_rows(tx) == []
