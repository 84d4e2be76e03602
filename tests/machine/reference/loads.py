"""What `load` does: from its first look at the engine to its end."""

from tests.machine.reference.losses import Body
from tests.machine.reference.rows import DISPATCHABLE, LOAD_MS, SETTLE_MS, Job, Key, Lane, Slot
from tests.machine.reference.unloads import Unloads


class Loads(Unloads):
    """One load at a time."""

    def _send(self, body: Body) -> str | None:
        job, slot, chain, engine = body.job, body.job.slot, body.job.chain, self.engine
        assert chain.key
        if not engine.is_up:
            self.defer(job)
        elif body.found_held and self._is_there(job, slot):
            self.end(job, "succeeded", "skipped")
        elif len(engine.loaded) == engine.max_models and chain.origin != "operator":
            if slot.state == "starting":  # restore_needs_room
                self.move(slot, "offline", "cancelled")
            self.end(job, "succeeded", "skipped")
        elif self.files.get(chain.key.model) != chain.jobs[1].file:
            self.fail(job, "preload.file_changed")
        elif self.lane is not None:  # lane_key
            self.put_back(job, "deferred", after_ms=200)
        else:
            self._mark(job, slot, chain.key)
            return "post"
        return None

    def _is_there(self, job: Job, slot: Slot) -> bool:
        if slot.state not in DISPATCHABLE:
            return False
        if not self.lists(slot, self.engine.loaded):
            self.write_loss(slot, self.engine.process)
            return False
        if slot.state == "idle" and job.chain.origin == "operator":
            self.move(slot, "ready", "touched")
        return True

    def _mark(self, job: Job, slot: Slot, key: Key) -> None:
        """One commit: sent, lane, generation, warming."""
        process = self.engine.process
        job.sent, job.deadline, job.waits_since = job.attempt, self.now + LOAD_MS, None
        assert job.worker
        self.lane = Lane(job, job.attempt, job.worker, process, self.now + SETTLE_MS)
        slot.generation += 1
        slot.held, slot.told, slot.process = None, key.model, process
        if slot.state != "starting":
            self.move(slot, "starting", "checked")
        self.move(slot, "warming", "load_sent")

    def _not_sent(self, job: Job, slot: Slot) -> None:
        """refused_has_a_state: mark and lane go, the job waits."""
        self.release(job, job.attempt)
        job.sent = job.deadline = 0
        self.move(slot, "offline", "engine_restarted")
        slot.held = slot.told = None
        self.put_back(job, "deferred", after_ms=500)

    def _keep_watching(self, body: Body) -> str | None:
        if self.lane is not None and self.lane.job is body.job:
            return "health"
        if self.holds_claim(body):
            self.engine_gone(body.job, marks=False)
        return None

    def _watch(self, body: Body) -> str | None:
        """watch: a load that was sent before sends nothing."""
        job, engine, lane = body.job, self.engine, self.lane
        is_mine = self.holds_claim(body)
        if lane is None or lane.job is not job:
            assert not is_mine
            return None
        if not engine.is_up or lane.process != engine.process:
            if is_mine:
                self.engine_gone(job, marks=engine.is_up)
        elif job.model in engine.loaded:
            if is_mine:
                self.become_ready(job)
        elif self.now >= job.deadline:
            if is_mine:
                self.time_out(job)
        else:
            return self._keep_watching(body)
        return None

    def looks_in_vain(self, body: Body) -> bool:
        """Whether a watching body would learn nothing now."""
        engine, lane, job = self.engine, self.lane, body.job
        return (
            (body.at, job.kind, body.watches) == ("health", "load", True)
            and lane is not None
            and lane.job is job
            and (engine.is_up, engine.process) == (True, lane.process)
            and job.model not in engine.loaded
            and self.now < job.deadline
        )

    # -- how a load ends ----------------------------------------------------------------------

    def become_ready(self, job: Job) -> None:
        """For an operator; idle for a machine, which nobody waits for."""
        slot, key = job.slot, job.chain.key
        assert key
        slot.held, slot.process = key, self.engine.process
        self.use(slot)
        slot.error = None
        self.move(slot, "ready" if job.chain.origin == "operator" else "idle", "loaded")
        slot.bad.discard(key)
        self.release(job, job.sent)
        self.end(job, "succeeded", "done")
        self.mark_lost(slot, restores=False)  # lru_not_restored

    def settle_failed(self, body: Body) -> None:
        """The engine answered with a failure; what it has all the same is unloaded."""
        job, slot = body.job, body.job.slot
        for name in (job.model, slot.told):
            if name in self.engine.loaded:
                del self.engine.loaded[name]
                break
        if self.holds_claim(body):
            self.fail(job, "engine.refused")
            self.release(job, job.sent)
            if not self.lists(slot, self.engine.loaded):
                slot.held = slot.told = None
            self.mark_lost(slot)  # evicted_marked

    def engine_gone(self, job: Job, *, marks: bool) -> None:
        """The process that had the request is no more."""
        slot = job.slot
        if slot.state == "warming":
            self.move(slot, "offline", "engine_restarted")
        self.fail(job, "engine.restarted")
        slot.held = slot.told = None
        self.release(job, job.sent)
        if marks:
            self.mark_lost(slot)

    def time_out(self, job: Job) -> None:
        """lane_outlives_job: the job is over, the engine is not."""
        self.fail(job, "preload.load_timeout", "deadline_passed")
        if self.engine.is_up:
            self.mark_lost(job.slot)
