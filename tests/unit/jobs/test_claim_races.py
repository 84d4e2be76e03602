"""The claim under two workers at once, and what it costs."""

import threading
from concurrent.futures import ThreadPoolExecutor

from hal0.db import Database
from hal0.jobs.ledger.runnable import RUNNABLE
from hal0.states import JobKind, Outcome
from tests.ledger import end, make_slots, try_claim
from tests.rows import ask_load, slot_now

LOAD_STEPS = [JobKind.PULL, JobKind.VALIDATE, JobKind.UNLOAD, JobKind.LOAD]


def test_two_claimers_never_get_two_jobs_of_one_slot(db: Database) -> None:
    """one_running, raced: both see the same queue at the same moment."""
    names = [f"slot-{n}" for n in range(4)]
    make_slots(db, *names)
    for name in names:
        ask_load(db, name)
    barrier, order, watch = threading.Barrier(2), list[tuple[int, JobKind]](), threading.Lock()
    running: set[int] = set()
    together = 0

    def work(owner_id: str) -> None:
        nonlocal together
        while True:
            barrier.wait(20)
            held = try_claim(db, owner_id)
            if held is not None:
                with watch:
                    assert held.job.slot_id not in running
                    running.add(held.job.slot_id)
                    together = max(together, len(running))
                    order.append((held.job.slot_id, held.job.kind))
            barrier.wait(20)
            with watch:
                running.discard(held.job.slot_id if held else 0)
            if held is not None:
                end(db, held, Outcome.SKIPPED)
            with watch:
                is_over = len(order) == 16
            barrier.wait(20)
            if is_over:
                return

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(work, owner) for owner in ("owner-1", "owner-2")]:
            done.result(60)
    assert together == 2, "different slots run in parallel"
    for name in names:
        mine = [kind for slot_id, kind in order if slot_id == slot_now(db, name).id]
        assert mine == LOAD_STEPS


def test_the_claim_reads_what_is_queued_or_running_never_the_history(db: Database) -> None:
    """Each look at `jobs` goes through a partial index: a million old jobs cost nothing."""
    parameters = {"heavy": True, "fetches": True, "boot": "boot", "now_ms": 0}
    with db.read() as tx:
        plan = tx.exec_driver_sql("EXPLAIN QUERY PLAN " + RUNNABLE, parameters).all()
        partial = set(
            tx.exec_driver_sql(
                "SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'jobs' "
                "AND sql LIKE '% WHERE state = %'"
            ).scalars()
        )
    steps = [row.detail for row in plan]
    aliases = {"j", "r", "e", "u", "p"}
    looks = {step.split()[1]: step for step in steps if step.split()[1] in aliases}
    assert set(looks) == aliases, steps
    for step in looks.values():
        assert "USING" in step, steps
        used = step.split(" INDEX ")[1].split()[0]
        assert used in partial, steps
    assert not [step for step in steps if "TEMP B-TREE" in step], steps
