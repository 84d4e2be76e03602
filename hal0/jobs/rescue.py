"""How no job is lost when a process dies, hangs or loses its thread.

Beats are per running job and come only from a process whose body thread lives. An owner whose lock
is free is dead: its jobs go back to the queue within a second. A job is silent when *we* saw the
same beat for `silence_s` of our own clock, and for three of its own intervals, while our own beats
were written, so that a locked database or a suspended host makes nobody look dead; its owner is
killed first, for no fence reaches a request on a socket, and then it is dead. Rescue is not a
retry: an attempt that its worker's death ended is no failure, and a load that was sent is never
sent again.
"""

import contextlib
import logging
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from sqlalchemy import Connection, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from hal0 import points
from hal0.clock import boot_id, monotonic_ms, utc_now
from hal0.errors import (
    ClaimLost,
    DatabaseError,
    Hal0Error,
    InternalFault,
    LoadTimeout,
    UnloadTimeout,
    WorkerCrashed,
)
from hal0.jobs.context import Context
from hal0.jobs.leases import clear_leases
from hal0.jobs.ledger.claims import fail, is_held, put_back, running_claim
from hal0.jobs.ledger.rows import IS_RUNNING, Claim, unfinished_jobs
from hal0.jobs.owners import (
    forget_files,
    is_alive,
    kill,
    living_rows,
    note_end,
    note_seen,
)
from hal0.processes import is_stopped
from hal0.settings import BEATS_MISSED
from hal0.slots.queries import Slot, living_slots
from hal0.slots.transitions import Act, move
from hal0.states import Cause, JobKind, Outcome, SlotState
from hal0.tables import job_beats, jobs, owners, slots

log = logging.getLogger(__name__)

BODILESS_MS: Final = 5000
"""A running job of this process without a thread is put back after so long."""
BLOCKED_MS: Final = 1500
"""Two looks follow each other when no more than this lies between them, besides the wait."""
GRACE_MS: Final = 15_000
"""A body ends its job at the deadline by itself; this much later somebody else does."""


@dataclass(slots=True)
class _Seen:
    attempt: int
    beat: int
    since_ms: int


@dataclass(slots=True)
class Watch:
    """What one supervisor remembers between its looks."""

    beats: dict[int, _Seen] = field(default_factory=dict)
    bodiless: dict[int, _Seen] = field(default_factory=dict)
    overdue: dict[int, _Seen] = field(default_factory=dict)
    last_own_ms: int = 0
    last_look_ms: int = 0
    stopped_ms: dict[str, int] = field(default_factory=dict)
    """Owner to how long we saw it stopped while we could not write."""
    last_blocked_ms: int = 0


def beat(ctx: Context, watch: Watch) -> None:
    """Write a beat for each job whose body runs here; note when our own writing last worked."""
    for body in ctx.bodies():
        if not body.is_running:
            continue
        row = {"attempt": body.held.job.attempt, "beat": monotonic_ms(), "at": utc_now()}
        statement = upsert(job_beats).values(job_id=body.held.job.id, **row)
        with ctx.db.soft() as tx:
            tx.execute(statement.on_conflict_do_update(index_elements=["job_id"], set_=row))
    with ctx.db.soft() as tx:  # also without jobs: only who can write may call others silent
        note_seen(tx, ctx.owner.id, ctx.fenced_writes)
    watch.last_own_ms = monotonic_ms()


def notice_lost_claims(ctx: Context) -> None:
    """Tell bodies here whose claim was cancelled or taken, so that they stop within a second."""
    bodies = ctx.bodies()
    if not bodies:
        return
    with ctx.db.read() as tx:
        for body in bodies:
            if not is_held(tx, body.held):
                body.lost.set()


def rescue_dead(ctx: Context) -> int:
    """Put back the jobs of every owner that is dead; return how many jobs."""
    with ctx.db.read() as tx:
        rows = [row for row in living_rows(tx) if row.id != ctx.owner.id]
        left_over = _owned_by_nobody(tx)
    count = sum(_bury(ctx, row.id) for row in rows if not is_alive(row, ctx.settings.run))
    return count + sum(_bury(ctx, owner_id) for owner_id in left_over)


def _owned_by_nobody(tx: Connection) -> list[str]:
    """Return owners that ended, as their rows say, and left a job running."""
    living = select(owners.c.id).where(owners.c.ended_at.is_(None))
    return list(
        tx.execute(
            select(jobs.c.owner_id).distinct().where(IS_RUNNING, jobs.c.owner_id.not_in(living))
        ).scalars()
    )


