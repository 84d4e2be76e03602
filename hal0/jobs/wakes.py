"""Whether a request for inference may have a slot loaded that is offline, and why not.

A wake is a machine's load: it sends nothing again that was sent and failed (ADR-0007), the breaker
counts it, and it never evicts. What an operator wants unloaded stays so, and so does what somebody
unloaded in the engine's own app, unless the slot wakes always (`Slot.is_to_stay_unloaded`).
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Connection, select

from hal0.clock import monotonic_ms, utc_now
from hal0.errors import (
    EngineUnreachable,
    Hal0Error,
    SlotHasNoModel,
    SlotLoadFailed,
    SlotLoading,
    SlotNotFound,
    SlotParked,
    SlotUnloaded,
)
from hal0.jobs.ledger.breaker import Breaker, breakers_of, forget
from hal0.jobs.ledger.intake import Accepted, Wish, failed_before, machine_load
from hal0.jobs.ledger.rows import (
    By,
    Chain,
    job_by_id,
    jobs_of_chain,
    unfinished_jobs,
)
from hal0.jobs.ledger.taken import ensure_model_is_free
from hal0.jobs.outlook import hindrance, opens_at
from hal0.jobs.restore import restore_of
from hal0.registry.roster import engine_by_id
from hal0.slots.queries import Slot, slot_named
from hal0.slots.wishes import want
from hal0.states import Cause, Desired, DesiredBy, JobKind, Outcome, SlotState, Wake
from hal0.tables import jobs, slots

FULL_S: Final = 30.0
"""So long a slot is not tried again whose load has given way, unless a slot of its engine left."""

_HELD_NOTHING: Final = frozenset(
    {Cause.CREATED, Cause.CANCELLED, Cause.PULLED, Cause.VALIDATED, Cause.CLEARED}
)
"""Why a slot came to be offline that had nothing to leave."""

_ASKED_LAST = (
    select(jobs.c.outcome, jobs.c.result, jobs.c.ended_at)
    .where(jobs.c.kind.in_([JobKind.LOAD, JobKind.UNLOAD]))
    .order_by(jobs.c.position.desc(), jobs.c.step.desc())
    .limit(1)
)


def request_wake(tx: Connection, slot: Slot, by: By) -> Accepted | None:
    """Have an offline slot loaded, and want it so; None = it is at work, or moved meanwhile.

    Needs a write transaction. Raises what `ensure_may_wake` does, or SlotNotFound.
    """
    slot = living(tx, slot)
    if slot.state is not SlotState.OFFLINE or unfinished_jobs(tx, slot.id):
        return None
    ensure_may_wake(tx, slot)
    if slot.cause == Cause.UNLOADED:
        forget(tx, slot.id)  # what was unloaded in good order was not lost
    wish = _wish(slot)
    want(tx, slot.id, Desired.LOADED, DesiredBy.WAKE, restore=None)
    return machine_load(tx, living(tx, slot), wish, by)


def living(tx: Connection, slot: Slot) -> Slot:
    """Return the slot as it is now; raises SlotNotFound when it was deleted."""
    now = slot_named(tx, slot.name)
    if now.id != slot.id:
        raise SlotNotFound(f"slot {slot.name} was deleted", evidence={"slot": slot.name})
    return now


def ensure_may_wake(tx: Connection, slot: Slot) -> None:
    """Raise what keeps a request from having an offline slot without jobs loaded.

    SlotUnloaded, SlotHasNoModel, SlotLoadFailed, EngineUnreachable, SlotParked, ModelTaken, or
    SlotLoading when its engine is full.
    """
    if slot.wake is Wake.NEVER or (slot.wake is Wake.AUTO and slot.is_to_stay_unloaded):
        raise _unloaded(slot)
    wish = _wish(slot)
    assert wish.model_id is not None
    failed_id = failed_before(tx, slot.id, wish.model_id, wish.options or {})
    if failed_id is not None:
        raise load_failed(slot, job_by_id(tx, failed_id).error)
    engine = engine_by_id(tx, slot.engine_id)
    if engine.away_ms is not None:
        raise unreachable(slot, engine.name)
    past = breakers_of(tx, slot.id).get(slot.id)
    if past is not None and past.refuses and slot.cause != Cause.UNLOADED:
        raise _parked(slot, past)
    ensure_model_is_free(tx, slot, wish.model_id)
    _ensure_not_full(tx, slot)


def ended_badly(tx: Connection, slot: Slot, chain: Chain) -> Hal0Error | None:
    """Return why a load that a request waited for came to nothing; None = it did not."""
    if chain.goal is not JobKind.LOAD:
        return None
    ended = jobs_of_chain(tx, chain.id)
    failed = next((job for job in ended if job.outcome is Outcome.FAILED), None)
    if failed is not None:
        return load_failed(slot, failed.error)
    if any(job.outcome in (Outcome.CANCELLED, Outcome.SUPERSEDED) for job in ended):
        return SlotUnloaded(
            f"the load of slot {slot.name} was cancelled; load it: `hal0 slot load {slot.name}`",
            evidence={"slot": slot.name, "state": slot.state, "job_id": ended[-1].id},
        )
    return None


def load_failed(slot: Slot, row: Mapping[str, Any] | None) -> SlotLoadFailed:
    """Return the error of a slot that this one, as rows keep it, keeps from being loaded."""
    code, job_id = (row or {}).get("code"), (row or {}).get("job_id")
    what = code if job_id is None else f"job {job_id}: {code}"
    then = "" if job_id is None else f", then `hal0 job retry {job_id}`"
    return SlotLoadFailed(
        f"slot {slot.name} is not loaded ({what}); see `hal0 slot show {slot.name}`{then}",
        evidence={"slot": slot.name, "state": slot.state, "code": code},
        job_id=job_id,
    )


def unreachable(slot: Slot, engine: str) -> EngineUnreachable:
    """Return the error of a slot whose engine is not there."""
    return EngineUnreachable(
        f"nobody is at the address of engine {engine}, which is to load slot {slot.name}; start it",
        evidence={"slot": slot.name, "engine": engine},
    )


def _wish(slot: Slot) -> Wish:
    """Return what the slot lost and is to have again, else what it is set up for."""
    noted = restore_of(slot)
    if noted is not None:
        return Wish(JobKind.LOAD, noted["model_id"], noted["options"])
    if slot.wanted_model_id is None:
        raise SlotHasNoModel(
            f"slot {slot.name} has no model; `hal0 slot set {slot.name} --model NAME`",
            evidence={"slot": slot.name},
        )
    return Wish(JobKind.LOAD, slot.wanted_model_id, dict(slot.options))


def _unloaded(slot: Slot) -> SlotUnloaded:
    why = "an operator wants it unloaded"
    if slot.wake is Wake.NEVER:
        why = "no request may load it (wake = never)"
    elif slot.desired_by is DesiredBy.ELSEWHERE:
        why = "somebody unloaded it in the engine's own app"
    return SlotUnloaded(
        f"slot {slot.name} is not loaded: {why}; load it: `hal0 slot load {slot.name}`",
        evidence={
            "slot": slot.name,
            "state": slot.state,
            "wake": slot.wake,
            "desired_by": slot.desired_by,
        },
    )


def _parked(slot: Slot, past: Breaker) -> SlotParked:
    opens = opens_at(past)
    left_s = None if opens is None else (past.opens_ms - monotonic_ms()) / 1000
    return SlotParked(
        f"slot {slot.name} keeps losing its model: {hindrance(past, None)}",
        evidence={
            "slot": slot.name,
            "sent": past.sent,
            "opens_at": None if opens is None else opens.isoformat(),
        },
        retry_after_s=left_s,
    )


def _ensure_not_full(tx: Connection, slot: Slot) -> None:
    """Refuse what has just given way to others, as long as none of them left the engine."""
    last = tx.execute(_ASKED_LAST.where(jobs.c.slot_id == slot.id)).one_or_none()
    if last is None or last.outcome != Outcome.SKIPPED or last.ended_at is None:
        return
    because = (last.result or {}).get("because")
    age = utc_now() - last.ended_at
    if because is None or not timedelta(0) <= age < timedelta(seconds=FULL_S):
        return
    left = select(slots.c.id).where(
        slots.c.engine_id == slot.engine_id,
        slots.c.state == SlotState.OFFLINE,
        slots.c.cause.not_in(_HELD_NOTHING),
        slots.c.since > last.ended_at,
    )
    if tx.execute(left).first() is None:
        raise SlotLoading(
            f"slot {slot.name} was not loaded, for {because}; a request takes no other slot's "
            "model away",
            evidence={"slot": slot.name, "state": slot.state, "because": because},
            retry_after_s=FULL_S - age.total_seconds(),
        )
