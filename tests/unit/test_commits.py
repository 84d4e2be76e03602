"""Whether a look learns that somebody committed: in this process or in another, and not twice."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest
from sqlalchemy import insert

from hal0.clock import utc_now
from hal0.commits import Commits
from hal0.db import Database
from hal0.errors import DatabaseError
from hal0.tables import probes

PROBE = "INSERT INTO probes (at, facts) VALUES ('2026-01-01T00:00:00.000000Z', '{}')"
OTHER = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute(sys.argv[2]); c.commit()"


@pytest.fixture
def commits(db: Database) -> Iterator[Commits]:
    commits = Commits(db.path)
    yield commits
    commits.close()


def test_the_first_look_may_find_something_and_the_next_one_nothing(commits: Commits) -> None:
    assert [commits.any_new() for _ in range(3)] == [True, False, False]


def test_a_commit_of_this_process_is_seen_once_durable_or_soft(
    commits: Commits, db: Database
) -> None:
    commits.any_new()
    for begin in (db.write, db.soft):
        with begin() as tx:
            tx.execute(insert(probes).values(at=utc_now(), facts={}))
            assert not commits.any_new()
        assert [commits.any_new() for _ in range(2)] == [True, False]


def test_a_commit_of_another_process_is_seen(commits: Commits, db: Database) -> None:
    commits.any_new()
    subprocess.run([sys.executable, "-c", OTHER, str(db.path), PROBE], check=True)
    assert [commits.any_new() for _ in range(2)] == [True, False]


def test_what_was_rolled_back_and_a_checkpoint_are_nothing_new(
    commits: Commits, db: Database
) -> None:
    with closing(sqlite3.connect(db.path)) as other:
        other.execute(PROBE)
        other.commit()
        commits.any_new()
        other.execute(PROBE)
        other.rollback()
        other.execute("PRAGMA wal_checkpoint(PASSIVE)")
        assert not commits.any_new()


def test_a_database_that_is_gone_is_an_error_and_afterwards_something_may_be_new(
    db: Database,
) -> None:
    away = db.path.with_suffix(".away")
    db.path.rename(away)
    commits = Commits(db.path)
    with pytest.raises(DatabaseError):
        commits.any_new()
    away.rename(db.path)
    assert [commits.any_new() for _ in range(2)] == [True, False]
    commits.close()
    assert commits.any_new()
    commits.close()
