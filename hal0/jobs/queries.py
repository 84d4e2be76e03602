"""What is shown of jobs and chains beside their own rows: names, attempts, progress, the wait.

A page of jobs costs the same few queries whatever its length.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Select, func, literal_column, select

from hal0.errors import JobNotFound
from hal0.jobs.ledger.rows import JOB_COLUMNS, Chain, Job, chain_by_id, jobs_of_chain, read_job
from hal0.jobs.waiting import NEXT_TRY, Waits
from hal0.slots.overview import ids_ever_named
from hal0.states import FINISHED, JobKind, JobState
from hal0.tables import (
    chains,
    engines,
    incidents,
    job_attempts,
    job_progress,
    jobs,
    models,
    owners,
    slots,
)

MAX_ID: Final = 2**63 - 1
SEARCHED: Final = 100_000
"""So many of the newest jobs are looked into for what no index finds."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One ended run of a job."""

    attempt: int
    owner: str
    started_at: datetime
    ended_at: datetime
    outcome: str
    error: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the running attempt is; bytes, 0 of 0 where a phase counts none."""

    phase: str
    done_bytes: int
    total_bytes: int
    rate_bytes_s: float | None

    @property
    def left_s(self) -> float | None:
        """Seconds to the end at this rate; None = nobody knows, as of less than a byte a second."""
        if self.rate_bytes_s is None or self.rate_bytes_s < 1 or not self.total_bytes:
            return None
        return max(0, self.total_bytes - self.done_bytes) / self.rate_bytes_s


@dataclass(frozen=True, slots=True)
class JobDetail:
    """A job with what its ids mean, how its attempts went, and what it waits for."""

    job: Job
    slot: str
    model: str | None
    engine: str
    actor: str
    caused_by: int | None
    incident_id: int | None
    """What its load did to other slots, the newest if it was more than one incident."""
    progress: Progress | None
    attempts: tuple[Attempt, ...]
    waiting_for: str | None


@dataclass(frozen=True, slots=True)
class ChainDetail:
    """A chain with its jobs in order."""

    chain: Chain
    slot: str
    model: str | None
    jobs: tuple[JobDetail, ...]

    @property
    def state(self) -> JobState:
        """Where the chain is: its worst job tells."""
        return chain_state([detail.job.state for detail in self.jobs])


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs; all of what is given must fit."""

    slot: str | None = None
    state: JobState | None = None
    kind: JobKind | None = None
    code: str | None = None
    """What it failed with."""
    actor: str | None = None
    """Who asked for it."""
    since: datetime | None = None
    """What is unfinished, or was asked for or ended since."""
    until: datetime | None = None
    """What was asked for before."""

    @property
    def searches(self) -> bool:
        """Whether rows must be looked into one by one: then only the newest are."""
        return any((self.code, self.actor, self.since, self.until))


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker process that nobody has seen end; `seen_at` is its last sign of life."""

    id: str
    pid: int
    started_at: datetime
    seen_at: datetime


def chain_state(states: Sequence[JobState]) -> JobState:
    """Sum up the states of a chain's jobs."""
    order = (JobState.RUNNING, JobState.QUEUED, JobState.FAILED, JobState.CANCELLED)
    return next((state for state in order if state in states), JobState.SUCCEEDED)


def is_finished(states: Sequence[JobState]) -> bool:
    """Tell whether nothing of a chain will happen any more."""
    return FINISHED.issuperset(states)


def job_page(
    tx: Connection, wanted: JobFilter, *, limit: int, before: int | None = None
) -> list[JobDetail]:
    """Return up to `limit` jobs, newest first, older than the id `before`.

    Raises SlotNotFound for a slot that never was.
    """
    # Unfinished jobs are few: a walk by id, which the plus forbids, would meet all others first.
    is_unfinished = wanted.state in (JobState.QUEUED, JobState.RUNNING)
    key = literal_column("+jobs.id") if is_unfinished else jobs.c.id
    query = select(*JOB_COLUMNS).order_by(key.desc()).limit(limit)
    if before is not None:
        query = query.where(key < before)
    if wanted.slot is not None:
        query = query.where(jobs.c.slot_id.in_(ids_ever_named(tx, wanted.slot)))
    if wanted.state is not None:  # a literal: SQLite takes a partial index only then
        query = query.where(jobs.c.state == literal_column(f"'{wanted.state}'"))
    if wanted.kind is not None:
        query = query.where(jobs.c.kind == wanted.kind)
    if wanted.searches:
        query = _searched(query, wanted)
    return details(tx, [read_job(row) for row in tx.execute(query)])


def _searched(query: Select[Any], wanted: JobFilter) -> Select[Any]:
    """Look into the newest rows for what no index finds."""
    newest = select(func.max(jobs.c.id) - SEARCHED).scalar_subquery()
    query = query.where(jobs.c.id > newest)
    if wanted.code is not None:
        query = query.where(
            jobs.c.state == literal_column("'failed'"),
            func.json_extract(jobs.c.error, "$.code") == wanted.code,
        )
    if wanted.actor is not None:
        query = query.join(chains, chains.c.id == jobs.c.chain_id)
        query = query.where(chains.c.actor == wanted.actor)
    if wanted.since is not None:
        is_open, last = jobs.c.ended_at.is_(None), func.max(jobs.c.created_at, jobs.c.ended_at)
        query = query.where(is_open | (last >= wanted.since))
    if wanted.until is not None:
        query = query.where(jobs.c.created_at < wanted.until)
    return query


