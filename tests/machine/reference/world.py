"""What the engine, the clock, dying workers and settling hands do to slots and jobs."""

from collections.abc import Iterable

from tests.machine.reference.bodies import Bodies
from tests.machine.reference.losses import Body, Reading, Request
from tests.machine.reference.orders import NO_SLOT
from tests.machine.reference.rows import DISPATCHABLE, Answer, Job, Slot


class Reference(Bodies):
    """Everything that can happen."""

    def __init__(self, workers: Iterable[str], max_models: int | None = None) -> None:
        super().__init__(max_models)
        self.living = set(workers)
        self.reading: Reading | None = None

    # -- what the engine does -----------------------------------------------------------------

    def answer(self, number: int, how: str) -> None:
        """Answer a request: `ok`, `fail`, or `fail_evicting`."""
        request = self.engine.requests.pop(number)
        if request.kind == "load":
            self._answer_load(request, how)
        else:
            self._answer_unload(request, how)

    def _answer_load(self, request: Request, how: str) -> None:
        engine, key, body = self.engine, request.key, request.reader
        if how == "ok":
            if engine.max_models == 1:
                engine.loaded.clear()
            engine.loaded[key.model] = key.ctx_size
        elif how == "fail_evicting":
            engine.loaded.clear()
        if body is None:
            return
        if self.lane and (self.lane.job, self.lane.attempt) == (body.job, body.attempt):
            self.lane.answered = True
        if body.at == "left":
            self._settle_lane(body.job, body.attempt)
            return
        del self.bodies[body.job.id, body.attempt]
        if how != "ok":
            self.settle_failed(body)
        elif self.holds_claim(body):
            self.become_ready(body.job)

    def _answer_unload(self, request: Request, how: str) -> None:
        body = request.reader
        if how == "ok":
            self.engine.loaded.pop(request.key.model, None)
        if body is None:
            return
        job, slot = body.job, body.job.slot
        if body.at == "left":
            if how == "ok":
                self._emptied_late(body, slot)
            return
        del self.bodies[job.id, body.attempt]
        if not self.holds_claim(body):
            return
        if how == "ok":
            self.emptied(job)
        else:
            self.clear_mark(slot, job.id, job.attempt)
            self.fail(job, "engine.refused")

    def _emptied_late(self, body: Body, slot: Slot) -> None:
        if not self.clear_mark(slot, body.job.id, body.attempt):
            return
        if slot.state == "error" and not self.open_chains(slot):
            is_its = slot.error is not None and slot.error[1] == body.job.id
            slot.held = slot.told = None
            if is_its:
                self.move(slot, "offline", "unload_confirmed")

    def drop(self, number: int) -> None:
        """A connection breaks; the engine goes on with the request."""
        self._break(self.engine.requests[number])

    def _break(self, request: Request) -> None:
        body, request.reader = request.reader, None
        if body is None:
            return
        if body.at == "left":
            if body.job.kind == "load":
                self._settle_lane(body.job, body.attempt)
            return
        body.watches = True
        body.at = "health" if body.job.kind == "unload" else self._keep_watching(body) or "ended"
        if body.at == "ended":
            del self.bodies[body.job.id, body.attempt]

    def engine_dies(self) -> None:
        """Every connection breaks, and nothing is loaded any more."""
        self.engine.is_up = False
        self.engine.loaded.clear()
        requests, self.engine.requests = self.engine.requests, []
        for request in requests:
            self._break(request)

    def engine_starts(self) -> None:
        """As another process."""
        self.engine.is_up, self.engine.process = True, self.engine.process + 1

    def engine_loses(self, model: str) -> None:
        """Its own app unloads a model, or its backend dies."""
        self.engine.loaded.pop(model, None)

    def file_becomes(self, model: str, content: str | None) -> None:
        """Somebody replaces, spoils or deletes a model's file."""
        self.files.pop(model, None)
        if content is not None:
            self.put_file(model, content)

    # -- time ---------------------------------------------------------------------------------

    def pass_time(self, ms: int) -> None:
        """Bodies that wait for an answer end their jobs at the deadline."""
        self.now += ms
        for (job_id, attempt), body in sorted(self.bodies.items()):
            if body.at == "sent" and self.now >= body.job.deadline:
                del self.bodies[job_id, attempt]
                body.at = "left"  # watcher: the request stays open
                if not self.holds_claim(body):
                    continue
                if body.job.kind == "load":
                    self.time_out(body.job)
                else:
                    self.fail(body.job, "engine.unload_timeout", "deadline_passed")

    def wall_steps(self, seconds: int) -> None:
        """Wall time is for people: nothing changes."""

    # -- requests of users, as the dispatcher will write them -----------------------------------

    def serve(self, name: str) -> Answer:
        """The first request enters."""
        return self._moved(name, ("ready", "idle"), "serving", "request_started")

    def served(self, name: str) -> Answer:
        """The last request leaves."""
        return self._moved(name, ("serving",), "ready", "requests_done")

    def demote(self, name: str) -> Answer:
        """Nobody used the slot for a while."""
        return self._moved(name, ("ready",), "idle", "demoted")

    def _moved(self, name: str, sources: tuple[str, ...], to: str, cause: str) -> Answer:
        slot = self.slot(name)
        if slot is None:
            return NO_SLOT
        if slot.state not in sources:
            return Answer(409, "slot.illegal_transition")
        self.move(slot, to, cause)
        if cause != "demoted":
            self.use(slot)
        return Answer(200)

    # -- workers die, stop, are taken from ------------------------------------------------------

    def _leave_all(self, worker: str) -> None:
        """Whoever read answers for this process does so no more."""
        self.bodies = {at: body for at, body in self.bodies.items() if body.worker != worker}
        for request in self.engine.requests:
            if request.reader and request.reader.worker == worker:
                request.reader = None

    def kill(self, worker: str, successor: str) -> None:
        """kill -9, and another process starts in its place."""
        self._leave_all(worker)
        self.living = self.living - {worker} | {successor}

    def stop(self, worker: str, successor: str) -> None:
        """SIGTERM: what it runs goes back and is no failure."""
        for (job_id, attempt), body in sorted(self.bodies.items()):
            if body.worker == worker and body.at == "post":
                self.go_on(job_id, attempt)
        for job in self.jobs.values():
            if job.state == "running" and job.worker == worker:
                self.put_back(job, "interrupted")
        self.kill(worker, successor)

    def rescue(self, worker: str) -> None:
        """What the dead ran is put back; a state that no job owns is left (unowned_recovered)."""
        for job in list(self.jobs.values()):
            if job.state == "running" and job.worker not in self.living:
                self.rescue_job(job)
        for slot in self.slots:
            if slot.state in ("pulling", "starting", "warming", "unloading"):
                assert self.open_chains(slot), f"nobody owns {slot.name}, which is {slot.state}"

    def take(self, job_id: int, attempt: int) -> None:
        """A claim is taken though its thread lives."""
        self.rescue_job(self.bodies[job_id, attempt].job)

    def miss_bodies(self, worker: str) -> None:
        """A job whose body has not begun for five seconds is put back."""
        missed = [b for b in self.bodies.values() if (b.at, b.worker) == ("claimed", worker)]
        missed = [body for body in missed if self.holds_claim(body)]
        self.pass_time(6000)
        for body in missed:
            self.put_back(body.job, "interrupted")

    # -- settling and reconciling ---------------------------------------------------------------

    def settle(self, worker: str) -> None:
        """Settle the lane if it is ours or a dead owner's, and the marks of ended unloads."""
        lane = self.lane
        if lane and (lane.owner == worker or lane.owner not in self.living):
            lane.owner = worker
            self._settle_lane(lane.job, lane.attempt)
        for slot in self.slots:
            if slot.mark is None:
                continue
            job = self.jobs[slot.mark.job]
            if job.state in ("queued", "running") and job.sent == slot.mark.attempt:
                continue
            is_another = self.engine.is_up and slot.mark.process not in (None, self.engine.process)
            if self.now >= slot.mark.settle_by or is_another:
                slot.mark = None

    def _settle_lane(self, job: Job, attempt: int) -> None:
        """late_under_lane, settle_marks_lost: in this order, and only then the lane goes."""
        lane, engine, slot = self.lane, self.engine, job.slot
        if lane is None or (lane.job, lane.attempt) != (job, attempt) or not engine.is_up:
            return
        if job.state in ("queued", "running") and job.sent == attempt:
            return
        is_another = lane.process != engine.process
        entry = next((name for name in (job.model, slot.told) if name in engine.loaded), None)
        if not (is_another or entry or lane.answered or self.now >= lane.settle_by):
            return
        if entry and not is_another and slot.state not in DISPATCHABLE:
            del engine.loaded[entry]
            slot.told = None
        self.release(job, attempt)
        self.mark_lost(slot)

    def read_health(self) -> None:
        """Reconcile reads; what it concludes is written later."""
        self.reading = self.read() if self.engine.is_up else None

    def write_reading(self) -> None:
        """reconcile_skips_lane, reconcile_reads_lane: who settles a lane marks what it cost."""
        reading, self.reading = self.reading, None
        if reading is None or self.lane or reading.lane:
            return
        for slot in [slot for slot in self.slots if self.is_lost(slot, reading)]:
            key = slot.held
            assert key
            if self.write_loss(slot, reading.process):
                self.restore(slot, key)
            else:
                slot.desired = "unloaded"

    # -- the host -------------------------------------------------------------------------------

    def reboot(self, *successors: str) -> None:
        """Everything dies; the first process of the new boot says what that means."""
        for worker in sorted(self.living):
            self._leave_all(worker)
        self.living, self.reading = set(successors), None
        self.engine_dies()
        self.engine.requests.clear()
        self.now = 0
        for job in self.jobs.values():
            job.not_before, job.waits_since, job.deadline = 0, None, 0
        if self.lane:
            self.lane.process, self.lane.settle_by = None, 0
        for slot in self.slots:
            if slot.state not in ("offline", "error"):
                self.move(slot, "offline", "host_rebooted")
            slot.held = slot.told = slot.process = slot.mark = None
