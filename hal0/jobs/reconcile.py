"""What the engine's list of loaded models means for slots, both ways.

    there, and offline here       adopted, when it is certainly this slot's file and answers
    there, and in error here      a machine unloads what the engine was told to load, once
    there with other options      held with those: somebody reloaded it
    not there, and loaded here    offline, with its cause; what a failed load or a restart cost is
                                  loaded again, what a person unloaded stays unloaded
    nobody there for too long     every loaded slot in error, `engine_lost`; back by itself, as is
                                  a slot whose job gave up waiting for the engine

Written only where nothing has moved since the list was read. A slot with an unfinished job is left
to it, and an engine with a load in its lane to whoever settles that. A list that is missing is
unknown, not empty: nothing is concluded from it. A stranger's model is never touched.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from sqlalchemy import Connection, update

from hal0.clock import utc_now
from hal0.engines.base import LoadedModel
from hal0.engines.options import as_held
from hal0.errors import EngineLost, EngineUnreachable
from hal0.jobs import incidents
from hal0.jobs.incidents import Culprit, counted
from hal0.jobs.ledger.intake import machine_unload
from hal0.jobs.ledger.lane import lane_of
from hal0.jobs.ledger.rows import By, unfinished_jobs
from hal0.jobs.reading import Reading
from hal0.jobs.restore import load_again
from hal0.jobs.survey import Pair, Survey, timed_out
from hal0.registry.roster import EngineRow
from hal0.slots.queries import Slot, slot_by_id, slots_of_engine
from hal0.slots.transitions import Act, move
from hal0.states import Cause, Desired, IncidentKind, Origin, SlotState
from hal0.tables import slots

ABSENCES: Final = frozenset({EngineLost.code, EngineUnreachable.code})
"""Errors of a slot that end when the engine answers: nothing was wrong with the model."""
MACHINE: Final = By("reconcile", origin=Origin.IDLE)


class Finding(Enum):
    """What a slot and the list say together that one of them did not know."""

    LOST = auto()
    LISTED = auto()
    RELOADED = auto()
    LEFT_OVER = auto()
    RETURNED = auto()


@dataclass(frozen=True, slots=True)
class Step:
    """One slot to do something about."""

    finding: Finding
    slot: Slot
    entry: LoadedModel | None = None


# -- what a load cost others -------------------------------------------------------------------


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
        and slot.is_dispatchable
        and _is_untouched(tx, slot, reading)
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
    for slot in _by_priority(lost):
        _lose(tx, slot, Cause.EVICTED_BY_ENGINE, act, restores=culprit.restores)
    return len(lost)


def _is_untouched(tx: Connection, slot: Slot, reading: Reading) -> bool:
    """Whether a slot has not moved since the reading, and no job works on it."""
    return reading.before.get(slot.id) == slot.last_transition_id and not unfinished_jobs(
        tx, slot.id
    )


def _by_priority(found: Sequence[Slot]) -> list[Slot]:
    return sorted(found, key=lambda slot: (-slot.priority, slot.id))


def _lose(tx: Connection, slot: Slot, cause: Cause, act: Act, *, restores: bool) -> None:
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
    _lose(tx, slot, cause, act, restores=False)


# -- what a scan found -------------------------------------------------------------------------


def findings(survey: Survey) -> list[Step]:
    """Tell what the list says that slots do not know; nothing while a load is in the lane."""
    if survey.reading.lane is not None:
        return []  # who settles the lane marks what its load cost
    steps = [_finding(pair) for pair in survey.undisturbed if pair.slot.unload_job_id is None]
    return [step for step in steps if step is not None]


def _finding(pair: Pair) -> Step | None:
    slot, entry = pair.slot, pair.entry
    if slot.is_dispatchable:
        return _finding_of_loaded(pair)
    ours = entry if pair.is_its_file else None
    if slot.state is SlotState.OFFLINE and ours is not None:
        return Step(Finding.LISTED, slot, ours)
    if slot.state is not SlotState.ERROR or slot.error is None:
        return None
    code = slot.error.get("code")
    is_unwanted = code == EngineUnreachable.code and slot.desired is Desired.UNLOADED
    if code in ABSENCES and not (is_unwanted and entry is not None):
        return Step(Finding.RETURNED, slot, ours)
    has_been_told = slot.engine_model is not None and "unloaded_by" not in slot.error
    if entry is not None and has_been_told and not slot.pinned:
        return Step(Finding.LEFT_OVER, slot, entry)
    return None


def _finding_of_loaded(pair: Pair) -> Step | None:
    slot, entry = pair.slot, pair.entry
    if not pair.is_listed:
        return Step(Finding.LOST, slot)
    held = slot.held_options or {}
    if entry is None or as_held(held, entry.options) == held:
        return None
    return Step(Finding.RELOADED, slot, entry)


def apply(
    tx: Connection, survey: Survey, steps: Sequence[Step], serving: Collection[LoadedModel]
) -> int:
    """Write what was found, where it still holds; return how many slots moved.

    `serving` are the entries whose backends answered: no other is adopted.
    """
    reading = survey.reading
    if lane_of(tx, reading.engine.id) is not None:
        return 0
    living = {slot.id: slot for slot in slots_of_engine(tx, reading.engine.id)}
    good = [step for step in steps if _still_stands(tx, step, living.get(step.slot.id), reading)]
    moved = _write_losses(tx, survey, [step.slot for step in good if step.finding is Finding.LOST])
    for step in sorted(good, key=lambda step: (-step.slot.priority, step.slot.id)):
        entry = step.entry if step.entry in serving else None
        if step.finding is Finding.LISTED and entry is not None:
            moved += _adopt(tx, step.slot, entry, reading)
        elif step.finding is Finding.RETURNED:
            _return(tx, step.slot, entry, reading)
            moved += 1
        elif step.finding is Finding.LEFT_OVER:
            _unload_leftover(tx, step.slot)
        elif step.finding is Finding.RELOADED and step.entry is not None:
            _note_options(tx, step.slot, step.entry)
    return moved


def _still_stands(tx: Connection, step: Step, now: Slot | None, reading: Reading) -> bool:
    """Whether a slot is as it was surveyed: neither deleted, set up anew, moved nor at work."""
    if now is None or now.version != step.slot.version:
        return False
    return _is_untouched(tx, now, reading)


def _write_losses(tx: Connection, survey: Survey, lost: Sequence[Slot]) -> int:
    """Write why slots lost what they held: a restart, another's load, or somebody's wish."""
    reading = survey.reading
    restarted = [slot for slot in lost if reading.is_of_another_process(slot.engine_process)]
    gone = [slot for slot in lost if slot not in restarted]
    engine = reading.engine
    if restarted:
        names = [slot.name for slot in restarted]
        detail = f"engine {engine.name} is another process and has lost {counted(names)}"
        act = _act(tx, engine, IncidentKind.ENGINE_RESTARTED, detail, names)
        for slot in _by_priority(restarted):
            _lose(tx, slot, Cause.ENGINE_RESTARTED, act, restores=True)
    if gone and _made_room(survey):
        names = [slot.name for slot in gone]
        detail = f"engine {engine.name}, full, dropped {counted(names)} for another client's"
        act = _act(tx, engine, IncidentKind.LOAD_MADE_ROOM, detail, names)
        for slot in gone:
            _lose(tx, slot, Cause.EVICTED_BY_ENGINE, act, restores=False)
    elif gone:
        _write_unloads(tx, reading, gone)
    return len(lost)


def _act(
    tx: Connection, engine: EngineRow, kind: IncidentKind, detail: str, names: Sequence[str]
) -> Act:
    incident_id = incidents.record(tx, engine.id, kind, detail, evidence={"slots": list(names)})
    return Act("reconcile", incident_id=incident_id)


def _made_room(survey: Survey) -> bool:
    """Whether the engine is full, and of what no slot of hal0 is known to hold."""
    health = survey.reading.health
    newcomers = len(survey.strangers) + sum(
        pair.is_listed and not pair.slot.is_dispatchable for pair in survey.pairs
    )
    is_full = health.max_models is not None and len(health.models or ()) >= health.max_models
    return is_full and newcomers > 0


def _write_unloads(tx: Connection, reading: Reading, gone: Sequence[Slot]) -> None:
    """Write that somebody unloaded these, past hal0: they stay unloaded.

    Where the process cannot be told, it may have been restarted: the wish is left as it is then.
    """
    names = [slot.name for slot in gone]
    act = Act("reconcile")
    if len(gone) > 1:
        detail = f"{counted(names)} of engine {reading.engine.name} were unloaded past hal0"
        act = _act(tx, reading.engine, IncidentKind.UNLOADED_ELSEWHERE, detail, names)
    for slot in gone:
        _lose(tx, slot, Cause.UNLOADED_ELSEWHERE, act, restores=False)
        if reading.is_of(slot.engine_process):
            tx.execute(
                update(slots)
                .where(slots.c.id == slot.id)
                .values(desired=Desired.UNLOADED, restore=None)
            )


def _adopt(tx: Connection, slot: Slot, entry: LoadedModel, reading: Reading) -> bool:
    """Take over what the engine has loaded already: nothing is sent, the wish stays as it is."""
    if reading.is_of(slot.engine_process) and timed_out(tx, slot):
        return False  # it may be what arrived late; an operator's load, or a restart, ends that
    assert slot.wanted_model_id is not None
    options = as_held(slot.options, entry.options)
    adopt(tx, slot, Adoption(entry, slot.wanted_model_id, options), reading, Act("reconcile"))
    return True


@dataclass(frozen=True, slots=True)
class Adoption:
    """What an engine has already, as a slot will hold it."""

    entry: LoadedModel
    model_id: int
    options: Mapping[str, Any]


def adopt(tx: Connection, slot: Slot, what: Adoption, reading: Reading, act: Act) -> Slot:
    """Write that a slot holds an entry of the engine's list: to ready, in one commit."""
    tx.execute(
        update(slots)
        .where(slots.c.id == slot.id)
        .values(
            generation=slot.generation + 1,
            model_id=what.model_id,
            held_options=dict(what.options),
            engine_model=what.entry.name,
            engine_model_id=what.model_id,
            engine_process=reading.health.process,
            last_used_at=utc_now(),
            restore=None,
        )
    )
    slot = slot_by_id(tx, slot.id)
    if slot.state is not SlotState.STARTING:
        slot = move(tx, slot, SlotState.STARTING, Cause.CHECKED, act)
    slot = move(tx, slot, SlotState.WARMING, Cause.LOAD_SENT, act, {"sent": False})
    return move(tx, slot, SlotState.READY, Cause.ADOPTED, act, {"engine_model": what.entry.name})


