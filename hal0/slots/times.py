"""Which times and limits hold for a slot: its own, else the settings'. Decided nowhere else."""

from dataclasses import dataclass, fields
from typing import Any, TypeVar

from hal0.settings import Settings
from hal0.slots.queries import Slot


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds; 0 = never until a slot is idle, or unloaded."""

    idle_after_s: float
    unload_after_s: float
    load_timeout_s: float
    load_timeout_s_per_gb: float

    def load_limit_s(self, size_bytes: int) -> float:
        """Return the wall-clock limit of a load: a base, and so much for each GB (10⁹ bytes)."""
        return self.load_timeout_s + self.load_timeout_s_per_gb * size_bytes / 1e9


@dataclass(frozen=True, slots=True)
class Room:
    """How many requests one API process takes for a slot; a further one gets 429."""

    max_in_flight: int
    max_waiting: int


T = TypeVar("T", Times, Room)


def times_of(slot: Slot, settings: Settings) -> Times:
    """Return the times that hold for a slot."""
    return _effective(Times, slot, settings)


def room_of(slot: Slot, settings: Settings) -> Room:
    """Return the limits that hold for a slot."""
    return _effective(Room, slot, settings)


def _effective(kind: type[T], slot: Slot, settings: Settings) -> T:
    """Take each field from the slot's row, else from the settings; it has one name in all three."""
    values: dict[str, Any] = {}
    for name in (field.name for field in fields(kind)):
        own = getattr(slot, name)
        values[name] = getattr(settings, name) if own is None else own
    return kind(**values)
