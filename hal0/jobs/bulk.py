"""Which failed jobs a bulk retry takes: of each slot the newest chain, if that failed.

An older failure is history: the slot was asked for something else since, and repeating what failed
before would undo it.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from hal0.errors import RequestError
from hal0.jobs.ledger.orders import retry
from hal0.jobs.ledger.rows import JOB_COLUMNS, By, Job, read_job
from hal0.slots.queries import slot_by_id, slot_named
from hal0.states import JobKind, JobState
from hal0.tables import chains, jobs, slots


@dataclass(frozen=True, slots=True)
class BulkFilter:
    """Which failures; all of what is given must fit."""

    slot: str | None = None
    kind: JobKind | None = None
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Retried:
    """What became of one failed job: the jobs queued again, or why it was refused."""

    slot: str
    failed: Job
    job_ids: tuple[int, ...] = ()
    refusal: RequestError | None = None


def newest_failures(tx: Connection, wanted: BulkFilter) -> list[tuple[str, Job]]:
    """Return slot name and failed job of every living slot whose newest chain failed.

    Raises SlotNotFound.
    """
    newest = (
        select(chains.c.slot_id, func.max(chains.c.position).label("position"))
        .join(slots, slots.c.id == chains.c.slot_id)
        .where(slots.c.deleted_at.is_(None))
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
    failed = [read_job(row) for row in tx.execute(query)]
    return [
        (slot_by_id(tx, job.slot_id).name, job)
        for job in failed
        if wanted.code in (None, (job.error or {}).get("code"))
    ]


def retry_all(tx: Connection, wanted: BulkFilter, by: By, *, dry_run: bool) -> list[Retried]:
    """Retry each, in order of the slots' names; a refusal of one stops no other.

    `dry_run` does the same and takes it back. Needs a write transaction. Raises SlotNotFound.
    """
    results = []
    for slot, failed in newest_failures(tx, wanted):
        savepoint = tx.begin_nested()
        try:
            queued = tuple(job.id for job in retry(tx, failed.id, by))
        except RequestError as refusal:
            savepoint.rollback()
            results.append(Retried(slot, failed, refusal=refusal))
            continue
        if dry_run:
            savepoint.rollback()
        else:
            savepoint.commit()
        results.append(Retried(slot, failed, queued))
    return results
