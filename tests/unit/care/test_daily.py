"""When workers prune: one of them, once a day, and not while they stop."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import select

from hal0.care.daily import DAY_S, prune_daily
from hal0.care.pruning import BATCH
from hal0.clock import utc_now
from hal0.db import Database
from hal0.jobs.engine_room import Stopping
from hal0.settings import Settings
from hal0.tables import owners, prunings
from tests.machine.clock import Clock
from tests.worker import Worker

DAY_MS = int(DAY_S * 1000)


@pytest.fixture
def clock() -> Iterator[Clock]:
    with Clock() as clock:
        yield clock


@pytest.fixture
def workers(db: Database, settings: Settings) -> Iterator[tuple[Worker, Worker]]:
    both = (Worker(db, settings), Worker(db, settings))
    yield both
    for worker in both:
        worker.close()


def grow_old(db: Database, count: int = 1) -> None:
    """Have so many processes ended long ago."""
    ended_at = utc_now() - timedelta(days=100)
    row = {"kind": "cli", "boot_id": "b", "pid": 1, "pid_start": 1, "ended_at": ended_at}
    times = {"started_at": ended_at, "seen_at": ended_at}
    with db.write() as tx:
        rows = [{"id": f"{ended_at}-{number}", **row, **times} for number in range(count)]
        tx.execute(owners.insert(), rows)


def told(db: Database) -> list[tuple[str, dict[str, int]]]:
    with db.read() as tx:
        rows = tx.execute(select(prunings.c.actor, prunings.c.deleted).order_by(prunings.c.id))
        return [(row.actor, row.deleted) for row in rows]


def test_one_of_all_workers_prunes_and_the_next_time_is_a_day_later(
    db: Database, workers: tuple[Worker, Worker], clock: Clock
) -> None:
    for day in range(2):
        grow_old(db)
        for worker in workers:
            prune_daily(worker.ctx)
        assert told(db) == [("worker", {"owners": 1})] * (day + 1)
        grow_old(db)
        clock.tick(DAY_MS // 2)
        prune_daily(workers[day].ctx)
        assert len(told(db)) == day + 1, "half a day is not one"
        with db.write() as tx:
            tx.execute(owners.delete().where(owners.c.kind == "cli"))
        clock.tick(DAY_MS)


def test_a_worker_that_stops_does_so_between_two_batches_and_another_goes_on(
    db: Database, workers: tuple[Worker, Worker], clock: Clock
) -> None:
    grow_old(db, BATCH + 1)
    stops, goes_on = workers
    stops.ctx.stopping.set()
    with pytest.raises(Stopping):
        prune_daily(stops.ctx)
    assert told(db) == [("worker", {"owners": BATCH})]
    clock.tick(DAY_MS)
    prune_daily(goes_on.ctx)
    assert told(db)[1:] == [("worker", {"owners": 1})]
