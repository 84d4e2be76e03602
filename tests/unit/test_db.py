"""Durability and refusal: what the three kinds of connection are, and what each error is called."""

import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, exc, literal, select, text

from hal0 import errors
from hal0.db import Database, open_database, prepare_home, revision
from hal0.dialect import COMPILED
from hal0.settings import Settings
from hal0.sqlite_errors import database_errors
from hal0.tables import REVISION

Kind = Callable[[Database], AbstractContextManager[Connection]]
FULL, NORMAL = 2, 1


def _pragma(tx: Connection, name: str) -> object:
    return tx.exec_driver_sql(f"PRAGMA {name}").scalar_one()


@pytest.mark.parametrize(
    ("kind", "synchronous"),
    [(Database.write, FULL), (Database.soft, NORMAL), (Database.read, NORMAL)],
    ids=["write", "soft", "read"],
)
def test_each_kind_of_connection_is_as_durable_as_it_says(
    db: Database, kind: Kind, synchronous: int
) -> None:
    with kind(db) as tx:
        assert _pragma(tx, "synchronous") == synchronous
        assert _pragma(tx, "journal_mode") == "wal"
        assert _pragma(tx, "foreign_keys") == 1


def test_a_hundred_connections_later_it_is_still_so(db: Database) -> None:
    """The pool hands connections out again: a PRAGMA set once per connection must stay."""
    for _ in range(100):
        with db.write() as tx:
            assert _pragma(tx, "synchronous") == FULL


def test_a_reader_cannot_write(db: Database) -> None:
    with pytest.raises(errors.DatabaseError), db.read() as tx:
        tx.execute(text("DELETE FROM engines"))
    with db.read() as tx:
        assert tx.execute(text("SELECT count(*) FROM engines")).scalar_one() == 1


def test_a_reader_sees_one_moment_and_holds_nobody_up(db: Database) -> None:
    with db.read() as reader:
        assert reader.execute(text("SELECT count(*) FROM periodic")).scalar_one() == 0
        with db.write() as writer:
            writer.execute(text("INSERT INTO periodic VALUES ('tick', 'boot', 1)"))
        assert reader.execute(text("SELECT count(*) FROM periodic")).scalar_one() == 0
    with db.read() as reader:
        assert reader.execute(text("SELECT count(*) FROM periodic")).scalar_one() == 1


@pytest.mark.parametrize("kind", [Database.write, Database.soft], ids=["write", "soft"])
def test_what_raises_inside_a_transaction_is_not_written(db: Database, kind: Kind) -> None:
    def write() -> None:
        with kind(db) as tx:
            tx.execute(text("INSERT INTO periodic VALUES ('tick', 'boot', 1)"))
            raise KeyError("a bug of the caller")

    with pytest.raises(KeyError):
        write()
    with db.read() as tx:
        assert tx.execute(text("SELECT count(*) FROM periodic")).scalar_one() == 0


def test_two_writers_that_read_first_both_commit(db: Database) -> None:
    """BEGIN IMMEDIATE: deferred, the second would lose to SQLITE_BUSY_SNAPSHOT at once."""
    with db.write() as tx:
        tx.execute(text("INSERT INTO periodic VALUES ('count', 'boot', 0)"))
    rounds, barrier = 25, threading.Barrier(2)

    def count_up(kind: Kind) -> None:
        for _ in range(rounds):
            barrier.wait(20)
            with kind(db) as tx:
                seen = tx.execute(text("SELECT next_ms FROM periodic")).scalar_one()
                tx.execute(text("UPDATE periodic SET next_ms = :n"), {"n": seen + 1})

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(count_up, kind) for kind in (Database.write, Database.soft)]:
            done.result(60)
    with db.read() as tx:
        assert tx.execute(text("SELECT next_ms FROM periodic")).scalar_one() == 2 * rounds


