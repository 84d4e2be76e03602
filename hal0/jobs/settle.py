"""How an engine settles what it owes when a job is over: late loads, unanswered unloads (ADR-0007).

A lane outlives its job until its request is settled: answered; or the model arrived late, and is
unloaded while the lane is still held; or the engine is another process; or `settle_by` passed and
no model of the engine is busy. Only one hand settles a lane: the owner that sent it while it lives,
else whoever takes it over by compare-and-set. A late arrival is never adopted. What is listed with
other options than the load's was there before, as long as the engine has not answered.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, select, update

from hal0 import logs, points
from hal0.clock import boot_id, monotonic_ms
from hal0.engines.base import Engine, LoadedModel
from hal0.engines.options import is_as_wanted
from hal0.errors import EngineError
from hal0.jobs.context import Context
from hal0.jobs.incidents import Culprit, record
from hal0.jobs.ledger.lane import (
    Lane,
    clear_unload_mark,
    is_unload_overdue,
    lane_of,
    lanes,
    note_answered,
    release,
)
from hal0.jobs.ledger.rows import Claim, chain_by_id, job_by_id
from hal0.jobs.losses import mark_lost
from hal0.jobs.owners import is_alive, living_rows
from hal0.jobs.reading import Reading, known_as, try_health
from hal0.registry.roster import EngineRow, engine_by_id
from hal0.slots.queries import Slot, slot_by_id
from hal0.states import IncidentKind, JobKind
from hal0.tables import engine_lane, slots

log = logging.getLogger(__name__)

HEALTH_S: Final = 10.0
"""A health that takes longer is read another time: nobody waits for it here."""

_hands: dict[int, threading.Lock] = {}


def _hand_of(engine_id: int) -> threading.Lock:
    """Return the lock of the one who settles this engine's lane in this process."""
    return _hands.setdefault(engine_id, threading.Lock())


def settle_all(ctx: Context) -> None:
    """Settle what can be settled: lanes of ours and of dead owners, marks of ended unloads."""
    with ctx.db.read() as tx:
        held = lanes(tx)
        marked = tx.execute(
            select(slots.c.id).where(
                slots.c.unload_job_id.is_not(None), slots.c.deleted_at.is_(None)
            )
        ).all()
    for lane in held:
        with logs.about(slot=ctx.slot_name(lane.slot_id), job_id=lane.job_id):
            _alone(ctx, partial(_settle_if_ours, ctx, lane))
    for row in marked:
        with logs.about(slot=ctx.slot_name(row.id)):
            _alone(ctx, partial(settle_unload, ctx, row.id))


def _alone(ctx: Context, work: Callable[[], object]) -> None:
    """Do one piece so that its trouble is not the next one's."""
    try:
        work()
    except Exception:  # one engine's trouble is not another's
        if ctx.stopping.is_set():
            raise
        log.exception("not settled; the next turn tries again")


def _settle_if_ours(ctx: Context, lane: Lane) -> None:
    if _take_over(ctx, lane):
        with ctx.db.read() as tx:
            engine = engine_by_id(tx, lane.engine_id)
        settle_lane(ctx, engine, (lane.job_id, lane.attempt))


def _take_over(ctx: Context, lane: Lane) -> bool:
    """Whether this lane is ours to settle; a dead owner's becomes ours."""
    if lane.owner_id == ctx.owner.id:
        return True
    with ctx.db.read() as tx:
        owner = next((row for row in living_rows(tx) if row.id == lane.owner_id), None)
    if owner is not None and is_alive(owner, ctx.settings.run):
        return False
    mine = (
        update(engine_lane)
        .where(engine_lane.c.engine_id == lane.engine_id, engine_lane.c.owner_id == lane.owner_id)
        .values(owner_id=ctx.owner.id)
    )
    return ctx.commit(lambda tx: tx.execute(mine).rowcount == 1)


