"""Periodic work: one turn an interval, over all workers."""

import threading
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import update

from hal0.db import Database
from hal0.jobs.periodic import is_due
from hal0.tables import periodic
from tests.ledger import eventually


def test_work_is_due_at_once_and_then_not_before_its_interval_is_over(db: Database) -> None:
    assert is_due(db, "reconcile", 60)
    assert not is_due(db, "reconcile", 60)
    assert is_due(db, "prune", 60), "each name has a clock of its own"


def test_work_is_due_again_when_its_interval_is_over(db: Database) -> None:
    assert is_due(db, "reconcile", 0.2)
    assert not is_due(db, "reconcile", 0.2)
    eventually(lambda: is_due(db, "reconcile", 60), limit_s=5)


def test_work_of_an_earlier_boot_is_due(db: Database) -> None:
    """After a reboot the monotonic clock begins anew: a far-off turn would never come."""
    assert is_due(db, "reconcile", 1e6)
    with db.write() as tx:
        tx.execute(update(periodic).values(next_boot="another boot"))
    assert is_due(db, "reconcile", 60)


def test_of_workers_that_look_at_once_exactly_one_gets_the_turn(db: Database) -> None:
    """Raced from the first row on, and from an old one."""
    workers, rounds = 4, 10
    barrier = threading.Barrier(workers)

    def look(_: int) -> list[bool]:
        got = []
        for turn in range(rounds):
            barrier.wait(20)
            got.append(is_due(db, f"work-{turn % 5}", 0.0 if turn < 5 else 60))
        return got

    with ThreadPoolExecutor(workers) as pool:
        taken = list(pool.map(look, range(workers)))
    for turn in range(5, rounds):
        assert sum(mine[turn] for mine in taken) == 1
