"""What an engine still owes us: the load in its lane, and unloads it has not answered.

The lane is a row, one an engine, inserted in the commit that marks a load as sent and deleted only
when the engine has settled that request. It outlives the job: after a timeout the engine may still
be loading, and a second load sent now would wait behind it or be evicted by its failure. An unload
leaves a mark on its slot for the same reason. Whoever deletes names job and attempt, so that a
late hand never frees what a newer attempt took.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, exc, insert, select, update

from hal0.clock import boot_id, monotonic_ms, utc_now
from hal0.errors import LaneTaken
from hal0.jobs.ledger.breaker import count_sent, take_back
from hal0.jobs.ledger.claims import check
from hal0.jobs.ledger.rows import Claim, chain_by_id
from hal0.slots.queries import Slot, slot_by_id
from hal0.slots.transitions import move
from hal0.states import Cause, Origin, SlotState
from hal0.tables import engine_lane, jobs, slots


@dataclass(frozen=True, slots=True)
class Lane:
    """A load that the engine has not settled."""

    engine_id: int
    slot_id: int
    job_id: int
    attempt: int
    owner_id: str
    process: str | None
    sent_at: datetime
    is_answered: int
    settle_boot: str
    settle_ms: int

    @property
    def is_overdue(self) -> bool:
        """Whether the engine has had all the time that it may ever need."""
        return self.settle_boot != boot_id() or monotonic_ms() >= self.settle_ms


@dataclass(frozen=True, slots=True)
class Sending:
    """What goes to the engine: by which name, to which process, with which limits in seconds."""

    engine_model: str
    process: str | None
    timeout_s: float
    settle_s: float


def lane_of(tx: Connection, engine_id: int) -> Lane | None:
    """Return what is in an engine's lane."""
    row = tx.execute(select(engine_lane).where(engine_lane.c.engine_id == engine_id)).one_or_none()
    return None if row is None else Lane(**row._mapping)


def lanes(tx: Connection) -> list[Lane]:
    """Return every load that is not settled."""
    return [Lane(**row._mapping) for row in tx.execute(select(engine_lane))]


def release(tx: Connection, engine_id: int, job_id: int, attempt: int) -> bool:
    """Free the lane if it is still held by this attempt; tell whether it was."""
    result = tx.execute(
        delete(engine_lane).where(
            engine_lane.c.engine_id == engine_id,
            engine_lane.c.job_id == job_id,
            engine_lane.c.attempt == attempt,
        )
    )
    return result.rowcount == 1


def note_answered(tx: Connection, engine_id: int, job_id: int, attempt: int) -> None:
    """Write that the engine has answered this attempt's load: it owes nothing more; soft."""
    tx.execute(
        update(engine_lane)
        .where(
            engine_lane.c.engine_id == engine_id,
            engine_lane.c.job_id == job_id,
            engine_lane.c.attempt == attempt,
        )
        .values(is_answered=1)
    )


def mark_load_sent(tx: Connection, held: Claim, sending: Sending) -> Slot:
    """Take the lane, move the slot to warming and start the load's clock, in one commit.

    Raises ClaimLost, or LaneTaken when another load holds the lane; nothing is written then.
    """
    slot = check(tx, held)
    _mark_job(tx, held, sending.timeout_s)
    try:
        tx.execute(
            insert(engine_lane),
            {
                "engine_id": held.job.engine_id,
                "slot_id": slot.id,
                "job_id": held.job.id,
                "attempt": held.job.attempt,
                "owner_id": held.job.owner_id,
                "process": sending.process,
                "sent_at": utc_now(),
                "is_answered": 0,
                "settle_boot": boot_id(),
                "settle_ms": monotonic_ms() + int(sending.settle_s * 1000),
            },
        )
    except exc.IntegrityError as error:
        raise LaneTaken(
            f"engine {held.job.engine_id} has a load that is not settled", job_id=held.job.id
        ) from error
    tx.execute(
        update(slots)
        .where(slots.c.id == slot.id)
        .values(
            generation=slot.generation + 1,
            model_id=None,
            held_options=None,
            engine_model=sending.engine_model,
            engine_model_id=held.job.model_id,
            engine_process=sending.process,
            restore=None,
        )
    )
    if chain_by_id(tx, held.chain.id).origin is not Origin.OPERATOR:
        count_sent(tx, slot.id)
    slot = slot_by_id(tx, slot.id)
    if slot.state is not SlotState.STARTING:
        slot = move(tx, slot, SlotState.STARTING, Cause.CHECKED, held.act)
    return move(
        tx,
        slot,
        SlotState.WARMING,
        Cause.LOAD_SENT,
        held.act,
        {"engine_model": sending.engine_model, "limit_s": sending.timeout_s},
    )


def unmark_load(tx: Connection, held: Claim) -> None:
    """Take the mark back: the engine certainly never got the request."""
    release(tx, held.job.engine_id, held.job.id, held.job.attempt)
    if chain_by_id(tx, held.chain.id).origin is not Origin.OPERATOR:
        take_back(tx, held.job.slot_id)
    tx.execute(
        update(jobs)
        .where(jobs.c.id == held.job.id)
        .values(sent_attempt=None, deadline_boot=None, deadline_ms=None, deadline_at=None)
    )


def mark_unload_sent(tx: Connection, held: Claim, sending: Sending) -> None:
    """Mark the slot and the job: the engine is about to be asked to unload. Needs the fence."""
    _mark_job(tx, held, sending.timeout_s)
    mark_place(tx, held, sending.process, sending.settle_s)


def mark_place(tx: Connection, held: Claim, process: str | None, settle_s: float) -> None:
    """Mark the slot alone: a load is about to have its place freed. Raises ClaimLost."""
    slot = check(tx, held)
    tx.execute(
        update(slots)
        .where(slots.c.id == slot.id)
        .values(
            unload_job_id=held.job.id,
            unload_attempt=held.job.attempt,
            unload_process=process,
            unload_settle_boot=boot_id(),
            unload_settle_ms=monotonic_ms() + int(settle_s * 1000),
        )
    )


def clear_unload_mark(tx: Connection, slot_id: int, job_id: int, attempt: int) -> bool:
    """Take the mark off the slot if it is this attempt's; tell whether it was."""
    result = tx.execute(
        update(slots)
        .where(
            slots.c.id == slot_id,
            slots.c.unload_job_id == job_id,
            slots.c.unload_attempt == attempt,
        )
        .values(
            unload_job_id=None,
            unload_attempt=None,
            unload_process=None,
            unload_settle_boot=None,
            unload_settle_ms=None,
        )
    )
    return result.rowcount == 1


def is_unload_overdue(slot: Slot) -> bool:
    """Whether the engine has had all the time that an unload of this slot may ever need."""
    if slot.unload_settle_ms is None:
        return False
    return slot.unload_settle_boot != boot_id() or monotonic_ms() >= slot.unload_settle_ms


def _mark_job(tx: Connection, held: Claim, timeout_s: float) -> None:
    tx.execute(
        update(jobs)
        .where(jobs.c.id == held.job.id)
        .values(
            sent_attempt=held.job.attempt,
            deferred_boot=None,
            deferred_ms=None,
            deadline_boot=boot_id(),
            deadline_ms=monotonic_ms() + int(timeout_s * 1000),
            deadline_at=utc_now() + timedelta(seconds=timeout_s),
        )
    )
