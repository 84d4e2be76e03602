"""Periodic work: one turn an interval, counted from its end, over all workers."""

import threading
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import update

from hal0.db import Database
from hal0.jobs.periodic import HOLD_S, end_turn, hold_turn, make_due, take_turn
from hal0.tables import periodic
from tests.machine.clock import Clock


def _turn(db: Database, interval_s: float, name: str = "scan") -> bool:
    """Take a turn that takes no time."""
    is_mine = take_turn(db, name, interval_s)
    if is_mine:
        end_turn(db, name)
    return is_mine


def test_work_is_due_at_once_and_then_not_before_its_interval_is_over(
    db: Database, clock: Clock
) -> None:
    assert _turn(db, 60)
    assert not _turn(db, 60)
    assert _turn(db, 60, "prune"), "each name has a clock of its own"
    clock.tick(59_000)
    assert not _turn(db, 60)
    clock.tick(1_000)
    assert _turn(db, 60)


def test_the_interval_is_counted_from_the_end_of_a_turn(db: Database, clock: Clock) -> None:
    assert take_turn(db, "scan", 2)
    for _ in range(40):
        clock.tick(1_000)
        hold_turn(db, "scan")
        assert not take_turn(db, "scan", 2), "somebody has it"
    end_turn(db, "scan")
    clock.tick(1_000)
    assert not take_turn(db, "scan", 2)
    clock.tick(1_000)
    assert take_turn(db, "scan", 2)


def test_a_turn_that_nobody_holds_any_more_comes_free(db: Database, clock: Clock) -> None:
    """Its worker has died."""
    assert take_turn(db, "scan", 2)
    clock.tick(int(HOLD_S * 1000))
    assert not take_turn(db, "scan", 2)
    clock.tick(2_000)
    assert take_turn(db, "scan", 2)


def test_a_turn_that_has_ended_is_not_held_again(db: Database, clock: Clock) -> None:
    """The tick that holds it and the thread that ends it do not wait for each other."""
    assert _turn(db, 2)
    hold_turn(db, "scan")
    clock.tick(2_000)
    assert _turn(db, 2)


def test_a_turn_taken_while_there_was_time_is_due_earlier_when_there_is_none(
    db: Database, clock: Clock
) -> None:
    assert _turn(db, 30)
    clock.tick(2_000)
    assert not _turn(db, 30)
    assert _turn(db, 2)


def test_a_turn_that_is_asked_for_begins_at_once(db: Database, clock: Clock) -> None:
    assert _turn(db, 60)
    make_due(db, "scan")
    assert _turn(db, 60)
    assert not _turn(db, 60)


def test_a_turn_that_is_asked_for_during_another_begins_when_that_ends(
    db: Database, clock: Clock
) -> None:
    """What that one reads may have been read before."""
    assert take_turn(db, "scan", 60)
    for _ in range(8):
        make_due(db, "scan")
        clock.tick(1_000)
        assert not take_turn(db, "scan", 60), "somebody has it"
        hold_turn(db, "scan")
    end_turn(db, "scan")
    assert _turn(db, 60)
    assert not _turn(db, 60)


def test_a_turn_that_is_asked_for_does_not_wait_for_a_worker_that_has_died(
    db: Database, clock: Clock
) -> None:
    assert take_turn(db, "scan", 60)
    make_due(db, "scan")
    clock.tick(int(HOLD_S * 1000))
    assert take_turn(db, "scan", 60)


def test_a_tick_that_comes_a_little_early_finds_its_work_due(db: Database, clock: Clock) -> None:
    for _ in range(10):
        assert _turn(db, 1)
        clock.tick(980)


def test_work_of_an_earlier_boot_is_due(db: Database) -> None:
    """After a reboot the monotonic clock begins anew: a far-off turn would never come."""
    assert take_turn(db, "scan", 1e6)
    with db.write() as tx:
        tx.execute(update(periodic).values(next_boot="another boot"))
    assert take_turn(db, "scan", 60)


def test_of_workers_that_look_at_once_exactly_one_gets_the_turn(db: Database) -> None:
    """Raced from the first row on, and from an old one."""
    workers, rounds = 4, 10
    barrier = threading.Barrier(workers)

    def look(_: int) -> list[bool]:
        got = []
        for turn in range(rounds):
            name = f"work-{turn % 5}"
            barrier.wait(20)
            got.append(take_turn(db, name, 0))
            barrier.wait(20)
            end_turn(db, name)
        return got

    with ThreadPoolExecutor(workers) as pool:
        taken = list(pool.map(look, range(workers)))
    for turn in range(rounds):
        assert sum(mine[turn] for mine in taken) == 1
