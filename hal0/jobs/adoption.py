"""How a slot comes to hold what its engine has already: nothing is sent."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, update

from hal0.clock import utc_now
from hal0.engines.base import LoadedModel
from hal0.jobs.ledger import breaker
from hal0.jobs.reading import Reading
from hal0.slots.queries import Slot, slot_by_id
from hal0.slots.transitions import Act, move
from hal0.states import Cause, SlotState
from hal0.tables import slots


@dataclass(frozen=True, slots=True)
class Adoption:
    """What an engine has already, as a slot will hold it."""

    entry: LoadedModel
    model_id: int
    options: Mapping[str, Any]


def adopt(tx: Connection, slot: Slot, what: Adoption, reading: Reading, act: Act) -> Slot:
    """Write that a slot holds an entry of the engine's list: to ready, in one commit."""
    tx.execute(
        update(slots)
        .where(slots.c.id == slot.id)
        .values(
            generation=slot.generation + 1,
            model_id=what.model_id,
            held_options=dict(what.options),
            engine_model=what.entry.name,
            engine_model_id=what.model_id,
            engine_process=reading.health.process,
            last_used_at=utc_now(),
            restore=None,
        )
    )
    slot = slot_by_id(tx, slot.id)
    if slot.state is not SlotState.STARTING:
        slot = move(tx, slot, SlotState.STARTING, Cause.CHECKED, act)
    breaker.note_ready(tx, slot.id)
    slot = move(tx, slot, SlotState.WARMING, Cause.LOAD_SENT, act, {"sent": False})
    return move(tx, slot, SlotState.READY, Cause.ADOPTED, act, {"engine_model": what.entry.name})