def _bury(ctx: Context, owner_id: str) -> int:
    def write(tx: Connection) -> int:
        orphans = running_claims(tx, owner_id)
        for held in orphans:
            rescue(tx, held, ctx.settings.crash_limit)
        note_end(tx, owner_id)
        return len(orphans)

    count = ctx.write(write)
    forget_files(ctx.settings.run, owner_id)
    log.warning("owner %s is dead; %d job(s) put back", owner_id, count)
    if count:
        points.reach("rescue.requeued")
        ctx.ring()
    return count


def running_claims(tx: Connection, owner_id: str) -> list[Claim]:
    """Return what an owner runs, as the rows say."""
    ids = tx.execute(select(jobs.c.id).where(IS_RUNNING, jobs.c.owner_id == owner_id)).scalars()
    return [running_claim(tx, job_id) for job_id in ids]


def leave(tx: Connection, owner_id: str) -> None:
    """Write that an owner ends in good order: what it still runs goes back, and is no failure."""
    for held in running_claims(tx, owner_id):
        put_back(tx, held, Outcome.INTERRUPTED)
    note_end(tx, owner_id)


def rescue(tx: Connection, held: Claim, crash_limit: int) -> None:
    """Put a dead owner's job back, or fail it when it has killed one worker too many."""
    if held.job.crashes + 1 < crash_limit:
        log.warning("%s is put back: its worker died", held.job.kind, extra=held.subject)
        put_back(tx, held, Outcome.INTERRUPTED, crashed=True)
        return
    fail(
        tx,
        held,
        WorkerCrashed(
            f"workers died {held.job.crashes + 1} times in a row under {held.job.kind} job "
            f"{held.job.id}; look into the worker's log, then retry it",
            evidence={"crashes": held.job.crashes + 1},
        ),
        Cause.WORKER_LOST,
    )


def rescue_bodiless(ctx: Context, watch: Watch) -> None:
    """Put back jobs that are ours by their rows and that no thread of ours runs.

    A claim whose body never began, or one whose end could not be written. Should the body begin
    after all, the fence stops it before it sends anything.
    """
    now = monotonic_ms()
    at_work = {(body.held.job.id, body.held.job.attempt) for body in ctx.bodies()}
    with ctx.db.read() as tx:
        mine = [
            held
            for held in running_claims(tx, ctx.owner.id)
            if (held.job.id, held.job.attempt) not in at_work
        ]
    watch.bodiless = {
        held.job.id: _look(watch.bodiless.get(held.job.id), held.job.attempt, 0, now)
        for held in mine
    }
    for held in mine:
        if now - watch.bodiless[held.job.id].since_ms >= BODILESS_MS:
            log.warning("no thread of ours runs it; it is put back", extra=held.subject)
            with contextlib.suppress(ClaimLost):
                ctx.write(partial(put_back, held=held, outcome=Outcome.INTERRUPTED))
            ctx.ring()


def rescue_silent(ctx: Context, watch: Watch) -> None:
    """Kill the owner of a job that has been silent for too long; `rescue_dead` does the rest."""
    now = monotonic_ms()
    silence_ms = int(ctx.settings.silence_s * 1000)
    last_look_ms, watch.last_look_ms = watch.last_look_ms, now
    if max(now - watch.last_own_ms, now - last_look_ms) > silence_ms / 2:
        watch.beats.clear()  # we could not write either, or were frozen: look afresh
        return
    with ctx.db.read() as tx:
        running = tx.execute(_RUNNING_BEATS).all()
        living = {row.id: row for row in living_rows(tx)}
    watch.beats = {
        row.id: _look(watch.beats.get(row.id), row.attempt, row.beat or 0, now) for row in running
    }
    for row in running:
        owner = living.get(row.owner_id)
        its_ms = max(silence_ms, BEATS_MISSED * int((row.beat_s or 0) * 1000))
        if now - watch.beats[row.id].since_ms < its_ms or owner is None:
            continue
        if owner.id != ctx.owner.id and kill(owner, ctx.settings.run):
            of = {"job_id": row.id, "attempt": row.attempt}
            log.error("job %s is silent: its owner %s was killed", row.id, owner.id, extra=of)


_RUNNING_BEATS = (
    select(jobs.c.id, jobs.c.attempt, jobs.c.owner_id, job_beats.c.beat, owners.c.beat_s)
    .outerjoin(
        job_beats, (job_beats.c.job_id == jobs.c.id) & (job_beats.c.attempt == jobs.c.attempt)
    )
    .outerjoin(owners, owners.c.id == jobs.c.owner_id)
    .where(IS_RUNNING)
)


def _look(seen: _Seen | None, attempt: int, beat_ms: int, now: int) -> _Seen:
    if seen is not None and (seen.attempt, seen.beat) == (attempt, beat_ms):
        return seen
    return _Seen(attempt, beat_ms, now)


