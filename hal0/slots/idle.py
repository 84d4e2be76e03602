"""When a loaded model is idle, and when nobody has used it for long enough to unload it.

Pure: who calls brings what was seen and the time, milliseconds of the boot's monotonic clock. What
an engine says of its last use is opaque and compared for change alone, because it is the start of a
request, on a clock of the engine's own. A window begins at the look that first saw a model unused,
so it is never longer than the time for which nobody used it.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from hal0.states import SlotState

MISSED_SCANS: Final = 3
"""After a gap of more scans than this nobody knows what was used meanwhile."""


class Use(StrEnum):
    """What one look tells of a model's use."""

    NONE = "none"
    USED = "used"
    """A request runs, or one ran since the last look."""
    UNKNOWN = "unknown"
    """Counts as use, but proves none."""


class Verdict(StrEnum):
    """What follows for the slot."""

    NOTHING = "nothing"
    WAKE = "wake"
    DEMOTE = "demote"
    UNLOAD = "unload"


@dataclass(frozen=True, slots=True)
class Window:
    """Since when a slot's model is unused; `since_ms` None = it was in use at the last look."""

    generation: int
    seen: str
    since_boot: str
    since_ms: int | None


@dataclass(frozen=True, slots=True)
class Sight:
    """One look at a loaded model.

    `seen` changes with each use. `is_busy` None, or `is_known` False: the engine does not say.
    """

    state: SlotState
    generation: int
    seen: str
    is_known: bool
    is_busy: bool | None
    leases: int


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds without use until READY becomes IDLE, and until the unload; 0 = never."""

    idle_after_s: float
    unload_after_s: float
    may_unload: bool
    """False: pinned, or nobody wants it loaded (somebody loaded it past hal0)."""


def use(window: Window | None, sight: Sight) -> Use:
    """Tell what this look says, compared with the one before; first sight proves nothing."""
    if sight.leases > 0 or sight.is_busy:
        return Use.USED
    if sight.is_busy is None or not sight.is_known:
        return Use.UNKNOWN
    if window is not None and window.generation == sight.generation and window.seen != sight.seen:
        return Use.USED
    return Use.NONE


def look(
    window: Window | None, sight: Sight, boot: str, now_ms: int, *, is_gap: bool = False
) -> Window:
    """Return the window after this look: the very one before when nothing changed.

    Fresh at first sight, on another boot, for another generation, after a gap between the scans,
    and whenever the model was used since.
    """
    is_in_use = sight.leases > 0 or sight.is_busy is not False or not sight.is_known
    new = Window(sight.generation, sight.seen, boot, None if is_in_use else now_ms)
    if window is None or (window.generation, window.seen) != (new.generation, new.seen):
        return new
    was_in_use = window.since_ms is None
    if is_in_use or was_in_use:
        return window if is_in_use and was_in_use else new
    return new if is_gap or window.since_boot != boot else window


def verdict(window: Window, found: Use, state: SlotState, limits: Limits, now_ms: int) -> Verdict:
    """Tell what follows from a window, never before the full time has passed."""
    if state is SlotState.IDLE and found is Use.USED:
        return Verdict.WAKE
    if window.since_ms is None or state not in (SlotState.READY, SlotState.IDLE):
        return Verdict.NOTHING
    unused_ms = now_ms - window.since_ms

    def has_passed(limit_s: float) -> bool:
        return limit_s > 0 and unused_ms >= limit_s * 1000

    if has_passed(limits.idle_after_s) and state is SlotState.READY:
        return Verdict.DEMOTE
    never_idle = limits.idle_after_s == 0
    if has_passed(limits.unload_after_s) and (state is SlotState.IDLE or never_idle):
        return Verdict.UNLOAD if limits.may_unload else Verdict.NOTHING
    return Verdict.NOTHING
