"""The rows that say who has requests in flight: which API process, on which generation of a slot.

A slot serves if, and only if, one of its present generation is there. Who enters and who leaves is
decided by the dispatcher, and by workers for processes that are dead. All writes are soft.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, and_, bindparam, delete, exists, or_, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from hal0.clock import utc_now
from hal0.tables import leases, slots


@dataclass(frozen=True, slots=True)
class LeaseKey:
    """Whose lease, and on what."""

    slot_id: int
    generation: int
    owner_id: str


_NEW: Final = upsert(leases)
_HOLD: Final = _NEW.on_conflict_do_update(
    index_elements=["slot_id", "generation", "owner_id"],
    set_={"in_flight": _NEW.excluded.in_flight, "at": _NEW.excluded.at},
)
_IS_MINE: Final = and_(
    leases.c.slot_id == bindparam("of_slot"),
    leases.c.generation == bindparam("of_generation"),
    leases.c.owner_id == bindparam("of_owner"),
)
_COUNT: Final = update(leases).where(_IS_MINE)
_GIVE_BACK: Final = delete(leases).where(_IS_MINE)
_FORGET: Final = delete(leases).where(leases.c.slot_id == bindparam("of_slot"))
_OF_SLOTS: Final = select(leases.c.slot_id, leases.c.generation, leases.c.owner_id).where(
    leases.c.slot_id.in_(bindparam("slot_ids", expanding=True))
)
_IS_HELD: Final = select(
    exists().where(
        leases.c.slot_id == bindparam("of_slot"), leases.c.generation == bindparam("of_generation")
    )
)
_NOTE_USE: Final = (
    update(slots)
    .where(slots.c.id == bindparam("of_slot"), slots.c.generation == bindparam("of_generation"))
    .where(
        or_(
            slots.c.last_used_at.is_(None),
            slots.c.last_used_at < bindparam("ended_at"),
            slots.c.last_used_at > bindparam("now"),  # the clock was set back since
        )
    )
    .values(last_used_at=bindparam("ended_at"))
)


def _mine(key: LeaseKey) -> dict[str, object]:
    return {"of_slot": key.slot_id, "of_generation": key.generation, "of_owner": key.owner_id}


def hold(tx: Connection, key: LeaseKey, in_flight: int) -> None:
    """Write that an owner has so many requests in flight, whether it had a lease or not."""
    tx.execute(_HOLD, {**asdict(key), "in_flight": in_flight, "at": utc_now()})


def count(tx: Connection, key: LeaseKey, in_flight: int) -> bool:
    """Write how many requests a lease stands for; False = somebody has taken it away."""
    changed = tx.execute(_COUNT, {**_mine(key), "in_flight": in_flight, "at": utc_now()})
    return changed.rowcount == 1


def give_back(tx: Connection, key: LeaseKey) -> bool:
    """Delete a lease; False = there was none."""
    return tx.execute(_GIVE_BACK, _mine(key)).rowcount == 1


def forget_leases(tx: Connection, slot_id: int) -> None:
    """Delete every lease on a slot: it does not hold what they were taken on."""
    tx.execute(_FORGET, {"of_slot": slot_id})


def is_held(tx: Connection, slot_id: int, generation: int) -> bool:
    """Tell whether anybody has a lease on this generation of a slot."""
    of = {"of_slot": slot_id, "of_generation": generation}
    return bool(tx.execute(_IS_HELD, of).scalar_one())


def keys_of(tx: Connection, slot_ids: Collection[int]) -> Mapping[int, Collection[LeaseKey]]:
    """Return the leases on these slots, by slot id."""
    found: dict[int, list[LeaseKey]] = {}
    for row in tx.execute(_OF_SLOTS, {"slot_ids": tuple(slot_ids)}):
        found.setdefault(row.slot_id, []).append(LeaseKey(*row))
    return found


def note_use(tx: Connection, slot_id: int, generation: int, ended_at: datetime) -> None:
    """Stamp the end of a request as the slot's last use, unless a later one was stamped."""
    of = {"of_slot": slot_id, "of_generation": generation}
    tx.execute(_NOTE_USE, {**of, "ended_at": ended_at, "now": utc_now()})
