"""Who did what in the last day, and what each incident moved."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import update

from hal0.clock import utc_now
from hal0.db import Database
from hal0.engines.base import EngineHealth
from hal0.errors import EngineRefused
from hal0.jobs.incidents import Culprit, record
from hal0.jobs.ledger import orders
from hal0.jobs.ledger.rows import Claim
from hal0.jobs.losses import mark_lost
from hal0.jobs.reading import Reading
from hal0.registry.roster import engine_named
from hal0.slots.queries import stands
from hal0.states import IncidentKind
from hal0.tables import TIME_FORMAT, chains
from tests.history import (
    ALICE,
    BOB,
    CORRUPT,
    Clock,
    Row,
    frozen_clock,
    give_up,
    look,
    now,
    retry,
)
from tests.ledger import begin_validate, die, end, fail, make_slots, mark_sent, write_reading
from tests.rows import arrive, ask_load, ask_unload, claim_next, slot_now


@pytest.fixture
def clock() -> Iterator[Clock]:
    with frozen_clock() as clock:
        yield clock


def day(db: Database) -> list[tuple[object, ...]]:
    """Return asked_by, done_by, slot, what, and the cause, else the code, in the order of time."""
    rows = look(db, "SELECT * FROM audit_last_day ORDER BY at")
    return [
        (row["asked_by"], row["done_by"], row["slot"], row["what"], row["cause"] or row["code"])
        for row in rows
    ]


def next_job(db: Database, clock: Clock) -> Claim:
    clock.tick(1)
    held = claim_next(db)
    clock.tick(1)
    return held


def load(db: Database, clock: Clock) -> Claim:
    """Let the only chain run to a loaded model; each step takes a second."""
    end(db, next_job(db, clock))
    return load_from_validate(db, clock)


def load_from_validate(db: Database, clock: Clock) -> Claim:
    validate = next_job(db, clock)
    begin_validate(db, validate)
    end(db, validate)
    end(db, next_job(db, clock))
    held = mark_sent(db, next_job(db, clock))
    clock.tick(1)
    arrive(db, held)
    clock.tick(1)
    return held


def lose(db: Database, *, culprit: Culprit | None) -> None:
    """Let the engine list nothing any more, on a culprit's account or by itself."""
    with db.read() as tx:
        engine = engine_named(tx, "default")
        before = stands(tx, engine.id)
    reading = Reading(engine, EngineHealth("1-1", ()), before, None)
    with db.write() as tx:
        if culprit is None:
            write_reading(tx, reading)
        else:
            mark_lost(tx, reading, culprit)


def test_who_asked_and_who_did_it_is_told_of_every_change(db: Database, clock: Clock) -> None:
    make_slots(db, "chat")
    clock.tick(1)
    ask_load(db, by=ALICE)
    load(db, clock)
    ask_unload(db, by=BOB)
    mark_sent(db, next_job(db, clock))
    assert day(db) == [
        ("local", "local", "chat", "new → offline", "created"),
        ("alice", "alice", "chat", "asked for load of m-chat", None),
        ("alice", "worker", "chat", "offline → starting", "checked"),
        ("alice", "worker", "chat", "starting → warming", "load_sent"),
        ("alice", "worker", "chat", "warming → ready", "loaded"),
        ("bob", "bob", "chat", "asked for unload", None),
        ("bob", "worker", "chat", "ready → unloading", "operator_unload"),
    ]


def test_a_retry_is_told_and_takes_nothing_from_who_asked_first(db: Database, clock: Clock) -> None:
    make_slots(db, "chat")
    clock.tick(1)
    asked = ask_load(db, by=ALICE)
    end(db, next_job(db, clock))
    validate = next_job(db, clock)
    begin_validate(db, validate)
    clock.tick(1)
    fail(db, validate, CORRUPT)
    clock.tick(60)
    retry(db, asked.job_ids[1], BOB)
    assert day(db)[1:] == [
        ("alice", "alice", "chat", "asked for load of m-chat", None),
        ("alice", "worker", "chat", "offline → starting", "checked"),
        ("alice", "worker", "chat", "starting → error", "job_failed"),
    ], "the retry has not begun"
    die(db, next_job(db, clock))
    load_from_validate(db, clock)
    assert day(db)[4:] == [
        ("bob", "bob", "chat", "retried validate of m-chat", None),
        ("bob", "worker", "chat", "error → starting", "checked"),
        ("bob", "worker", "chat", "starting → warming", "load_sent"),
        ("bob", "worker", "chat", "warming → ready", "loaded"),
    ]
    codes = [row["code"] for row in look(db, "SELECT code FROM audit_last_day") if row["code"]]
    assert codes == ["preload.checksum_mismatch"]


