"""How a load ends: ready, failed, timed out, or with its engine gone; each is one commit.

Slot, job, attempt, lane, and whatever else the engine dropped meanwhile change together, or not at
all. Who calls these has seen the engine's answer, or its silence (`jobs.load`).
"""

from typing import Any, Final

from sqlalchemy import Connection, update

from hal0.clock import boot_id, monotonic_ms, utc_now
from hal0.engines.base import LoadedModel
from hal0.engines.options import is_as_wanted
from hal0.errors import EngineBadAnswer, EngineRestarted, Hal0Error, LoadTimeout
from hal0.jobs.context import Body, Context
from hal0.jobs.engine_room import Stopping
from hal0.jobs.incidents import Culprit
from hal0.jobs.ledger.breaker import note_ready
from hal0.jobs.ledger.claims import check, fail, finish
from hal0.jobs.ledger.intake import forget_failed_key
from hal0.jobs.ledger.lane import Lane, lane_of, release
from hal0.jobs.ledger.rows import Claim, chain_by_id, jobs_of_chain
from hal0.jobs.losses import forget_held, mark_lost
from hal0.jobs.reading import QUICK_S, Reading, try_health, who_answers
from hal0.jobs.settle import unload_leftover
from hal0.registry.catalog import model_by_id
from hal0.registry.files import FileIdentity
from hal0.registry.roster import engine_by_id
from hal0.slots.queries import slot_by_id
from hal0.slots.times import times_of
from hal0.slots.transitions import move
from hal0.states import Cause, IncidentKind, JobKind, Origin, SlotState
from hal0.tables import slots

POLL_S: Final = 0.1


