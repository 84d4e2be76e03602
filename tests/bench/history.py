"""A long past, written fast and by the rules: SQL copies rows that hal0 wrote, all triggers on."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hal0.db import Database
from hal0.slots.queries import slot_named
from hal0.slots.transitions import Act, move
from hal0.states import Cause, SlotState

FAST = ("synchronous = OFF", "temp_store = MEMORY", "cache_size = -200000")
NUMBERS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"


def copy_job(path: Path, job_id: int, count: int) -> None:
    """Add `count` copies of a finished job with its chain and its attempt, all later than it."""
    with _open(path) as db:
        shift = {"id": "b.id + i", "position": "b.position + i", "chain_id": "b.chain_id + i"}
        _copy(db, "chains", shift, "b.id = (SELECT chain_id FROM jobs WHERE id = ?)", count, job_id)
        _copy(db, "jobs", shift, "b.id = ?", count, job_id)
        _copy(db, "job_attempts", {"job_id": "b.job_id + i"}, "b.job_id = ?", count, job_id)


def go_round(db: Database, slots: Sequence[str], count: int) -> None:
    """Give these slots `count` transitions in all: again and again to starting and back."""
    for name in slots:
        with db.write() as tx:
            slot = move(tx, slot_named(tx, name), SlotState.STARTING, Cause.CHECKED, Act("bench"))
            move(tx, slot, SlotState.OFFLINE, Cause.VALIDATED, Act("bench"))
    with _open(db.path) as raw:
        rounds = count // (2 * len(slots)) - 1
        if rounds > 0:
            _copy(raw, "transitions", {"id": "NULL"}, "b.from_state IS NOT NULL", rounds)


def _copy(
    db: sqlite3.Connection, table: str, new: dict[str, str], which: str, count: int, *values: int
) -> None:
    """Insert each row of `which` `count` times, with the columns of `new` in place of its own."""
    names = [row[1] for row in db.execute(f"PRAGMA table_info ({table})")]
    columns = ", ".join(new.get(name, f"b.{name}") for name in names)
    db.execute(
        f"{NUMBERS} INSERT INTO {table} ({', '.join(names)}) "
        f"SELECT {columns} FROM n, {table} b WHERE {which} ORDER BY i, b.rowid",
        (count, *values),
    )


@contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection]:
    """Open one transaction that need not survive a power cut."""
    db = sqlite3.connect(path, isolation_level=None)
    try:
        for pragma in FAST:
            db.execute(f"PRAGMA {pragma}")
        db.execute("BEGIN IMMEDIATE")
        yield db
        db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        db.close()
