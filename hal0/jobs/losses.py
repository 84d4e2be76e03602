"""How slots lose what they held: one writer for every loss, each with its cause and its incident.

What a failed load, a restart or an absence cost is noted to be loaded again (`jobs.restore`); what
made room for another model, or was unloaded by somebody, is not.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, update

from hal0.engines.base import LLM
from hal0.errors import EngineLost
from hal0.jobs import incidents
from hal0.jobs.incidents import Culprit, counted
from hal0.jobs.ledger.rows import unfinished_jobs
from hal0.jobs.reading import Reading
from hal0.jobs.restore import load_again, note
from hal0.jobs.survey import Survey
from hal0.registry.roster import EngineRow, engine_by_id
from hal0.slots.queries import Slot, slots_of_engine
from hal0.slots.transitions import Act, move
from hal0.slots.wishes import want
from hal0.states import Cause, Desired, DesiredBy, IncidentKind, SlotState
from hal0.tables import slots


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
        and _holds_the_same(tx, slot, reading)
        and not reading.lists(tx, slot)
    ]
    if not lost:
        return 0
    names = [slot.name for slot in lost]
    incident_id = incidents.record(
        tx,
        reading.engine.id,
        culprit.kind,
        f"engine {reading.engine.name} dropped {counted(names)} on account of job {culprit.job_id}",
        culprit=culprit,
        evidence={"slots": names},
    )
    act = Act("worker", culprit.job_id, incident_id=incident_id)
    for slot in by_priority(lost):
        lose(tx, slot, Cause.EVICTED_BY_ENGINE, act, restores=culprit.restores)
    return len(lost)


def is_untouched(tx: Connection, slot: Slot, reading: Reading) -> bool:
    """Whether nothing but requests has moved a slot since the reading, and no job works on it."""
    return reading.is_true_of(tx, slot) and not unfinished_jobs(tx, slot.id)


def _holds_the_same(tx: Connection, slot: Slot, reading: Reading) -> bool:
    """Whether a slot holds, for requests alone, what it held when the engine was read.

    Requests come and go: a busy slot would never be found where it stood.
    """
    before = reading.before.get(slot.id)
    is_same = before is not None and before.generation == slot.generation
    return is_same and slot.is_dispatchable and not unfinished_jobs(tx, slot.id)


def by_priority(found: Sequence[Slot]) -> list[Slot]:
    """Return the most important slot first, else the oldest."""
    return sorted(found, key=lambda slot: (-slot.priority, slot.id))


def lose(tx: Connection, slot: Slot, cause: Cause, act: Act, *, restores: bool) -> None:
    """Write that a slot holds nothing more; with `restores` a machine is to load it again."""
    move(tx, slot, SlotState.OFFLINE, cause, act)
    forget_held(tx, slot.id)
    if restores:
        load_again(tx, slot, cause, act.job_id)


def forget_held(tx: Connection, slot_id: int) -> None:
    """Write that a slot holds nothing; it must have left the dispatchable states before."""
    tx.execute(
        update(slots)
        .where(slots.c.id == slot_id)
        .values(model_id=None, held_options=None, engine_model=None, engine_model_id=None)
    )


def write_loss(tx: Connection, slot: Slot, reading: Reading, act: Act) -> None:
    """Write that an engine does not have any more what a slot with a job of its own holds.

    Gone with the process that had it, or unloaded in the engine's own app; the job decides what is
    loaded next.
    """
    is_restart = reading.is_of_another_process(slot.engine_process)
    cause = Cause.ENGINE_RESTARTED if is_restart else Cause.UNLOADED_ELSEWHERE
    lose(tx, slot, cause, act, restores=False)


def write_losses(tx: Connection, survey: Survey, lost: Sequence[Slot]) -> int:
    """Write why slots lost what they held: a restart, another's load, or somebody's wish."""
    reading = survey.reading
    restarted = [slot for slot in lost if reading.is_of_another_process(slot.engine_process)]
    gone = [slot for slot in lost if slot not in restarted]
    engine = reading.engine
    if restarted:
        act = act_of_restart(tx, engine, restarted)
        for slot in by_priority(restarted):
            lose(tx, slot, Cause.ENGINE_RESTARTED, act, restores=True)
    if gone and _made_room(survey):
        names = [slot.name for slot in gone]
        detail = f"engine {engine.name}, full, dropped {counted(names)} for another client's"
        act = act_of(tx, engine, IncidentKind.LOAD_MADE_ROOM, detail, names)
        for slot in gone:
            lose(tx, slot, Cause.EVICTED_BY_ENGINE, act, restores=False)
    elif gone:
        _write_unloads(tx, reading, gone)
    return len(lost)


def act_of_restart(tx: Connection, engine: EngineRow, moved: Sequence[Slot]) -> Act:
    """Record that an engine is another process than these slots know, and return who says so."""
    names = [slot.name for slot in moved]
    detail = f"engine {engine.name} is another process than the one that had {counted(names)}"
    return act_of(tx, engine, IncidentKind.ENGINE_RESTARTED, detail, names)


def act_of(
    tx: Connection, engine: EngineRow, kind: IncidentKind, detail: str, names: Sequence[str]
) -> Act:
    """Record an incident without a culprit, and return on whose behalf its changes are written."""
    incident_id = incidents.record(tx, engine.id, kind, detail, evidence={"slots": list(names)})
    return Act("reconcile", incident_id=incident_id)


def _made_room(survey: Survey) -> bool:
    """Whether the engine is full, also of what no slot of hal0 is known to hold."""
    health = survey.reading.health
    held = {id(pair.entry) for pair in survey.pairs if pair.slot.is_dispatchable}
    newcomers = [model for model in health.models or () if id(model) not in held]
    return health.is_full_of(LLM) and any((model.type or LLM) == LLM for model in newcomers)


def _write_unloads(tx: Connection, reading: Reading, gone: Sequence[Slot]) -> None:
    """Write that these are gone past hal0; the wish stays until a second look misses them too."""
    names = [slot.name for slot in gone]
    act = Act("reconcile")
    if len(gone) > 1:
        detail = f"{counted(names)} of engine {reading.engine.name} were unloaded past hal0"
        act = act_of(tx, reading.engine, IncidentKind.UNLOADED_ELSEWHERE, detail, names)
    for slot in gone:
        lose(tx, slot, Cause.UNLOADED_ELSEWHERE, act, restores=False)


def write_absence(tx: Connection, survey: Survey, slot: Slot) -> None:
    """Write what a second look says of a model that is gone: somebody unloaded it, past hal0.

    Unless another client's took its place, which the first look came too early for. Then the wish
    stays for good: the process is forgotten by which later looks would tell.
    """
    if _made_room(survey):
        tx.execute(update(slots).where(slots.c.id == slot.id).values(engine_process=None))
    else:
        want(tx, slot.id, Desired.UNLOADED, DesiredBy.ELSEWHERE)


def lose_engine(tx: Connection, engine_id: int, grace_ms: float) -> int:
    """Put the loaded slots of an engine in error where nobody has been for longer than the grace.

    What they held is noted, for it comes back when the engine does; a load in its lane is left to
    whoever settles that. Needs a write transaction, in which the absence is looked at again: it
    may have ended while this waited for the database.
    """
    engine = engine_by_id(tx, engine_id)
    away_ms = engine.away_ms
    if away_ms is None or away_ms < grace_ms:
        return 0
    lost = [
        slot
        for slot in slots_of_engine(tx, engine.id)
        if slot.is_dispatchable and not unfinished_jobs(tx, slot.id)
    ]
    if not lost:
        return 0
    names = [slot.name for slot in lost]
    away_s = away_ms // 1000
    detail = f"engine {engine.name} at {engine.url} has not been reached for {away_s} s"
    act = act_of(tx, engine, IncidentKind.ENGINE_LOST, detail, names)
    for slot in lost:
        error = EngineLost(
            f"{detail}: start it, and slot {slot.name} comes back by itself",
            evidence={"engine": engine.name, "url": engine.url},
        )
        move(tx, slot, SlotState.ERROR, Cause.ENGINE_LOST, act, {"code": error.code})
        row = {**error.as_row(), "job_id": None}
        note(tx, slot, Cause.ENGINE_LOST)
        tx.execute(
            update(slots)
            .where(slots.c.id == slot.id)
            .values(error=row, model_id=None, held_options=None)
        )
    return len(lost)
