"""What a scan makes of one look at the engine: reconciled, demoted, unloaded, loaded again."""

from collections.abc import Iterable
from typing import NamedTuple

from tests.machine.reference.engine import Reading
from tests.machine.reference.rows import DISPATCHABLE, IDLE_MS, LATE, Key, Slot, Window
from tests.machine.reference.settling import Settling

GRACE_MS, GAP_MS = 60_000, 90_000
UNLOAD_AFTER_MS = 330_000


class Look(NamedTuple):
    """A loaded model, what was seen of its use, and what follows."""

    slot: Slot
    stood: int
    used: int
    window: Window
    follows: str
    is_past_us: bool
    """Somebody used it who did not come through hal0."""


class Scans(Settling):
    """The only machine that nobody asked."""

    def __init__(self, workers: Iterable[str], max_models: int | None = None) -> None:
        super().__init__(workers, max_models)
        self.reading: Reading | None = None
        self.scanned: int | None = None
        """When the last scan got a list."""

    def scan(self, worker: str, how: str = "well") -> None:
        """Look now; the engine is `well`, `vague` (tells no use), `mute`, `slow` or `hung`."""
        if how in ("slow", "hung") or not self.engine.is_up:
            self._nothing_read(how)
            return
        self.looks()
        if how == "mute":
            return
        reading, seen = self.read(), self._looks_of_use(how)
        is_owed = any(slot.note for slot in self.slots)
        self._conclude(reading)
        for one in seen:
            self._follow(one)
        for slot in self.slots if is_owed else ():
            self.restore(slot)
        for one in seen:
            self._remember(one)
        for slot in [slot for slot in self.slots if reading.before[slot.id] == slot.stand]:
            if slot.state in DISPATCHABLE and slot.listed(reading.loaded):
                self.heal(slot)
        self.scanned = self.now

    # -- nobody is there ----------------------------------------------------------------------

    def _nothing_read(self, how: str) -> None:
        """engine_lost: a slow health is no death; one that is away for too long costs its slots."""
        if how == "slow" and self.engine.is_up:
            self.away_since = None
        else:
            self.note_absence()
        is_gone = self.away_since is not None and self.now - self.away_since >= GRACE_MS
        lost = [s for s in self.slots if s.state in DISPATCHABLE and not self.open_chains(s)]
        if not is_gone or not lost:
            return
        by = self.incident("engine_lost")
        for slot in lost:
            self.remind(slot, self.wish_of(slot))
            self.move(slot, "error", "engine_lost", by)
            slot.error, slot.held, slot.is_cleared = ("engine.lost", None), None, False

    # -- reconcile, both ways -----------------------------------------------------------------

    def read_health(self) -> None:
        """Reconcile reads; what it concludes is written later."""
        self.reading = self.read() if self.looks() else None

    def write_reading(self) -> None:
        """What was read a while ago."""
        reading, self.reading = self.reading, None
        if reading is not None:
            self._conclude(reading)

    def _conclude(self, reading: Reading) -> None:
        """reconcile_skips_lane, reconcile_cas_transition: only where nothing has moved since."""
        if self.lane:
            return
        still = [
            (what, slot) for what, slot in reading.findings if self._still_stands(slot, reading)
        ]
        self._write_losses([slot for what, slot in still if what == "lost"], reading)
        self._write_restarts([slot for what, slot in still if what == "restarted"], reading)
        for what, slot in still:
            if what == "listed":
                self._take_over(slot, reading)
            elif what == "returned":
                self._return(slot, reading)
            elif what == "reloaded" and slot.held:
                slot.held = Key(slot.held.model, reading.loaded[slot.held.model])
            elif what == "left nothing":
                slot.held = slot.told = None
            elif what == "stays away" and reading.is_full_of_others:
                slot.process = None  # another client's took its place
            elif what == "stays away":
                slot.desired, slot.desired_by = "unloaded", "elsewhere"
            elif what == "left over":
                slot.is_cleared = self.machine_unload(slot).status == 202

    def _still_stands(self, slot: Slot, reading: Reading) -> bool:
        """Neither deleted, set up anew, moved, nor at work."""
        is_same = reading.set_up[slot.id] == slot.set_up
        has_moved = slot.stand != reading.before[slot.id]
        return is_same and not (slot.is_deleted or has_moved or self.open_chains(slot))

    def _write_losses(self, lost: list[Slot], reading: Reading) -> None:
        restarted = [slot for slot in lost if self.is_of_another_process(slot, reading.process)]
        gone = [slot for slot in lost if slot not in restarted]
        by = self.incident("engine_restarted") if restarted else None
        for slot in restarted:
            self.lose(slot, "engine_restarted", by, restores=True)
        if reading.is_full_of_others and gone:
            by = self.incident("load_made_room")
            for slot in gone:
                self.lose(slot, "evicted_by_engine", by, restores=False)
            return
        by = self.incident("unloaded_elsewhere") if len(gone) > 1 else None
        for slot in gone:
            self.lose(slot, "unloaded_elsewhere", by, restores=False)

    def _write_restarts(self, slots: list[Slot], reading: Reading) -> None:
        """Another process has it all the same: adopted if it answers, else loaded again."""
        by = self.incident("engine_restarted") if slots else None
        for slot in slots:
            held = self.wish_of(slot)
            serves = self.engine.serves(held.model)
            self.lose(slot, "engine_restarted", by, restores=not serves)
            if serves:
                key = Key(held.model, reading.loaded[held.model])
                self.adopt(slot, key, reading.process, by)

    def _take_over(self, slot: Slot, reading: Reading) -> bool:
        """What answers is adopted; never what may have arrived late, while that process lives."""
        model = slot.model
        is_late = any(key.model == model and how == LATE for key, how in slot.bad.items())
        if model not in reading.loaded or not self.engine.serves(model):
            return False
        if is_late and not self.is_of_another_process(slot, reading.process):
            return False
        key = Key(model, reading.loaded[model])
        if not is_late:
            slot.bad.pop(key, None)  # it serves
        self.adopt(slot, key, reading.process)
        return True

    def _return(self, slot: Slot, reading: Reading) -> None:
        """The engine answers again: the slot becomes what it should be."""
        self.move(slot, "offline", "engine_returned")
        if not self._take_over(slot, reading):
            slot.held = slot.told = None
            self.load_again(slot, slot.note or slot.wants)

    # -- who uses what ------------------------------------------------------------------------

    def _looks_of_use(self, how: str) -> list[Look]:
        """A slot with work is left to its jobs."""
        return [
            self._look_at(slot, entry, how)
            for slot in self.slots
            if slot.state in DISPATCHABLE
            and (entry := slot.listed(self.engine.loaded))
            and not self.open_chains(slot)
        ]

    def _look_at(self, slot: Slot, entry: str, how: str) -> Look:
        before, window = slot.window, self._window(slot, entry, how)
        is_used = self.is_used(slot, entry) and (how == "well" or slot.is_served)
        unused = 0 if window.since is None else self.now - window.since
        follows = ""
        if slot.state == "idle" and is_used:
            follows = "wake"
        elif slot.state == "ready" and unused >= IDLE_MS:
            follows = "demote"
        elif slot.state == "idle" and unused >= UNLOAD_AFTER_MS:
            follows = "unload" if slot.desired == "loaded" and not slot.pinned else ""
        is_past_us = (
            before is not None
            and before[:2] == (slot.generation, slot.used)
            and not slot.is_served
            and (is_used or before.since is None)
        )
        return Look(slot, len(slot.history), slot.used, window, follows, is_past_us)

    def _window(self, slot: Slot, entry: str, how: str) -> Window:
        """Fresh at first sight, after each use, and when nobody looked for a while."""
        past_us = self.engine.uses[entry] if how == "well" else None
        is_in_use = slot.is_served or entry in self.engine.busy or past_us is None
        now = Window(slot.generation, slot.used, past_us, None if is_in_use else self.now)
        before = slot.window
        if before is None or before[:3] != now[:3] or is_in_use or before.since is None:
            return now
        is_gap = self.scanned is None or self.now - self.scanned > GAP_MS
        return now if is_gap else before

    def _follow(self, one: Look) -> None:
        """Written where nothing has moved, and nobody has come, since."""
        slot = one.slot
        if len(slot.history) != one.stood or self.open_chains(slot):
            return
        if one.follows == "wake":
            self.move(slot, "ready", "used_elsewhere")
        elif slot.used != one.used or slot.is_served:
            return
        elif one.follows == "demote":
            self.move(slot, "idle", "demoted")
        elif one.follows == "unload":
            self.machine_unload(slot)

    def _remember(self, one: Look) -> None:
        """A use past hal0 is the slot's last use too."""
        slot, window = one.slot, one.window
        if window != slot.window and one.is_past_us:
            self.use(slot)
            window = window._replace(used=slot.used)
        slot.window = window
