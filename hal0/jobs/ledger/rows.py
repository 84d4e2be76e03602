"""Chains and jobs as frozen values, who asks for them, and the selects that read them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, bindparam, literal_column, select, union_all

from hal0.errors import JobNotFound
from hal0.slots.transitions import Act
from hal0.states import JobKind, JobState, Origin, Outcome
from hal0.tables import chains, jobs

# Literals, not parameters: SQLite uses a partial index only for a condition it can read.
IS_QUEUED = jobs.c.state == literal_column("'queued'")
IS_RUNNING = jobs.c.state == literal_column("'running'")


@dataclass(frozen=True, slots=True)
class By:
    """Who asks."""

    actor: str
    request_id: str | None = None
    origin: Origin = Origin.OPERATOR
    caused_by_job_id: int | None = None


@dataclass(frozen=True, slots=True)
class Chain:
    """What one request set going: the model and options wanted, and on whose behalf."""

    id: int
    slot_id: int
    position: int
    goal: JobKind
    origin: Origin
    actor: str
    request_id: str | None
    model_id: int | None
    options: Mapping[str, Any] | None
    rehash: bool
    force: bool
    drain_timeout_s: float | None
    guard_generation: int | None
    guard_last_used_at: datetime | None
    caused_by_job_id: int | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Job:
    """One step of a chain, as its row says it."""

    id: int
    chain_id: int
    slot_id: int
    engine_id: int
    model_id: int | None
    kind: JobKind
    position: int
    step: int
    state: JobState
    outcome: Outcome | None
    attempt: int
    crashes: int
    faults: int
    owner_id: str | None
    sent_attempt: int | None
    run_after_boot: str | None
    run_after_ms: int | None
    deferred_boot: str | None
    deferred_ms: int | None
    deadline_boot: str | None
    deadline_ms: int | None
    deadline_at: datetime | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    result: Mapping[str, Any] | None
    error: Mapping[str, Any] | None
    fetches: int

    @property
    def is_unfinished(self) -> bool:
        """Whether the job is queued or running."""
        return self.state in (JobState.QUEUED, JobState.RUNNING)

    @property
    def was_sent(self) -> bool:
        """Whether the engine may have this job's request."""
        return self.sent_attempt is not None


@dataclass(frozen=True, slots=True)
class Claim:
    """A running job and its chain; (job, owner, attempt) is the fence of every later write."""

    job: Job
    chain: Chain

    @property
    def act(self) -> Act:
        """Name the worker, this job and the request that it serves in audit rows."""
        return Act("worker", self.job.id, self.job.attempt, self.chain.request_id)

    @property
    def subject(self) -> dict[str, object]:
        """What a record says that is about this claim (`hal0.logs`)."""
        return {
            "job_id": self.job.id,
            "attempt": self.job.attempt,
            "request_id": self.chain.request_id,
        }

    @property
    def load_key_args(self) -> tuple[int, Mapping[str, Any]]:
        """Return model id and options of a load's chain."""
        assert self.chain.model_id is not None
        return self.chain.model_id, self.chain.options or {}


JOB_COLUMNS = [jobs.c[field.name] for field in fields(Job)]
_CHAIN_COLUMNS = [chains.c[field.name] for field in fields(Chain)]
_JOB = select(*JOB_COLUMNS).where(jobs.c.id == bindparam("id"))
_CHAIN = select(*_CHAIN_COLUMNS).where(chains.c.id == bindparam("id"))
_CHAIN_JOBS = select(*JOB_COLUMNS).where(jobs.c.chain_id == bindparam("id")).order_by(jobs.c.step)
_OF_SLOT = jobs.c.slot_id == bindparam("slot_id")
_UNFINISHED = union_all(
    select(*JOB_COLUMNS).where(IS_QUEUED, _OF_SLOT),
    select(*JOB_COLUMNS).where(IS_RUNNING, _OF_SLOT),
).order_by("position", "step")


_AT_WORK = select(jobs.c.slot_id).where(IS_QUEUED).union(select(jobs.c.slot_id).where(IS_RUNNING))


def read_job(row: Row[Any]) -> Job:
    """Make a Job of a row that has JOB_COLUMNS."""
    values = dict(row._mapping)
    values["kind"] = JobKind(values["kind"])
    values["state"] = JobState(values["state"])
    if values["outcome"] is not None:
        values["outcome"] = Outcome(values["outcome"])
    return Job(**values)


def job_by_id(tx: Connection, job_id: int) -> Job:
    """Return the job; raises JobNotFound."""
    row = tx.execute(_JOB, {"id": job_id}).one_or_none()
    if row is None:
        raise JobNotFound(
            f"there is no job {job_id}; `hal0 job list` shows them", evidence={"job_id": job_id}
        )
    return read_job(row)


def chain_by_id(tx: Connection, chain_id: int) -> Chain:
    """Return the chain."""
    values = dict(tx.execute(_CHAIN, {"id": chain_id}).one()._mapping)
    values["goal"] = JobKind(values["goal"])
    values["origin"] = Origin(values["origin"])
    values["rehash"] = bool(values["rehash"])
    values["force"] = bool(values["force"])
    return Chain(**values)


def jobs_of_chain(tx: Connection, chain_id: int) -> list[Job]:
    """Return all jobs of a chain in their order."""
    return [read_job(row) for row in tx.execute(_CHAIN_JOBS, {"id": chain_id})]


def unfinished_jobs(tx: Connection, slot_id: int) -> list[Job]:
    """Return the queued and running jobs of a slot in the order in which they run."""
    return [read_job(row) for row in tx.execute(_UNFINISHED, {"slot_id": slot_id})]


def slots_with_work(tx: Connection) -> frozenset[int]:
    """Return the slots that have a queued or running job."""
    return frozenset(tx.execute(_AT_WORK).scalars())


def by_chain(jobs_in_order: Sequence[Job]) -> list[list[Job]]:
    """Group jobs, already in order, by chain."""
    grouped: dict[int, list[Job]] = {}
    for job in jobs_in_order:
        grouped.setdefault(job.chain_id, []).append(job)
    return list(grouped.values())
