"""What answers mean, also late ones, and how the engine's debts are settled when a job is over."""

from collections.abc import Iterable

from tests.machine.reference.bodies import Bodies
from tests.machine.reference.engine import Body, Request
from tests.machine.reference.rows import DISPATCHABLE, SETTLE_MS, Job, Lane, Slot


class Settling(Bodies):
    """Answers, broken connections, lanes and marks."""

    def __init__(self, workers: Iterable[str], max_models: int | None = None) -> None:
        super().__init__(max_models)
        self.living = set(workers)

    # -- answers ------------------------------------------------------------------------------

    def answer(self, number: int, how: str) -> None:
        """Answer: `ok`, `hollow` (its backend does not answer), `fail`, or `fail_evicting`."""
        request = self.engine.requests.pop(number)
        if request.kind == "load":
            self._answer_load(request, how)
        else:
            self._answer_unload(request, "ok" if how == "hollow" else how)

    def _answer_load(self, request: Request, how: str) -> None:
        engine, key, body = self.engine, request.key, request.reader
        if how in ("ok", "hollow"):
            engine.load(*key)
            if how == "hollow":
                engine.dead.add(key.model)
        elif how == "fail_evicting":
            engine.clear()
        if body is None:
            return
        if self.lane and (self.lane.job, self.lane.attempt) == (body.job, body.attempt):
            self.lane.answered = True
        if body.at == "left":
            self.settle_lane(body.job, body.attempt)
        elif how in ("fail", "fail_evicting"):
            self.settle_failed(body)
            self.comes_to(body, None)
        else:
            body.verifies, body.before = True, None
            self.comes_to(body, self._look(body) if how == "ok" else "health")

    def _answer_unload(self, request: Request, how: str) -> None:
        body = request.reader
        if how == "ok":
            self.engine.unload(request.key.model)
        if body is None:
            return
        job, slot = body.job, body.job.slot
        if body.at == "left":
            if how == "ok":
                self._emptied_late(body, slot)
        elif body.places and how == "ok":
            self.comes_to(body, self._placed(body))
        else:
            self.comes_to(body, None)
            if body.places:
                self._no_place(body, "engine.refused")
            elif self.holds_claim(body) and how == "ok":
                self.emptied(job)
            elif self.holds_claim(body):
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
        self.break_off(self.engine.requests[number])

    def break_off(self, request: Request) -> None:
        """Whoever waits for this answer learns in another way what became of it, or not."""
        body, request.reader = request.reader, None
        if body is None:
            return
        if body.at == "left":
            if request.kind == "load":
                self.settle_lane(body.job, body.attempt)
        elif body.places:
            self.comes_to(body, None)
            self._no_place(body, "engine.bad_answer")
        else:
            body.watches = True
            self.comes_to(
                body, "health" if body.job.kind == "unload" else self._keep_watching(body)
            )

    # -- what is over -------------------------------------------------------------------------

    def settle(self, worker: str) -> None:
        """Settle the lane if it is ours or a dead owner's, and the marks of ended unloads."""
        lane = self.lane
        if lane and (lane.owner == worker or lane.owner not in self.living):
            lane.owner = worker
            self.settle_lane(lane.job, lane.attempt)
        for slot in self.slots:
            if slot.mark and self._is_unload_settled(slot):
                slot.mark = None

    def _is_unload_settled(self, slot: Slot) -> bool:
        mark, engine = slot.mark, self.engine
        assert mark
        job = self.jobs[mark.job]
        if job.state in ("queued", "running") and job.sent == mark.attempt:
            return False
        if self.now >= mark.settle_by:
            return True
        if not self.looks():
            return False
        is_gone = job.kind == "load" and slot.listed(engine.loaded) is None
        return is_gone or mark.process not in (None, engine.process)

    def settle_lane(self, job: Job, attempt: int) -> None:
        """late_under_lane, settle_marks_lost: in this order, and only then the lane goes."""
        lane, engine, slot = self.lane, self.engine, job.slot
        if lane is None or (lane.job, lane.attempt) != (job, attempt):
            return
        if job.state in ("queued", "running") and job.sent == attempt:
            return
        if not self.looks():
            return
        is_another = lane.process != engine.process
        entry = next((name for name in (job.model, slot.told) if name in engine.loaded), None)
        if self._is_from_before(entry, lane):
            entry = None
        is_over = self.now >= lane.settle_by and (
            not engine.busy or self.now >= lane.settle_by + SETTLE_MS
        )
        if not (is_another or entry or lane.answered or is_over):
            return
        is_late = entry is not None and not is_another and slot.state not in DISPATCHABLE
        if is_late:
            engine.unload(str(entry))
        self.release(job, attempt)
        if is_late:
            self.incident("late_arrival", job)
        left = slot.listed(engine.loaded)
        if slot.state not in DISPATCHABLE and (left is None or self._is_from_before(left, lane)):
            slot.told = None
        self.mark_lost(job)

    def _is_from_before(self, entry: str | None, lane: Lane) -> bool:
        """Whether a load that is not answered found this there, with other options."""
        key = lane.job.chain.key
        assert key
        return bool(entry and not lane.answered and self.engine.loaded.get(entry) != key.ctx_size)
