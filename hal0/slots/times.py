"""Which times hold for a slot: its own, else the settings'. Decided nowhere else."""

from dataclasses import dataclass, fields
from typing import Final

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


NAMES: Final = tuple(field.name for field in fields(Times))


def times_of(slot: Slot, settings: Settings) -> Times:
    """Return what holds for a slot; the names are the same in its row and in the settings."""
    own = {name: getattr(slot, name) for name in NAMES}
    return Times(
        **{name: getattr(settings, name) if value is None else value for name, value in own.items()}
    )