def settle_lane(ctx: Context, engine: EngineRow, of: tuple[int, int]) -> bool:
    """Let the lane go if the request of `of` (job, attempt) is settled; tell whether it went.

    An attempt that still runs settles its own; so does the next one of a job that was put back.
    """
    with _hand_of(engine.id):
        owed = _owed(ctx, engine, of)
        reading = None if owed is None else try_health(ctx, engine, HEALTH_S)
        if owed is None or reading is None:
            return False
        entry = owed.arrival(reading)
        other = is_another(owed.lane, reading)
        if not (other or entry is not None or _is_over(owed.lane, engine, reading)):
            if reading.health.models is None or not _gave_up(ctx, engine, owed):
                return False
            reading = try_health(ctx, engine, HEALTH_S)
        late = entry if not other and not owed.slot.is_dispatchable else None
        if late is not None:
            reading = _without(ctx, engine, owed, late)
        if reading is None:
            return False  # what the load cost is not known yet
        points.reach("settle.read")
        ctx.commit(partial(_let_go, owed=owed, reading=reading, late=late is not None))
    points.reach("settle.done")
    ctx.ring()
    return True


@dataclass(frozen=True, slots=True)
class _Owed:
    """A lane whose job is over, and how the engine would list the model of its load."""

    lane: Lane
    slot: Slot
    names: frozenset[str]
    checkpoint: str | None
    options: Mapping[str, Any]

    def arrival(self, reading: Reading) -> LoadedModel | None:
        """Return the entry that this load brought; not what was there before it was answered."""
        entry = reading.health.find(self.names, self.checkpoint)
        return None if entry is None or self.is_from_before(entry) else entry

    def is_from_before(self, entry: LoadedModel) -> bool:
        """Whether somebody else loaded this: with other options, and ours is not answered."""
        return not self.lane.is_answered and not is_as_wanted(self.options, entry.options)


def _owed(ctx: Context, engine: EngineRow, of: tuple[int, int]) -> _Owed | None:
    with ctx.db.read() as tx:
        lane = lane_of(tx, engine.id)
        if lane is None or (lane.job_id, lane.attempt) != of:
            return None
        job = job_by_id(tx, lane.job_id)
        if job.is_unfinished and job.sent_attempt == lane.attempt:
            return None
        slot = slot_by_id(tx, lane.slot_id)
        options = chain_by_id(tx, job.chain_id).options or {}
        return _Owed(lane, slot, *known_as(tx, job.model_id, slot.engine_model), options)


def _without(ctx: Context, engine: EngineRow, owed: _Owed, late: LoadedModel) -> Reading | None:
    """Unload a late arrival; return what the engine lists then, None = not certain yet."""
    of = (owed.lane.job_id, owed.lane.attempt)
    ctx.commit(lambda tx: note_answered(tx, engine.id, *of))  # by what it lists
    return try_health(ctx, engine, HEALTH_S) if _unloaded(ctx, engine, late.name) else None


def _let_go(tx: Connection, owed: _Owed, reading: Reading, *, late: bool) -> None:
    lane, slot = owed.lane, owed.slot
    if not release(tx, lane.engine_id, lane.job_id, lane.attempt):
        return
    if late:
        detail = f"slot {slot.name}: its model arrived after the deadline and was unloaded"
        culprit = Culprit(slot.id, lane.job_id, IncidentKind.LATE_ARRIVAL)
        record(tx, lane.engine_id, culprit.kind, detail, culprit=culprit)
    now = slot_by_id(tx, slot.id)
    is_left = now.generation == slot.generation and not now.is_dispatchable
    if is_left and (late or _has_nothing_of(tx, owed, now, reading)):
        # What is loaded under that name from now on is somebody else's.
        forget = update(slots).where(slots.c.id == slot.id)
        tx.execute(forget.values(engine_model=None, engine_model_id=None))
    mark_lost(tx, reading, Culprit(slot.id, lane.job_id, IncidentKind.LOAD_FAILED))


