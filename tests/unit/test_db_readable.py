"""Whether a process notices that its database cannot be read any more: its watchdog asks this."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from hal0 import errors
from hal0.db import Database


def gone(path: Path) -> None:
    path.rename(path.with_name("aside"))


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def overwritten(path: Path) -> None:
    path.write_bytes(b"\xff" * 20_000)


def of_another_version(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")


@pytest.mark.parametrize("spoil", [gone, emptied, overwritten, of_another_version])
def test_a_file_that_cannot_be_read_is_noticed_behind_open_connections(
    db: Database, spoil: Callable[[Path], None]
) -> None:
    db.ensure_readable()
    spoil(db.path)
    with pytest.raises(errors.DatabaseError, match=str(db.path)):
        db.ensure_readable()


def test_a_file_that_is_put_back_is_readable_again(db: Database) -> None:
    db.ensure_readable()
    gone(db.path)
    with pytest.raises(errors.DatabaseCorrupt):
        db.ensure_readable()
    db.path.with_name("aside").rename(db.path)
    db.ensure_readable()


@pytest.mark.parametrize("begin", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
def test_a_database_that_another_holds_is_readable(db: Database, begin: str) -> None:
    with closing(sqlite3.connect(db.path, isolation_level=None)) as other:
        other.execute(begin)
        other.execute("DELETE FROM periodic")
        db.ensure_readable()