def test_a_database_that_another_holds_is_locked_and_says_when_to_come_again(
    db: Database, settings: Settings
) -> None:
    impatient = Database(settings.database, busy_timeout_s=0.05)
    with closing(sqlite3.connect(settings.database)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(errors.DatabaseLocked) as caught, impatient.write():
            pass
        assert caught.value.code == "db.locked"
        assert caught.value.retry_after_s == 1
        with impatient.read() as tx:
            assert tx.execute(text("SELECT count(*) FROM engines")).scalar_one() == 1
    impatient.close()


def test_a_lock_shorter_than_the_patience_is_not_noticed(db: Database, settings: Settings) -> None:
    other = sqlite3.connect(settings.database, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.3, other.rollback)
    release.start()
    with db.write() as tx:
        tx.execute(text("INSERT INTO periodic VALUES ('tick', 'boot', 1)"))
    release.join()
    other.close()


def test_a_full_database_is_full_and_says_when_to_come_again(db: Database) -> None:
    def write() -> None:
        with db.write() as tx:
            tx.exec_driver_sql(f"PRAGMA max_page_count = {_pragma(tx, 'page_count')}")
            row = {"long": "x" * 100_000}
            tx.execute(text("INSERT INTO periodic VALUES (:long, 'boot', 1)"), row)

    with pytest.raises(errors.DatabaseFull) as caught:
        write()
    assert caught.value.code == "db.full"
    assert caught.value.retry_after_s


@pytest.mark.parametrize(
    "code",
    [
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_IOERR_FSYNC,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_PERM,
    ],
)
def test_a_file_that_cannot_be_written_now_is_unwritable_and_says_when_to_come_again(
    code: int,
) -> None:
    """Who has a result to write keeps it and tries again."""
    refusal = sqlite3.OperationalError("disk I/O error")
    refusal.sqlite_errorcode = code
    with pytest.raises(errors.DatabaseUnwritable) as caught, database_errors():
        raise refusal
    assert (caught.value.code, caught.value.status) == ("db.unwritable", 503)
    assert caught.value.retry_after_s


def test_a_broken_constraint_is_the_callers_to_read(db: Database) -> None:
    with pytest.raises(exc.IntegrityError), db.write() as tx:
        tx.execute(text("INSERT INTO periodic VALUES (NULL, 'boot', 1)"))


def test_the_first_to_open_a_home_makes_its_database(settings: Settings) -> None:
    assert revision(settings.database) is None
    open_database(settings).close()
    assert revision(settings.database) == REVISION
    assert (settings.models.is_dir(), settings.run.is_dir()) == (True, True)


def test_an_empty_file_counts_as_no_database(settings: Settings) -> None:
    prepare_home(settings)
    settings.database.touch()
    open_database(settings).close()
    assert revision(settings.database) == REVISION


DIES_IN_A_TRANSACTION = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.executescript("PRAGMA cache_size = 1; BEGIN; CREATE TABLE one (content)")
connection.executemany("INSERT INTO one VALUES (?)", [("x" * 3000,)] * 50)
os._exit(0)
"""


def test_a_home_whose_first_process_died_in_its_first_moment_is_made_anew(
    settings: Settings,
) -> None:
    """Before the log is there SQLite keeps a journal, which a read-only connection cannot use."""
    prepare_home(settings)
    program = [sys.executable, "-c", DIES_IN_A_TRANSACTION]
    subprocess.run([*program, settings.database], check=True)
    assert settings.database.with_name("hal0.db-journal").stat().st_size > 0
    open_database(settings).close()
    assert revision(settings.database) == REVISION


def _say_revision(settings: Settings, template: Path, number: str) -> None:
    prepare_home(settings)
    shutil.copy(template, settings.database)
    with closing(sqlite3.connect(settings.database)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (number,))
        connection.commit()


def test_an_older_schema_is_refused_and_names_the_remedy(
    settings: Settings, migrated_file: Path
) -> None:
    _say_revision(settings, migrated_file, "0000")
    with pytest.raises(errors.DatabaseOlder, match="hal0 db upgrade") as caught:
        open_database(settings)
    assert caught.value.code == "db.older"
    assert (caught.value.evidence or {})["found"] == "0000"
    assert revision(settings.database) == "0000"


@pytest.mark.parametrize("upgrade", [False, True])
def test_a_newer_schema_is_refused_always(
    settings: Settings, migrated_file: Path, upgrade: bool
) -> None:
    _say_revision(settings, migrated_file, "9999")
    with pytest.raises(errors.DatabaseNewer) as caught:
        open_database(settings, upgrade=upgrade)
    assert caught.value.code == "db.newer"
    assert revision(settings.database) == "9999"


def test_a_file_that_is_no_database_is_refused_and_left_alone(settings: Settings) -> None:
    prepare_home(settings)
    settings.database.write_bytes(b"not a database at all" * 100)
    with pytest.raises(errors.DatabaseCorrupt) as caught:
        open_database(settings, upgrade=True)
    assert caught.value.code == "db.corrupt"
    assert settings.database.read_bytes() == b"not a database at all" * 100


def test_a_damaged_database_is_refused(settings: Settings, migrated_file: Path) -> None:
    prepare_home(settings)
    whole = migrated_file.read_bytes()
    settings.database.write_bytes(whole[:100] + b"\xff" * 3996 + whole[4096:])
    with pytest.raises(errors.DatabaseCorrupt):
        open_database(settings)


def test_a_database_of_another_program_is_refused_and_left_alone(settings: Settings) -> None:
    prepare_home(settings)
    with closing(sqlite3.connect(settings.database)) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
        connection.commit()
    with pytest.raises(errors.DatabaseCorrupt, match="not one of hal0"):
        open_database(settings, upgrade=True)
    with closing(sqlite3.connect(settings.database)) as connection:
        assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("recipes",)]


def test_a_home_that_cannot_be_made_is_a_matter_of_settings(tmp_path: Path) -> None:
    """A file in the way, for nothing is unwritable to root."""
    (tmp_path / "home").write_text("a file in the way")
    for home in (tmp_path / "home", tmp_path / "home" / "below"):
        with pytest.raises(errors.SettingsError, match="HAL0_HOME"):
            open_database(Settings(home=home))


def test_a_folder_in_the_databases_place_is_refused(settings: Settings) -> None:
    settings.database.mkdir(parents=True)
    with pytest.raises(errors.DatabaseError):
        open_database(settings)


def test_a_home_with_strange_characters_works(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "with space, 100% & ?q=1#x")
    open_database(settings).close()
    database = open_database(settings)
    with database.read() as tx:
        assert tx.execute(text("SELECT count(*) FROM engines")).scalar_one() == 1
    database.close()
    assert [path.name for path in tmp_path.iterdir()] == ["with space, 100% & ?q=1#x"]


def test_a_database_that_was_taken_away_is_not_made_anew_by_who_has_it_open(db: Database) -> None:
    for path in db.path.parent.glob("hal0.db*"):
        path.unlink()
    with pytest.raises(errors.DatabaseUnwritable), db.write():
        pass
    assert not db.path.exists()


def test_what_one_database_compiled_no_other_compiles_again(db: Database) -> None:
    asked = select(literal("a text that no other test asks for"))
    with db.read() as tx:
        tx.execute(asked)
    compiled = list(COMPILED)
    assert compiled, "it is where all look"
    with closing(Database(db.path, 1.0)) as other:
        for kind in (other.read, other.soft, other.write):
            with kind() as tx:
                tx.execute(asked)
    assert list(COMPILED) == compiled
