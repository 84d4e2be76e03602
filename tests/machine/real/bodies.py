"""The real claim, and real bodies that go on when told to."""

from contextlib import suppress
from functools import partial
from typing import Final

from sqlalchemy import Connection, select

from hal0.errors import ClaimLost, SourceNotFound
from hal0.jobs import runner
from hal0.jobs.context import Context
from hal0.jobs.engine_room import Stopping
from hal0.jobs.ledger import claims
from hal0.jobs.ledger.rows import IS_QUEUED, JOB_COLUMNS, Claim, read_job
from hal0.jobs.ledger.runnable import RUNNABLE, moment
from hal0.jobs.waiting import Waits
from hal0.slots.transitions import move
from hal0.states import Cause, JobKind, Outcome, SlotState
from tests.ledger import try_claim
from tests.machine.engine import SteppedBody, here
from tests.machine.real.home import MODELS, BodyKey
from tests.machine.real.users import Users

ALL_RUNNABLE: Final = RUNNABLE.replace("LIMIT 1", "")


class Bodies(Users):
    """Claims, and bodies that go on when told to."""

    def claim(self, worker: str) -> BodyKey | None:
        ctx = self.workers[worker]
        held = try_claim(self.db, ctx.owner.id)
        if held is None:
            return None
        key = held.job.id, held.job.attempt
        self.bodies[key] = SteppedBody(worker, held.job.kind, partial(self._run, ctx, held))
        return key

    def untrue_waits(self) -> list[str]:
        """Tell which queued jobs say that they wait and could be claimed, or the other way."""
        with self.db.read() as tx:
            waits = Waits.read(tx)
            queued = [read_job(row) for row in tx.execute(select(*JOB_COLUMNS).where(IS_QUEUED))]
            now = moment(heavy=True, fetches=True)
            asked = tx.connection.cursor().execute(ALL_RUNNABLE, now)
            runnable = {job_id for (job_id,) in asked.fetchall()}
            told = {job.id: waits.reason(job) for job in queued}
        return [
            f"job {job_id} says {reason!r}, and could{'' if job_id in runnable else ' not'} run"
            for job_id, reason in told.items()
            if (reason is None) != (job_id in runnable)
        ]

    def _run(self, ctx: Context, held: Claim) -> None:
        model = MODELS[(held.chain.model_id or 0) - 1]
        if held.job.kind is JobKind.PULL and not self._file(model).exists():
            with suppress(ClaimLost), ctx.body(held):
                self._fetch(held, model)
        else:
            runner.run(ctx, held)

    def _fetch(self, held: Claim, model: str) -> None:
        """Stand for a pull's body that has bytes to fetch."""

        def begin(tx: Connection) -> None:
            slot = claims.check(tx, held)
            if slot.state in (SlotState.OFFLINE, SlotState.ERROR):
                move(tx, slot, SlotState.PULLING, Cause.FETCH_STARTED, held.act)

        def end(tx: Connection) -> None:
            slot = claims.check(tx, held)
            if held.chain.goal is JobKind.PULL and slot.state is SlotState.PULLING:
                move(tx, slot, SlotState.OFFLINE, Cause.PULLED, held.act)
            claims.finish(tx, held)
            self._put(model, "good")

        self._write(begin)
        body = here()
        assert body
        try:
            body.stand("fetch")
        except SourceNotFound as error:
            self._write(partial(claims.fail, held=held, error=error))
        except Stopping:
            self._write(partial(claims.put_back, held=held, outcome=Outcome.INTERRUPTED))
        else:
            self._write(end)

    def _step(self, key: BodyKey, order: object = None, *, free: bool = False) -> None:
        body = self.bodies[key]
        body.go(order, free=free)
        if body.at == "ended":
            del self.bodies[key]

    def go_on(self, job_id: int, attempt: int, *, to_its_end: bool) -> None:
        """`to_its_end` lets it read health more than once: a look that says nothing is the last."""
        self._step((job_id, attempt), free=to_its_end)

    def fetch_fails(self, job_id: int, attempt: int) -> None:
        self._step((job_id, attempt), SourceNotFound("it is gone"))
