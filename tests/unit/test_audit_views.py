"""How long slots were in which state, and what failed: every second, every error, every name."""

from collections.abc import Iterator

import pytest
from sqlalchemy import update

from hal0.audit_views import VIEWS
from hal0.db import Database
from hal0.errors import EngineRefused
from hal0.registry.catalog import delete_model, model_named
from hal0.states import Cause, SlotState
from hal0.tables import slots
from tests.history import (
    ALICE,
    BOB,
    CORRUPT,
    Clock,
    frozen_clock,
    give_up,
    look,
    now,
    retry,
    step,
    steps,
    to,
)
from tests.ledger import die, fail, make_slots
from tests.rows import ask_load, claim_next, make_slot

ROUND = (
    (SlotState.STARTING, Cause.CHECKED),
    (SlotState.WARMING, Cause.LOAD_SENT),
    (SlotState.READY, Cause.LOADED),
    (SlotState.UNLOADING, Cause.OPERATOR_UNLOAD),
    (SlotState.OFFLINE, Cause.UNLOADED),
)
SCANNED = {"audit_time_in_state": {"transitions"}, "audit_loads": {"jobs"}}
"""What cannot be told without reading all of a table."""


@pytest.fixture
def clock() -> Iterator[Clock]:
    with frozen_clock() as clock:
        yield clock


def load_and_unload(db: Database, clock: Clock, *spent_s: float) -> None:
    """Spend these seconds in offline, starting, warming, ready and unloading."""
    for after_s, (state, cause) in zip(spent_s, ROUND, strict=True):
        to(db, clock, after_s, state, cause)


def test_the_times_in_all_states_make_up_the_life_of_a_slot(db: Database, clock: Clock) -> None:
    make_slots(db, "chat")
    load_and_unload(db, clock, 100, 0.5, 2.25, 3600, 0.001)
    load_and_unload(db, clock, 10, 1.5, 3, 60, 0.25)
    clock.tick(7)
    give_up(db)
    rows = look(db, "SELECT * FROM audit_time_in_state")
    assert {row["state"]: (row["times"], row["seconds"]) for row in rows} == {
        "offline": (3, 117.0),
        "starting": (2, 2.0),
        "warming": (2, 5.25),
        "ready": (2, 3660.0),
        "unloading": (2, 0.251),
    }
    assert {(row["slot"], row["is_now"], row["deleted_at"]) for row in rows} == {("chat", 0, now())}


def test_the_state_that_a_slot_is_in_goes_on_until_now(db: Database, clock: Clock) -> None:
    make_slots(db, "chat")
    (row,) = look(db, "SELECT * FROM audit_time_in_state")
    assert (row["state"], row["times"], row["is_now"]) == ("offline", 1, 1)
    assert row["seconds"] == pytest.approx(6 * 3600, abs=120)
    to(db, clock, 3600, SlotState.STARTING, Cause.CHECKED)
    rows = look(db, "SELECT * FROM audit_time_in_state ORDER BY last_entered_at")
    assert [(row["state"], row["is_now"]) for row in rows] == [("offline", 0), ("starting", 1)]
    assert rows[0]["seconds"] == 3600.0
    assert rows[1]["seconds"] == pytest.approx(5 * 3600, abs=120)


def test_a_name_that_is_used_again_is_another_slot(db: Database, clock: Clock) -> None:
    make_slots(db, "chat")
    clock.tick(30)
    give_up(db)
    clock.tick(1000)
    make_slot(db, "chat")
    first, second = look(db, "SELECT * FROM audit_time_in_state ORDER BY slot_id")
    assert (first["slot"], first["seconds"], first["is_now"]) == ("chat", 30.0, 0)
    assert (second["slot"], second["deleted_at"], second["is_now"]) == ("chat", None, 1)
    assert second["seconds"] < 6 * 3600


