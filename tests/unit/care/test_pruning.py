"""What goes when rows are old, what stays for as long as anything needs it, and that it is told."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from freezegun import freeze_time
from freezegun.api import FrozenDateTimeFactory
from sqlalchemy import func, select

from hal0.care.pruning import BATCH, Pruned, Retention, prune, would_prune
from hal0.db import Database
from hal0.errors import EngineRefused
from hal0.firstrun.record import keep, newest
from hal0.jobs.ledger.intake import Wish, request_check
from hal0.states import JobKind
from hal0.tables import (
    chains,
    job_attempts,
    jobs,
    owners,
    prune_permits,
    prunings,
    slots,
    transitions,
)
from tests.ledger import end, fail, free_lane, has_failed_key, make_slots
from tests.rows import OPERATOR, ask_load, claim_next, fail_next, run_load, send_load, slot_now

TODAY = datetime(2026, 11, 22, tzinfo=UTC)
MONTHS = Retention(timedelta(days=90), None)
SQLITES_LONGEST_WAIT_S = 0.1
"""Between two tries of who waits for the lock: `delays` of its busy handler."""
ALL = Retention(timedelta(days=90), timedelta(days=90))


@pytest.fixture
def clock() -> Iterator[FrozenDateTimeFactory]:
    with freeze_time(TODAY - timedelta(days=200)) as frozen:
        assert isinstance(frozen, FrozenDateTimeFactory)
        yield frozen


def check(db: Database, slot: str = "chat") -> int:
    """Carry out a validation, the smallest of all chains; return its job."""
    with db.write() as tx:
        asked = request_check(tx, slot_now(db, slot), Wish(JobKind.VALIDATE), OPERATOR)
    end(db, claim_next(db))
    return asked.job_ids[0]


def count(db: Database, table: object) -> int:
    with db.read() as tx:
        return int(tx.execute(select(func.count()).select_from(table)).scalar_one())  # type: ignore[arg-type]


def kept(db: Database) -> list[int]:
    with db.read() as tx:
        return list(tx.execute(select(jobs.c.id).order_by(jobs.c.id)).scalars())


def test_what_is_older_than_its_time_goes_with_its_attempts(
    db: Database, clock: FrozenDateTimeFactory
) -> None:
    make_slots(db, "chat")
    old = check(db)
    clock.move_to(TODAY)
    young = check(db)
    assert prune(db, MONTHS, "me").rows == {"chains": 1, "jobs": 1, "job_attempts": 1}
    assert kept(db) == [young] != [old]
    assert count(db, job_attempts) == count(db, chains) == 1


def test_a_dry_run_tells_what_would_go_and_takes_nothing(
    db: Database, clock: FrozenDateTimeFactory
) -> None:
    make_slots(db, "chat")
    for _ in range(3):
        check(db)
    clock.move_to(TODAY)
    check(db)
    with db.read() as tx:
        told = would_prune(tx, ALL)
    assert count(db, jobs) == 4
    assert prune(db, ALL, "me") == told


def test_a_slots_newest_chain_stays_however_old_for_a_retry_takes_it_up(
    db: Database, clock: FrozenDateTimeFactory
) -> None:
    make_slots(db, "chat", "embed")
    check(db)
    newest = [check(db), check(db, "embed")]
    clock.move_to(TODAY)
    prune(db, MONTHS, "me")
    assert kept(db) == newest


def test_what_is_not_finished_stays(db: Database, clock: FrozenDateTimeFactory) -> None:
    make_slots(db, "chat")
    waiting = ask_load(db)
    with db.write() as tx:
        request_check(tx, slot_now(db), Wish(JobKind.VALIDATE), OPERATOR)
    clock.move_to(TODAY)
    assert prune(db, ALL, "me") == Pruned()
    assert set(waiting.job_ids) <= set(kept(db))


def test_a_load_that_failed_and_no_machine_is_to_send_again_stays_known(
    db: Database, clock: FrozenDateTimeFactory
) -> None:
    make_slots(db, "chat")
    ask_load(db)
    sent = send_load(db)
    fail(db, sent, EngineRefused("no"))
    failed = sent.job.id
    free_lane(db, sent)
    with db.write() as tx:
        tx.execute(slots.update().values(error=None))  # that alone would keep it
    check(db)
    clock.move_to(TODAY)
    prune(db, MONTHS, "me")
    assert failed in kept(db)
    assert has_failed_key(db)


def test_the_job_that_a_slots_error_names_stays(db: Database, clock: FrozenDateTimeFactory) -> None:
    make_slots(db, "chat")
    ask_load(db)
    failed = fail_next(db, EngineRefused("no")).job.id
    with db.write() as tx:
        error = {"code": "engine.refused", "detail": "no", "job_id": failed}
        tx.execute(slots.update().values(error=error))
    check(db)
    clock.move_to(TODAY)
    prune(db, MONTHS, "me")
    assert failed in kept(db)


def test_transitions_are_kept_for_ever_unless_told_otherwise(
    db: Database, clock: FrozenDateTimeFactory
) -> None:
    make_slots(db, "chat")
    ask_load(db)
    run_load(db)
    before = count(db, transitions)
    clock.move_to(TODAY)
    prune(db, MONTHS, "me")
    assert count(db, transitions) == before > 1


def test_a_slots_last_transition_stays_for_it_is_its_state(
    db: Database, clock: FrozenDateTimeFactory
) -> None:
    make_slots(db, "chat", "embed")
    ask_load(db)
    run_load(db)
    was = slot_now(db)
    clock.move_to(TODAY)
    prune(db, ALL, "me")
    assert count(db, transitions) == 2
    assert slot_now(db) == was


def test_more_than_one_batch_is_one_row_of_what_went(
    db: Database, clock: FrozenDateTimeFactory
) -> None:
    make_slots(db, "chat")
    check(db)
    with db.write() as tx:
        one = tx.execute(select(chains).limit(1)).one()._asdict()
        done = tx.execute(select(jobs).limit(1)).one()._asdict()
        for number in range(1, BATCH + 51):
            new = {"id": one["id"] + number, "position": one["position"] + number}
            tx.execute(chains.insert().values({**one, **new}))
            row = {"id": done["id"] + number, "chain_id": new["id"], "position": new["position"]}
            tx.execute(jobs.insert().values({**done, **row}))
    clock.move_to(TODAY)
    check(db)
    rests: list[float] = []
    assert prune(db, MONTHS, "me", rests.append).rows["chains"] == BATCH + 51
    assert len(rests) == 2
    assert min(rests) > SQLITES_LONGEST_WAIT_S, "who waits for the lock looks again meanwhile"
    with db.read() as tx:
        (told,) = tx.execute(select(prunings))
    assert (told.actor, told.deleted["chains"], told.at.date()) == ("me", BATCH + 51, TODAY.date())
    assert count(db, prune_permits) == 0, "nobody else may delete from now on"


def test_nothing_to_delete_writes_no_row(db: Database) -> None:
    assert prune(db, ALL, "me") == Pruned()
    assert count(db, prunings) == 0


def test_processes_that_ended_long_ago_go_and_those_that_live_stay(
    db: Database, clock: FrozenDateTimeFactory
) -> None:
    before = count(db, owners)
    row = {
        "kind": "worker",
        "boot_id": "b",
        "pid": 1,
        "pid_start": 1,
        "started_at": datetime(2026, 1, 1, tzinfo=UTC),
        "seen_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    with db.write() as tx:
        tx.execute(
            owners.insert().values(id="gone", ended_at=datetime(2026, 1, 2, tzinfo=UTC), **row)
        )
        tx.execute(owners.insert().values(id="lives", **row))
    clock.move_to(TODAY)
    assert prune(db, MONTHS, "me").rows == {"owners": 1}
    assert count(db, owners) == before + 1


def test_old_looks_at_the_machine_go_and_the_newest_stays(
    db: Database, clock: FrozenDateTimeFactory
) -> None:
    with db.write() as tx:
        for number in range(3):
            keep(tx, {"number": number})
    clock.move_to(TODAY)
    with db.read() as tx:
        assert would_prune(tx, MONTHS).rows == {"probes": 2}
    assert prune(db, MONTHS, "me").rows == {"probes": 2}
    with db.read() as tx:
        assert newest(tx).facts == {"number": 2}
