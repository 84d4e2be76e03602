"""What the engine does not have any more, and how a slot takes over what it has."""

from collections.abc import Iterable, Mapping

from tests.machine.reference.engine import Body, Engine, Reading
from tests.machine.reference.machines import Machines
from tests.machine.reference.rows import DISPATCHABLE, File, Incident, Job, Key, Slot, Stand

ABSENCES = ("engine.lost", "engine.unreachable")
"""Nothing was wrong with the model."""
FAR_APART_MS = 120_000


class Losses(Machines):
    """An engine beside the rows, and slots that know less than it."""

    def __init__(self, max_models: int | None = None) -> None:
        super().__init__()
        self.engine = Engine(max_models)
        self.away_since: int | None = None
        """Since when nobody was there, each time that somebody looked."""
        self.away_seen = 0
        self.files: dict[str, File] = {}
        self.bodies: dict[tuple[int, int], Body] = {}
        """By job and attempt: those that have not ended."""

    def put_file(self, model: str, content: str) -> None:
        """Another file lies there, which is `good` or `bad`."""
        self.acts += 1
        self.files[model] = File(content, self.acts)

    def looks(self) -> bool:
        """Ask the engine for its list; tell whether it is there."""
        if self.engine.is_up:
            self.away_since = None
        else:
            self.note_absence()
        return self.engine.is_up

    def note_absence(self) -> None:
        """Nobody is there; who was, between looks that lie far apart, nobody knows."""
        if self.away_since is None or self.now - self.away_seen > FAR_APART_MS:
            self.away_since = self.now
        self.away_seen = self.now

    def is_lost(self, slot: Slot, loaded: Iterable[str]) -> bool:
        """Whether a slot would serve what is not there; a job of its own finds that out itself."""
        return (
            slot.state in DISPATCHABLE
            and not self.open_chains(slot)
            and slot.listed(set(loaded)) is None
        )

    def is_of_another_process(self, slot: Slot, process: int) -> bool:
        """Whether what it held went with the process that had it."""
        return slot.process not in (None, process)

    def stands(self) -> dict[int, Stand]:
        """Return where the slots stand: what was read before one moved tells nothing of it."""
        return {slot.id: slot.stand for slot in self.slots}

    def mark_lost(
        self, culprit: Job, kind: str = "load_failed", before: Mapping[int, Stand] | None = None
    ) -> None:
        """evicted_marked: whom a load cost its model; what a failed one cost comes back."""
        stood = before or self.stands()
        lost = [
            slot
            for slot in self.slots
            if slot is not culprit.slot
            and slot.id in stood
            and stood[slot.id].generation == slot.generation  # requests come and go
            and self.is_lost(slot, self.engine.loaded)
            and not self.is_of_another_process(slot, self.engine.process)
        ]
        by = self.incident(kind, culprit) if lost else None
        for slot in lost:
            self.lose(slot, "evicted_by_engine", by, restores=kind == "load_failed")

    def lose(self, slot: Slot, cause: str, by: Incident | None, *, restores: bool) -> None:
        """Offline; what is wanted comes back where that is the engine's fault."""
        key = self.wish_of(slot)
        self.move(slot, "offline", cause, by)
        slot.held = slot.told = None
        if restores:
            self.load_again(slot, key)

    def adopt(self, slot: Slot, key: Key, process: int, by: Incident | None = None) -> None:
        """Take over what the engine has: nothing is sent."""
        slot.generation += 1
        slot.held, slot.told, slot.note, slot.process = key, key.model, None, process
        self.use(slot)
        if slot.state != "starting":
            self.move(slot, "starting", "checked", by)
        self.note_ready(slot)
        self.move(slot, "warming", "load_sent", by)
        self.move(slot, "ready", "adopted", by)

    def read(self) -> Reading:
        """Note where the slots stand, read the engine's list, lay one beside the other."""
        loaded = dict(self.engine.loaded)
        known = {slot.listed(loaded) for slot in self.slots if slot.state in DISPATCHABLE}
        return Reading(
            self.engine.process,
            loaded,
            self.stands(),
            {slot.id: slot.set_up for slot in self.slots},
            self.lane,
            self.engine.is_full and not loaded.keys() <= known,
            tuple((what, slot) for slot in self.slots if (what := self._finding(slot, loaded))),
        )

    def _finding(self, slot: Slot, loaded: dict[str, int]) -> str | None:
        if self.lane or self.open_chains(slot) or slot.mark:  # reconcile_reads_lane, ..._unfinished
            return None
        if slot.state == "error":
            return self._finding_in_error(slot, has=slot.listed(loaded) is not None)
        if slot.state == "offline":
            return self._finding_offline(slot, loaded)
        if self.is_lost(slot, loaded):
            return "lost"
        if self.is_of_another_process(slot, self.engine.process):
            return "restarted"
        is_as_held = slot.held is None or loaded[slot.held.model] == slot.held.ctx_size
        return None if is_as_held else "reloaded"

    def _finding_offline(self, slot: Slot, loaded: dict[str, int]) -> str | None:
        """What a second look misses too was unloaded by a person."""
        if slot.model in loaded:
            return "listed"
        was_missed = slot.cause == "unloaded_elsewhere" and not slot.is_to_stay_unloaded
        return "stays away" if was_missed and slot.process == self.engine.process else None

    def _finding_in_error(self, slot: Slot, *, has: bool) -> str | None:
        """late_unload, unless nothing was wrong with the model."""
        code = slot.error and slot.error[0]
        is_unwanted = code == "engine.unreachable" and slot.desired == "unloaded"
        if code in ABSENCES and not (is_unwanted and has):
            return "returned"
        if slot.told is not None and not has:
            return "left nothing"
        is_ours = slot.told is not None and slot.process == self.engine.process
        is_free = has and slot.model in self.engine.loaded and slot.model not in self.engine.busy
        is_kept = slot.is_cleared or slot.pinned
        return "left over" if is_ours and is_free and not is_kept else None

    def use(self, slot: Slot) -> None:
        """A slot is used now."""
        self.acts += 1
        slot.used, slot.used_at = self.acts, self.wall

    def holds_claim(self, body: Body) -> bool:
        """fence: whether the body's attempt is still the one that runs."""
        return (body.job.state, body.job.attempt) == ("running", body.attempt)
