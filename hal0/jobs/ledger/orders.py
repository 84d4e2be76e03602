"""What an operator may do to a job: run a failed one again, cancel one that is not sent."""

from sqlalchemy import Connection, select, update

from hal0.errors import (
    JobAlreadySent,
    JobFinished,
    JobNotFailed,
    JobSuperseded,
    ModelNotFound,
    SlotNotFound,
)
from hal0.jobs.ledger import drains
from hal0.jobs.ledger.cancel import cancel_chain
from hal0.jobs.ledger.intake import next_position, want_loaded, want_unloaded
from hal0.jobs.ledger.rows import (
    By,
    Job,
    chain_by_id,
    job_by_id,
    jobs_of_chain,
    unfinished_jobs,
)
from hal0.jobs.ledger.taken import ensure_model_is_free
from hal0.slots.queries import Slot, slot_by_id
from hal0.slots.wishes import want
from hal0.states import Desired, DesiredBy, JobKind, JobState, Origin, Outcome
from hal0.tables import chains, jobs, models, slots


def retry(tx: Connection, job_id: int, by: By) -> list[Job]:
    """Queue a failed job's chain again, at the tail: `validate` and all after it.

    Model and options are the chain's own, attempts are kept. Returns the queued jobs. Needs a
    write transaction. Raises JobNotFound, JobNotFailed, JobSuperseded (a chain of the slot is
    unfinished, or it has another engine now), ModelTaken; SlotNotFound or ModelNotFound when it
    was deleted since.
    """
    job = job_by_id(tx, job_id)
    slot = slot_by_id(tx, job.slot_id)
    if job.state is not JobState.FAILED:
        raise JobNotFailed(
            f"job {job_id} is in state {job.state}; only a failed job can be retried",
            evidence={"job_id": job_id, "state": job.state},
        )
    unfinished = unfinished_jobs(tx, slot.id)
    if unfinished:
        raise JobSuperseded(
            f"slot {slot.name} has an unfinished chain (job {unfinished[0].id}); "
            "wait for it or cancel it",
            evidence={"slot": slot.name, "job_id": unfinished[0].id},
        )
    _ensure_still_there(tx, slot, job)
    _take_up_again(tx, slot, job, by)
    drains.begin(tx, slot.id)
    return [other for other in jobs_of_chain(tx, job.chain_id) if other.is_unfinished]


def _ensure_still_there(tx: Connection, slot: Slot, job: Job) -> None:
    """Refuse to work on a slot, or to bring up a model, that was deleted since."""
    if tx.execute(select(slots.c.deleted_at).where(slots.c.id == slot.id)).scalar_one():
        raise SlotNotFound(
            f"slot {slot.name}, which job {job.id} worked on, was deleted",
            evidence={"slot": slot.name, "job_id": job.id},
        )
    if job.engine_id != slot.engine_id:
        raise JobSuperseded(
            f"slot {slot.name} has moved to another engine since job {job.id}; load it anew: "
            f"`hal0 slot load {slot.name}`",
            evidence={"slot": slot.name, "job_id": job.id},
        )
    model = tx.execute(
        select(models.c.name, models.c.deleted_at).where(models.c.id == job.model_id)
    ).one_or_none()
    if model is not None and model.deleted_at is not None:
        raise ModelNotFound(
            f"model {model.name}, which job {job.id} was for, was deleted",
            evidence={"model": model.name, "job_id": job.id},
        )


def _take_up_again(tx: Connection, slot: Slot, job: Job, by: By) -> None:
    chain = chain_by_id(tx, job.chain_id)
    position = next_position(tx)
    tx.execute(
        update(chains)
        .where(chains.c.id == chain.id)
        .values(
            position=position,
            origin=Origin.OPERATOR,
            actor=by.actor,
            request_id=by.request_id,
            guard_generation=None,
            guard_last_used_at=None,
        )
    )
    again = jobs.c.id == job.id
    if chain.goal is JobKind.LOAD:
        again = jobs.c.step >= min(job.step, JobKind.VALIDATE.step)
        assert chain.model_id is not None
        ensure_model_is_free(tx, slot, chain.model_id)
        want_loaded(tx, slot.id, chain.model_id, chain.options or {})
    elif chain.goal is JobKind.UNLOAD:
        want_unloaded(tx, slot.id)
    tx.execute(update(jobs).where(jobs.c.chain_id == chain.id).values(position=position))
    tx.execute(
        update(jobs)
        .where(jobs.c.chain_id == chain.id, again)
        .values(
            state=JobState.QUEUED,
            outcome=None,
            crashes=0,
            faults=0,
            fetches=0,
            sent_attempt=None,
            deferred_boot=None,
            deferred_ms=None,
            deadline_boot=None,
            deadline_ms=None,
            deadline_at=None,
            ended_at=None,
            result=None,
            error=None,
        )
    )


def _still_desired(tx: Connection, slot: Slot) -> Desired:
    """Return what the newest intent left over wants of the slot, else what it holds."""
    goals = [chain_by_id(tx, job.chain_id).goal for job in unfinished_jobs(tx, slot.id)]
    wishes = [goal for goal in goals if goal in (JobKind.LOAD, JobKind.UNLOAD)]
    is_loaded = wishes[-1] is JobKind.LOAD if wishes else slot.is_dispatchable
    return Desired.LOADED if is_loaded else Desired.UNLOADED


def cancel(tx: Connection, job_id: int, by: By) -> list[Job]:
    """Cancel a job and the rest of its chain; return what was cancelled.

    The slot goes offline in the same commit if the chain owned its state, and `desired` goes back
    to what an unfinished chain wants, else to what the slot holds: an operator says so by this.
    Needs a write transaction.
    Raises JobNotFound, JobFinished, JobAlreadySent.
    """
    job = job_by_id(tx, job_id)
    if not job.is_unfinished:
        raise JobFinished(
            f"job {job_id} is in state {job.state}; there is nothing to cancel",
            evidence={"job_id": job_id, "state": job.state},
        )
    open_jobs = [other for other in jobs_of_chain(tx, job.chain_id) if other.is_unfinished]
    sent = next((other for other in open_jobs if other.was_sent), None)
    if sent is not None:
        raise JobAlreadySent(
            f"the {sent.kind} (job {sent.id}) was sent to the engine, which cannot be told to "
            "stop; it ends by itself or at its deadline",
            evidence={
                "job_id": sent.id,
                "deadline_at": None if sent.deadline_at is None else sent.deadline_at.isoformat(),
            },
        )
    slot = slot_by_id(tx, job.slot_id)
    cancel_chain(tx, slot, open_jobs, Outcome.CANCELLED, by)
    if chain_by_id(tx, job.chain_id).goal in (JobKind.LOAD, JobKind.UNLOAD):
        desired = _still_desired(tx, slot_by_id(tx, slot.id))
        want(tx, slot.id, desired, DesiredBy.OPERATOR)
    return [job_by_id(tx, other.id) for other in open_jobs]
