"""What is shown of slots beside their own rows: names of engines and models, how they are used."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any, Final

from sqlalchemy import Connection, func, select

from hal0.errors import SlotNotFound
from hal0.slots.queries import Slot
from hal0.states import Desired
from hal0.tables import engines, leases, models, slots, speeds


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a slot answered its last requests: medians."""

    requests: int
    first_byte_ms: float
    tokens_per_s: float | None
    """None = the engine tells none."""
    at: datetime


@dataclass(frozen=True, slots=True)
class SlotOverview:
    """A slot with what its ids mean."""

    slot: Slot
    engine: str
    engine_holds: int | None
    """How many models its engine holds at once, as last seen; None = no limit, or unknown."""
    engine_has: tuple[str, ...]
    """What its engine has loaded of slots, by its own names, as last seen."""
    meant_loaded: int
    """How many slots of its engine are meant to be loaded."""
    model: str | None
    wanted_model: str | None
    to_restore: str | None
    """The model that a machine is to load again."""
    in_flight: int
    speed: Speed | None


_HELD: Final = slots.alias("held")
IN_FLIGHT: Final = (
    select(leases.c.slot_id, func.sum(leases.c.in_flight).label("in_flight"))
    .join(_HELD, _HELD.c.id == leases.c.slot_id)
    .where(leases.c.generation == _HELD.c.generation)
    .group_by(leases.c.slot_id)
    .subquery("flying")
)
"""By slot id, the requests that hold a lease on the slot's present generation."""
_ENGINES: Final = select(engines.c.id, engines.c.name, engines.c.seen)
_SPEEDS: Final = select(
    speeds.c.slot_id,
    speeds.c.requests,
    speeds.c.first_byte_ms,
    speeds.c.tokens_per_s,
    speeds.c.at,
)
_MEANT_LOADED: Final = (
    select(slots.c.engine_id, func.count().label("slots"))
    .where(slots.c.deleted_at.is_(None), slots.c.desired == Desired.LOADED)
    .group_by(slots.c.engine_id)
)


def overviews(tx: Connection, listed: Sequence[Slot]) -> list[SlotOverview]:
    """Return these slots, in their order, with names and counts, in a few queries however many."""
    noted = {slot.id: (slot.restore or {}).get("model_id") for slot in listed}
    of_rows = ((slot.model_id, slot.wanted_model_id) for slot in listed)
    model_ids = {*chain.from_iterable(of_rows), *noted.values()}
    model_names = {
        row.id: row.name
        for row in tx.execute(
            select(models.c.id, models.c.name).where(models.c.id.in_(model_ids - {None}))
        )
    }
    engine_of = {row.id: row for row in tx.execute(_ENGINES)}
    meant = {row.engine_id: row.slots for row in tx.execute(_MEANT_LOADED)}
    flying, fast = in_flight(tx), _speeds(tx)
    return [
        SlotOverview(
            slot,
            engine_of[slot.engine_id].name,
            (engine_of[slot.engine_id].seen or {}).get("max_models"),
            _of_slots(engine_of[slot.engine_id].seen or {}),
            meant.get(slot.engine_id, 0),
            model_names.get(slot.model_id),
            model_names.get(slot.wanted_model_id),
            model_names.get(noted[slot.id]),
            flying.get(slot.id, 0),
            fast.get(slot.id),
        )
        for slot in listed
    ]


def _of_slots(seen: Mapping[str, Any]) -> tuple[str, ...]:
    strangers = seen.get("strangers", ())
    return tuple(name for name in seen.get("models", ()) if name not in strangers)


def in_flight(tx: Connection) -> dict[int, int]:
    """Return, by slot id, the requests that hold a lease on the slot's present generation."""
    return {slot_id: int(count) for slot_id, count in tx.execute(select(IN_FLIGHT))}


def _speeds(tx: Connection) -> dict[int, Speed]:
    return {row[0]: Speed(*row[1:]) for row in tx.execute(_SPEEDS)}


def ids_ever_named(tx: Connection, name: str) -> list[int]:
    """Return the ids of the slots that have or had this name; raises SlotNotFound for none."""
    ids = list(tx.execute(select(slots.c.id).where(slots.c.name == name)).scalars())
    if not ids:
        raise SlotNotFound(
            f"there never was a slot {name!r}; `hal0 slot list` shows those that there are",
            evidence={"slot": name},
        )
    return ids
