"""What `unload` does: looks who uses the model, marks, asks once by name, confirms."""

from tests.machine.reference.checks import Checks
from tests.machine.reference.engine import Body
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

    def may_be_used(self, job: Job, slot: Slot) -> bool:
        """Whether the engine may serve somebody what is to be unloaded."""
        is_left = slot.state == "error" and slot.told is not None
        return slot.state in DISPATCHABLE or (is_left and job.chain.goal == "unload")

    def _begin_unload(
        self,
        body: Body,
        *,
        is_busy: bool = False,
        is_used: bool = True,
        process: int | None = None,
    ) -> str | None:
        job, slot = body.job, body.job.slot
        chain = job.chain
        empties = chain.goal == "unload"
        if self.may_be_used(job, slot) and self._leaves_alone(job, slot, is_used):
            self.end(job, "succeeded", "skipped")
            return None
        is_in_use = slot.state == "serving" or (is_busy and self.may_be_used(job, slot))
        if is_in_use and not chain.force:
            self._drain(job, slot)
            return None
        if slot.state in DISPATCHABLE:
            own = "idle_unload" if chain.origin == "idle" else "operator_unload"
            cause = "forced" if slot.state == "serving" else own if empties else "replaced"
            self.move(slot, "unloading", cause)
            if chain.origin == "idle":
                slot.desired, slot.desired_by = "unloaded", "idle"
        elif slot.state == "error" and empties and slot.told is None:
            self.move(slot, "offline", "cleared")
            self.end(job, "succeeded", "done")
            return None
        elif slot.state != "unloading" and not (slot.state == "error" and empties):
            self.end(job, "succeeded", "skipped")
            return None
        job.sent, job.deadline, job.waits_since = job.attempt, self.now + UNLOAD_MS, None
        slot.mark = Mark(job.id, job.attempt, process, self.now + SETTLE_MS)
        return "post"

    def _look_for_use(self, body: Body) -> str | None:
        """What the engine does not say counts as use, for a machine."""
        slot, engine = body.job.slot, self.engine
        entry = slot.listed(engine.loaded) if engine.is_up else None
        is_busy = entry in engine.busy
        is_used = not engine.is_up or (entry is not None and self.is_used(slot, entry))
        process = engine.process if engine.is_up else None
        return self._begin_unload(body, is_busy=is_busy, is_used=is_used, process=process)

    def is_used(self, slot: Slot, entry: str) -> bool:
        """Whether somebody uses a model, or has since the last scan."""
        if slot.is_served or entry in self.engine.busy:
            return True
        seen = (slot.generation, slot.used, self.engine.uses[entry])
        same_load = slot.window is not None and slot.window.generation == slot.generation
        return same_load and slot.window is not None and slot.window[:3] != seen

    def _leaves_alone(self, job: Job, slot: Slot, is_used: bool) -> bool:
        chain = job.chain
        if chain.goal == "load":
            return slot.holds(chain.key)
        if chain.origin == "operator":
            return False
        is_as_asked = chain.guard == (slot.generation, slot.used)
        is_served = slot.state == "serving" or slot.is_served
        return slot.pinned or not is_as_asked or is_served or is_used

    def _drain(self, job: Job, slot: Slot) -> None:
        """The claim waits for what runs through us; an engine that is busy is asked again."""
        job.chain.drain = job.chain.drain or DRAIN_MS
        if job.waits_since is not None and self.now - job.waits_since >= job.chain.drain:
            self.fail(job, "slot.drain_timeout")
        else:
            self.wait_on(job, 0 if slot.state == "serving" else 500)

    def emptied(self, job: Job, gone: bool = False) -> None:
        """The slot holds nothing any more; an error stays, unless it was of an unload."""
        slot = job.slot
        failed = self.jobs.get(slot.error[1] or 0) if slot.error else None
        if slot.state == "unloading":
            self.move(slot, "offline", "engine_restarted" if gone else "unloaded")
        elif slot.state == "error" and (
            job.chain.origin == "operator" or (failed and failed.kind == "unload")
        ):
            self.move(slot, "offline", "unload_confirmed")
        slot.held = slot.told = None
        self.clear_mark(slot, job.id, job.attempt)
        self.end(job, "succeeded", "done")

    def _look_after_unload(self, job: Job, slot: Slot) -> None:
        """Its connection broke: the engine's list says what became of the request."""
        if not self.engine.is_up:
            self.emptied(job, gone=True)
        elif slot.listed(self.engine.loaded):
            self.fail(job, "engine.bad_answer")
        else:
            self.emptied(job, gone=self.is_of_another_process(slot, self.engine.process))
