"""What a load took: its phases, what it waited, what it lay failed; these are the whole."""

from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hal0.db import Database
from hal0.errors import EngineRefused, LoadTimeout
from hal0.jobs.ledger import claims, orders
from hal0.jobs.ledger.intake import Wish, request_check
from hal0.jobs.ledger.rows import Claim
from hal0.states import JobKind, JobState, Outcome
from tests.history import ALICE, BOB, CORRUPT, Clock, Row, frozen_clock, look, retry, step, steps
from tests.ledger import (
    begin_validate,
    die,
    end,
    fail,
    free_lane,
    job,
    make_slots,
    mark_sent,
    try_claim,
)
from tests.rows import OPERATOR, ask_load, ask_unload, claim_next, run_load, slot_now

PARTS = ("pull_s", "validate_s", "unload_s", "load_s", "failed_s", "waited_s")


@pytest.fixture
def clock() -> Iterator[Clock]:
    with frozen_clock() as clock:
        yield clock


def loads(db: Database) -> list[Row]:
    """Return all loads; the parts of each are never negative and make up its whole."""
    rows = look(db, "SELECT * FROM audit_loads ORDER BY chain_id")
    for row in rows:
        assert all(row[part] >= 0 for part in PARTS), row
        assert sum(row[part] for part in PARTS) == pytest.approx(row["total_s"], abs=1e-6), row
    return rows


def parts(row: Row) -> list[float]:
    return [row[part] for part in PARTS]


def test_what_is_in_no_phase_of_a_load_is_waiting(db: Database, clock: Clock) -> None:
    make_slots(db, "chat")
    asked = ask_load(db, by=ALICE)
    for took_s, waited_s in ((10.5, 2), (3.25, 1), (0, 0), (7.125, 0.5)):
        end(db, step(db, clock, took_s, waited_s))
    (row,) = loads(db)
    assert parts(row) == [10.5, 3.25, 0, 7.125, 0, 3.5]
    assert row["total_s"] == 24.375
    assert (row["slot"], row["model"], row["asked_by"]) == ("chat", "m-chat", "alice")
    assert (row["outcome"], row["code"], row["failures"]) == ("done", None, 0)
    assert (row["job_id"], row["chain_id"]) == (asked.job_ids[3], asked.chain_id)


def test_an_interrupted_attempt_counts_for_its_phase(db: Database, clock: Clock) -> None:
    make_slots(db, "chat")
    ask_load(db)
    steps(db, clock, 1)
    die(db, step(db, clock, 20))
    end(db, step(db, clock, 5, waited_s=2))
    steps(db, clock, 0, 3)
    (row,) = loads(db)
    assert parts(row) == [1, 25, 0, 3, 0, 2]
    assert (row["interruptions"], row["failures"]) == (1, 0)


def test_a_load_that_was_put_off_has_waited(db: Database, clock: Clock) -> None:
    make_slots(db, "chat")
    ask_load(db)
    steps(db, clock, 1, 1, 0)
    held = claim_next(db)
    with db.write() as tx:
        claims.wait_on(tx, held, Outcome.DEFERRED, after_s=30)
    end(db, step(db, clock, 4, waited_s=30))
    assert parts(loads(db)[0]) == [1, 1, 0, 4, 0, 30]


def test_a_load_that_lay_failed_until_somebody_retried_it_has_not_waited(
    db: Database, clock: Clock
) -> None:
    make_slots(db, "chat")
    asked = ask_load(db, by=ALICE)
    steps(db, clock, 1)
    fail(db, step(db, clock, 2), CORRUPT)
    (row,) = loads(db)
    assert (row["outcome"], row["code"], row["total_s"]) == (
        "failed",
        "preload.checksum_mismatch",
        3,
    )
    clock.tick(3600)
    retry(db, asked.job_ids[1], BOB)
    assert loads(db) == [], "it is under way again"
    steps(db, clock, 2, 0)
    fail(db, step(db, clock, 8, waited_s=0.5), EngineRefused("no room"))
    clock.tick(60)
    retry(db, asked.job_ids[3], BOB)
    steps(db, clock, 0.25, 0, 5)
    (row,) = loads(db)
    assert parts(row) == [1, 4.25, 0, 13, 3660, 0.5]
    assert (row["outcome"], row["failures"], row["asked_by"]) == ("done", 2, "alice")