def test_a_clock_that_is_set_back_makes_no_time_negative(db: Database, clock: Clock) -> None:
    make_slots(db, "chat")
    to(db, clock, 10, SlotState.STARTING, Cause.CHECKED)
    to(db, clock, -1800, SlotState.WARMING, Cause.LOAD_SENT)
    rows = look(db, "SELECT state, seconds FROM audit_time_in_state WHERE NOT is_now")
    assert rows == [
        {"state": "offline", "seconds": 10.0},
        {"state": "starting", "seconds": 0.0},
    ]


def test_a_failed_job_is_told_with_its_error_and_without_those_it_took_along(
    db: Database, clock: Clock
) -> None:
    make_slots(db, "chat")
    asked = ask_load(db, by=ALICE)
    steps(db, clock, 1)
    fail(db, step(db, clock, 2, waited_s=3), CORRUPT)
    (row,) = look(db, "SELECT * FROM audit_failed_jobs")
    assert row == {
        "failed_at": now(),
        "slot": "chat",
        "kind": "validate",
        "model": "m-chat",
        "code": "preload.checksum_mismatch",
        "detail": "its sha256 is another",
        "failures": 1,
        "attempts": 1,
        "asked_by": "alice",
        "state": "failed",
        "job_id": asked.job_ids[1],
        "chain_id": asked.chain_id,
    }


def test_what_a_retry_mended_has_failed_all_the_same_and_keeps_who_asked(
    db: Database, clock: Clock
) -> None:
    make_slots(db, "chat")
    asked = ask_load(db, by=ALICE)
    steps(db, clock, 1)
    die(db, claim_next(db))
    fail(db, claim_next(db), CORRUPT)
    retry(db, asked.job_ids[1], BOB)
    steps(db, clock, 1, 1, 1)
    (row,) = look(db, "SELECT * FROM audit_failed_jobs")
    assert (row["state"], row["failures"], row["attempts"]) == ("succeeded", 1, 3)
    assert (row["code"], row["asked_by"]) == ("preload.checksum_mismatch", "alice")


def test_of_a_job_that_failed_twice_the_last_error_is_told(db: Database) -> None:
    make_slots(db, "chat")
    asked = ask_load(db, by=ALICE)
    fail(db, claim_next(db), CORRUPT)
    retry(db, asked.job_ids[0], BOB)
    fail(db, claim_next(db), EngineRefused("no room"))
    (row,) = look(db, "SELECT * FROM audit_failed_jobs")
    assert (row["code"], row["failures"], row["asked_by"]) == ("engine.refused", 2, "bob")


@pytest.mark.parametrize("view", ["audit_failed_jobs", "audit_loads"])
def test_what_was_deleted_since_keeps_its_name(db: Database, clock: Clock, view: str) -> None:
    make_slots(db, "chat")
    ask_load(db)
    fail(db, step(db, clock, 1), CORRUPT)
    with db.write() as tx:
        tx.execute(update(slots).values(wanted_model_id=None))
        delete_model(tx, model_named(tx, "m-chat"))
    give_up(db)
    make_slots(db, "chat")
    assert look(db, f"SELECT slot, model FROM {view}") == [{"slot": "chat", "model": "m-chat"}]


@pytest.mark.parametrize("view", VIEWS)
def test_only_what_needs_all_rows_of_a_table_reads_them(db: Database, view: str) -> None:
    """A day among years is found by an index, and so is what is rare."""
    names = {
        "t": "transitions",
        "c": "chains",
        "j": "jobs",
        "a": "job_attempts",
        "n": "job_attempts",
    }
    plan = [str(row["detail"]) for row in look(db, f"EXPLAIN QUERY PLAN SELECT * FROM {view}")]
    scans = [step.split() for step in plan if step.startswith("SCAN ")]
    tables = {
        names.get(words[1], words[1]) for words in scans if words[-1] != "ix_job_attempts_failed"
    }
    big = {"transitions", "chains", "jobs", "job_attempts"}
    assert tables & big == SCANNED.get(view, set()), plan
    if view == "audit_last_day":
        assert "SEARCH t USING INDEX ix_transitions_at (at>?)" in plan
        assert "SEARCH c USING INDEX ix_chains_created_at (created_at>?)" in plan
