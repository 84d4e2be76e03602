"""The bare loop: one process inserts a job and claims it, by `sqlite3`, two FULL commits.

No other process is woken: what any queue on this disk needs at the very least.
"""

import sqlite3
import sys

from tests.bench.systems.starter import begin, serve

SCHEMA = """
CREATE TABLE jobs (id INTEGER PRIMARY KEY AUTOINCREMENT, state TEXT NOT NULL, owner TEXT,
                   attempt INTEGER NOT NULL, created_at TEXT NOT NULL, started_at TEXT);
CREATE INDEX ix_jobs_queued ON jobs (id) WHERE state = 'queued';
"""
INSERT = "INSERT INTO jobs (state, attempt, created_at) VALUES ('queued', 0, datetime())"
CLAIM = """
UPDATE jobs SET state = 'running', owner = 'me', attempt = attempt + 1, started_at = datetime()
WHERE id = (SELECT id FROM jobs WHERE state = 'queued' ORDER BY id LIMIT 1) RETURNING id
"""


def main(path: str) -> None:
    """Insert, commit, claim, commit, begin."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.executescript(SCHEMA)

    def insert_and_claim() -> None:
        for statement in (INSERT, CLAIM):
            db.execute("BEGIN IMMEDIATE")
            db.execute(statement).fetchall()
            db.execute("COMMIT")
        begin()
        db.execute("UPDATE jobs SET state = 'succeeded' WHERE state = 'running'")

    serve(insert_and_claim)


if __name__ == "__main__":
    main(sys.argv[2])
