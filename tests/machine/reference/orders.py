"""What operators ask for, and what they are told."""

from tests.machine.reference.rows import DISPATCHABLE, Answer, Chain, Key, Slot
from tests.machine.reference.writes import Rows

NO_SLOT = Answer(404, "slot.not_found")
NO_JOB = Answer(404, "job.not_found")
TAKEN = Answer(409, "slot.model_taken")
BUSY = Answer(409, "slot.busy")
SENT = Answer(409, "job.already_sent")
SO = Answer(200, how="already")


def accepted(chain: Chain, how: str = "") -> Answer:
    """Jobs are there, or were already."""
    return Answer(202, None, tuple(job.id for job in chain.jobs), how)


class Orders(Rows):
    """The requests of the API that change slots and jobs."""

    def is_taken(self, model: str, slot: Slot | None) -> bool:
        """An engine unloads by model name, so one model is one slot's."""
        return any(
            model in {other.wants.model, other.told, other.held and other.held.model}
            or any(job.model == model for chain in self.open_chains(other) for job in chain.open)
            or (self.lane and self.lane.job.slot is other and self.lane.job.model == model)
            for other in self.slots
            if other is not slot
        )

    def owes(self, slot: Slot) -> bool:
        """Whether the engine may still bring up, or take down, a model of this slot."""
        return slot.mark is not None or (self.lane is not None and self.lane.job.slot is slot)

    # -- slots --------------------------------------------------------------------------------

    def create(self, name: str) -> Answer:
        """A new slot is offline, and nothing is loaded."""
        if self.slot(name):
            return Answer(409, "slot.exists")
        if self.is_taken(f"m-{name}", None):
            return TAKEN
        slot = Slot(len(self.all_slots) + 1, name, Key(f"m-{name}", 4096))
        slot.history.append(">offline created")
        self.all_slots.append(slot)
        return Answer(201)

    def assign(self, name: str, model: str) -> Answer:
        """Another model only while nothing is loaded and nothing is under way."""
        slot = self.slot(name)
        if slot is None:
            return NO_SLOT
        if model != slot.wants.model:
            if self.open_chains(slot):
                return BUSY
            if slot.state != "offline":
                return Answer(409, "slot.not_offline")
            if self.owes(slot):
                return BUSY
        if self.is_taken(model, slot):
            return TAKEN
        if model != slot.wants.model:
            slot.note = None  # to change a slot loads nothing, least of all what it was before
        slot.wants = Key(model, slot.wants.ctx_size)
        slot.set_up += 1
        return Answer(200)

    def pin(self, name: str, pinned: bool) -> Answer:
        """A pinned slot is unloaded only by who says so."""
        slot = self.slot(name)
        if slot is None:
            return NO_SLOT
        if self.is_taken(slot.wants.model, slot):
            return TAKEN
        slot.pinned = pinned
        slot.set_up += 1
        return Answer(200)

    def set_wake(self, name: str, wake: str) -> Answer:
        """Whether requests load it."""
        slot = self.slot(name)
        answer = self.pin(name, slot is not None and slot.pinned)
        if slot is not None and answer.status == 200:
            slot.wake = wake
        return answer

    def delete(self, name: str, force: bool) -> Answer:
        """Only what holds nothing; `force` cancels what is not sent."""
        slot = self.slot(name)
        if slot is None:
            return NO_SLOT
        chains = self.open_chains(slot)
        if chains and not force:
            return BUSY
        if any(chain.sent for chain in chains):
            return SENT
        is_let_go = bool(chains) and slot.state in ("pulling", "starting")
        if not is_let_go and slot.state not in ("offline", "error"):
            return BUSY
        if self.owes(slot):
            return BUSY
        for chain in reversed(chains):
            self.cancel_chain(chain, "cancelled")
        slot.is_deleted = True
        return Answer(204)

    # -- load, unload, pull, validate ----------------------------------------------------------

    def load(self, name: str, ctx_size: int) -> Answer:
        """Want the slot loaded."""
        slot = self.slot(name)
        if slot is None:
            return NO_SLOT
        key = Key(slot.wants.model, ctx_size)
        if self.is_taken(key.model, slot):
            return TAKEN
        self._want_loaded(slot, key)
        chains = self.open_chains(slot)
        if chains and (chains[-1].goal, chains[-1].key) == ("load", key):
            return self._taken_over(chains[-1])
        if not chains and slot.holds(key):
            if slot.state == "idle":
                self.move(slot, "ready", "touched")
            return SO
        self.supersede(chains)
        return accepted(self.add_chain(slot, "load", "operator", key))

    def _want_loaded(self, slot: Slot, key: Key) -> None:
        """An operator's word lifts whatever kept machines from this load."""
        slot.desired, slot.desired_by = "loaded", "operator"
        slot.wants, slot.note, slot.breaker = key, None, None
        slot.bad.pop(key, None)

    def _want_unloaded(self, slot: Slot) -> None:
        slot.desired, slot.desired_by, slot.note = "unloaded", "operator", None

    def unload(self, name: str, force: bool = False, even_if_pinned: bool = False) -> Answer:
        """Want the slot empty."""
        slot = self.slot(name)
        if slot is None:
            return NO_SLOT
        if slot.pinned and not even_if_pinned:
            return Answer(409, "slot.pinned")
        self._want_unloaded(slot)
        chains = self.open_chains(slot)
        if chains and chains[-1].goal == "unload" and (chains[-1].force or not force):
            return self._taken_over(chains[-1])
        if not chains and slot.state == "offline":
            return SO
        self.supersede(chains)
        return accepted(self.add_chain(slot, "unload", "operator", None, force=force))

    def pull(self, name: str) -> Answer:
        """Want the model's file brought; it waits its turn and cancels nothing."""
        return self._check(name, "pull")

    def validate(self, name: str) -> Answer:
        """Want the model's file checked; it waits its turn and cancels nothing."""
        return self._check(name, "validate")

    def _check(self, name: str, goal: str) -> Answer:
        slot = self.slot(name)
        if slot is None:
            return NO_SLOT
        chains = self.open_chains(slot)
        if chains and (chains[-1].goal, chains[-1].key) == (goal, slot.wants):
            return self._taken_over(chains[-1])
        return accepted(self.add_chain(slot, goal, "operator", slot.wants))

    def _taken_over(self, chain: Chain) -> Answer:
        """dedup_takes_over: the same jobs, an operator's from now on."""
        if chain.origin != "operator":
            chain.origin, chain.guard = "operator", None
        return accepted(chain, "deduplicated")

    def supersede(self, chains: list[Chain]) -> None:
        """A newer intent cancels what is not sent (waits_for_sent_only, sent_is_waited_for)."""
        for chain in chains:
            sent = chain.sent
            if sent is None:
                self.cancel_chain(chain, "superseded")
            elif sent.kind == "unload":
                chain.goal = "unload"
                for job in chain.open:
                    if job is not sent:
                        self.end(job, "cancelled", "superseded")

    # -- jobs ---------------------------------------------------------------------------------

    def cancel(self, job_id: int) -> Answer:
        """The rest of the chain goes; desired goes back to what is left of it."""
        job = self.jobs.get(job_id)
        if job is None:
            return NO_JOB
        if job.state not in ("queued", "running"):
            return Answer(409, "job.finished")
        chain, slot = job.chain, job.slot
        if chain.sent:
            return SENT
        cancelled = tuple(one.id for one in chain.open)
        self.cancel_chain(chain, "cancelled")
        if chain.goal in ("load", "unload"):
            goals = [other.goal for other in self.open_chains(slot)]
            wishes = [goal for goal in goals if goal in ("load", "unload")]
            is_wanted = wishes[-1] == "load" if wishes else slot.state in DISPATCHABLE
            slot.desired, slot.desired_by = "loaded" if is_wanted else "unloaded", "operator"
        return Answer(200, None, cancelled)

    def retry(self, job_id: int) -> Answer:
        """The chain goes to the tail: validate and all after it run again."""
        job = self.jobs.get(job_id)
        if job is None:
            return NO_JOB
        if job.state != "failed":
            return Answer(409, "job.not_failed")
        chain, slot = job.chain, job.slot
        if self.open_chains(slot):
            return Answer(409, "job.superseded")  # retry_409
        if slot.is_deleted:
            return NO_SLOT
        if chain.goal == "load":
            assert chain.key
            if self.is_taken(chain.key.model, slot):
                return TAKEN
            self._want_loaded(slot, chain.key)
        elif chain.goal == "unload":
            self._want_unloaded(slot)
        chain.position, chain.origin, chain.guard = self.tail(), "operator", None
        for again in chain.jobs:
            if again is job or (chain.goal == "load" and again.step >= min(job.step, 1)):
                again.state, again.outcome, again.code, again.file = "queued", None, None, None
                again.crashes = again.sent = again.deadline = 0
                again.waits_since, again.spares = None, False
        self.let_end(slot)
        return Answer(202, None, tuple(one.id for one in chain.open))

    def retry_all(self) -> Answer:
        """Of each slot the newest chain, if that failed; what put it in error behind its checks."""
        queued: tuple[int, ...] = ()
        for slot in sorted(self.slots, key=lambda slot: slot.name):
            failed = self.jobs.get(slot.error[1] or 0) if slot.error else None
            mine = [
                chain
                for chain in self.chains
                if chain.slot is slot
                and not (
                    slot.state == "error"
                    and failed is not None
                    and failed.chain is not chain
                    and chain.goal in ("pull", "validate")
                    and not chain.open
                )
            ]
            newest = max(mine, key=lambda chain: chain.position, default=None)
            for job in newest.jobs if newest else ():
                is_wanted = job.kind == "unload" or job.model == slot.wants.model
                if job.state == "failed" and is_wanted:
                    queued += self.retry(job.id).jobs
        return Answer(200, None, queued)
