"""What `pull` and `validate` do; a pull of a missing file stands before it fetches it."""

from tests.machine.reference.engine import Body
from tests.machine.reference.losses import Losses
from tests.machine.reference.rows import Job, Slot


class Checks(Losses):
    """A model's file is brought, and found fit to load."""

    def _begin_pull(self, job: Job, slot: Slot) -> str | None:
        assert job.model
        if job.model in self.files:
            self._end_check(job, "pulling", "pulled", "skipped")
            return None
        if slot.state in ("offline", "error"):
            self.move(slot, "pulling", "fetch_started")
        return "fetch"

    def _fetched(self, body: Body) -> None:
        assert body.job.model
        if self.holds_claim(body):
            self.put_file(body.job.model, "good")
            self._end_check(body.job, "pulling", "pulled", "done")

    def fetch_fails(self, job_id: int, attempt: int) -> None:
        """The source is gone."""
        body = self.bodies.pop((job_id, attempt))
        if self.holds_claim(body):
            self.fail(body.job, "pull.source_not_found")

    def _begin_validate(self, job: Job, slot: Slot) -> str | None:
        assert job.model
        if slot.state in ("offline", "pulling", "error"):
            self.move(slot, "starting", "checked")
        job.file = self.files.get(job.model)
        if job.file is None:
            self.fail(job, "preload.file_not_found")
        elif job.file.content == "bad":
            self.fail(job, "preload.not_a_gguf")
        return "resolve" if job.state == "running" else None

    def _resolve(self, body: Body) -> None:
        job = body.job
        if not self.holds_claim(body):
            return
        if not self.engine.is_up and job.chain.goal == "load":
            self.defer(job)
        elif self.engine.is_up and job.model not in self.files:
            self.fail(job, "preload.engine_file_differs")
        else:
            self._end_check(job, "starting", "validated", "done")

    def _end_check(self, job: Job, state: str, cause: str, outcome: str) -> None:
        """A lone pull or validate leaves the slot offline."""
        if job.chain.goal == job.kind and job.slot.state == state:
            self.move(job.slot, "offline", cause)
        self.end(job, "succeeded", outcome)
