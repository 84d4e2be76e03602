"""What the engine, the clock, dying workers and settling hands do."""

from sqlalchemy import Connection, Table, select, update

from hal0.clock import boot_id
from hal0.errors import EngineBadAnswer, EngineRefused
from hal0.jobs import rescue
from hal0.jobs.boot import first_act
from hal0.jobs.engine_room import Stopping
from hal0.jobs.ledger import claims
from hal0.jobs.reading import read_health
from hal0.jobs.reconcile import reconcile_engine
from hal0.jobs.settle import settle_all
from hal0.registry.roster import engine_named
from hal0.tables import boots, engine_lane, jobs, owners, slots
from tests.machine.engine import LEAVE, answer
from tests.machine.real.bodies import Bodies


class Real(Bodies):
    """Everything that can happen."""

    # -- what the engine does -------------------------------------------------------------------

    def answer(self, number: int, how: str) -> None:
        request = self.engine.requests.pop(number)
        value: object = None
        if how != "ok":
            value = EngineRefused("the engine says no")
            if how == "fail_evicting" and request.kind == "load":
                self.engine.loaded.clear()
        elif request.kind == "load":
            self.engine.load(request.model, request.ctx_size)
        else:
            value = self.engine.loaded.pop(request.model, None) is not None
        answer(request, value)
        self._forget_ended()

    def drop(self, number: int) -> None:
        answer(self.engine.requests[number], EngineBadAnswer("the connection broke"))
        self._forget_ended()

    def engine_dies(self) -> None:
        self.engine.is_up = False
        self.engine.loaded.clear()
        requests, self.engine.requests = self.engine.requests, []
        for request in requests:
            answer(request, EngineBadAnswer("the connection broke"))
        self._forget_ended()

    def engine_starts(self) -> None:
        self.engine.is_up = True
        self.engine.process += 1

    def engine_loses(self, model: str) -> None:
        self.engine.loaded.pop(model, None)

    def file_becomes(self, model: str, content: str | None) -> None:
        if content is None:
            self._file(model).unlink(missing_ok=True)
        else:
            self._put(model, content)

    # -- time ---------------------------------------------------------------------------------

    def pass_time(self, ms: int) -> None:
        self.clock.tick(ms)
        for key, body in sorted(self.bodies.items()):
            if body.at == "sent" and self._deadline_of(key[0]) <= self.clock.ms:
                self._step(key, LEAVE, free=True)

    def _deadline_of(self, job_id: int) -> int:
        with self.db.read() as tx:
            return int(
                tx.execute(select(jobs.c.deadline_ms).where(jobs.c.id == job_id)).scalar_one()
            )

    def wall_steps(self, seconds: int) -> None:
        self.clock.step(seconds)

    # -- workers ------------------------------------------------------------------------------

    def kill(self, worker: str, successor: str) -> None:
        self._end(worker)
        self._start(successor)

    def stop(self, worker: str, successor: str) -> None:
        ctx = self.workers[worker]
        for key in self._of(worker):
            if self.bodies[key].at == "post":
                self._step(key)
        ctx.stopping.set()
        for key in self._of(worker):
            at = self.bodies[key].at
            if at != "claimed":
                self._step(key, LEAVE if at == "sent" else Stopping())
        self._write(lambda tx: rescue.leave(tx, ctx.owner.id))
        self.kill(worker, successor)

    def rescue(self, worker: str) -> None:
        rescue.rescue_dead(self.workers[worker])
        rescue.recover_unowned(self.workers[worker])

    def take(self, job_id: int, attempt: int) -> None:
        self._write(
            lambda tx: rescue.rescue(
                tx, claims.running_claim(tx, job_id), self.settings.crash_limit
            )
        )

    def miss_bodies(self, worker: str) -> None:
        ctx, watch = self.workers[worker], rescue.Watch()
        rescue.rescue_bodiless(ctx, watch)
        self.pass_time(6000)
        rescue.rescue_bodiless(ctx, watch)

    # -- settling and reconciling ---------------------------------------------------------------

    def settle(self, worker: str) -> None:
        settle_all(self.workers[worker])

    def read_health(self) -> None:
        self.reading = None
        ctx = next(iter(self.workers.values()))
        if self.engine.is_up:
            with self.db.read() as tx:
                row = engine_named(tx, "default")
            self.reading = read_health(ctx, row)

    def write_reading(self) -> None:
        reading, self.reading = self.reading, None
        if reading is not None:
            self._write(lambda tx: reconcile_engine(tx, reading))

    # -- the host -------------------------------------------------------------------------------

    def reboot(self, *successors: str) -> None:
        for worker in list(self.workers):
            self._end(worker)
        self.engine_dies()
        self.reading = None
        self.clock.reboot()
        self._write(self._as_of_an_earlier_boot)
        first_act(self.db, "local")
        for name in successors:
            self._start(name)

    def _as_of_an_earlier_boot(self, tx: Connection) -> None:
        earlier = f"boot-{len(self.names)}"
        told: list[tuple[Table, str]] = [
            (boots, "boot_id"),
            (owners, "boot_id"),
            (jobs, "run_after_boot"),
            (jobs, "deferred_boot"),
            (jobs, "deadline_boot"),
            (engine_lane, "settle_boot"),
            (slots, "unload_settle_boot"),
        ]
        for table, column in told:
            now = table.c[column] == boot_id()
            tx.execute(update(table).where(now).values({column: earlier}))
