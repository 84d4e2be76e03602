"""What the engine, the clock, dying workers and settling hands do."""

from sqlalchemy import Connection, Table, update

from hal0.clock import boot_id
from hal0.engines.base import LoadedModel
from hal0.errors import EngineBadAnswer, EngineRefused
from hal0.jobs import rescue
from hal0.jobs.boot import first_act
from hal0.jobs.engine_room import Stopping
from hal0.jobs.leases import clear_leases
from hal0.jobs.ledger import claims
from hal0.jobs.reading import QUICK_S, try_health
from hal0.jobs.reconcile import apply, findings
from hal0.jobs.scan import scan
from hal0.jobs.settle import settle_all
from hal0.jobs.survey import Survey, survey
from hal0.registry.roster import EngineRow, engine_named
from hal0.tables import (
    boots,
    breakers,
    engine_lane,
    engines,
    idle_windows,
    jobs,
    owners,
    slots,
)
from tests.machine.engine import LEAVE, answer
from tests.machine.real.bodies import Bodies
from tests.machine.reference.rows import LIMIT_MS


class Real(Bodies):
    """Everything that can happen."""

    # -- what the engine does -------------------------------------------------------------------

    def answer(self, number: int, how: str) -> None:
        request = self.engine.requests.pop(number)
        value: object = None
        if how in ("fail", "fail_evicting"):
            value = EngineRefused("the engine says no")
            if how == "fail_evicting" and request.kind == "load":
                self.engine.clear()
        elif request.kind == "load":
            self.engine.load(request.model, request.ctx_size)
            if how == "hollow":
                self.engine.dead.add(request.model)
        else:
            value = self.engine.unload(request.model)
        answer(request, value, is_believed=value is None and how == "ok")
        self._forget_ended()

    def drop(self, number: int) -> None:
        answer(self.engine.requests[number], EngineBadAnswer("the connection broke"))
        self._forget_ended()

    def engine_dies(self) -> None:
        self.engine.is_up = False
        self.engine.clear()
        requests, self.engine.requests = self.engine.requests, []
        for request in requests:
            answer(request, EngineBadAnswer("the connection broke"))
        self._forget_ended()

    def engine_starts(self) -> None:
        self.engine.is_up = True
        self.engine.process += 1

    def engine_loads(self, model: str, ctx_size: int) -> None:
        if self.engine.is_up:
            self.engine.load(model, ctx_size)

    def engine_loses(self, model: str) -> None:
        self.engine.unload(model)

    def backend_dies(self, model: str) -> None:
        if model in self.engine.loaded:
            self.engine.dead.add(model)

    def used_past_us(self, model: str, how: str) -> None:
        if model not in self.engine.loaded:
            return
        if how != "ends":
            self.engine.use(model)
        if how == "begins":
            self.engine.busy.add(model)
        else:
            self.engine.busy.discard(model)

    def file_becomes(self, model: str, content: str | None) -> None:
        if content is None:
            self._file(model).unlink(missing_ok=True)
        else:
            self._put(model, content)

    # -- time ---------------------------------------------------------------------------------

    def pass_time(self, ms: int) -> None:
        self.clock.tick(ms)
        waiting = {one.body: LIMIT_MS[one.kind] for one in self.engine.requests if one.body}
        for key, body in sorted(self.bodies.items()):
            if body.at == "sent" and body.posts_since_ms + waiting[body] <= self.clock.ms:
                self._step(key, LEAVE, free=True)

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
        clear_leases(self.workers[worker])
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
        """Read and laid beside the slots at once: what is written by it may be as old as can be."""
        self.seen = None
        ctx = next(iter(self.workers.values()))
        reading = try_health(ctx, self._engine_row(), QUICK_S)
        if reading is not None:
            with self.db.read() as tx:
                self.seen = survey(tx, reading)

    def write_reading(self) -> None:
        seen, self.seen = self.seen, None
        if seen is not None:
            steps, serving = findings(seen), self._serving(seen)
            self._write(lambda tx: apply(tx, seen, steps, serving))

    def _serving(self, seen: Survey) -> list[LoadedModel]:
        dead = self.engine.dead
        return [
            entry
            for entry in seen.reading.health.models or ()
            if entry.name in self.engine.loaded and entry.name not in dead
        ]

    def scan(self, worker: str, how: str = "well") -> None:
        self.engine.mood = how
        scan(self.workers[worker], self._engine_row())
        self.engine.mood = "well"

    def _engine_row(self) -> EngineRow:
        with self.db.read() as tx:
            return engine_named(tx, "default")

    # -- the host -------------------------------------------------------------------------------

    def reboot(self, *successors: str) -> None:
        for worker in list(self.workers):
            self._end(worker)
        self.engine_dies()
        self.seen, self.asked = None, []
        self.clock.reboot()
        self._write(self._as_of_an_earlier_boot)
        first_act(self.db, "local")
        self._start_apis()
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
            (breakers, "sent_boot"),
            (engines, "healthy_boot_id"),
            (engines, "scanned_boot"),
            (engines, "unreachable_boot"),
            (idle_windows, "since_boot"),
        ]
        for table, column in told:
            now = table.c[column] == boot_id()
            tx.execute(update(table).where(now).values({column: earlier}))
