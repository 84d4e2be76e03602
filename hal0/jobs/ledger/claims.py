"""Whose a job is while it runs, and how it ends; who lost it writes nothing.

A claim is one UPDATE over what may run now (`runnable`). Every later write names owner and attempt:
no row means that the claim is lost. Two partial unique indexes hold even if that statement were
wrong.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, insert, text, update

from hal0.clock import boot_id, monotonic_ms, utc_now
from hal0.errors import ClaimLost, Hal0Error
from hal0.jobs.ledger import drains
from hal0.jobs.ledger.rows import (
    IS_QUEUED,
    IS_RUNNING,
    JOB_COLUMNS,
    Claim,
    Job,
    chain_by_id,
    job_by_id,
    read_job,
)
from hal0.jobs.ledger.runnable import RUNNABLE, moment
from hal0.slots.queries import Slot, slot_by_id
from hal0.slots.spec import load_key
from hal0.slots.transitions import move
from hal0.states import Cause, JobKind, JobState, Outcome, SlotState
from hal0.tables import failed_keys, job_attempts, jobs, slots

log = logging.getLogger(__name__)

_CLAIM = text(
    "UPDATE jobs SET state = 'running', attempt = attempt + 1, owner_id = :owner, "  # noqa: S608
    "started_at = :now, outcome = NULL, run_after_boot = NULL, run_after_ms = NULL "
    f"WHERE id = ({RUNNABLE}) RETURNING {', '.join(column.name for column in JOB_COLUMNS)}"
).columns(*JOB_COLUMNS)


def claim(
    tx: Connection, owner_id: str, *, heavy: bool = True, fetches: bool = True
) -> Claim | None:
    """Take the next runnable job for this owner; None = there is none.

    `heavy` False leaves pulls and validations to others, `fetches` False pulls that have bytes to
    fetch. Belongs into a soft transaction: a power cut that forgets a claim only puts the job back.
    """
    now = jobs.c.started_at.type.process_bind_param(utc_now(), tx.dialect)  # type: ignore[attr-defined]
    values = {**moment(heavy=heavy, fetches=fetches), "owner": owner_id, "now": now}
    row = tx.execute(_CLAIM, values).one_or_none()
    if row is None:
        return None
    job = read_job(row)
    return Claim(job, chain_by_id(tx, job.chain_id))


def running_claim(tx: Connection, job_id: int) -> Claim:
    """Return a running job as its owner holds it."""
    job = job_by_id(tx, job_id)
    return Claim(job, chain_by_id(tx, job.chain_id))


def is_held(tx: Connection, held: Claim) -> bool:
    """Tell whether the claim is still its owner's."""
    job = job_by_id(tx, held.job.id)
    return (job.state, job.owner_id, job.attempt) == (
        JobState.RUNNING,
        held.job.owner_id,
        held.job.attempt,
    )


def check(tx: Connection, held: Claim) -> Slot:
    """Return the claim's slot as it is now; raises ClaimLost when the claim is another's.

    Inside a write transaction this is the fence: nobody can take the claim until it commits.
    """
    if not is_held(tx, held):
        raise _lost(held)
    return slot_by_id(tx, held.job.slot_id)


def _lost(held: Claim) -> ClaimLost:
    return ClaimLost(
        f"job {held.job.id} is no longer run by attempt {held.job.attempt} of {held.job.owner_id}",
        job_id=held.job.id,
    )


def _end(
    tx: Connection,
    held: Claim,
    outcome: Outcome,
    values: Mapping[str, Any],
    error: Mapping[str, Any] | None = None,
) -> None:
    """Write how this attempt ended, and the job's new state, if the claim is still ours."""
    job, now = held.job, utc_now()
    changed = tx.execute(
        update(jobs)
        .where(
            jobs.c.id == job.id,
            IS_RUNNING,
            jobs.c.owner_id == job.owner_id,
            jobs.c.attempt == job.attempt,
        )
        .values(owner_id=None, outcome=outcome, **values)
    )
    if changed.rowcount != 1:
        raise _lost(held)
    tx.execute(
        insert(job_attempts),
        {
            "job_id": job.id,
            "attempt": job.attempt,
            "owner_id": job.owner_id,
            "started_at": job.started_at,
            "ended_at": now,
            "outcome": outcome,
            "error": error,
            "asked_by": held.chain.actor,
        },
    )


def finish(
    tx: Connection,
    held: Claim,
    outcome: Outcome = Outcome.DONE,
    result: Mapping[str, Any] | None = None,
) -> None:
    """End the job well: it did its work, or had nothing to do (`SKIPPED`). Raises ClaimLost."""
    values = {"state": JobState.SUCCEEDED, "ended_at": utc_now(), "result": result, "error": None}
    _end(tx, held, outcome, values)
    drains.begin(tx, held.job.slot_id)


