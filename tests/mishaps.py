"""What befalls engines and slots, through the public writers: losses, incidents, what was seen."""

from typing import Any

from hal0.clock import monotonic_ms
from hal0.db import Database
from hal0.engines.base import EngineHealth
from hal0.errors import EngineRefused
from hal0.jobs.incidents import Culprit
from hal0.jobs.ledger import breaker
from hal0.jobs.losses import mark_lost
from hal0.jobs.reading import Reading
from hal0.jobs.restore import note
from hal0.registry.roster import engine_named, note_scan
from hal0.slots.queries import stands
from hal0.states import Cause, IncidentKind
from tests.ledger import fail, free_lane
from tests.rows import ask_load, run_load, send_load, slot_now


def load_all(db: Database, *slots: str) -> None:
    """Load these slots, one after another."""
    for slot in slots:
        ask_load(db, slot)
        run_load(db)


def evict_all(
    db: Database, culprit: str = "evil", kind: IncidentKind = IncidentKind.LOAD_FAILED
) -> int:
    """Let a load of `culprit` drop every other model of the engine; return the load's job."""
    ask_load(db, culprit)
    if kind is IncidentKind.LOAD_FAILED:
        held = send_load(db)
        fail(db, held, EngineRefused("no room"))
        free_lane(db, held)
    else:
        held = run_load(db)
    with db.write() as tx:
        engine = engine_named(tx, "default")
        before = stands(tx, engine.id)
        reading = Reading(engine, EngineHealth(None, ()), before)
        mark_lost(tx, reading, Culprit(held.job.slot_id, held.job.id, kind))
    return held.job.id


def note_loss(db: Database, slot: str = "chat", job_id: int | None = None) -> None:
    """Note on a slot that a machine is to load it again."""
    with db.write() as tx:
        note(tx, slot_now(db, slot), Cause.EVICTED_BY_ENGINE, job_id)


def count_loads(db: Database, count: int, slot: str = "chat") -> None:
    """Count automatic loads of a slot as sent."""
    with db.write() as tx:
        for _ in range(count):
            breaker.count_sent(tx, slot_now(db, slot).id)


def see(db: Database, engine: str = "default", **seen: Any) -> None:
    """Let a scan have read what an engine says of itself; what is not given is as of a new one."""
    told: dict[str, Any] = {"version": "11.7.0", "max_models": None, "models": [], "strangers": []}
    with db.soft() as tx:
        note_scan(tx, engine_named(tx, engine), {**told, **seen}, monotonic_ms())
