"""What the engine's list of loaded models means for slots.

Written only where nothing has moved since the list was read. A slot with an unfinished job is left
to it, and an engine with a load in its lane to whoever settles that. A list that is missing is
unknown, not empty: nothing is concluded from it.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection, insert, select, update

from hal0 import points
from hal0.clock import utc_now
from hal0.jobs.context import Context
from hal0.jobs.ledger.intake import Wish, machine_load
from hal0.jobs.ledger.lane import lane_of
from hal0.jobs.ledger.rows import By, unfinished_jobs
from hal0.jobs.reading import Reading, try_health
from hal0.registry.roster import EngineRow, all_engines
from hal0.slots.queries import Slot, slots_of_engine
from hal0.slots.transitions import Act, move
from hal0.states import Cause, Desired, JobKind, Origin, SlotState
from hal0.tables import incidents, models, slots

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Culprit:
    """The load on whose account an engine dropped other models."""

    slot_id: int
    job_id: int
    actor: str
    kind: str
    """`load_failed` or `load_made_room`, the incident's kind"""

    @property
    def restores(self) -> bool:
        """Whether what was lost comes back: not after a load that succeeded (LRU).

        Two slots would evict each other for ever.
        """
        return self.kind == "load_failed"


def mark_lost(tx: Connection, reading: Reading | None, culprit: Culprit) -> int:
    """Mark every slot whose model the engine dropped, under one incident; return how many.

    Desired ones get a machine's load again when the culprit failed; the culprit never does.
    """
    if reading is None or reading.health.models is None:
        return 0
    lost = [
        slot
        for slot in slots_of_engine(tx, reading.engine.id)
        if slot.id != culprit.slot_id
        and not reading.is_of_another_process(slot.engine_process)  # a restart, not an eviction
        and _is_lost(tx, slot, reading)
    ]
    if not lost:
        return 0
    incident_id = record_incident(
        tx,
        reading.engine.id,
        culprit,
        f"engine {reading.engine.name} dropped {len(lost)} other model(s)",
        {"slots": [slot.name for slot in lost]},
    )
    for slot in lost:
        _evict(tx, slot, culprit, incident_id)
    return len(lost)


def record_incident(
    tx: Connection,
    engine_id: int,
    culprit: Culprit,
    detail: str,
    evidence: Mapping[str, object] | None = None,
) -> int:
    """Insert an incident of this engine, on the culprit's account."""
    incident_id: int = tx.execute(
        insert(incidents)
        .values(
            engine_id=engine_id,
            kind=culprit.kind,
            slot_id=culprit.slot_id,
            job_id=culprit.job_id,
            at=utc_now(),
            detail=detail,
            evidence=None if evidence is None else dict(evidence),
        )
        .returning(incidents.c.id)
    ).scalar_one()
    return incident_id


def _is_lost(tx: Connection, slot: Slot, reading: Reading) -> bool:
    """Whether a slot that no job works on has not moved, and the engine has its model no more."""
    if not slot.is_dispatchable or reading.before.get(slot.id) != slot.last_transition_id:
        return False
    return not unfinished_jobs(tx, slot.id) and not reading.lists(tx, slot)


def _evict(tx: Connection, slot: Slot, culprit: Culprit, incident_id: int) -> None:
    act = Act(culprit.actor, culprit.job_id, incident_id=incident_id)
    after = move(tx, slot, SlotState.OFFLINE, Cause.EVICTED_BY_ENGINE, act)
    forget_held(tx, slot.id)
    if culprit.restores:
        _restore(tx, slot, after, culprit.job_id)


def _restore(tx: Connection, was: Slot, now: Slot, because_of_job_id: int | None) -> None:
    """Have a machine load again what the slot held, where a machine may."""
    living = tx.execute(
        select(models.c.id).where(models.c.id == was.model_id, models.c.deleted_at.is_(None))
    ).first()
    if living is not None:
        wish = Wish(JobKind.LOAD, was.model_id, was.held_options or {})
        by = By("reconcile", origin=Origin.RESTORE, caused_by_job_id=because_of_job_id)
        machine_load(tx, now, wish, by)


def forget_held(tx: Connection, slot_id: int) -> None:
    """Write that a slot holds nothing; it must have left the dispatchable states before."""
    tx.execute(
        update(slots)
        .where(slots.c.id == slot_id)
        .values(model_id=None, held_options=None, engine_model=None, engine_model_id=None)
    )


def reconcile(ctx: Context) -> int:
    """Compare every engine's list with its slots once; return how many slots moved."""
    with ctx.db.read() as tx:
        engines = all_engines(tx)
    moved = 0
    for engine in engines:
        try:
            moved += _reconcile_one(ctx, engine)
        except Exception:  # one engine's trouble is not another's
            if ctx.stopping.is_set():
                raise
            log.exception("engine %s is not reconciled", engine.name)
    if moved:
        ctx.ring()
    return moved


def _reconcile_one(ctx: Context, engine: EngineRow) -> int:
    reading = try_health(ctx, engine, timeout_s=10.0)
    if reading is None or reading.health.models is None:
        return 0
    moved = ctx.commit(partial(reconcile_engine, reading=reading))
    if moved:
        points.reach("reconcile.done")
    return moved


def reconcile_engine(tx: Connection, reading: Reading) -> int:
    """Move the slots whose model this engine has no more; return how many."""
    lane = lane_of(tx, reading.engine.id)
    if lane is not None or reading.lane is not None:
        return 0  # who settles the lane marks what its load cost
    mine = slots_of_engine(tx, reading.engine.id)
    lost = [slot for slot in mine if _is_lost(tx, slot, reading)]
    for slot in lost:
        after = write_loss(tx, slot, reading, Act("reconcile"))
        if after.cause == Cause.ENGINE_RESTARTED:
            _restore(tx, slot, after, None)
        elif None not in (slot.engine_process, reading.health.process):
            tx.execute(update(slots).where(slots.c.id == slot.id).values(desired=Desired.UNLOADED))
    return len(lost)


def write_loss(tx: Connection, slot: Slot, reading: Reading, act: Act) -> Slot:
    """Write that an engine does not have any more what a slot holds.

    Gone with the process that had it, or unloaded in the engine's own app. Where the process cannot
    be told, it may have been restarted: what an operator wants is left as it is then.
    """
    is_restart = reading.is_of_another_process(slot.engine_process)
    cause = Cause.ENGINE_RESTARTED if is_restart else Cause.UNLOADED_ELSEWHERE
    after = move(tx, slot, SlotState.OFFLINE, cause, act)
    forget_held(tx, slot.id)
    return after