def test_a_failure_that_moved_no_slot_is_told_too(db: Database, clock: Clock) -> None:
    make_slots(db, "chat")
    clock.tick(1)
    ask_load(db)
    load(db, clock)
    clock.tick(1)
    ask_load(db, options={"ctx_size": 1}, by=ALICE)
    end(db, next_job(db, clock))
    fail(db, next_job(db, clock), CORRUPT)
    assert day(db)[5:] == [
        ("alice", "alice", "chat", "asked for load of m-chat", None),
        ("alice", "worker", "chat", "failed: validate of m-chat", "preload.checksum_mismatch"),
    ]


def test_a_cancel_is_its_askers_and_a_deletion_nobodys(db: Database, clock: Clock) -> None:
    """Who deleted a slot is in no row."""
    make_slots(db, "chat")
    clock.tick(1)
    asked = ask_load(db, by=ALICE)
    end(db, next_job(db, clock))
    begin_validate(db, next_job(db, clock))
    clock.tick(1)
    with db.write() as tx:
        orders.cancel(tx, asked.job_ids[3], BOB)
    clock.tick(1)
    give_up(db)
    assert day(db)[2:] == [
        ("alice", "worker", "chat", "offline → starting", "checked"),
        ("bob", "bob", "chat", "starting → offline", "cancelled"),
        (None, None, "chat", "deleted", None),
    ]


def test_a_load_that_ended_with_a_sent_unload_was_asked_for_as_a_load(
    db: Database, clock: Clock
) -> None:
    make_slots(db, "chat")
    clock.tick(1)
    ask_load(db)
    load(db, clock)
    ask_load(db, options={"ctx_size": 1}, by=ALICE)
    end(db, next_job(db, clock))
    end(db, next_job(db, clock))
    mark_sent(db, next_job(db, clock))
    clock.tick(1)
    ask_unload(db, by=BOB)
    assert day(db)[5:] == [
        ("alice", "alice", "chat", "asked for load of m-chat", None),
        ("alice", "worker", "chat", "ready → unloading", "replaced"),
        ("bob", "bob", "chat", "asked for unload", None),
    ]


def test_only_a_day_is_shown_and_a_retry_counts_when_it_begins(db: Database, clock: Clock) -> None:
    clock.tick(timedelta(days=-2))
    make_slots(db, "chat")
    asked = ask_load(db, by=ALICE)
    fail(db, next_job(db, clock), CORRUPT)
    assert day(db) == []
    clock.tick(timedelta(days=2))
    retry(db, asked.job_ids[0], BOB)
    end(db, next_job(db, clock))
    assert day(db) == [("bob", "bob", "chat", "retried pull of m-chat", None)]


def test_attempts_from_before_0002_are_their_chains_actors(db: Database, clock: Clock) -> None:
    """Rows of attempts are final, so an old one is made by its worker knowing no name."""
    make_slots(db, "chat")
    clock.tick(1)
    ask_load(db, by=ALICE)
    with db.write() as tx:
        tx.exec_driver_sql("DROP TRIGGER job_attempts_no_update")
    end(db, next_job(db, clock))
    fail(db, next_job(db, clock), CORRUPT)
    with db.write() as tx:
        tx.exec_driver_sql("UPDATE job_attempts SET asked_by = NULL")
        tx.execute(update(chains).values(actor="carol"))
    assert {row[0] for row in day(db)[1:]} == {"carol"}
    for view in ("audit_failed_jobs", "audit_loads"):
        assert look(db, f"SELECT asked_by FROM {view}") == [{"asked_by": "carol"}]


