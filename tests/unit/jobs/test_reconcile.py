"""What an engine's list means for slots: only where nothing moved since, and no lane stands."""

from typing import Any

import pytest
from sqlalchemy import select, update

from hal0.db import Database
from hal0.engines.base import EngineHealth, LoadedModel
from hal0.jobs.incidents import Culprit
from hal0.jobs.ledger.lane import Lane, lane_of
from hal0.jobs.losses import mark_lost
from hal0.jobs.reading import Reading
from hal0.registry.roster import engine_named
from hal0.slots.queries import stands
from hal0.slots.transitions import Act, move
from hal0.states import Cause, IncidentKind, SlotState
from hal0.tables import incidents, slots
from tests.ledger import fail, free_lane, history, make_slots, the_lanes, unfinished, write_reading
from tests.rows import ask_load, ask_unload, options, run_load, send_load, slot_now

PROCESS = "1-1"
"""The process that `send_load` says it sent to."""


def _read(db: Database, *listed: str, process: str | None = PROCESS, **more: Any) -> Reading:
    """What reconcile reads: where the slots stand, then a list of models."""
    with db.read() as tx:
        engine = engine_named(tx, "default")
        before = stands(tx, engine.id)
        lane: Lane | None = lane_of(tx, engine.id)
    models = more.get("models", tuple(LoadedModel(name) for name in listed))
    return Reading(engine, EngineHealth(process, models), before, lane)


def _reconcile(db: Database, reading: Reading) -> int:
    with db.write() as tx:
        return write_reading(tx, reading)


def _mark(
    db: Database, reading: Reading | None, slot: str, kind: IncidentKind = IncidentKind.LOAD_FAILED
) -> int:
    with db.write() as tx:
        return mark_lost(tx, reading, Culprit(slot_now(db, slot).id, 4, kind))


def _ready(db: Database, *names: str) -> None:
    make_slots(db, *names)
    for name in names:
        ask_load(db, name)
        run_load(db)


def test_what_is_listed_stays(db: Database) -> None:
    _ready(db, "chat")
    assert _reconcile(db, _read(db, "m-chat")) == 0
    assert slot_now(db).state is SlotState.READY


def test_a_model_gone_without_incident_was_unloaded_elsewhere_and_stays_so(db: Database) -> None:
    _ready(db, "chat", "other")
    assert _reconcile(db, _read(db, "m-other")) == 1
    assert history(db)[-1] == "ready>offline unloaded_elsewhere"
    assert _reconcile(db, _read(db, "m-other")) == 0
    assert slot_now(db).desired == "unloaded"
    assert unfinished(db) == []
    assert slot_now(db, "other").state is SlotState.READY


def test_an_engine_that_was_restarted_gets_back_what_is_wanted(db: Database) -> None:
    _ready(db, "chat")
    assert _reconcile(db, _read(db, process="2-2")) == 1
    assert history(db)[-1] == "ready>offline engine_restarted"
    assert slot_now(db).desired == "loaded"
    assert len(unfinished(db)) == 4


def test_what_is_not_wanted_is_not_brought_back(db: Database) -> None:
    """restore: an adopted model, for example, of which nobody asked."""
    _ready(db, "chat")
    with db.write() as tx:
        tx.execute(update(slots).values(desired="unloaded"))
    _reconcile(db, _read(db, process="2-2"))
    assert unfinished(db) == []


def test_a_slot_with_an_unfinished_job_is_left_to_it(db: Database) -> None:
    """reconcile_skips_unfinished"""
    _ready(db, "chat")
    ask_unload(db)
    assert _reconcile(db, _read(db)) == 0
    assert slot_now(db).state is SlotState.READY


def test_a_slot_whose_job_began_after_the_read_is_left_to_it_too(db: Database) -> None:
    """reconcile_skips_unfinished, at the write"""
    _ready(db, "chat")
    reading = _read(db)
    ask_load(db, options=options({"ctx_size": 512}))
    assert _reconcile(db, reading) == 0
    assert slot_now(db).state is SlotState.READY


def test_while_a_lane_stands_who_settles_it_marks_what_is_lost(db: Database) -> None:
    """reconcile_skips_lane"""
    _ready(db, "chat")
    make_slots(db, "other")
    ask_load(db, "other")
    late = send_load(db)
    fail(db, late)
    assert _reconcile(db, _read(db)) == 0
    free_lane(db, late)
    assert _reconcile(db, _read(db)) == 1


def test_a_lane_that_went_since_the_read_counts_as_well(db: Database) -> None:
    """reconcile_reads_lane: the list is from before it was settled."""
    _ready(db, "chat")
    make_slots(db, "other")
    ask_load(db, "other")
    late = send_load(db)
    fail(db, late)
    reading = _read(db)
    free_lane(db, late)
    assert the_lanes(db) == []
    assert _reconcile(db, reading) == 0
    assert slot_now(db).state is SlotState.READY


