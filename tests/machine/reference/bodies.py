"""Which job runs next, and how its body goes on from where it stands.

A body that lost its claim may go on; it writes nothing (fence).
"""

from tests.machine.reference.engine import Body, Request
from tests.machine.reference.loads import Loads
from tests.machine.reference.rows import LIMIT_MS, Job, Key


class Bodies(Loads):
    """Claims, and the steps of a body."""

    # -- the claim ----------------------------------------------------------------------------

    def claim(self, worker: str) -> tuple[int, int] | None:
        """Take the next runnable job."""
        queued = [job for job in self.jobs.values() if job.state == "queued"]
        for job in sorted(queued, key=lambda job: (job.chain.position, job.step)):
            if self._may_run(job):
                job.state, job.outcome, job.worker = "running", None, worker
                job.attempt += 1
                body = Body(job, job.attempt, worker, watches=job.kind == "load" and bool(job.sent))
                body.until = job.deadline
                self.bodies[job.id, job.attempt] = body
                return job.id, job.attempt
        return None

    def _may_run(self, job: Job) -> bool:
        first = self.open_chains(job.slot)[0].open
        if job is not first[0] or job.not_before > self.now:
            return False
        running = [other for other in self.jobs.values() if other.state == "running"]
        if any(other.slot is job.slot for other in running):  # one_running
            return False
        if job.kind == "pull":
            return not any((o.kind, o.model) == ("pull", job.model) for o in running)
        if job.kind == "unload":  # unload_waits_for_lane
            is_free = self.lane is None or self.lane.job.slot is not job.slot
            return is_free and not self._lets_end(job)
        if job.kind == "load" and not job.sent:
            return (
                self.lane is None  # claim_waits_for_lane
                and not any(o.kind in ("load", "unload") for o in running)  # ..._for_unloads
                and job.slot.mark is None  # unload_unsettled
                and not self._gives_precedence(job)
            )
        return True

    def _lets_end(self, job: Job) -> bool:
        """Whether requests that run have time left before their model is unloaded."""
        chain, since = job.chain, job.waits_since
        if since is None or chain.drain is None:
            return False
        return job.slot.state == "serving" and self.now < since + chain.drain

    def _gives_precedence(self, job: Job) -> bool:
        """What a machine restores is loaded in the order in which it was asked for."""
        return job.chain.origin == "restore" and any(
            (other.kind, other.state, other.chain.origin) == ("load", "queued", "restore")
            and other.chain.position < job.chain.position
            and other.slot.state != "pulling"
            for other in self.jobs.values()
        )

    # -- going on -----------------------------------------------------------------------------

    def go_on(self, job_id: int, attempt: int) -> str:
        """Let a body go on; return where it stands then, or `ended`."""
        body = self.bodies[job_id, attempt]
        step = {
            "claimed": self._begin,
            "fetch": self._fetched,
            "resolve": self._resolve,
            "health": self._look,
            "post": self._post,
        }[body.at]
        return self.comes_to(body, step(body))

    def comes_to(self, body: Body, at: str | None) -> str:
        """Let it stand there, or end; its time to wait runs from before it posts."""
        body.at = at or "ended"
        if body.at == "post":
            body.until = self.now + LIMIT_MS[body.sends]
        elif body.at == "health":
            body.before = self.stands()
        elif body.at == "ended":
            del self.bodies[body.job.id, body.attempt]
        return body.at

    def _begin(self, body: Body) -> str | None:
        job, slot = body.job, body.job.slot
        if job.kind == "load":
            body.found_held = slot.holds(job.chain.key)
            return self._keep_watching(body) if body.watches else "health"
        if job.kind == "unload" and (slot.state == "unloading" or self.may_be_used(job, slot)):
            return "health"
        if not self.holds_claim(body):
            return None
        if job.kind == "pull":
            return self._begin_pull(job, slot)
        if job.kind == "validate":
            return self._begin_validate(job, slot)
        return self._begin_unload(body)

    def _look(self, body: Body) -> str | None:
        """Read the engine's health: before anything is sent, or to learn what became of it."""
        self.looks()
        job = body.job
        if job.kind == "load" and body.verifies:
            return self._verify(body)
        if job.kind == "load" and body.watches:
            return self._watch(body)
        if not self.holds_claim(body):
            return None
        if job.kind == "load":
            return self._decide(body)
        if not body.watches:
            return self._look_for_use(body)
        self._look_after_unload(job, job.slot)
        return None

    def _post(self, body: Body) -> str | None:
        """The request goes, unless nobody listens: then it was not sent."""
        job, slot = body.job, body.job.slot
        if self.engine.is_up:
            key = job.chain.key if job.kind == "load" else Key(str(slot.told), 0)
            assert key
            self.engine.requests.append(Request(body.sends, key, body, self.now))
            return "sent"
        if body.places:
            self.clear_mark(slot, job.id, body.attempt)
            self.defer(job)
        elif job.kind == "unload":
            self.emptied(job, gone=True)
        else:
            self._not_sent(job, slot)
        return None