def test_a_retry_that_is_cancelled_before_it_begins_lay_failed_until_then(
    db: Database, clock: Clock
) -> None:
    make_slots(db, "chat")
    asked = ask_load(db)
    fail(db, step(db, clock, 2), CORRUPT)
    clock.tick(100)
    retry(db, asked.job_ids[0])
    with db.write() as tx:
        orders.cancel(tx, asked.job_ids[0], BOB)
    (row,) = loads(db)
    assert parts(row) == [2, 0, 0, 0, 100, 0]
    assert (row["outcome"], row["code"]) == ("cancelled", None)


def test_a_load_that_waits_for_the_lane_of_another(db: Database, clock: Clock) -> None:
    make_slots(db, "one", "two")
    ask_load(db, "one")
    steps(db, clock, 1, 1, 0)
    first = mark_sent(db, claim_next(db))
    ask_load(db, "two")
    steps(db, clock, 1, 1, 0)
    assert try_claim(db) is None
    clock.tick(58)
    fail(db, first, LoadTimeout("not ready within 60 s"))
    clock.tick(30)
    free_lane(db, first)
    end(db, step(db, clock, 5))
    late, waited = loads(db)
    assert (late["outcome"], late["code"]) == ("failed", "preload.load_timeout")
    assert parts(late) == [1, 1, 0, 60, 0, 0], "what the engine owes later is no part of it"
    assert parts(waited) == [1, 1, 0, 5, 0, 88]


def test_a_superseded_load_ends_when_the_last_of_its_chain_ends(db: Database, clock: Clock) -> None:
    make_slots(db, "chat")
    ask_load(db)
    run_load(db)
    ask_load(db, options={"ctx_size": 1})
    steps(db, clock, 1, 2)
    unload = mark_sent(db, claim_next(db))
    clock.tick(3)
    ask_unload(db)
    assert [row["outcome"] for row in loads(db)] == ["done"], "the unload was sent and goes on"
    clock.tick(4)
    end(db, unload)
    row = loads(db)[1]
    assert (row["outcome"], row["job_id"]) == ("superseded", unload.job.id + 1)
    assert parts(row) == [1, 2, 7, 0, 0, 0]


def test_a_cancelled_load_and_a_skipped_one_are_told_as_such(db: Database, clock: Clock) -> None:
    make_slots(db, "chat")
    asked = ask_load(db)
    steps(db, clock, 1)
    begin_validate(db, step(db, clock, 2, waited_s=1))
    with db.write() as tx:
        orders.cancel(tx, asked.job_ids[3], BOB)
    ask_load(db)
    steps(db, clock, 0, 1, 0, 0, outcome=Outcome.SKIPPED)
    cancelled, skipped = loads(db)
    assert (cancelled["outcome"], parts(cancelled)) == ("cancelled", [1, 2, 0, 0, 0, 1])
    assert (skipped["outcome"], parts(skipped)) == ("skipped", [0, 1, 0, 0, 0, 0])


def test_what_is_no_load_or_under_way_is_not_among_the_loads(db: Database, clock: Clock) -> None:
    make_slots(db, "chat", "code")
    with db.write() as tx:
        request_check(tx, slot_now(db), Wish(JobKind.VALIDATE), OPERATOR)
    steps(db, clock, 1)
    ask_load(db, "code")
    steps(db, clock, 1, 1, 0)
    assert loads(db) == []
    mark_sent(db, claim_next(db))
    assert loads(db) == []


def test_a_clock_that_is_set_back_makes_no_phase_negative(db: Database, clock: Clock) -> None:
    make_slots(db, "chat")
    ask_load(db)
    steps(db, clock, 1, 2, -1800, 4)
    assert parts(loads(db)[0]) == [1, 2, 0, 4, 0, 0]


HOW: dict[str, Callable[[Database, Claim], None]] = {"end": end, "die": die, "fail": fail}
EVENT = st.tuples(st.sampled_from([*HOW, "end"]), st.floats(-9, 99), st.floats(0, 99))


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None
)
@given(st.lists(EVENT, min_size=4, max_size=12))
def test_whatever_happens_to_a_load_its_parts_make_up_the_whole(
    db: Database, events: list[tuple[str, float, float]]
) -> None:
    """The database has the loads of earlier examples too, each of a slot of its own."""
    count = len(look(db, "SELECT 1 FROM slots"))
    with frozen_clock() as clock:
        make_slots(db, f"s{count}")
        job_ids = ask_load(db, f"s{count}").job_ids
        for how, took_s, waited_s in events:
            clock.tick(waited_s)
            failed = [number for number in job_ids if job(db, number).state is JobState.FAILED]
            if failed:
                retry(db, failed[0])
            elif (held := try_claim(db)) is not None:
                clock.tick(took_s)
                HOW[how](db, held)
        while (held := try_claim(db)) is not None:
            end(db, held)
    assert len(loads(db)) == count + 1
