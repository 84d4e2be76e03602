"""How a slot is set up, changed and given up, and when its jobs allow that.

A slot's model and engine say where its jobs go, so they change only while nothing is loaded and
nothing is under way. What only later loads or scans read may change at any time.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, exc, update

from hal0.clock import utc_now
from hal0.errors import SlotBusy, SlotExists, SlotNotOffline
from hal0.jobs.ledger.lane import lane_of
from hal0.jobs.ledger.orders import cancel
from hal0.jobs.ledger.rows import By, by_chain, unfinished_jobs
from hal0.jobs.ledger.taken import ensure_model_is_free
from hal0.registry.catalog import model_named
from hal0.registry.roster import engine_named
from hal0.settings import Settings
from hal0.slots.queries import Slot, slot_by_id
from hal0.slots.spec import check_idle_times
from hal0.slots.times import times_of
from hal0.slots.transitions import Act, create
from hal0.states import Desired, SlotState
from hal0.tables import slots

Setup = Mapping[str, Any]
"""Fields of a slot by name: engine and model by their names, options complete."""


def create_slot(tx: Connection, settings: Settings, name: str, setup: Setup, act: Act) -> Slot:
    """Insert a slot, offline; nothing is loaded.

    Needs a write transaction. Raises SlotExists, ModelTaken, ModelNotFound, EngineNotFound, and
    InvalidRequest for idle times that contradict each other.
    """
    row = {
        **_columns(tx, setup),
        "name": name,
        "desired": Desired.UNLOADED,
        "generation": 0,
        "version": 0,
    }
    try:
        slot = create(tx, row, act)
    except exc.IntegrityError as error:
        raise SlotExists(
            f"there is a slot {name!r} already; delete it first or choose another name",
            evidence={"slot": name},
        ) from error
    _check(tx, settings, slot)
    return slot


def change_slot(tx: Connection, settings: Settings, slot: Slot, changes: Setup) -> Slot:
    """Change what is given; the options as a whole. Needs a write transaction.

    Raises SlotBusy or SlotNotOffline for a model or engine that cannot change now, else as
    `create_slot` does.
    """
    columns = _columns(tx, changes)
    if columns:
        if _moves(slot, columns):
            _ensure_at_rest(tx, slot)
            columns["restore"] = None  # what a machine was to load again is not wanted any more
        elif slot.restore is not None and "options" in columns:
            columns["restore"] = {**slot.restore, "options": columns["options"]}
        tx.execute(
            update(slots)
            .where(slots.c.id == slot.id)
            .values(**columns, version=slots.c.version + 1)
        )
    changed = slot_by_id(tx, slot.id)
    _check(tx, settings, changed)
    return changed


def delete_slot(tx: Connection, slot: Slot, by: By, *, force: bool = False) -> None:
    """Tombstone a slot that holds nothing; its audit stays and its name is free again.

    `force` cancels what is not sent, and leaves in the engine what a slot in error may have there.
    Needs a write transaction. Raises SlotBusy, JobAlreadySent.
    """
    unfinished = unfinished_jobs(tx, slot.id)
    if unfinished and not force:
        raise SlotBusy(
            f"slot {slot.name} has unfinished jobs (the first is {unfinished[0].id}); wait, cancel "
            "them, or delete with force",
            evidence={"slot": slot.name, "job_id": unfinished[0].id},
        )
    for chain_jobs in reversed(by_chain(unfinished)):
        cancel(tx, chain_jobs[0].id, by)
    slot = slot_by_id(tx, slot.id)
    if slot.state not in (SlotState.OFFLINE, SlotState.ERROR):
        raise SlotBusy(
            f"slot {slot.name} is in state {slot.state}; unload it first",
            evidence={"slot": slot.name, "state": slot.state},
        )
    if slot.state is SlotState.ERROR and slot.engine_model is not None and not force:
        raise SlotBusy(
            f"the engine may have {slot.engine_model} still, for which slot {slot.name} is in "
            f"error; unload slot {slot.name} first, or delete it with force, which leaves the "
            "model there",
            evidence={"slot": slot.name, "engine_model": slot.engine_model},
        )
    _ensure_settled(tx, slot)
    tx.execute(update(slots).where(slots.c.id == slot.id).values(deleted_at=utc_now()))


def _columns(tx: Connection, setup: Setup) -> dict[str, Any]:
    columns = dict(setup)
    if "engine" in columns:
        columns["engine_id"] = engine_named(tx, columns.pop("engine")).id
    if "model" in columns:
        name = columns.pop("model")
        columns["wanted_model_id"] = None if name is None else model_named(tx, name).id
    return columns


def _moves(slot: Slot, columns: Mapping[str, Any]) -> bool:
    """Tell whether the slot would get another engine or model."""
    return any(
        name in columns and columns[name] != getattr(slot, name)
        for name in ("engine_id", "wanted_model_id")
    )


def _ensure_at_rest(tx: Connection, slot: Slot) -> None:
    unfinished = unfinished_jobs(tx, slot.id)
    if unfinished:
        raise SlotBusy(
            f"slot {slot.name} has unfinished jobs (the first is {unfinished[0].id}); wait for "
            "them or cancel them before it gets another model or engine",
            evidence={"slot": slot.name, "job_id": unfinished[0].id},
        )
    if slot.state is not SlotState.OFFLINE:
        raise SlotNotOffline(
            f"slot {slot.name} is in state {slot.state}; unload it before it gets another model "
            "or engine",
            evidence={"slot": slot.name, "state": slot.state},
        )
    _ensure_settled(tx, slot)


def _ensure_settled(tx: Connection, slot: Slot) -> None:
    """Refuse while the engine may still bring up, or take down, a model of this slot."""
    lane = lane_of(tx, slot.engine_id)
    owed = lane.job_id if lane and lane.slot_id == slot.id else slot.unload_job_id
    if owed is not None:
        raise SlotBusy(
            f"the engine has not settled job {owed} of slot {slot.name} yet; try again later",
            evidence={"slot": slot.name, "job_id": owed},
        )


def _check(tx: Connection, settings: Settings, slot: Slot) -> None:
    """Check what the slot would be, as a whole; the transaction goes back if it cannot be."""
    times = times_of(slot, settings)
    check_idle_times(times.idle_after_s, times.unload_after_s)
    if slot.wanted_model_id is not None:
        ensure_model_is_free(tx, slot, slot.wanted_model_id)
