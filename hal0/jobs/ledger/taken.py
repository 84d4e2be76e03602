"""Which slot of an engine a model belongs to: one alone, for an engine unloads by name (D2).

A file that is registered under two names is one model to its engine, which has it once: what one
slot unloads is gone for the other too. So two names of one main file count as the same here. To
register a file twice stays allowed: slots of two engines may use it, or one slot after another.
"""

from sqlalchemy import Connection, select

from hal0.errors import ModelTaken
from hal0.jobs.ledger.rows import IS_QUEUED, IS_RUNNING
from hal0.registry.catalog import names_of_file
from hal0.slots.queries import Slot
from hal0.tables import engine_lane, jobs, slots


def ensure_model_is_free(tx: Connection, slot: Slot, model_id: int) -> None:
    """Raise ModelTaken when another slot of the engine has to do with this model, or its file.

    It wants or holds it, the engine was told to load it there and may have it still, or the slot
    has an unfinished job or an unsettled load of it.
    """
    names = names_of_file(tx, model_id)
    for same_id, same in names.items():
        other = _other_slot(tx, slot, same_id)
        if other is None:
            continue
        name = names[model_id]
        what = name if same_id == model_id else f"{name} is the file of model {same}, which"
        raise ModelTaken(
            f"model {what} belongs to slot {other} of the same engine, which unloads by model "
            f"name; give slot {slot.name} another model or engine",
            evidence={"slot": other, "model": same},
        )


def _other_slot(tx: Connection, slot: Slot, model_id: int) -> str | None:
    """Return the name of another slot of this slot's engine that has to do with a model."""
    others = select(slots.c.name).where(
        slots.c.engine_id == slot.engine_id,
        slots.c.id != slot.id,
        slots.c.deleted_at.is_(None),
        (slots.c.wanted_model_id == model_id)
        | (slots.c.model_id == model_id)
        | (slots.c.engine_model_id == model_id)
        | slots.c.id.in_(select(jobs.c.slot_id).where(IS_QUEUED, jobs.c.model_id == model_id))
        | slots.c.id.in_(select(jobs.c.slot_id).where(IS_RUNNING, jobs.c.model_id == model_id))
        | slots.c.id.in_(
            select(engine_lane.c.slot_id)
            .join(jobs, jobs.c.id == engine_lane.c.job_id)
            .where(jobs.c.model_id == model_id)
        ),
    )
    other = tx.execute(others).first()
    return None if other is None else str(other.name)