def _return(tx: Connection, slot: Slot, entry: LoadedModel | None, reading: Reading) -> None:
    """The engine answers again: the slot is offline, and then what it should be."""
    was = slot
    slot = move(tx, slot, SlotState.OFFLINE, Cause.ENGINE_RETURNED, Act("reconcile"))
    if entry is not None and _adopt(tx, slot, entry, reading):
        return
    forget_held(tx, slot.id)
    load_again(tx, was, Cause.ENGINE_RETURNED, None)


def _unload_leftover(tx: Connection, slot: Slot) -> None:
    """Have a machine unload, once, what the engine has although its slot is in error."""
    accepted = machine_unload(tx, slot, MACHINE)
    if accepted is not None:
        noted = {**(slot.error or {}), "unloaded_by": accepted.job_ids[-1]}
        tx.execute(update(slots).where(slots.c.id == slot.id).values(error=noted))


def _note_options(tx: Connection, slot: Slot, entry: LoadedModel) -> None:
    """Hold a model with the options that somebody reloaded it with: a load of ours reloads it."""
    held = as_held(slot.held_options or {}, entry.options)
    tx.execute(update(slots).where(slots.c.id == slot.id).values(held_options=held))


def lose_engine(tx: Connection, engine: EngineRow) -> int:
    """Nobody has been there for longer than the grace: its loaded slots are in error."""
    lost = [
        slot
        for slot in slots_of_engine(tx, engine.id)
        if slot.is_dispatchable and not unfinished_jobs(tx, slot.id)
    ]
    if not lost or lane_of(tx, engine.id) is not None:
        return 0
    away_s = (engine.away_ms or 0) / 1000
    names = [slot.name for slot in lost]
    detail = f"engine {engine.name} at {engine.url} has not been reached for {away_s:.0f} s"
    act = _act(tx, engine, IncidentKind.ENGINE_LOST, detail, names)
    for slot in lost:
        error = EngineLost(
            f"{detail}: start it, and slot {slot.name} comes back by itself",
            evidence={"engine": engine.name, "url": engine.url},
        )
        move(tx, slot, SlotState.ERROR, Cause.ENGINE_LOST, act, {"code": error.code})
        row = {**error.as_row(), "job_id": None}
        tx.execute(
            update(slots)
            .where(slots.c.id == slot.id)
            .values(error=row, model_id=None, held_options=None)
        )
    return len(lost)