def test_a_slot_that_moved_since_the_read_is_left_alone(db: Database) -> None:
    """reconcile_cas_transition: also of the same generation."""
    _ready(db, "chat")
    reading = _read(db)
    with db.soft() as tx:
        move(tx, slot_now(db), SlotState.IDLE, Cause.DEMOTED, Act("scan"))
    assert _reconcile(db, reading) == 0
    assert slot_now(db).state is SlotState.IDLE


def test_a_slot_that_served_since_the_read_is_a_loads_victim_all_the_same(db: Database) -> None:
    """Else a busy one would be taken for unloaded by a person, and never come back."""
    _ready(db, "chat", "culprit")
    reading = _read(db)
    for to, cause in (
        (SlotState.SERVING, Cause.REQUEST_STARTED),
        (SlotState.READY, Cause.REQUESTS_DONE),
    ):
        with db.soft() as tx:
            move(tx, slot_now(db), to, cause, Act("dispatcher"))
    assert _mark(db, reading, "culprit") == 1
    assert history(db)[-1] == "ready>offline evicted_by_engine"
    assert len(unfinished(db)) == 4


def test_a_slot_that_was_loaded_anew_since_the_read_is_no_loads_victim(db: Database) -> None:
    """reconcile_cas"""
    _ready(db, "culprit")
    make_slots(db, "chat")
    reading = _read(db)
    ask_load(db)
    run_load(db)
    assert _mark(db, reading, "culprit") == 0
    assert slot_now(db).state is SlotState.READY


def test_a_slot_that_was_loaded_anew_since_the_read_is_left_alone(db: Database) -> None:
    """reconcile_cas"""
    make_slots(db, "chat")
    reading = _read(db)
    ask_load(db)
    run_load(db)
    assert _reconcile(db, reading) == 0
    assert slot_now(db).state is SlotState.READY


@pytest.mark.parametrize("names", [("tiny", "tiny"), ("m-chat", "m-chat")])
def test_two_entries_of_its_name_are_unknown_and_nothing_is_lost(
    db: Database, names: tuple[str, str]
) -> None:
    _ready(db, "chat")
    assert _reconcile(db, _read(db, *names)) == 0


def test_the_file_counts_before_the_name(db: Database) -> None:
    _ready(db, "chat")
    path = str(db.path.parent / "models" / "m-chat.gguf")
    assert _reconcile(db, _read(db, models=(LoadedModel("renamed", checkpoint=path),))) == 0
    stranger = LoadedModel("m-other", checkpoint="elsewhere.gguf")
    assert _reconcile(db, _read(db, models=(stranger,))) == 1


def test_a_missing_list_is_unknown_not_empty(db: Database) -> None:
    _ready(db, "chat", "culprit")
    assert _mark(db, _read(db, models=None), "culprit") == 0
    assert _mark(db, None, "culprit") == 0
    assert slot_now(db).state is SlotState.READY


def test_all_that_a_load_cost_is_one_incident(db: Database) -> None:
    """evicted_marked, restore: the culprit itself is never brought back."""
    _ready(db, "one", "two", "kept", "culprit")
    assert _mark(db, _read(db, "m-kept"), "culprit") == 2
    for name in ("one", "two"):
        assert history(db, name)[-1] == "ready>offline evicted_by_engine"
        assert len(unfinished(db, name)) == 4
    assert slot_now(db, "kept").state is SlotState.READY
    assert slot_now(db, "culprit").state is SlotState.READY
    with db.read() as tx:
        (incident,) = tx.execute(select(incidents)).all()
    assert (incident.kind, incident.job_id) == ("load_failed", 4)
    assert incident.evidence == {"slots": ["one", "two"]}


def test_what_was_dropped_for_a_load_that_succeeded_is_not_brought_back(db: Database) -> None:
    """lru_not_restored"""
    _ready(db, "one", "culprit")
    assert _mark(db, _read(db, "m-culprit"), "culprit", IncidentKind.LOAD_MADE_ROOM) == 1
    assert history(db, "one")[-1] == "ready>offline evicted_by_engine"
    assert unfinished(db, "one") == []
    assert slot_now(db, "one").desired == "loaded"


def test_a_restart_is_no_eviction(db: Database) -> None:
    _ready(db, "one", "culprit")
    assert _mark(db, _read(db, process="2-2"), "culprit") == 0
    assert slot_now(db, "one").state is SlotState.READY


def test_a_lost_slot_with_a_job_of_its_own_is_left_to_it(db: Database) -> None:
    """machines_quiet"""
    _ready(db, "one", "culprit")
    ask_unload(db, "one")
    assert _mark(db, _read(db), "culprit") == 0
    assert slot_now(db, "one").state is SlotState.READY
