"""When a slot that nobody uses becomes idle, and is unloaded: by the window that the scans act by.

The one place that says so, to people and to programs. A last use is no measure of it: a window
begins anew when the engine, or who looks at it, was away.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from hal0.clock import boot_id, monotonic_ms
from hal0.slots.idle import Limits, Window
from hal0.states import SlotState


@dataclass(frozen=True, slots=True)
class Fading:
    """When that is due, to the second; None = never, it is in use, or it is so already."""

    demotes_at: datetime | None
    unloads_at: datetime | None

    @classmethod
    def of(cls, state: SlotState, window: Window | None, limits: Limits, now: datetime) -> Self:
        """Read a window of the idle scan."""
        if window is None or window.since_ms is None or window.since_boot != boot_id():
            return cls(None, None)
        began = now - timedelta(milliseconds=monotonic_ms() - window.since_ms)
        began = began.replace(microsecond=0)  # two clocks were read: the same window, the same time

        def after(limit_s: float) -> datetime | None:
            return began + timedelta(seconds=limit_s) if limit_s > 0 else None

        demotes_at = after(limits.idle_after_s) if state is SlotState.READY else None
        is_held = state in (SlotState.READY, SlotState.IDLE)
        unloads_at = after(limits.unload_after_s) if is_held and limits.may_unload else None
        return cls(demotes_at, unloads_at)
