"""What the engine's list of loaded models means for slots, both ways.

    there, and offline here       adopted, when it is certainly this slot's file and answers
    there, and in error here      a machine unloads what the engine was told to load, once
    there with other options      held with those: somebody reloaded it
    not there, and in error here  what is loaded by its name from now on is somebody else's
    not there, and loaded here    offline, with its cause; what a failed load or a restart cost is
                                  loaded again
    still not there               a person unloaded it, and it stays so; what somebody reloads, or
                                  crashed and came back, is there again by then
    nobody there for too long     every loaded slot in error, `engine_lost`; back by itself, as is
                                  a slot whose job gave up waiting for the engine

Written only where nothing but requests has moved since the list was read. A slot with an unfinished
job is left to it, and an engine with a load in its lane to whoever settles that. A list that is
missing is unknown, not empty: nothing is concluded from it. A stranger's model is never touched.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from sqlalchemy import Connection, update

from hal0.engines.base import LoadedModel
from hal0.engines.options import as_held
from hal0.errors import EngineLost, EngineUnreachable
from hal0.jobs.adoption import Adoption, adopt
from hal0.jobs.ledger.intake import forget_failed_key, machine_unload
from hal0.jobs.ledger.lane import lane_of
from hal0.jobs.ledger.rows import By
from hal0.jobs.losses import (
    act_of_restart,
    by_priority,
    forget_held,
    is_untouched,
    lose,
    write_absence,
    write_losses,
)
from hal0.jobs.reading import Reading
from hal0.jobs.restore import load_again, restore, restore_of
from hal0.jobs.survey import Pair, Survey, timed_out
from hal0.slots.queries import Slot, slot_by_id, slots_of_engine
from hal0.slots.transitions import Act, move
from hal0.states import Cause, Desired, Origin, SlotState
from hal0.tables import slots

ABSENCES: Final = frozenset({EngineLost.code, EngineUnreachable.code})
"""Errors of a slot that end when the engine answers: nothing was wrong with the model."""
MACHINE: Final = By("reconcile", origin=Origin.IDLE)


class Finding(Enum):
    """What a slot and the list say together that one of them did not know."""

    LOST = auto()
    RESTARTED = auto()
    """The engine is another process, and has the model all the same."""
    LISTED = auto()
    RELOADED = auto()
    LEFT_OVER = auto()
    LEFT_NOTHING = auto()
    RETURNED = auto()
    STAYS_AWAY = auto()
    """An earlier look missed it already."""


ADOPTABLE: Final = frozenset({Finding.LISTED, Finding.RETURNED, Finding.RESTARTED})
"""What the backend is asked for before anything is written: does it answer?"""


@dataclass(frozen=True, slots=True)
class Step:
    """One slot to do something about."""

    finding: Finding
    slot: Slot
    entry: LoadedModel | None = None


def findings(survey: Survey) -> list[Step]:
    """Tell what the list says that slots do not know; nothing while a load is in the lane."""
    if survey.reading.lane is not None:
        return []  # who settles the lane marks what its load cost
    reading = survey.reading
    pairs = [pair for pair in survey.untouched if pair.slot.unload_job_id is None]
    steps = [_finding(pair, reading) for pair in pairs]
    return [step for step in steps if step is not None]


def _finding(pair: Pair, reading: Reading) -> Step | None:
    slot = pair.slot
    if slot.is_dispatchable:
        return _finding_of_loaded(pair, reading)
    if slot.state is SlotState.ERROR and slot.error is not None:
        return _finding_in_error(pair, reading)
    if slot.state is not SlotState.OFFLINE:
        return None
    if pair.is_its_file:
        return Step(Finding.LISTED, slot, pair.entry)
    return Step(Finding.STAYS_AWAY, slot) if _stays_away(pair, reading) else None


def _finding_in_error(pair: Pair, reading: Reading) -> Step | None:
    slot, entry = pair.slot, pair.entry
    code = (slot.error or {}).get("code")
    is_unwanted = code == EngineUnreachable.code and slot.desired is Desired.UNLOADED
    if code in ABSENCES and not (is_unwanted and entry is not None):
        return Step(Finding.RETURNED, slot, entry if pair.is_its_file else None)
    if slot.engine_model is not None and pair.is_missing:
        return Step(Finding.LEFT_NOTHING, slot)
    return Step(Finding.LEFT_OVER, slot, entry) if _is_left_over(pair, reading) else None


def _stays_away(pair: Pair, reading: Reading) -> bool:
    """Whether what an earlier look missed is missed again, and the same process could have it."""
    slot = pair.slot
    was_missed = slot.cause == Cause.UNLOADED_ELSEWHERE and not slot.is_to_stay_unloaded
    return was_missed and pair.is_missing and reading.is_of(slot.engine_process)


def _is_left_over(pair: Pair, reading: Reading) -> bool:
    """Whether a slot in error has left in the engine what that was told to load by us.

    Not what somebody else may have loaded since, uses, or pinned. Tried once.
    """
    slot, entry = pair.slot, pair.entry
    is_told = slot.engine_model is not None and reading.is_of(slot.engine_process)
    is_free = entry is not None and pair.is_its_file and entry.busy is False and not slot.pinned
    return is_told and is_free and "unloaded_by" not in (slot.error or {})


def _finding_of_loaded(pair: Pair, reading: Reading) -> Step | None:
    slot, entry = pair.slot, pair.entry
    if pair.is_missing:
        return Step(Finding.LOST, slot)
    if reading.is_of_another_process(slot.engine_process):
        return Step(Finding.RESTARTED, slot, entry if pair.is_its_file else None)
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
    moved = write_losses(tx, survey, [step.slot for step in good if step.finding is Finding.LOST])
    moved += _restart(
        tx, [step for step in good if step.finding is Finding.RESTARTED], serving, reading
    )
    for step in sorted(good, key=lambda step: (-step.slot.priority, step.slot.id)):
        entry = step.entry if step.entry in serving else None
        if step.finding is Finding.LISTED and entry is not None:
            moved += _adopt(tx, step.slot, entry, reading)
        elif step.finding is Finding.RETURNED:
            _return(tx, step.slot, entry, reading)
            moved += 1
        elif step.finding is Finding.LEFT_OVER:
            _unload_leftover(tx, step.slot)
        elif step.finding is Finding.LEFT_NOTHING:
            forget_held(tx, step.slot.id)
        elif step.finding is Finding.STAYS_AWAY:
            write_absence(tx, survey, step.slot)
        elif step.finding is Finding.RELOADED and step.entry is not None:
            _note_options(tx, step.slot, step.entry)
    return moved


def _still_stands(tx: Connection, step: Step, now: Slot | None, reading: Reading) -> bool:
    """Whether a slot is as it was surveyed: neither deleted, set up anew, moved nor at work."""
    if now is None or now.version != step.slot.version:
        return False
    return is_untouched(tx, now, reading)


def _restart(
    tx: Connection,
    steps: Sequence[Step],
    serving: Collection[LoadedModel],
    reading: Reading,
) -> int:
    """Write that another process has what slots held: adopted if it serves, else loaded again."""
    if not steps:
        return 0
    entries = {step.slot.id: step.entry for step in steps if step.entry in serving}
    act = act_of_restart(tx, reading.engine, [step.slot for step in steps])
    for was in by_priority([step.slot for step in steps]):
        entry = entries.get(was.id)
        lose(tx, was, Cause.ENGINE_RESTARTED, act, restores=entry is None)
        if entry is not None and was.model_id is not None:
            options = as_held(was.held_options or {}, entry.options)
            what = Adoption(entry, was.model_id, options)
            adopt(tx, slot_by_id(tx, was.id), what, reading, act)
    return len(steps)


def may_adopt(tx: Connection, slot: Slot, reading: Reading) -> bool:
    """Whether a machine may take over what is listed: not what may be a load that arrived late.

    An operator's load, or a restart of the engine, ends that.
    """
    return reading.is_of_another_process(slot.engine_process) or not timed_out(tx, slot)


def _adopt(tx: Connection, slot: Slot, entry: LoadedModel, reading: Reading) -> bool:
    """Take over what the engine has loaded already: nothing is sent, the wish stays as it is."""
    noted = restore_of(slot)
    model_id = slot.wanted_model_id if noted is None else noted["model_id"]
    if model_id is None or not may_adopt(tx, slot, reading):
        return False
    options = as_held(slot.options if noted is None else noted["options"], entry.options)
    if not timed_out(tx, slot):
        forget_failed_key(tx, slot.id, model_id, options)  # it serves
    adopt(tx, slot, Adoption(entry, model_id, options), reading, Act("reconcile"))
    return True


def _return(tx: Connection, was: Slot, entry: LoadedModel | None, reading: Reading) -> None:
    """The engine answers again: the slot is offline, and then what it should be."""
    slot = move(tx, was, SlotState.OFFLINE, Cause.ENGINE_RETURNED, Act("reconcile"))
    if entry is not None and _adopt(tx, slot, entry, reading):
        return
    forget_held(tx, slot.id)
    if slot.restore is None:
        load_again(tx, was, Cause.ENGINE_RETURNED, None)
    else:
        restore(tx, slot)


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
