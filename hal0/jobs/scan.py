"""One look at each engine: its health read once, and what follows for its slots.

    reconcile   what the list says that slots do not know (`jobs.reconcile`)
    idle        what nobody uses is demoted, then unloaded (`jobs.idle_scan`)
    restore     what is to be loaded again, as far as a machine may (`jobs.restore`)

Engines are read side by side, so that one that hangs keeps no other waiting. An engine that is well
is looked at every `scan_s`; one that is not, or to which something is to be restored, every few
seconds. Once per turn over all workers (`jobs.periodic`).
"""

import concurrent.futures
import logging
from functools import partial
from typing import Final

from sqlalchemy import Connection, exists, select

from hal0 import points
from hal0.engines.base import LoadedModel
from hal0.errors import EngineError, EngineTimeout, EngineUnreachable
from hal0.jobs import idle_scan, reconcile
from hal0.jobs.context import Context
from hal0.jobs.periodic import is_due
from hal0.jobs.reading import HEALTH_S, QUICK_S, Reading, note_softly, read_health
from hal0.jobs.reconcile import Finding, Step
from hal0.jobs.restore import restore_due
from hal0.jobs.survey import Survey, survey
from hal0.registry.roster import (
    EngineRow,
    all_engines,
    engine_by_id,
    note_absence,
    note_presence,
    note_scan,
)
from hal0.slots.idle import Verdict
from hal0.tables import slots

log = logging.getLogger(__name__)

UNWELL_S: Final = 2.0
"""Seconds between two looks at an engine that did not answer, or that owes its slots something."""


def scan_if_due(ctx: Context) -> None:
    """Look at the engines whose turn it is."""
    with ctx.db.read() as tx:
        engines = all_engines(tx)
        owed = {engine.id for engine in engines if _owes(tx, engine.id)}
    due = [
        engine
        for engine in engines
        if is_due(
            ctx.db,
            f"scan:{engine.id}",
            ctx.settings.scan_s
            if engine.is_well and engine.id not in owed
            else min(UNWELL_S, ctx.settings.scan_s),
        )
    ]
    if len(due) == 1:
        scan(ctx, due[0])
    elif due:
        with concurrent.futures.ThreadPoolExecutor(len(due)) as pool:
            list(pool.map(partial(_scan_apart, ctx), due))


def _owes(tx: Connection, engine_id: int) -> bool:
    noted = exists().where(
        slots.c.engine_id == engine_id, slots.c.deleted_at.is_(None), slots.c.restore.is_not(None)
    )
    return bool(tx.execute(select(noted)).scalar_one())


def _scan_apart(ctx: Context, engine: EngineRow) -> None:
    """Scan one engine so that its trouble is not another's."""
    try:
        scan(ctx, engine)
    except Exception:
        if ctx.stopping.is_set():
            raise
        log.exception("engine %s is not scanned", engine.name)


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
    return ctx.commit(lambda tx: reconcile.lose_engine(tx, engine_by_id(tx, engine.id)))


def act_upon(ctx: Context, reading: Reading) -> int:
    """Write what follows from a list; a look that finds nothing new writes nothing of slots."""
    with ctx.db.read() as tx:
        seen = survey(tx, reading)
        steps = reconcile.findings(seen)
        looked = idle_scan.looks(tx, seen, ctx.settings)
        is_owed = _owes(tx, reading.engine.id)
    serving = _serving(ctx, reading.engine, steps)
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
    note_scan(tx, engine, told)


def _serving(ctx: Context, engine: EngineRow, steps: list[Step]) -> list[LoadedModel]:
    """Return the entries that may be adopted and whose backends answer."""
    found = [
        step.entry
        for step in steps
        if step.finding in (Finding.LISTED, Finding.RETURNED) and step.entry is not None
    ]
    return [entry for entry in found if _answers(ctx, engine, entry)]


def _answers(ctx: Context, engine: EngineRow, entry: LoadedModel) -> bool:
    try:
        return ctx.engines.ask(engine, lambda e: e.answers(entry), QUICK_S)
    except EngineError:
        return False
