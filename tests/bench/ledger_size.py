"""Whether claim and finish of a job grow with the jobs that have ended before it."""

import time
from pathlib import Path
from typing import Final

from hal0.db import Database, open_database
from hal0.jobs.boot import first_act
from hal0.jobs.ledger import intake
from hal0.jobs.ledger.claims import claim, finish
from hal0.jobs.ledger.intake import Wish
from hal0.jobs.ledger.rows import Claim
from hal0.settings import Settings
from hal0.slots.queries import slot_named
from hal0.states import JobKind
from tests.bench.history import copy_job
from tests.bench.table import Row, Spread, judged, ratios
from tests.bench.workshop import Workshop
from tests.rows import OPERATOR, make_model, make_slot

FINISHED: Final = 100_000
ROUNDS: Final = 300
TARGET: Final = 1.5


def measure(shop: Workshop) -> list[Row]:
    """Claim and finish one job at a time, in turn in an empty ledger and in one with a past."""
    young, old = _ledger(shop.folder / "young"), _ledger(shop.folder / "old")
    copy_job(old.path, _enqueue_and_finish(old)[0].job.id, FINISHED)
    took: dict[str, list[float]] = {"empty": [], "old": []}
    for number in range(ROUNDS):
        pair = [("empty", young), ("old", old)]
        for name, db in reversed(pair) if number % 2 else pair:
            took[name].append(_enqueue_and_finish(db)[1])
    young.close()
    old.close()
    ratio = ratios(took["old"], took["empty"])
    return [
        Row(
            what=f"claim + finish with {FINISHED:,} finished jobs / with none",
            figure=f"{ratio.p50:.2f} x",
            spread=str(ratio),
            to_reach=f"<= {TARGET} x",
            verdict=judged(ratio.p50 <= TARGET),
            how=f"{Spread.of(took['old']).p50:.1f} ms, {Spread.of(took['empty']).p50:.1f} ms",
            samples=took,
        )
    ]


def _ledger(home: Path) -> Database:
    db = open_database(Settings(home=home))
    first_act(db, "bench")
    make_model(db, "tiny")
    make_slot(db, "chat", "tiny")
    return db


def _enqueue_and_finish(db: Database) -> tuple[Claim, float]:
    """Enqueue a job; return its claim, and how many milliseconds claim and finish took."""
    with db.write() as tx:
        intake.request_check(tx, slot_named(tx, "chat"), Wish(JobKind.VALIDATE), OPERATOR)
    began_ns = time.monotonic_ns()
    with db.soft() as tx:
        held = claim(tx, "bench")
    assert held is not None
    with db.write() as tx:
        finish(tx, held)
    return held, (time.monotonic_ns() - began_ns) / 1e6
