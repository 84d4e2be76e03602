"""One look at each engine: its health read once, and what follows for its slots.

    reconcile   what the list says that slots do not know (`jobs.reconcile`)
    idle        what nobody uses is demoted, then unloaded (`jobs.idle_scan`)
    restore     what is to be loaded again, as far as a machine may (`jobs.restore`)

When that is due is decided in `jobs.rounds`.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, select

from hal0 import points
from hal0.engines.base import LoadedModel
from hal0.errors import EngineError, EngineTimeout, EngineUnreachable
from hal0.jobs import idle_scan, reconcile
from hal0.jobs.context import Context
from hal0.jobs.ledger.breaker import breakers_of
from hal0.jobs.losses import lose_engine
from hal0.jobs.reading import HEALTH_S, QUICK_S, Reading, note_softly, read_health, who_answers
from hal0.jobs.reconcile import Step
from hal0.jobs.restore import restore_due
from hal0.jobs.survey import Survey, survey
from hal0.registry.roster import (
    EngineRow,
    engine_by_id,
    note_absence,
    note_presence,
    note_scan,
)
from hal0.slots.idle import Verdict
from hal0.tables import slots


def scan(ctx: Context, engine: EngineRow) -> int:
    """Look at one engine now; return how many slots moved or got work."""
    try:
        reading = read_health(ctx, engine, HEALTH_S)
    except EngineError as error:
        return _nothing_read(ctx, engine, error)
    if reading.health.models is None:
        return 0
    changed = act_upon(ctx, reading)
    if changed:
        points.reach("scan.done")
        ctx.ring()
    return changed


def _nothing_read(ctx: Context, engine: EngineRow, error: EngineError) -> int:
    """Tell an engine that is gone from one that is slow: only `/live` decides that."""
    if isinstance(error, EngineTimeout):
        is_live = ctx.engines.ask(engine, lambda e: e.is_live(), 2 * QUICK_S)
        row = error.as_row()
        note_softly(
            ctx,
            lambda tx: (
                note_presence(tx, engine.id) if is_live else note_absence(tx, engine.id, row)
            ),
        )
    elif not isinstance(error, EngineUnreachable):
        return 0
    with ctx.db.read() as tx:
        away_ms = engine_by_id(tx, engine.id).away_ms
    if away_ms is None or away_ms < ctx.settings.engine_grace_s * 1000:
        return 0
    return ctx.commit(lambda tx: lose_engine(tx, engine.id, ctx.settings.engine_grace_s * 1000))


def owes(tx: Connection, engine_id: int) -> bool:
    """Whether something that a slot of the engine is to have again may be loaded now."""
    noted = select(slots.c.id).where(
        slots.c.engine_id == engine_id, slots.c.deleted_at.is_(None), slots.c.restore.is_not(None)
    )
    slot_ids = tx.execute(noted).scalars().all()
    found = breakers_of(tx, *slot_ids) if slot_ids else {}
    return any(slot_id not in found or not found[slot_id].refuses for slot_id in slot_ids)


def act_upon(ctx: Context, reading: Reading) -> int:
    """Write what follows from a list; a look that finds nothing new writes nothing of slots."""
    with ctx.db.read() as tx:
        seen = survey(tx, reading)
        steps = reconcile.findings(seen)
        looked = idle_scan.looks(tx, seen, ctx.settings)
        is_owed = owes(tx, reading.engine.id)
        listed = _adoptable(tx, reading, steps)
    serving = who_answers(ctx, reading.engine, listed)
    if steps:
        points.reach("scan.read")
    changed = 0
    if steps:
        changed += ctx.commit(lambda tx: reconcile.apply(tx, seen, steps, serving))
    if any(one.verdict is not Verdict.NOTHING for one in looked):
        changed += ctx.commit(lambda tx: idle_scan.write(tx, looked))
    if is_owed:
        changed += ctx.commit(lambda tx: restore_due(tx, reading.engine.id))
    note_softly(ctx, lambda tx: _remember(tx, seen, looked))
    return changed


def _remember(tx: Connection, seen: Survey, looked: list[idle_scan.Look]) -> None:
    health, engine = seen.reading.health, seen.reading.engine
    idle_scan.remember(tx, looked)
    idle_scan.heal(tx, seen)
    told = {
        "version": health.version,
        "max_models": health.max_models,
        "models": sorted(model.name for model in health.models or ()),
        "strangers": list(seen.strangers),
    }
    note_scan(tx, engine, told, seen.reading.began_ms)


def _adoptable(tx: Connection, reading: Reading, steps: Sequence[Step]) -> list[LoadedModel]:
    """Return the entries that are adopted if their backends answer."""
    return [
        step.entry
        for step in steps
        if step.entry is not None
        and step.finding in reconcile.ADOPTABLE
        and reconcile.may_adopt(tx, step.slot, reading)
    ]