def fail(tx: Connection, held: Claim, error: Hal0Error, cause: Cause = Cause.JOB_FAILED) -> Slot:
    """End the job as failed, cancel the rest of its chain, and leave the slot telling the truth.

    A transient slot goes to error; one that still serves stays as it is (B15). The key of a load
    that was sent is kept so that no machine sends it again. Raises ClaimLost.
    """
    log.warning("%s fails: %s: %s", held.job.kind, error.code, error.detail, extra=held.subject)
    row = {**error.as_row(), "job_id": held.job.id}
    slot = check(tx, held)
    if slot.is_transient:  # before the attempt ends: what it changed lies within its time
        move(tx, slot, SlotState.ERROR, cause, held.act, {"code": error.code})
        tx.execute(
            update(slots)
            .where(slots.c.id == slot.id)
            .values(error=row, model_id=None, held_options=None)
        )
    _end(
        tx,
        held,
        Outcome.FAILED,
        {"state": JobState.FAILED, "ended_at": utc_now(), "error": row},
        row,
    )
    cancel_queued(tx, held.job.chain_id, Outcome.CANCELLED, row)
    if held.job.kind is JobKind.LOAD and _was_sent(tx, held.job):
        remember_failed_key(tx, held)
    return slot_by_id(tx, slot.id)


def _was_sent(tx: Connection, job: Job) -> bool:
    return job_by_id(tx, job.id).was_sent


def remember_failed_key(tx: Connection, held: Claim) -> None:
    """Keep what was sent and failed on the slot until an operator asks for it again."""
    model_id, options = held.load_key_args
    tx.execute(
        insert(failed_keys).prefix_with("OR REPLACE"),
        {
            "slot_id": held.job.slot_id,
            "load_key": load_key(model_id, options),
            "job_id": held.job.id,
            "at": utc_now(),
        },
    )


def put_back(
    tx: Connection,
    held: Claim,
    outcome: Outcome,
    *,
    crashed: bool = False,
    after_s: float = 0.0,
    error: Hal0Error | None = None,
) -> None:
    """End the attempt without ending the job: it is queued again, in its old place.

    `crashed` counts a worker's death; any other end forgets earlier ones. `after_s` keeps the job
    from being claimed for so long. `error` says of the attempt why. Raises ClaimLost.
    """
    later = monotonic_ms() + int(after_s * 1000)
    values: dict[str, Any] = {
        "state": JobState.QUEUED,
        "crashes": held.job.crashes + 1 if crashed else 0,
        "run_after_boot": boot_id() if after_s else None,
        "run_after_ms": later if after_s else None,
    }
    row = None if error is None else {**error.as_row(), "job_id": held.job.id}
    _end(tx, held, outcome, values, row)


def try_again(tx: Connection, held: Claim, error: Hal0Error, after_s: float, faults: int) -> None:
    """Put a pull back after a network fault, which its attempt keeps; nothing else is tried again.

    `faults` counts those in a row that came no further. Raises ClaimLost.
    """
    assert held.job.kind is JobKind.PULL
    put_back(tx, held, Outcome.DEFERRED, after_s=after_s, error=error)
    tx.execute(update(jobs).where(jobs.c.id == held.job.id).values(faults=faults))


def wait_for_place(tx: Connection, held: Claim) -> None:
    """Put a pull back that has bytes to fetch until a download ends. Raises ClaimLost."""
    put_back(tx, held, Outcome.DEFERRED)
    tx.execute(update(jobs).where(jobs.c.id == held.job.id).values(fetches=1))


def keep(tx: Connection, held: Claim, result: Mapping[str, Any]) -> None:
    """Keep what an attempt brought about for the one that may follow it. Raises ClaimLost."""
    check(tx, held)
    tx.execute(update(jobs).where(jobs.c.id == held.job.id).values(result=dict(result)))


def cancel_running(tx: Connection, held: Claim, outcome: Outcome) -> None:
    """End the job as cancelled under its owner, whose next write will find the claim lost."""
    _end(tx, held, outcome, {"state": JobState.CANCELLED, "ended_at": utc_now()})


def cancel_queued(
    tx: Connection, chain_id: int, outcome: Outcome, error: Mapping[str, Any] | None = None
) -> None:
    """Cancel whatever of a chain is queued; `error` says which failed job took it along."""
    tx.execute(
        update(jobs)
        .where(jobs.c.chain_id == chain_id, IS_QUEUED)
        .values(
            state=JobState.CANCELLED,
            outcome=outcome,
            ended_at=utc_now(),
            error=None if error is None else dict(error),
        )
    )


def wait_on(
    tx: Connection, held: Claim, outcome: Outcome, after_s: float, *, anew: bool = False
) -> None:
    """Put the job back and remember since when it waits, for its engine or its requests.

    `anew`: for something else than before, so that the time for it begins now.
    """
    put_back(tx, held, outcome, after_s=after_s)
    if anew or held.job.deferred_boot != boot_id():
        tx.execute(
            update(jobs)
            .where(jobs.c.id == held.job.id)
            .values(deferred_boot=boot_id(), deferred_ms=monotonic_ms())
        )


def renewed(tx: Connection, held: Claim) -> Claim:
    """Return the claim with its row as it is now; raises ClaimLost when it is another's.

    Asked right before a request goes to an engine: no fence reaches it there.
    """
    check(tx, held)
    return replace(held, job=job_by_id(tx, held.job.id))
