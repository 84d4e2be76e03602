"""What the engine's list of loaded models means for slots.

Read first (the last transition of each slot), then health, then write where nothing has moved in
between. A slot with an unfinished job is left to that job. A list that is missing is unknown, not
empty: nothing is concluded from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, insert, select, update

from hal0.clock import utc_now
from hal0.engines.base import EngineHealth
from hal0.errors import EngineError
from hal0.jobs.context import Context
from hal0.jobs.ledger.intake import By, Wish, machine_load
from hal0.jobs.ledger.rows import unfinished_jobs
from hal0.registry.catalog import model_by_id
from hal0.registry.roster import EngineRow, note_failure, note_health
from hal0.slots.queries import Slot, slots_of_engine
from hal0.slots.transitions import Act, move
from hal0.states import Cause, JobKind, Origin, SlotState
from hal0.tables import incidents, models, slots

HEALTH_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Reading:
    """One health of an engine, and where its slots stood before it was read."""

    engine: EngineRow
    health: EngineHealth
    before: Mapping[int, int]
    """slot id → id of its last transition"""

    def lists(self, tx: Connection, slot: Slot) -> bool:
        """Tell whether the engine has what this slot holds, or was last told to load."""
        names, checkpoint = known_by(tx, slot)
        return self.health.find(names, checkpoint) is not None


def known_by(tx: Connection, slot: Slot) -> tuple[frozenset[str], str | None]:
    """Return the names and the file by which an engine's entry would be this slot's."""
    model_id = slot.model_id if slot.model_id is not None else slot.wanted_model_id
    return known_as(tx, model_id, slot.engine_model)


def known_as(
    tx: Connection, model_id: int | None, engine_model: str | None
) -> tuple[frozenset[str], str | None]:
    """Return the names and the file of this model at an engine that calls it `engine_model`."""
    names = {engine_model} if engine_model else set()
    if model_id is None:
        return frozenset(names), None
    model = model_by_id(tx, model_id)
    return frozenset(names | {model.name}), str(model.main.path)


def read_health(ctx: Context, engine: EngineRow, timeout_s: float = HEALTH_S) -> Reading:
    """Note where the slots stand, then read the engine's health. Raises EngineError."""
    with ctx.db.read() as tx:
        before = {slot.id: slot.last_transition_id for slot in slots_of_engine(tx, engine.id)}
    try:
        health = ctx.engines.ask(engine, lambda e: e.health(), timeout_s)
    except EngineError as error:
        row = error.as_row()
        with ctx.db.soft() as tx:
            note_failure(tx, engine.id, row)
        raise
    with ctx.db.soft() as tx:
        note_health(tx, engine.id, health.process)
    return Reading(engine, health, before)


def try_health(ctx: Context, engine: EngineRow, timeout_s: float) -> Reading | None:
    """Read the engine's health if it can be had; None = it cannot."""
    try:
        return read_health(ctx, engine, timeout_s)
    except EngineError:
        return None


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
        if slot.id != culprit.slot_id and _is_lost(tx, slot, reading)
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
    if not slot.is_dispatchable or reading.before.get(slot.id) != slot.last_transition_id:
        return False
    if None not in (slot.engine_process, reading.health.process) and (
        slot.engine_process != reading.health.process
    ):
        return False  # another process: a restart, not an eviction
    return not unfinished_jobs(tx, slot.id) and not reading.lists(tx, slot)


def _evict(tx: Connection, slot: Slot, culprit: Culprit, incident_id: int) -> None:
    act = Act(culprit.actor, culprit.job_id, incident_id=incident_id)
    after = move(tx, slot, SlotState.OFFLINE, Cause.EVICTED_BY_ENGINE, act)
    forget_held(tx, slot.id)
    if culprit.restores and slot.model_id is not None:
        living = tx.execute(
            select(models.c.id).where(models.c.id == slot.model_id, models.c.deleted_at.is_(None))
        ).first()
        if living is not None:
            wish = Wish(JobKind.LOAD, slot.model_id, slot.held_options or {})
            by = By("reconcile", origin=Origin.RESTORE, caused_by_job_id=culprit.job_id)
            machine_load(tx, after, wish, by)


def forget_held(tx: Connection, slot_id: int) -> None:
    """Write that a slot holds nothing; it must have left the dispatchable states before."""
    tx.execute(
        update(slots)
        .where(slots.c.id == slot_id)
        .values(model_id=None, held_options=None, engine_model=None)
    )