def _has_nothing_of(tx: Connection, owed: _Owed, now: Slot, reading: Reading) -> bool:
    """Whether the list has certainly nothing that this load brought."""
    if reading.health.models is None:
        return False
    entry = reading.health.find(owed.names, owed.checkpoint)
    return not reading.lists(tx, now) or (entry is not None and owed.is_from_before(entry))


def _is_over(lane: Lane, engine: EngineRow, reading: Reading) -> bool:
    """Whether the engine has answered, or has had its time and works on nothing.

    What it does not say counts as work, but not for more than its time once more.
    """
    has_had_twice = monotonic_ms() >= lane.settle_ms + int(engine.settle_s * 1000)
    if reading.health.models is None:
        return has_had_twice  # before that, who answered may say yet what its load has cost
    is_idle = all(model.busy is False for model in reading.health.models)
    return bool(lane.is_answered) or (lane.is_overdue and (is_idle or has_had_twice))


def is_another(lane: Lane, reading: Reading) -> bool:
    """Whether the engine is certainly not the process any more that got this load."""
    if lane.settle_boot != boot_id():
        return True
    return reading.is_of_another_process(lane.process)


def _gave_up(ctx: Context, engine: EngineRow, owed: _Owed) -> bool:
    """Whether the engine has given up a load that nobody waits for, where it can do that."""
    name = owed.slot.engine_model

    async def give_up(adapter: Engine) -> bool:
        if name is None or not adapter.unload_stops_load:
            return False
        await adapter.unload(name, lambda: None)
        return True

    try:
        return ctx.engines.ask(engine, give_up, ctx.settings.unload_timeout_s)
    except EngineError as error:
        log.warning("the load of %s is not given up yet: %s", name, error.detail)
        return False


def _unloaded(ctx: Context, engine: EngineRow, name: str) -> bool:
    """Unload a late arrival under its lane; False = not certain, try again later."""
    try:
        ctx.engines.ask(
            engine, lambda e: e.unload(name, lambda: None), ctx.settings.unload_timeout_s
        )
    except EngineError as error:
        log.warning("late arrival %s is not unloaded yet: %s", name, error.detail)
        return False
    return True


def unload_leftover(ctx: Context, held: Claim, engine: EngineRow) -> Reading | None:
    """After a load that failed: unload its model if the engine has it all the same; read health."""
    reading = try_health(ctx, engine, HEALTH_S)
    if reading is None:
        return None
    with ctx.db.read() as tx:
        slot = slot_by_id(tx, held.job.slot_id)
        names, checkpoint = known_as(tx, held.job.model_id, slot.engine_model)
    entry = reading.health.find(names, checkpoint)
    if entry is None or not _unloaded(ctx, engine, entry.name):
        return reading
    return try_health(ctx, engine, HEALTH_S)


def settle_unload(ctx: Context, slot_id: int) -> None:
    """Take an unload's mark off a slot when its job is over and the engine owes no answer."""
    with ctx.db.read() as tx:
        slot = slot_by_id(tx, slot_id)
        if slot.unload_job_id is None:
            return
        job = job_by_id(tx, slot.unload_job_id)
        if job.is_unfinished and job.sent_attempt == slot.unload_attempt:
            return
        engine = engine_by_id(tx, slot.engine_id)
    settled = is_unload_overdue(slot)
    if not settled:
        reading = try_health(ctx, engine, HEALTH_S)
        settled = reading is not None and _is_unloaded(ctx, slot, job.kind, reading)
    if settled:
        ctx.commit(lambda tx: clear_unload_mark(tx, slot.id, job.id, slot.unload_attempt or 0))
        ctx.ring()


def _is_unloaded(ctx: Context, slot: Slot, kind: JobKind, reading: Reading) -> bool:
    """Whether the engine certainly has no unload of this slot before it any more.

    That of a load, which made its place free, is over when the model is gone.
    """
    if reading.is_of_another_process(slot.unload_process):
        return True
    if kind is not JobKind.LOAD or reading.health.models is None:
        return False
    with ctx.db.read() as tx:
        return not reading.lists(tx, slot)
