"""Which jobs a bulk retry or cancel takes: of each slot the newest chain that failed, or all open.

An older failure is history: the slot was asked for something else since, and repeating what failed
before would undo it. Only a pull or a check that ended since asked for nothing else: where the slot
is in error of an older chain, that one is taken.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, func, select

from hal0.errors import RequestError
from hal0.jobs.ledger.orders import cancel, retry
from hal0.jobs.ledger.rows import IS_QUEUED, IS_RUNNING, JOB_COLUMNS, By, Job, read_job
from hal0.slots.queries import slot_by_id, slot_named
from hal0.states import JobKind, JobState, SlotState
from hal0.tables import chains, jobs, slots

Order = Callable[[Connection, int, By], Sequence[Job]]


@dataclass(frozen=True, slots=True)
class BulkFilter:
    """Which jobs; all of what is given must fit."""

    slot: str | None = None
    kind: JobKind | None = None
    code: str | None = None
    actor: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    """Before it a job ended, and one that is unfinished was asked for."""
    job_ids: frozenset[int] | None = None


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What became of one open job: the jobs that were cancelled, or why it was refused."""

    slot: str
    job: Job
    job_ids: tuple[int, ...] = ()
    refusal: RequestError | None = None


@dataclass(frozen=True, slots=True)
class Retried:
    """What became of one failed job: the jobs queued again, or why it was refused."""

    slot: str
    failed: Job
    job_ids: tuple[int, ...] = ()
    refusal: RequestError | None = None


def newest_failures(tx: Connection, wanted: BulkFilter) -> list[tuple[str, Job]]:
    """Return slot name and failed job of every living slot whose newest chain failed.

    Of a slot in error that is what put it there, also with no more than pulls and checks since.
    Raises SlotNotFound.
    """
    newest = (
        select(chains.c.slot_id, func.max(chains.c.position).label("position"))
        .join(slots, slots.c.id == chains.c.slot_id)
        .where(slots.c.deleted_at.is_(None), ~_is_beside_an_error())
        .group_by(chains.c.slot_id)
    )
    if wanted.slot is not None:
        newest = newest.where(chains.c.slot_id == slot_named(tx, wanted.slot).id)
    last = newest.subquery()
    query = (
        select(*JOB_COLUMNS)
        .join(slots, slots.c.id == jobs.c.slot_id)
        .join(last, (last.c.slot_id == jobs.c.slot_id) & (last.c.position == jobs.c.position))
        .where(
            jobs.c.state == JobState.FAILED,
            # An operator who was told "it is so already" wants something else by now.
            (jobs.c.kind == JobKind.UNLOAD) | (jobs.c.model_id == slots.c.wanted_model_id),
        )
        .order_by(slots.c.name)
    )
    if wanted.kind is not None:
        query = query.where(jobs.c.kind == wanted.kind)
    if wanted.actor is not None:
        query = query.join(chains, chains.c.id == jobs.c.chain_id)
        query = query.where(chains.c.actor == wanted.actor)
    if wanted.since is not None:
        query = query.where(jobs.c.ended_at >= wanted.since)
    if wanted.until is not None:
        query = query.where(jobs.c.ended_at < wanted.until)
    failed = [read_job(row) for row in tx.execute(query)]
    return [
        (slot_by_id(tx, job.slot_id).name, job)
        for job in failed
        if wanted.code in (None, (job.error or {}).get("code"))
        and (wanted.job_ids is None or job.id in wanted.job_ids)
    ]


def _is_beside_an_error() -> ColumnElement[bool]:
    """Whether a chain is a pull or a check that ended while its slot is in error of another one."""
    its = jobs.alias("its")
    of_error = select(its.c.chain_id).where(
        its.c.id == slots.c.error["job_id"].as_integer(), its.c.slot_id == slots.c.id
    )
    is_open = (
        select(its.c.id)
        .where(its.c.chain_id == chains.c.id, its.c.state.in_((JobState.QUEUED, JobState.RUNNING)))
        .exists()
    )
    return and_(
        slots.c.state == SlotState.ERROR,
        chains.c.goal.in_((JobKind.PULL, JobKind.VALIDATE)),
        func.coalesce(chains.c.id != of_error.scalar_subquery(), False),
        ~is_open,
    )


def open_jobs(tx: Connection, wanted: BulkFilter) -> list[tuple[str, Job]]:
    """Return slot name and the first unfinished job that fits, of every chain that has one.

    Raises SlotNotFound.
    """
    slot_id = None if wanted.slot is None else slot_named(tx, wanted.slot).id
    query = (
        select(*JOB_COLUMNS)
        .join(chains, chains.c.id == jobs.c.chain_id)
        .where(IS_QUEUED | IS_RUNNING)
        .order_by(jobs.c.position, jobs.c.step)
    )
    if slot_id is not None:
        query = query.where(jobs.c.slot_id == slot_id)
    if wanted.kind is not None:
        query = query.where(jobs.c.kind == wanted.kind)
    if wanted.actor is not None:
        query = query.where(chains.c.actor == wanted.actor)
    if wanted.until is not None:
        query = query.where(jobs.c.created_at < wanted.until)
    found: dict[int, Job] = {}
    for job in (read_job(row) for row in tx.execute(query)):
        if wanted.job_ids is None or job.id in wanted.job_ids:
            found.setdefault(job.chain_id, job)
    return [(slot_by_id(tx, job.slot_id).name, job) for job in found.values()]


def cancel_all(
    tx: Connection, wanted: BulkFilter, by: By, *, dry_run: bool = False
) -> list[Cancelled]:
    """Cancel what is open and fits, with the rest of its chain; a refusal of one stops no other.

    `dry_run` does the same and takes it back. Needs a write transaction. Raises SlotNotFound.
    """
    return [
        Cancelled(slot, job, *_tried(tx, cancel, job, by, dry_run))
        for slot, job in open_jobs(tx, wanted)
    ]


def retry_all(tx: Connection, wanted: BulkFilter, by: By, *, dry_run: bool) -> list[Retried]:
    """Retry each, in order of the slots' names; a refusal of one stops no other.

    `dry_run` does the same and takes it back. Needs a write transaction. Raises SlotNotFound.
    """
    return [
        Retried(slot, failed, *_tried(tx, retry, failed, by, dry_run))
        for slot, failed in newest_failures(tx, wanted)
    ]


def _tried(
    tx: Connection, do: Order, job: Job, by: By, dry_run: bool
) -> tuple[tuple[int, ...], RequestError | None]:
    """Do it to a job, unless that is refused; return the ids of all it took, and the refusal."""
    savepoint = tx.begin_nested()
    try:
        done = tuple(other.id for other in do(tx, job.id, by))
    except RequestError as refusal:
        savepoint.rollback()
        return (), refusal
    if dry_run:
        savepoint.rollback()
    else:
        savepoint.commit()
    return done, None
