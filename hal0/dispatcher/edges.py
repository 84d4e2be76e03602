"""What is written when requests enter a slot, run on, and leave it: its edges, its lease, its use.

Each needs a soft transaction, which others may share. The slot is read in it, so that whoever has
moved it meanwhile decides: another API, a worker, an operator.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.dialects.sqlite import insert as upsert

from hal0.clock import monotonic_ms
from hal0.dispatcher.places import Held
from hal0.errors import SlotDraining
from hal0.jobs.ledger.drains import draining, left_s
from hal0.jobs.ledger.rows import Job
from hal0.registry.roster import engine_by_id
from hal0.settings import Settings
from hal0.slots.leases import LeaseKey, count, give_back, hold, is_held, note_use
from hal0.slots.queries import Slot, slot_by_id
from hal0.slots.times import Room, room_of
from hal0.slots.transitions import Act, move
from hal0.states import Cause, SlotState
from hal0.tables import speeds

ACTOR: Final = "dispatcher"
_SPEED: Final = upsert(speeds)
_NOTE_SPEED: Final = _SPEED.on_conflict_do_update(
    index_elements=["slot_id"],
    set_={
        column.name: _SPEED.excluded[column.name] for column in speeds.c if not column.primary_key
    },
)


class NotDispatchable(Exception):  # noqa: N818 - a turn of the way, not an error
    """Nothing may be forwarded for the slot as it is; never leaves the dispatcher."""

    def __init__(self, slot: Slot) -> None:
        super().__init__(slot)
        self.slot = slot


@dataclass(frozen=True, slots=True)
class Entering:
    """Requests that are to enter whatever a slot holds, beside those that run."""

    slot_id: int
    owner_id: str
    request_id: str
    """The first one's."""
    waiting: int
    running: int
    generation: int | None
    """What those that run are on."""


@dataclass(frozen=True, slots=True)
class Entered:
    """What they entered, how many requests the lease says, and when that was so."""

    held: Held
    room: Room
    in_flight: int
    at_ms: int


def enter(
    tx: Connection, wish: Entering, settings: Settings
) -> Entered | NotDispatchable | SlotDraining:
    """Take a lease, and let the slot serve if it does not; or return why nobody enters.

    Who runs already is written of also when nobody else enters.
    """
    slot = slot_by_id(tx, wish.slot_id)
    running = wish.running if slot.generation == wish.generation else 0
    if not slot.is_dispatchable or not running + wish.waiting:
        return NotDispatchable(slot)
    job, room = draining(tx, slot.id), room_of(slot, settings)
    if job is not None and not running:
        return _drains(tx, slot, job)
    if slot.state is not SlotState.SERVING:
        act = Act(ACTOR, request_id=wish.request_id)
        slot = move(tx, slot, SlotState.SERVING, Cause.REQUEST_STARTED, act)
    places = 0 if job is not None else max(0, room.max_in_flight - running)
    in_flight = running + min(wish.waiting, places)
    hold(tx, LeaseKey(slot.id, slot.generation, wish.owner_id), in_flight)
    if job is not None:
        return _drains(tx, slot, job)
    assert slot.engine_model is not None, f"slot {slot.name} is {slot.state} without a model"
    engine = engine_by_id(tx, slot.engine_id)
    held = Held(slot.id, slot.name, slot.generation, slot.model_id, slot.engine_model, engine)
    return Entered(held, room, in_flight, monotonic_ms())


def _drains(tx: Connection, slot: Slot, job: Job) -> SlotDraining:
    return SlotDraining(
        f"slot {slot.name} lets its requests end, for job {job.id} is to unload it",
        evidence={"slot": slot.name},
        job_id=job.id,
        retry_after_s=max(1.0, left_s(tx, job)),
    )


def recount(tx: Connection, key: LeaseKey, in_flight: int, ended_at: datetime | None) -> int | None:
    """Write how many requests run, and when the last one ended; return when that was so.

    None, and no count is written: the lease was taken away.
    """
    if ended_at is not None:
        note_use(tx, key.slot_id, key.generation, ended_at)
    return monotonic_ms() if count(tx, key, in_flight) else None


def leave(tx: Connection, key: LeaseKey, request_id: str, ended_at: datetime | None) -> bool:
    """Give a lease back; when it was the last one on what the slot holds, the slot is ready.

    Return whether a job has waited for that. A lease that was taken away moves nothing: the slot
    has gone its way without it.
    """
    if ended_at is not None:
        note_use(tx, key.slot_id, key.generation, ended_at)
    if not give_back(tx, key):
        return False
    slot = slot_by_id(tx, key.slot_id)
    is_served = slot.state is SlotState.SERVING and slot.generation == key.generation
    if not is_served or is_held(tx, slot.id, slot.generation):
        return False
    move(tx, slot, SlotState.READY, Cause.REQUESTS_DONE, Act(ACTOR, request_id=request_id))
    return draining(tx, slot.id) is not None


def note_speeds(tx: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write how fast slots answered, as `Speeds.rows` tells it."""
    tx.execute(_NOTE_SPEED, [dict(row) for row in rows])