# -- incidents -------------------------------------------------------------------------------------


def incidents(db: Database) -> list[Row]:
    return look(db, "SELECT * FROM audit_incidents ORDER BY incident_id, transition_id")


def test_each_slot_that_an_incident_moved_is_a_row_and_nobody_asked_for_it(
    db: Database, clock: Clock
) -> None:
    make_slots(db, "one", "two", "evil")
    for name in ("one", "two"):
        ask_load(db, name)
        load(db, clock)
    asked = ask_load(db, "evil", by=ALICE)
    for _ in range(3):
        end(db, next_job(db, clock))
    held = mark_sent(db, next_job(db, clock))
    clock.tick(1)
    fail(db, held, EngineRefused("no room"))
    culprit = Culprit(slot_now(db, "evil").id, asked.job_ids[3], IncidentKind.LOAD_FAILED)
    clock.tick(1)
    lose(db, culprit=culprit)
    at = now()
    rows = incidents(db)
    because_of = f" on account of job {asked.job_ids[3]}"
    assert [(row["moved_slot"], row["from_state"], row["to_state"]) for row in rows] == [
        ("one", "ready", "offline"),
        ("two", "ready", "offline"),
    ]
    for row in rows:
        assert (row["at"], row["moved_at"], row["back_at"]) == (at, at, None)
        assert (row["engine"], row["kind"], row["cause"]) == (
            "default",
            "load_failed",
            "evicted_by_engine",
        )
        assert (row["culprit"], row["culprit_model"]) == ("evil", "m-evil")
        assert row["culprit_job_id"] == asked.job_ids[3]
        assert row["detail"] == f"engine default dropped 2 models{because_of}"
    what = [row for row in day(db) if row[4] == "evicted_by_engine" or "because" in str(row[3])]
    because = f", because of job {asked.job_ids[3]}"
    assert sorted(what, key=str) == [
        ("reconcile", "reconcile", "one", f"asked for load of m-one{because}", None),
        ("reconcile", "reconcile", "two", f"asked for load of m-two{because}", None),
        (None, "worker", "one", "ready → offline", "evicted_by_engine"),
        (None, "worker", "two", "ready → offline", "evicted_by_engine"),
    ]


def test_an_incident_tells_when_what_it_moved_had_a_model_again(db: Database, clock: Clock) -> None:
    make_slots(db, "one", "evil")
    ask_load(db, "one")
    load(db, clock)
    lose(db, culprit=Culprit(slot_now(db, "evil").id, 99, IncidentKind.LOAD_MADE_ROOM))
    ask_load(db, "one")
    load(db, clock)
    back_at = (utc_now() - timedelta(seconds=1)).strftime(TIME_FORMAT)
    lose(db, culprit=None)
    ask_load(db, "one")
    load(db, clock)
    (row,) = incidents(db)
    assert (row["moved_slot"], row["back_at"]) == ("one", back_at)
    assert (row["culprit"], row["culprit_model"], row["culprit_job_id"]) == ("evil", None, 99)


def test_an_incident_that_moved_nothing_is_told_once(db: Database, clock: Clock) -> None:
    make_slots(db, "chat")
    with db.write() as tx:
        late = IncidentKind.LATE_ARRIVAL
        record(tx, 1, late, "it came late", culprit=Culprit(1, 1, late))
    (row,) = incidents(db)
    assert (row["kind"], row["culprit"], row["detail"]) == ("late_arrival", "chat", "it came late")
    assert (row["moved_slot"], row["transition_id"], row["back_at"]) == (None, None, None)


def test_a_loss_that_is_nobodys_fault_is_no_incident(db: Database, clock: Clock) -> None:
    make_slots(db, "chat")
    ask_load(db)
    load(db, clock)
    lose(db, culprit=None)
    assert incidents(db) == []
    assert day(db)[-1] == (
        "reconcile",
        "reconcile",
        "chat",
        "ready → offline",
        "unloaded_elsewhere",
    )
