"""What a slot is now: rows read into frozen values."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, bindparam, exists, select

from hal0.errors import SlotNotFound
from hal0.states import DISPATCHABLE, OF_REQUESTS, TRANSIENT, Desired, DesiredBy, SlotState, Wake
from hal0.tables import slots, transitions


class Stand(NamedTuple):
    """Where a slot stood: its last transition, and which of its loads it held."""

    transition_id: int
    generation: int


@dataclass(frozen=True, slots=True)
class Slot:
    """One slot as its row says it."""

    id: int
    name: str
    state: SlotState
    since: datetime
    cause: str
    last_transition_id: int
    engine_id: int
    wanted_model_id: int | None
    options: Mapping[str, Any]
    desired: Desired
    pinned: bool
    priority: int
    idle_after_s: float | None
    unload_after_s: float | None
    load_timeout_s: float | None
    load_timeout_s_per_gb: float | None
    model_id: int | None
    held_options: Mapping[str, Any] | None
    generation: int
    engine_model: str | None
    engine_model_id: int | None
    engine_process: str | None
    error: Mapping[str, Any] | None
    last_used_at: datetime | None
    restore: Mapping[str, Any] | None
    unload_job_id: int | None
    unload_attempt: int | None
    unload_process: str | None
    unload_settle_boot: str | None
    unload_settle_ms: int | None
    version: int
    created_at: datetime
    wake: Wake
    max_in_flight: int | None
    max_waiting: int | None
    desired_by: DesiredBy

    @property
    def is_dispatchable(self) -> bool:
        """Whether requests may be forwarded for this slot."""
        return self.state in DISPATCHABLE

    @property
    def is_transient(self) -> bool:
        """Whether a job must own this slot's state."""
        return self.state in TRANSIENT

    @property
    def is_to_stay_unloaded(self) -> bool:
        """Whether a person wants it unloaded, here or in the engine's own app, and no machine."""
        is_a_persons = self.desired_by in (DesiredBy.OPERATOR, DesiredBy.ELSEWHERE)
        return self.desired is Desired.UNLOADED and is_a_persons

    @property
    def stand(self) -> Stand:
        """Where the slot stands."""
        return Stand(self.last_transition_id, self.generation)

    def holds(self, model_id: int | None, options: Mapping[str, Any] | None) -> bool:
        """Whether exactly this is loaded, ready to serve."""
        return self.is_dispatchable and self.model_id == model_id and self.held_options == options


_NAMES = [field.name for field in fields(Slot)]
_COLUMNS = [slots.c[name] for name in _NAMES]
_LIVING = select(*_COLUMNS).where(slots.c.deleted_at.is_(None))
_BY_NAME = _LIVING.where(slots.c.name == bindparam("name"))
_BY_ID = select(*_COLUMNS).where(slots.c.id == bindparam("id"))
_BY_IDS = select(*_COLUMNS).where(slots.c.id.in_(bindparam("ids", expanding=True)))
_BY_ENGINE = _LIVING.where(slots.c.engine_id == bindparam("engine_id")).order_by(slots.c.id)
_ALL = _LIVING.order_by(slots.c.name)
_STANDS = select(slots.c.id, slots.c.last_transition_id, slots.c.generation).where(
    slots.c.engine_id == bindparam("engine_id"), slots.c.deleted_at.is_(None)
)

_IS_MOVED = select(
    exists().where(
        transitions.c.slot_id == bindparam("slot_id"),
        transitions.c.id > bindparam("since"),
        transitions.c.cause.not_in(OF_REQUESTS),
    )
)


def _slot(row: Row[Any]) -> Slot:
    values = dict(zip(_NAMES, row, strict=True))
    values["state"] = SlotState(values["state"])
    values["desired"] = Desired(values["desired"])
    values["desired_by"] = DesiredBy(values["desired_by"])
    values["pinned"] = bool(values["pinned"])
    values["wake"] = Wake(values["wake"])
    return Slot(**values)


def slot_named(tx: Connection, name: str) -> Slot:
    """Return the living slot of this name; raises SlotNotFound."""
    row = tx.execute(_BY_NAME, {"name": name}).one_or_none()
    if row is None:
        raise SlotNotFound(
            f"there is no slot {name!r}; `hal0 slot list` shows them", evidence={"slot": name}
        )
    return _slot(row)


def slot_by_id(tx: Connection, slot_id: int) -> Slot:
    """Return the slot with this id, a deleted one too."""
    return _slot(tx.execute(_BY_ID, {"id": slot_id}).one())


def slots_with_ids(tx: Connection, slot_ids: Collection[int]) -> list[Slot]:
    """Return the slots with these ids, deleted ones too, in no order."""
    return [_slot(row) for row in tx.execute(_BY_IDS, {"ids": tuple(slot_ids)})]


def slots_of_engine(tx: Connection, engine_id: int) -> list[Slot]:
    """Return the living slots of one engine, oldest first."""
    return [_slot(row) for row in tx.execute(_BY_ENGINE, {"engine_id": engine_id})]


def stands(tx: Connection, engine_id: int) -> dict[int, Stand]:
    """Return where the living slots of one engine stand, by slot id."""
    rows = tx.execute(_STANDS, {"engine_id": engine_id})
    return {row.id: Stand(row.last_transition_id, row.generation) for row in rows}


def is_only_served_since(tx: Connection, slot_id: int, transition_id: int) -> bool:
    """Tell whether a slot has moved since that transition for requests alone, if at all."""
    return not tx.execute(_IS_MOVED, {"slot_id": slot_id, "since": transition_id}).scalar_one()


def living_slots(tx: Connection) -> list[Slot]:
    """Return all living slots by name."""
    return [_slot(row) for row in tx.execute(_ALL)]
