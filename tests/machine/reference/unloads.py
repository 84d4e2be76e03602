"""What `unload` does: marked, asked once by name, confirmed."""

from tests.machine.reference.checks import Checks
from tests.machine.reference.rows import (
    DISPATCHABLE,
    DRAIN_MS,
    SETTLE_MS,
    UNLOAD_MS,
    Job,
    Mark,
    Slot,
)


class Unloads(Checks):
    """A slot is emptied."""

    def _begin_unload(self, job: Job, slot: Slot) -> str | None:
        chain = job.chain
        empties = chain.goal == "unload"
        if slot.state in DISPATCHABLE:
            if self._leaves_alone(job, slot):
                self.end(job, "succeeded", "skipped")
                return None
            if slot.state == "serving" and not chain.force:
                self._drain(job)
                return None
            own = "idle_unload" if chain.origin == "idle" else "operator_unload"
            cause = "forced" if slot.state == "serving" else own if empties else "replaced"
            self.move(slot, "unloading", cause)
            if chain.origin == "idle":
                slot.desired = "unloaded"
        elif slot.state == "error" and empties and slot.told is None:
            self.move(slot, "offline", "cleared")
            self.end(job, "succeeded", "done")
            return None
        elif slot.state != "unloading" and not (slot.state == "error" and empties):
            self.end(job, "succeeded", "skipped")
            return None
        job.sent, job.deadline, job.waits_since = job.attempt, self.now + UNLOAD_MS, None
        slot.mark = Mark(job.id, job.attempt, slot.process, self.now + SETTLE_MS)
        return "post"

    def _leaves_alone(self, job: Job, slot: Slot) -> bool:
        chain = job.chain
        if chain.goal == "load":
            return slot.holds(chain.key)
        if chain.origin == "operator":
            return False
        return chain.guard != (slot.generation, slot.used) or slot.state == "serving"

    def _drain(self, job: Job) -> None:
        if job.waits_since is not None and self.now - job.waits_since >= DRAIN_MS:
            self.fail(job, "slot.drain_timeout")
        else:
            self.wait_on(job, 500)

    def emptied(self, job: Job, gone: bool = False) -> None:
        """The slot holds nothing any more."""
        slot = job.slot
        if slot.state == "unloading":
            self.move(slot, "offline", "engine_restarted" if gone else "unloaded")
        elif slot.state == "error":
            self.move(slot, "offline", "unload_confirmed")
        slot.held = slot.told = None
        self.clear_mark(slot, job.id, job.attempt)
        self.end(job, "succeeded", "done")

    def _look_after_unload(self, job: Job, slot: Slot) -> None:
        """Its connection broke: the engine's list says what became of the request."""
        engine = self.engine
        if not engine.is_up:
            self.emptied(job, gone=True)
        elif self.lists(slot, engine.loaded):
            self.fail(job, "engine.bad_answer")
        else:
            self.emptied(job, gone=slot.process not in (None, engine.process))
