"""Small histories whose every second is known, and the audit's views of them as an auditor reads.

The rows are written by hal0's own writers under a clock that stands still between two steps.
SQLite's own clock is the real one, so a history begins six hours ago: `frozen_clock`.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import Any

import freezegun
from freezegun.api import FrozenDateTimeFactory
from sqlalchemy import update

from hal0.clock import utc_now
from hal0.db import Database
from hal0.errors import ChecksumMismatch
from hal0.jobs.ledger import orders
from hal0.jobs.ledger.rows import By, Claim
from hal0.jobs.setup import delete_slot
from hal0.slots.transitions import Act, move
from hal0.states import Cause, Outcome, SlotState
from hal0.tables import TIME_FORMAT, slots
from tests.ledger import end
from tests.rows import claim_next, slot_now

Clock = FrozenDateTimeFactory
Row = dict[str, Any]

ALICE, BOB = By("alice", "request-1"), By("bob", "request-2")
CORRUPT = ChecksumMismatch("its sha256 is another")


@contextmanager
def frozen_clock() -> Iterator[Clock]:
    """Stop the clock six hours ago."""
    with freezegun.freeze_time(utc_now().replace(microsecond=0) - timedelta(hours=6)) as frozen:
        assert isinstance(frozen, Clock)
        yield frozen


def now() -> str:
    """Return the present instant as rows hold it."""
    return utc_now().strftime(TIME_FORMAT)


def look(db: Database, sql: str) -> list[Row]:
    """Return rows as plain sqlite3 reads them."""
    with closing(sqlite3.connect(f"{db.path.as_uri()}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(sql)]


def step(db: Database, clock: Clock, took_s: float, waited_s: float = 0) -> Claim:
    """Let the next job be claimed after a wait, and take its time; it is not ended yet."""
    clock.tick(waited_s)
    held = claim_next(db)
    clock.tick(took_s)
    return held


def steps(db: Database, clock: Clock, *took_s: float, outcome: Outcome = Outcome.DONE) -> None:
    """Let as many jobs run to a good end, one right after another."""
    for seconds in took_s:
        end(db, step(db, clock, seconds), outcome)


def retry(db: Database, job_id: int, by: By = BOB) -> None:
    """Run a failed job again, as an operator does."""
    with db.write() as tx:
        orders.retry(tx, job_id, by)


def to(db: Database, clock: Clock, after_s: float, state: SlotState, cause: Cause) -> None:
    """Move slot `chat` after a while, whatever jobs there are."""
    clock.tick(after_s)
    with db.write() as tx:
        tx.execute(update(slots).where(slots.c.name == "chat").values(model_id=1))
        move(tx, slot_now(db), state, cause, Act("worker"))


def give_up(db: Database, slot: str = "chat") -> None:
    """Delete a slot."""
    with db.write() as tx:
        delete_slot(tx, slot_now(db, slot), BOB)
