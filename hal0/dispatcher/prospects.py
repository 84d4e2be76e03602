"""What the rows promise a request whose slot holds nothing: who works on it, and for how long yet.

All of it is read in one view; nothing is written. What a request may set going is said by
`jobs.wakes`.
"""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from hal0.clock import boot_id, monotonic_ms
from hal0.errors import SlotLoading
from hal0.jobs.ledger.lane import lane_of
from hal0.jobs.ledger.rows import Chain, Job, by_chain, chain_by_id, job_by_id, unfinished_jobs
from hal0.jobs.queries import JobDetail, job_detail
from hal0.jobs.wakes import ended_badly, ensure_may_wake, living, load_failed, unreachable
from hal0.registry.roster import engine_by_id
from hal0.settings import Settings
from hal0.slots.queries import Slot
from hal0.slots.times import times_of
from hal0.states import JobKind, JobState, Outcome, SlotState

LONGEST_S: Final = 300.0
"""The longest that a request is told to stay away."""


@dataclass(frozen=True, slots=True)
class Prospect:
    """A slot, what works on it (None = nothing), and in how long that has ended in any case."""

    slot: Slot
    head: JobDetail | None
    load: Chain | None
    """The load to wait for: the newest that is not finished."""
    left_s: float

    @property
    def may_wake(self) -> bool:
        """Whether a load may be asked for now."""
        return self.slot.state is SlotState.OFFLINE and self.head is None

    def as_error(self) -> SlotLoading:
        """Return what a request is told that does not wait any longer."""
        slot, evidence = self.slot, {"slot": self.slot.name, "state": self.slot.state}
        if self.head is None:
            return SlotLoading(f"slot {slot.name} is {slot.state}", evidence=evidence)
        job, waiting_for = self.head.job, self.head.waiting_for
        does = f"waits for {waiting_for}" if waiting_for else f"is {job.state}"
        return SlotLoading(
            f"slot {slot.name} is {slot.state}: its {job.kind} (job {job.id}) {does}",
            evidence=evidence,
            job_id=job.id,
            retry_after_s=min(max(1.0, self.left_s), LONGEST_S),
        )


def prospect(tx: Connection, slot: Slot, awaited: Chain | None, settings: Settings) -> Prospect:
    """Return what a request can hope for; `awaited` is the load that it has waited for so far.

    Raises what it is told instead: SlotLoadFailed, EngineUnreachable, SlotNotFound, or what
    `wakes.ensure_may_wake` raises for a slot without jobs.
    """
    slot = living(tx, slot)
    limit_s = times_of(slot, settings).load_timeout_s
    if slot.is_dispatchable:
        return Prospect(slot, None, None, 0.0)
    unfinished = unfinished_jobs(tx, slot.id)
    load = _newest_load(tx, unfinished)
    if slot.state is SlotState.ERROR and load is None:
        raise load_failed(slot, slot.error)
    if unfinished:
        head = job_detail(tx, unfinished[0].id)
        _ensure_reachable(tx, slot, head.job)
        return Prospect(slot, head, load, _left_s(tx, head, limit_s))
    if slot.state is SlotState.OFFLINE:
        if awaited is not None and (error := ended_badly(tx, slot, awaited)) is not None:
            raise error
        ensure_may_wake(tx, slot)
    return Prospect(slot, None, None, limit_s)


def _newest_load(tx: Connection, unfinished: list[Job]) -> Chain | None:
    open_chains = [chain_by_id(tx, jobs[0].chain_id) for jobs in by_chain(unfinished)]
    return next((one for one in reversed(open_chains) if one.goal is JobKind.LOAD), None)


def _ensure_reachable(tx: Connection, slot: Slot, job: Job) -> None:
    """Refuse to wait for a job that waits for an engine which is not there."""
    if (job.state, job.outcome) != (JobState.QUEUED, Outcome.DEFERRED):
        return
    engine = engine_by_id(tx, job.engine_id)
    if job.kind is not JobKind.PULL and engine.away_ms is not None:
        raise unreachable(slot, engine.name)


def _left_s(tx: Connection, head: JobDetail, limit_s: float) -> float:
    """Return in how many seconds the slot has been loaded, or has not, as far as rows can tell.

    At the deadline of what was sent; what is not sent yet has the whole of its limit still to come,
    behind the bytes that it fetches or hashes, or the load of another slot in its engine's lane.
    """
    job, progress = head.job, head.progress
    if job.deadline_ms is not None and job.deadline_boot == boot_id():
        return (job.deadline_ms - monotonic_ms()) / 1000
    before_s = 0.0
    if progress is not None:
        before_s = progress.left_s or 0.0
    elif (lane := lane_of(tx, job.engine_id)) is not None and job.kind is JobKind.LOAD:
        sent = job_by_id(tx, lane.job_id)
        until_ms = sent.deadline_ms if sent.is_unfinished else lane.settle_ms
        before_s = ((until_ms or lane.settle_ms) - monotonic_ms()) / 1000
    return max(0.0, before_s) + limit_s