def sweep_deadlines(ctx: Context, watch: Watch) -> None:
    """End jobs whose body should have ended them at their deadline and did not.

    Another's owner is killed first, for its thread may be about to send; then it is dead. The grace
    runs from when we saw this attempt overdue: one that took over a load whose deadline passed long
    ago has only begun to say so.
    """
    now = monotonic_ms()
    overdue = (
        select(jobs.c.id)
        .where(IS_RUNNING, jobs.c.deadline_boot == boot_id())
        .where(jobs.c.deadline_ms < now)
    )
    with ctx.db.read() as tx:
        late = [running_claim(tx, job_id) for job_id in tx.execute(overdue).scalars()]
        living = {row.id: row for row in living_rows(tx)}
    watch.overdue = {
        held.job.id: _look(watch.overdue.get(held.job.id), held.job.attempt, 0, now)
        for held in late
    }
    for held in late:
        if now - watch.overdue[held.job.id].since_ms < GRACE_MS:
            continue
        owner = living.get(held.job.owner_id or "")
        if owner is not None and owner.id != ctx.owner.id:
            log.error("far past its deadline: its owner is killed", extra=held.subject)
            kill(owner, ctx.settings.run)
            continue
        kind = UnloadTimeout if held.job.kind is JobKind.UNLOAD else LoadTimeout
        error = kind(f"{held.job.kind} job {held.job.id} did not end at its deadline")
        with contextlib.suppress(ClaimLost):
            ctx.write(partial(fail, held=held, error=error, cause=Cause.DEADLINE_PASSED))


def recover_unowned(ctx: Context) -> None:
    """Move slots out of transient states that no job owns; there should be none."""
    with ctx.db.read() as tx:
        if not _unowned(tx):
            return
    ctx.write(_recover)


def _unowned(tx: Connection) -> list[Slot]:
    return [
        slot for slot in living_slots(tx) if slot.is_transient and not unfinished_jobs(tx, slot.id)
    ]


def _recover(tx: Connection) -> None:
    for slot in _unowned(tx):
        of = {"slot": slot.name}
        log.error("slot %s is %s and no job owns it", slot.name, slot.state, extra=of)
        move(tx, slot, SlotState.ERROR, Cause.WORKER_LOST, Act("worker"))
        error = InternalFault(f"slot {slot.name} was {slot.state} and no job owned that state")
        tx.execute(
            update(slots)
            .where(slots.c.id == slot.id)
            .values(error={**error.as_row(), "job_id": None}, model_id=None, held_options=None)
        )


def kill_stopped(ctx: Context, watch: Watch) -> None:
    """Kill an owner that lies stopped, and maybe in the middle of a transaction.

    While nobody can write, beats say nothing: the one who holds the lock is as silent as those who
    wait for it. What can be seen without writing is which process is stopped. Only the time between
    two looks that followed each other counts, so a host that slept kills nobody.
    """
    now = monotonic_ms()
    wait_ms = int(ctx.settings.busy_timeout_s * 1000)
    since_ms = min(now - watch.last_blocked_ms, wait_ms + BLOCKED_MS)
    watch.last_blocked_ms = now
    with ctx.db.read() as tx:
        rows = [row for row in living_rows(tx) if row.boot_id == boot_id()]
    stopped = [row for row in rows if is_stopped(row.pid, row.pid_start)]
    watch.stopped_ms = {
        row.id: watch.stopped_ms[row.id] + since_ms if row.id in watch.stopped_ms else 0
        for row in stopped
    }
    for row in stopped:
        is_late = watch.stopped_ms[row.id] >= ctx.settings.silence_s * 1000
        if is_late and kill(row, ctx.settings.run):
            log.error("owner %s lay stopped while nobody could write: killed", row.id)


def look_after(ctx: Context, watch: Watch, bodies_beat: bool) -> None:
    """Do all of the above once; a database that cannot be written is nobody's death."""
    try:
        if bodies_beat or watch.last_blocked_ms:
            beat(ctx, watch)
        notice_lost_claims(ctx)
        rescue_dead(ctx)
        clear_leases(ctx)
        rescue_bodiless(ctx, watch)
        rescue_silent(ctx, watch)
        sweep_deadlines(ctx, watch)
        recover_unowned(ctx)
    except DatabaseError as error:
        if not watch.last_blocked_ms:  # once, not twice a second for a night
            log.warning("supervision waits for the database: %s", error.detail)
        with contextlib.suppress(DatabaseError):
            kill_stopped(ctx, watch)
    except Hal0Error:
        log.exception("supervision met an error and goes on")
    else:
        watch.last_blocked_ms, watch.stopped_ms = 0, {}
