"""What the engine, the clock and dying workers do to slots and jobs."""

from tests.machine.reference.wakes import Wakes

BOOT_MS = 5_000
"""When the first process of a boot begins."""


class Reference(Wakes):
    """Everything that can happen."""

    # -- what the engine does, and others with it ---------------------------------------------

    def engine_dies(self) -> None:
        """Every connection breaks, and nothing is loaded any more."""
        self.engine.is_up = False
        self.engine.clear()
        requests, self.engine.requests = self.engine.requests, []
        for request in requests:
            self.break_off(request)

    def engine_starts(self) -> None:
        """As another process."""
        self.engine.is_up, self.engine.process = True, self.engine.process + 1

    def engine_loads(self, model: str, ctx_size: int) -> None:
        """Somebody loads a model in its own app."""
        if self.engine.is_up:
            self.engine.load(model, ctx_size)

    def engine_loses(self, model: str) -> None:
        """Somebody unloads a model in its own app."""
        self.engine.unload(model)

    def backend_dies(self, model: str) -> None:
        """It is listed still and does not answer any more."""
        if model in self.engine.loaded:
            self.engine.dead.add(model)

    def used_past_us(self, model: str, how: str) -> None:
        """Another client asks a model, `briefly`, or in a request that `begins` and `ends`."""
        engine = self.engine
        if model not in engine.loaded:
            return
        if how != "ends":
            engine.use(model)
        if how == "begins":
            engine.busy.add(model)
        else:
            engine.busy.discard(model)

    def file_becomes(self, model: str, content: str | None) -> None:
        """Somebody replaces, spoils or deletes a model's file."""
        self.files.pop(model, None)
        if content is not None:
            self.put_file(model, content)

    # -- time ---------------------------------------------------------------------------------

    def pass_time(self, ms: int) -> None:
        """Bodies that wait for an answer end their jobs at the deadline."""
        self.tick(ms)
        for (job_id, attempt), body in sorted(self.bodies.items()):
            if body.at != "sent" or self.now < body.until:
                continue
            del self.bodies[job_id, attempt]
            body.at = "left"  # watcher: the request stays open
            if body.sends == "load":
                self.looks()
            if not self.holds_claim(body):
                continue
            if body.sends == "load":
                self.time_out(body.job)
            else:
                cause = "job_failed" if body.places else "deadline_passed"
                self.fail(body.job, "engine.unload_timeout", cause)

    def wall_steps(self, seconds: int) -> None:
        """Wall time is for people: of what it decides nobody is unloaded, or kept."""
        self.wall += seconds * 1000

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
            self.clear_leases(slot)
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

    # -- the host -------------------------------------------------------------------------------

    def reboot(self, *successors: str) -> None:
        """Everything dies; the first process of the new boot says what that means."""
        for worker in sorted(self.living):
            self._leave_all(worker)
        self.living, self.reading, self.asked = set(successors), None, []
        self.starts = {api: count + 1 for api, count in self.starts.items()}
        self.engine_dies()
        self.engine.requests.clear()
        self.now = BOOT_MS
        self.away_since = self.scanned = None
        for job in self.jobs.values():
            job.not_before, job.waits_since, job.deadline = 0, None, 0
        if self.lane:
            self.lane.process, self.lane.settle_by = None, 0
        for slot in self.slots:
            key = self.wish_of(slot)
            if slot.state not in ("offline", "error"):
                self.move(slot, "offline", "host_rebooted")
            if slot.state == "offline" and slot.desired == "loaded":
                slot.note = key  # what is wanted is loaded when the engine is well
            slot.held = slot.told = slot.process = slot.mark = None
            slot.leases.clear()
            if slot.breaker:
                slot.breaker = slot.breaker._replace(last=0, opens=0, ready=None)
