"""What a machine loads again by itself: what an engine lost, and what is wanted at boot.

The wish is a note on the slot, written in the commit that says what was lost; it becomes a chain at
once, or, when the slot's breaker refuses, at the first scan after that opens. It goes when it has
become a chain, when an operator asks for something, or when it can never come true. A machine sends
nothing again that was sent and failed, and nothing that nobody wants loaded.
"""

from collections.abc import Mapping
from typing import Any, TypedDict, cast

from sqlalchemy import Connection, select, update

from hal0.errors import EngineLost, ModelTaken
from hal0.jobs.ledger.breaker import breakers_of
from hal0.jobs.ledger.intake import Wish, machine_load
from hal0.jobs.ledger.rows import By, unfinished_jobs
from hal0.jobs.ledger.taken import ensure_model_is_free
from hal0.slots.queries import Slot, slot_by_id, slots_of_engine
from hal0.states import Cause, Desired, JobKind, Origin, SlotState
from hal0.tables import models, slots


class Restore(TypedDict):
    """The note on a slot: what to load again, since which cause, because of which job."""

    cause: Cause
    model_id: int
    options: dict[str, Any]
    job_id: int | None


def restore_of(slot: Slot) -> Restore | None:
    """Return the note of a slot."""
    return cast(Restore | None, slot.restore)


def load_again(tx: Connection, was: Slot, cause: Cause, because_of_job_id: int | None) -> None:
    """Note that a slot is to have again what it has just lost; begin at once if a machine may.

    `was` is the slot before it lost that.
    """
    note(tx, was, cause, because_of_job_id)
    restore(tx, slot_by_id(tx, was.id))


def note(tx: Connection, was: Slot, cause: Cause, because_of_job_id: int | None = None) -> None:
    """Note on a slot what it held, or else what it is set up for, if that is wanted loaded."""
    if was.desired is not Desired.LOADED:
        return
    held = was.is_dispatchable
    model_id = was.model_id if held else was.wanted_model_id
    if model_id is None:
        return
    options: Mapping[str, Any] | None = was.held_options if held else was.options
    wish: Restore = {
        "cause": cause,
        "model_id": model_id,
        "options": dict(options or {}),
        "job_id": because_of_job_id,
    }
    tx.execute(update(slots).where(slots.c.id == was.id).values(restore=wish))


def restore(tx: Connection, slot: Slot) -> bool:
    """Turn the note of a slot into a chain if a machine may load it now; tell whether it did."""
    noted = restore_of(slot)
    if noted is None or unfinished_jobs(tx, slot.id):
        return False
    if slot.state is SlotState.ERROR and (slot.error or {}).get("code") == EngineLost.code:
        return False  # until its engine returns
    breaker = breakers_of(tx, slot.id).get(slot.id)
    if breaker is not None and breaker.refuses:
        return False
    tx.execute(update(slots).where(slots.c.id == slot.id).values(restore=None))
    if slot.state is not SlotState.OFFLINE or not _can_be(tx, slot, noted["model_id"]):
        return False
    wish = Wish(JobKind.LOAD, noted["model_id"], noted["options"])
    by = By("reconcile", origin=Origin.RESTORE, caused_by_job_id=noted["job_id"])
    return machine_load(tx, slot, wish, by) is not None


def restore_due(tx: Connection, engine_id: int) -> int:
    """Load again what can be, the most important slot first; return how many chains began."""
    noted = [slot for slot in slots_of_engine(tx, engine_id) if slot.restore is not None]
    noted.sort(key=lambda slot: (-slot.priority, slot.id))
    return sum(restore(tx, slot) for slot in noted)


def _can_be(tx: Connection, slot: Slot, model_id: int) -> bool:
    """Whether the model is there still, and no other slot of the engine has taken it."""
    alive = select(models.c.id).where(models.c.id == model_id, models.c.deleted_at.is_(None))
    if tx.execute(alive).first() is None:
        return False
    try:
        ensure_model_is_free(tx, slot, model_id)
    except ModelTaken:
        return False
    return True
