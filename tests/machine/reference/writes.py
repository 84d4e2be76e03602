"""How slots, chains, jobs and the lane are written: the only writers."""

from tests.machine.reference.rows import (
    CRASH_LIMIT,
    DISPATCHABLE,
    DRAIN_MS,
    ENGINE_WAIT_MS,
    KINDS,
    TRANSIENT,
    Chain,
    Incident,
    Job,
    Key,
    Lane,
    Slot,
)


class Rows:
    """Everything that is written, and its writers."""

    def __init__(self) -> None:
        self.now = self.wall = 0
        self.acts = 0
        """Counts what somebody may find changed: the uses of a slot, the files of a model."""
        self.all_slots: list[Slot] = []
        self.chains: list[Chain] = []
        self.jobs: dict[int, Job] = {}
        self.lane: Lane | None = None
        self.incidents: list[Incident] = []

    def tick(self, ms: int) -> None:
        """Time passes, on both clocks."""
        self.now += ms
        self.wall += ms

    # -- reading ------------------------------------------------------------------------------

    @property
    def slots(self) -> list[Slot]:
        """The living slots, oldest first."""
        return [slot for slot in self.all_slots if not slot.is_deleted]

    def slot(self, name: str) -> Slot | None:
        """The living slot of this name."""
        return next((slot for slot in self.slots if slot.name == name), None)

    def open_chains(self, slot: Slot) -> list[Chain]:
        """The slot's unfinished chains in their order."""
        mine = [chain for chain in self.chains if chain.slot is slot and chain.open]
        return sorted(mine, key=lambda chain: chain.position)

    # -- slots --------------------------------------------------------------------------------

    def move(self, slot: Slot, to: str, cause: str, by: Incident | None = None) -> None:
        """The only writer of a slot's state."""
        slot.history.append(f"{slot.state}>{to} {cause}")
        if slot.state == "serving" and to not in DISPATCHABLE:
            slot.leases.clear()
        slot.state, slot.since = to, self.wall
        if by is not None:
            by.moved.append(slot.id)
        if to != "error" and to not in TRANSIENT:
            slot.error = None

    def incident(self, kind: str, job: Job | None = None) -> Incident:
        """One event of the engine, under one number."""
        self.incidents.append(Incident(kind, None if job is None else job.id))
        return self.incidents[-1]

    # -- chains and jobs ----------------------------------------------------------------------

    def tail(self) -> int:
        """The place behind every chain."""
        return max((chain.position for chain in self.chains), default=0) + 1

    def add_chain(
        self, slot: Slot, goal: str, origin: str, key: Key | None, *, force: bool = False
    ) -> Chain:
        """A load is always pull, validate, unload, load; all else a chain of one."""
        chain = Chain(len(self.chains) + 1, slot, self.tail(), goal, origin, key, force)
        is_told = origin == "operator" and goal in ("load", "unload")
        chain.drain = DRAIN_MS if is_told else None
        for kind in KINDS if goal == "load" else (goal,):
            job = Job(len(self.jobs) + 1, chain, kind)
            chain.jobs.append(job)
            self.jobs[job.id] = job
        self.chains.append(chain)
        self.let_end(slot)
        return chain

    def drains_for(self, slot: Slot) -> Job | None:
        """The operator's unload that takes away what requests could use now."""
        chain = next(iter(self.open_chains(slot)), None)
        if chain is None or chain.open[0].kind != "unload" or chain.origin != "operator":
            return None
        is_emptied = slot.state in DISPATCHABLE and (
            chain.goal == "unload" or not slot.holds(chain.key)
        )
        return chain.open[0] if is_emptied else None

    def let_end(self, slot: Slot) -> None:
        """The time of requests that run begins when an unload comes next."""
        job = self.drains_for(slot)
        if job is None or slot.state != "serving" or job.waits_since is not None:
            return
        if job.state == "queued" and not job.chain.force and job.chain.drain is not None:
            job.waits_since = self.now

    def end(self, job: Job, state: str, outcome: str, code: str | None = None) -> None:
        """An attempt is over, and with it the job, unless it is queued again."""
        job.state, job.outcome, job.worker = state, outcome, None
        if state != "queued":
            job.code = code
        if state == "succeeded":
            self.let_end(job.slot)

    def put_back(self, job: Job, outcome: str, *, crashed: bool = False, after_ms: int = 0) -> None:
        """The attempt is over, the job is not: queued again in its old place."""
        self.end(job, "queued", outcome)
        job.crashes = job.crashes + 1 if crashed else 0
        job.not_before = self.now + after_ms

    def fail(self, job: Job, code: str, cause: str = "job_failed") -> None:
        """The rest of the chain goes along; only a transient slot goes to error."""
        self.end(job, "failed", "failed", code)
        for rest in job.chain.open:
            self.end(rest, "cancelled", "cancelled", code)
        slot = job.slot
        if job.kind == "load" and job.sent:
            assert job.chain.key
            slot.bad[job.chain.key] = code  # bad_key
        if slot.state in TRANSIENT:
            self.move(slot, "error", cause)
            slot.error, slot.held, slot.is_cleared = (code, job.id), None, False

    def wait_on(self, job: Job, after_ms: int) -> None:
        """Queued again, and remembers since when it waits."""
        self.put_back(job, "deferred", after_ms=after_ms)
        if job.waits_since is None:
            job.waits_since = self.now

    def cancel_chain(self, chain: Chain, outcome: str) -> None:
        """cancel_moves_slot: the state that the chain owned goes with it."""
        slot = chain.slot
        is_first = self.open_chains(slot)[0] is chain
        for job in chain.open:
            self.end(job, "cancelled", outcome)
        if is_first and slot.state in ("pulling", "starting"):
            self.move(slot, "offline", "cancelled")

    def release(self, job: Job, attempt: int) -> bool:
        """lane_names_attempt: nobody frees what another attempt holds."""
        is_its = self.lane is not None and (self.lane.job, self.lane.attempt) == (job, attempt)
        if is_its:
            self.lane = None
        return is_its

    def clear_mark(self, slot: Slot, job_id: int, attempt: int) -> bool:
        """Only by its whole name, as the lane."""
        is_its = slot.mark is not None and slot.mark[:2] == (job_id, attempt)
        if is_its:
            slot.mark = None
        return is_its

    def defer(self, job: Job) -> None:
        """Nothing was sent: the job waits for its engine, but not for ever."""
        waited = 0 if job.waits_since is None else self.now - job.waits_since
        if waited >= ENGINE_WAIT_MS:
            self.fail(job, "engine.unreachable")
        else:
            pause = min(max(500, waited // 2), 10_000, max(100, ENGINE_WAIT_MS - waited))
            self.wait_on(job, pause)

    def rescue_job(self, job: Job) -> None:
        """Back to the queue, unless it has killed one worker too many (crash_limit)."""
        if job.crashes + 1 < CRASH_LIMIT:
            self.put_back(job, "interrupted", crashed=True)
        else:
            self.fail(job, "job.worker_crashed", "worker_lost")
