"""What `load` does: from its first look at the engine to its end."""

from collections.abc import Mapping

from tests.machine.reference.engine import Body
from tests.machine.reference.rows import (
    DISPATCHABLE,
    DRAIN_MS,
    LATE,
    LOAD_MS,
    SETTLE_MS,
    Job,
    Key,
    Lane,
    Mark,
    Slot,
    Stand,
)
from tests.machine.reference.unloads import Unloads

VERIFY_MS = 10_000


class Loads(Unloads):
    """One load at a time."""

    # -- before it is sent --------------------------------------------------------------------

    def _decide(self, body: Body) -> str | None:
        job, slot, engine = body.job, body.job.slot, self.engine
        key = job.chain.key
        assert key
        if not engine.is_up:
            self.defer(job)
        elif body.found_held and self._is_there(job, slot):
            self.end(job, "succeeded", "skipped")
        elif slot.state in DISPATCHABLE or key.model not in engine.loaded:
            return self._send_with_room(body)
        elif not engine.serves(key.model):
            if key.model in engine.busy and self._spares(job):
                return None
            slot.mark = Mark(job.id, job.attempt, engine.process, self.now + SETTLE_MS)
            body.places = True
            return "post"
        elif engine.loaded[key.model] == key.ctx_size or job.chain.origin != "operator":
            there = Key(key.model, engine.loaded[key.model])
            self.adopt(slot, there, engine.process)
            slot.bad.pop(there, None)
            self.end(job, "succeeded", "done")
        else:
            return self._send(body)  # a reload, which costs nobody else
        return None

    def _is_there(self, job: Job, slot: Slot) -> bool:
        if slot.state not in DISPATCHABLE:
            return False
        if slot.listed(self.engine.loaded) is None:
            is_restart = self.is_of_another_process(slot, self.engine.process)
            cause = "engine_restarted" if is_restart else "unloaded_elsewhere"
            self.lose(slot, cause, None, restores=False)
            return False
        if slot.state == "idle" and job.chain.origin != "restore":
            self.move(slot, "ready", "touched")
        return True

    def _send_with_room(self, body: Body) -> str | None:
        """restore_needs_room: a machine's load never evicts."""
        if not self.engine.is_full or body.job.chain.origin == "operator":
            return self._send(body)
        self._give_way(body.job)
        return None

    def _give_way(self, job: Job) -> None:
        if job.slot.state == "starting":
            self.move(job.slot, "offline", "cancelled")
        self.end(job, "succeeded", "skipped")
        job.gave_way = self.wall

    def _spares(self, job: Job) -> bool:
        """Nobody who uses what does not answer is cut off by a machine, or before his time."""
        if job.chain.origin != "operator":
            self._give_way(job)
            return True
        if not job.spares:
            job.waits_since = None  # until now it waited for its engine
        if job.waits_since is not None and self.now - job.waits_since >= DRAIN_MS:
            return False
        job.spares = True
        self.wait_on(job, 500)
        return True

    def _placed(self, body: Body) -> str | None:
        """Its place is free: now it sends."""
        self.clear_mark(body.job.slot, body.job.id, body.attempt)
        body.places = False
        return self._send(body) if self.holds_claim(body) else None

    def _no_place(self, body: Body, code: str) -> None:
        """Its place is not free; unless the connection broke, the engine owes nothing."""
        if code != "engine.bad_answer":
            self.clear_mark(body.job.slot, body.job.id, body.attempt)
        if self.holds_claim(body):
            self.fail(body.job, code)

    def _send(self, body: Body) -> str | None:
        job, slot, key = body.job, body.job.slot, body.job.chain.key
        assert key
        if self.files.get(key.model) != job.chain.jobs[1].file:
            self.fail(job, "preload.file_changed")
        elif self.lane is not None:  # lane_key
            self.put_back(job, "deferred", after_ms=200)
        else:
            self._mark(job, slot, key)
            return "post"
        return None

    def _mark(self, job: Job, slot: Slot, key: Key) -> None:
        """One commit: sent, lane, generation, warming; a machine's is counted."""
        process = self.engine.process
        job.sent, job.deadline, job.waits_since = job.attempt, self.now + LOAD_MS, None
        assert job.worker
        self.lane = Lane(job, job.attempt, job.worker, process, self.now + SETTLE_MS)
        slot.generation += 1
        slot.held, slot.told, slot.process, slot.note = None, key.model, process, None
        if job.chain.origin != "operator":
            self.count_automatic(slot)
        if slot.state != "starting":
            self.move(slot, "starting", "checked")
        self.move(slot, "warming", "load_sent")

    def _not_sent(self, job: Job, slot: Slot) -> None:
        """refused_has_a_state: mark and lane go, the job waits."""
        self.release(job, job.attempt)
        if job.chain.origin != "operator":
            self.count_one_less(slot)
        job.sent = job.deadline = 0
        self.move(slot, "offline", "engine_restarted")
        slot.held = slot.told = None
        self.put_back(job, "deferred", after_ms=500)

    # -- after it was sent --------------------------------------------------------------------

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
                self.engine_gone(job, marks=engine.is_up, before=body.before)
        elif self._has_arrived(job):
            if is_mine:
                self.become_ready(job, body.before)
        elif self.now >= body.until:
            if is_mine:
                self.time_out(job)
        else:
            return self._keep_watching(body)
        return None

    def _has_arrived(self, job: Job) -> bool:
        """What is there with other options was there before."""
        key = job.chain.key
        assert key
        return self.engine.serves(key.model) and self.engine.loaded[key.model] == key.ctx_size

    def _verify(self, body: Body) -> str | None:
        """ "Success" is believed when the list and the backend say so; what is doubted fails."""
        job, engine = body.job, self.engine
        is_over = self.now >= body.until
        if engine.is_up and engine.serves(job.model):
            if self.holds_claim(body):
                self.become_ready(job, body.before)
            return None
        if self._is_anothers(job):
            if self.holds_claim(body):
                self.engine_gone(job, marks=True, before=body.before)
            return None
        if engine.is_up:
            body.doubted = body.doubted or self.now
        if body.doubted and (is_over or self.now - body.doubted >= VERIFY_MS):
            is_listed = engine.is_up and job.model in engine.loaded
            code = "engine.backend_not_answering" if is_listed else "engine.bad_answer"
            self.settle_failed(body, code)
        elif is_over:
            if self.holds_claim(body):
                self.time_out(job)
        else:
            return "health"
        return None

    def _is_anothers(self, job: Job) -> bool:
        """Whether the engine is another process than the one that got this load."""
        lane, engine = self.lane, self.engine
        is_its = lane is not None and lane.job is job
        return is_its and engine.is_up and lane is not None and lane.process != engine.process

    def looks_in_vain(self, body: Body) -> bool:
        """Whether a body that watches or verifies would learn nothing now."""
        engine, lane, job = self.engine, self.lane, body.job
        if body.at != "health" or job.kind != "load":
            return False
        if engine.serves(job.model) if body.verifies else self._has_arrived(job):
            return False
        if body.verifies:
            has_doubted = body.doubted and self.now - body.doubted >= VERIFY_MS
            is_first = body.doubted is None and engine.is_up
            is_new = is_first or has_doubted or self._is_anothers(job)
            return not (is_new or self.now >= body.until)
        is_its = lane is not None and lane.job is job and lane.process == engine.process
        return body.watches and is_its and engine.is_up and self.now < body.until

    # -- how a load ends ----------------------------------------------------------------------

    def become_ready(self, job: Job, before: Mapping[int, Stand] | None) -> None:
        """For an operator or a request; idle for a restore, which nobody waits for."""
        slot, key = job.slot, job.chain.key
        assert key
        slot.held, slot.process = key, self.engine.process
        self.use(slot)
        slot.error = None
        self.note_ready(slot)
        self.move(slot, "idle" if job.chain.origin == "restore" else "ready", "loaded")
        slot.bad.pop(key, None)
        self.release(job, job.sent)
        self.end(job, "succeeded", "done")
        self.mark_lost(job, "load_made_room", before)

    def settle_failed(self, body: Body, code: str = "engine.refused") -> None:
        """The load failed; what the engine has all the same is unloaded."""
        job, slot, engine = body.job, body.job.slot, self.engine
        is_known = self.looks()
        for name in (job.model, slot.told):
            if is_known and name in engine.loaded:
                engine.unload(str(name))
                break
        if not self.holds_claim(body):
            return
        self.fail(job, code)
        if not is_known:
            return  # whoever settles the lane can read what this cost
        self.release(job, job.sent)
        if slot.listed(engine.loaded) is None:
            slot.held = slot.told = None
        self.mark_lost(job)

    def engine_gone(
        self, job: Job, *, marks: bool, before: Mapping[int, Stand] | None = None
    ) -> None:
        """The process that had the request is no more."""
        slot = job.slot
        if slot.state == "warming":
            self.move(slot, "offline", "engine_restarted")
        self.fail(job, "engine.restarted")
        slot.held = slot.told = None
        self.release(job, job.sent)
        if marks:
            self.mark_lost(job, before=before)

    def time_out(self, job: Job) -> None:
        """lane_outlives_job: the job is over, the engine is not."""
        self.fail(job, LATE, "deadline_passed")
        if self.looks():
            self.mark_lost(job)
