"""Whether a process notices that its database cannot be read any more: its watchdog asks this."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from hal0 import errors
from hal0.cli.checks.database import database
from hal0.db import Database, open_database
from hal0.settings import Settings


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


def log_deleted(path: Path) -> None:
    for end in ("-wal", "-shm"):
        path.with_name(f"{path.name}{end}").unlink()


def replaced(path: Path) -> None:
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    copy.rename(path)


@pytest.mark.parametrize("spoil", [log_deleted, replaced])
def test_files_that_are_deleted_under_a_process_are_noticed_by_it_and_by_doctor(
    db: Database, settings: Settings, spoil: Callable[[Path], None]
) -> None:
    with db.write() as tx:
        tx.exec_driver_sql("DELETE FROM periodic")
    db.ensure_undivided()
    assert {found.verdict for found in database(settings)} == {"ok"}
    spoil(db.path)
    for look in (db.ensure_readable, db.ensure_undivided):
        with pytest.raises(errors.DatabaseCorrupt, match="deleted, or replaced"):
            look()
    wrong = next(found for found in database(settings) if found.verdict == "wrong")
    assert f"process {os.getpid()} goes on in {db.path}" in wrong.detail


def test_a_database_that_is_used_and_closed_is_undivided(db: Database, settings: Settings) -> None:
    db.close()
    again = Database(settings.database)
    with again.write() as tx:
        tx.exec_driver_sql("DELETE FROM periodic")
    again.ensure_undivided()
    again.close()


@pytest.mark.parametrize("begin", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
def test_a_database_that_another_holds_is_readable(db: Database, begin: str) -> None:
    with closing(sqlite3.connect(db.path, isolation_level=None)) as other:
        other.execute(begin)
        other.execute("DELETE FROM periodic")
        db.ensure_readable()


def signs(settings: Settings, caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.clear()
    open_database(settings).close()
    return [record.getMessage() for record in caplog.records if record.name == "hal0.db"]


def test_a_new_database_in_a_home_that_had_one_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It was moved away, or its disk is not there: hal0 would seem to have lost everything."""
    settings = Settings(home=tmp_path / "home")
    assert signs(settings, caplog) == [], "a home that is new"
    for sign in ("models/m.gguf", "run/owners/worker-1", "closed", "hal0.db.0001.backup"):
        path = settings.home / sign
        path.parent.mkdir(exist_ok=True)
        path.touch()
        assert signs(settings, caplog) == [], "the database is there"
        settings.database.unlink()
        (told,) = signs(settings, caplog)
        assert str(path.parent if path.parent != settings.home else path) in told
        assert "put it back" in told
        path.unlink()