_INCIDENT_ID: Final = (
    select(func.max(incidents.c.id))
    .where(incidents.c.job_id == jobs.c.id)
    .correlate(jobs)
    .scalar_subquery()
)


def job_detail(tx: Connection, job_id: int) -> JobDetail:
    """Return the job; raises JobNotFound."""
    row = None
    if job_id <= MAX_ID:
        row = tx.execute(select(*JOB_COLUMNS).where(jobs.c.id == job_id)).one_or_none()
    if row is None:
        raise JobNotFound(
            f"there is no job {job_id}; `hal0 job list` shows them", evidence={"job_id": job_id}
        )
    return details(tx, [read_job(row)])[0]


def chain_detail(tx: Connection, chain_id: int) -> ChainDetail:
    """Return the chain; raises JobNotFound."""
    row = None
    if chain_id <= MAX_ID:
        row = tx.execute(
            select(slots.c.name.label("slot"), models.c.name.label("model"))
            .select_from(chains)
            .join(slots, slots.c.id == chains.c.slot_id)
            .join(models, models.c.id == chains.c.model_id, isouter=True)
            .where(chains.c.id == chain_id)
        ).one_or_none()
    if row is None:
        raise JobNotFound(
            f"there is no chain {chain_id}; each job names its own", evidence={"chain_id": chain_id}
        )
    listed = details(tx, jobs_of_chain(tx, chain_id))
    return ChainDetail(chain_by_id(tx, chain_id), row.slot, row.model, tuple(listed))


def chains_with_ids(tx: Connection, ids: Collection[int]) -> dict[int, list[JobDetail]]:
    """Return the jobs of these chains in order, by chain id."""
    of_chains = select(*JOB_COLUMNS).where(jobs.c.chain_id.in_(ids)).order_by(jobs.c.step)
    found: dict[int, list[JobDetail]] = {}
    for detail in details(tx, [read_job(row) for row in tx.execute(of_chains)]):
        found.setdefault(detail.job.chain_id, []).append(detail)
    return found


def details(tx: Connection, listed: Sequence[Job]) -> list[JobDetail]:
    """Return these jobs, in their order, with all that is known of them."""
    ids = [job.id for job in listed]
    named = _names(tx, ids)
    attempts = _attempts(tx, ids)
    progress = _progress(tx, listed)
    waits = Waits.read(tx) if any(job.state is JobState.QUEUED for job in listed) else None
    return [
        JobDetail(
            job,
            named[job.id].slot,
            named[job.id].model,
            named[job.id].engine,
            named[job.id].actor,
            named[job.id].caused_by,
            named[job.id].incident_id,
            progress.get(job.id),
            tuple(attempts.get(job.id, ())),
            None if waits is None else _why(waits.reason(job), attempts.get(job.id, ())),
        )
        for job in listed
    ]


def _why(reason: str | None, attempts: Sequence[Attempt]) -> str | None:
    """Say of a next try what ended the last one."""
    last = attempts[-1].error if attempts else None
    if reason != NEXT_TRY or last is None:
        return reason
    return f"{reason}, after {last.get('code')}: {last.get('detail')}"


def _names(tx: Connection, ids: Sequence[int]) -> dict[int, Any]:
    rows = tx.execute(
        select(
            jobs.c.id,
            slots.c.name.label("slot"),
            models.c.name.label("model"),
            engines.c.name.label("engine"),
            chains.c.actor,
            chains.c.caused_by_job_id.label("caused_by"),
            _INCIDENT_ID.label("incident_id"),
        )
        .join(chains, chains.c.id == jobs.c.chain_id)
        .join(slots, slots.c.id == jobs.c.slot_id)
        .join(engines, engines.c.id == jobs.c.engine_id)
        .join(models, models.c.id == jobs.c.model_id, isouter=True)
        .where(jobs.c.id.in_(ids))
    )
    return {row.id: row for row in rows}


def _attempts(tx: Connection, ids: Sequence[int]) -> dict[int, list[Attempt]]:
    rows = tx.execute(
        select(job_attempts)
        .where(job_attempts.c.job_id.in_(ids))
        .order_by(job_attempts.c.job_id, job_attempts.c.attempt)
    )
    found: dict[int, list[Attempt]] = {}
    for row in rows:
        found.setdefault(row.job_id, []).append(
            Attempt(row.attempt, row.owner_id, row.started_at, row.ended_at, row.outcome, row.error)
        )
    return found


def _progress(tx: Connection, listed: Sequence[Job]) -> dict[int, Progress]:
    """Return how far the running or last attempt of each job came, of a queued one nothing."""
    attempt_of = {job.id: job.attempt for job in listed if job.state is not JobState.QUEUED}
    rows = tx.execute(select(job_progress).where(job_progress.c.job_id.in_(attempt_of)))
    return {
        row.job_id: Progress(row.phase, row.done_bytes, row.total_bytes, row.rate_bytes_s)
        for row in rows
        if row.attempt == attempt_of[row.job_id]
    }


def first_unfinished(tx: Connection) -> dict[int, int]:
    """Return, by slot id, the job that runs or is the first in line."""
    waits = Waits.read(tx)
    return {slot_id: line[0].id for slot_id, line in waits.lines.items()}


def living_workers(tx: Connection) -> list[Worker]:
    """Return the worker processes whose end no row tells, oldest first."""
    rows = tx.execute(
        select(owners.c.id, owners.c.pid, owners.c.started_at, owners.c.seen_at)
        .where(owners.c.kind == "worker", owners.c.ended_at.is_(None))
        .order_by(owners.c.started_at)
    )
    return [Worker(**row._mapping) for row in rows]