class LoadUnderWay:
    """One load, what it is of, and its ends."""

    def __init__(self, ctx: Context, body: Body) -> None:
        self.ctx = ctx
        self.body = body
        job = body.held.job
        with ctx.db.read() as tx:
            self.slot = slot_by_id(tx, job.slot_id)  # as it was when the body began
            self.engine = engine_by_id(tx, job.engine_id)
            assert job.model_id is not None
            self.model = model_by_id(tx, job.model_id)

    @property
    def held(self) -> Claim:
        """The claim, as its row was read last."""
        return self.body.held

    @property
    def culprit(self) -> Culprit:
        """Who is to blame for what the engine dropped, if this load fails."""
        return Culprit(self.held.job.slot_id, self.held.job.id, IncidentKind.LOAD_FAILED)

    # -- the ends -----------------------------------------------------------------------------

    def become_ready(self, reading: Reading) -> None:
        """Write the success: ready, or idle after a restore, which nobody waits for."""
        lasted_s = self.lasted_s()

        def write(tx: Connection) -> None:
            slot = check(tx, self.held)
            model_id, options = self.held.load_key_args
            now = utc_now()
            tx.execute(
                update(slots)
                .where(slots.c.id == slot.id)
                .values(
                    model_id=model_id,
                    held_options=dict(options),
                    engine_process=reading.health.process,
                    last_used_at=now,
                    error=None,
                )
            )
            to = SlotState.READY if self.is_waited_for(tx) else SlotState.IDLE
            move(tx, slot, to, Cause.LOADED, self.held.act, {"load_s": lasted_s})
            note_ready(tx, slot.id)
            forget_failed_key(tx, slot.id, model_id, options)
            self.release(tx)
            finish(tx, self.held, result={"load_s": lasted_s})
            made_room = Culprit(slot.id, self.held.job.id, IncidentKind.LOAD_MADE_ROOM)
            mark_lost(tx, reading, made_room)

        self.ctx.commit(write)

    def settle_failed(self, error: Hal0Error) -> None:
        """The engine has answered and the load failed: say so, mark what else it lost."""
        reading = unload_leftover(self.ctx, self.held, self.engine)

        def write(tx: Connection) -> None:
            slot = fail(tx, self.held, error)
            if reading is None or reading.health.models is None:
                return  # the lane stays until `jobs.settle` can read what this load cost
            self.release(tx)
            if not reading.lists(tx, slot):
                forget_held(tx, slot.id)
            mark_lost(tx, reading, self.culprit)

        self.ctx.commit(write)

    def engine_gone(self, why: str, reading: Reading | None = None) -> None:
        """The process that had the request is no more: offline, and no machine sends it again."""
        error = EngineRestarted(f"load of {self.name}: {why}; retry job {self.held.job.id}")

        def write(tx: Connection) -> None:
            slot = check(tx, self.held)
            if slot.state is SlotState.WARMING:
                move(tx, slot, SlotState.OFFLINE, Cause.ENGINE_RESTARTED, self.held.act)
            fail(tx, self.held, error)
            forget_held(tx, slot.id)
            self.release(tx)
            mark_lost(tx, reading, self.culprit)

        self.ctx.commit(write)

    def time_out(self) -> None:
        """The limit has passed: the job fails, the lane stays with the engine (ADR-0007)."""
        limit_s = self.limit_s()
        error = LoadTimeout(
            f"{self.name} was not ready within {limit_s:g} s; the engine may still load it, and "
            f"what arrives late is unloaded. Retry job {self.held.job.id}, with a larger "
            "limit set before if the model needs it (`hal0 slot set SLOT --load-timeout 600`)",
            evidence={"limit_s": limit_s, "engine": self.engine.name},
        )
        reading = try_health(self.ctx, self.engine, QUICK_S)

        def write(tx: Connection) -> None:
            fail(tx, self.held, error, Cause.DEADLINE_PASSED)
            mark_lost(tx, reading, self.culprit)

        self.ctx.commit(write)

    # -- small questions ----------------------------------------------------------------------

    @property
    def name(self) -> str:
        """How messages call this load."""
        return f"model {self.model.name} for slot {self.slot.name}"

    def limit_s(self) -> float:
        """Return the wall-clock limit of this load, by the size of the files that were checked."""
        with self.ctx.db.read() as tx:
            files = validated(tx, self.held)["files"]
        size = sum(FileIdentity.from_json(file["identity"]).size_bytes for file in files)
        return times_of(self.slot, self.ctx.settings).load_limit_s(size)

    def is_past_deadline(self) -> bool:
        """Whether the wall-clock limit of the slot is over, on this boot."""
        job = self.held.job
        return job.deadline_boot != boot_id() or monotonic_ms() >= (job.deadline_ms or 0)

    def is_waited_for(self, tx: Connection) -> bool:
        """Whether somebody waits for this load now, who may have taken a restore's chain over."""
        return chain_by_id(tx, self.held.chain.id).origin is not Origin.RESTORE

    def lane(self) -> Lane | None:
        """Return the engine's lane if this job holds it."""
        with self.ctx.db.read() as tx:
            lane = lane_of(tx, self.engine.id)
        return lane if lane is not None and lane.job_id == self.held.job.id else None

    def release(self, tx: Connection) -> None:
        """Free the lane of the attempt that sent the load."""
        attempt = self.held.job.sent_attempt or self.held.job.attempt
        release(tx, self.engine.id, self.held.job.id, attempt)

    def listed(self, reading: Reading) -> LoadedModel | None:
        """Return the entry of the model that was validated: its file, not only its name."""
        with self.ctx.db.read() as tx:
            facts = validated(tx, self.held)
        path = facts["files"][0]["path"]
        entry = reading.health.find(frozenset({str(facts["engine_model"])}), path)
        if entry is None or entry.checkpoint not in (None, path, facts.get("checkpoint")):
            return None
        return entry

    def is_serving(self, reading: Reading) -> bool | None:
        """Whether the model's backend answers; None = health does not list the model."""
        entry = self.listed(reading)
        return None if entry is None else bool(who_answers(self.ctx, self.engine, [entry]))

    def has_arrived(self, reading: Reading) -> bool:
        """Whether the engine has what this load asks for, and it answers.

        With other options it is what was there before: the engine owes this load still.
        """
        entry = self.listed(reading)
        if entry is None or not is_as_wanted(self.held.load_key_args[1], entry.options):
            return False
        return bool(who_answers(self.ctx, self.engine, [entry]))

    def lasted_s(self) -> float:
        """Return how long ago the load was sent, in seconds of wall time, for people."""
        with self.ctx.db.read() as tx:
            lane = lane_of(tx, self.engine.id)
        if lane is None:
            return 0.0
        lasted_s = (utc_now() - lane.sent_at).total_seconds()
        return max(0.0, round(lasted_s, 3))  # the clock may have been set

    def pause(self) -> None:
        """Wait for the next look; raises Stopping when there is to be none."""
        if self.body.lost.is_set() or self.ctx.stopping.wait(POLL_S):
            raise Stopping


def validated(tx: Connection, held: Claim) -> dict[str, Any]:
    """Return what the chain's own validate job found."""
    for job in jobs_of_chain(tx, held.chain.id):
        if job.kind is JobKind.VALIDATE and job.result is not None:
            return dict(job.result)
    raise EngineBadAnswer(f"chain {held.chain.id} was never validated")
