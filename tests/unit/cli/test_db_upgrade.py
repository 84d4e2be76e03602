"""`hal0 db upgrade` of an older database: no row is lost, no trigger, and a copy is kept.

The older database is a real one of revision 0001, the commands are real processes.
"""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection

from hal0.access.tokens import token_named
from hal0.audit_views import VIEWS
from hal0.db import Database, back_up, revision
from hal0.jobs.owners import Owner, OwnerRow, note_end
from hal0.settings import Settings
from hal0.tables import REVISION, TRIGGERS
from tests.older import AT, FIRST, columns_of, make_first_schema, migrate_and_die, rows
from tests.rows import make_slot

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
SAYS_WHAT_TO_DO = "run `hal0 db upgrade`"


@pytest.fixture
def older(settings: Settings) -> Settings:
    make_first_schema(settings)
    return settings


def _environment(settings: Settings) -> dict[str, str]:
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    return {
        **os.environ,
        "HAL0_HOME": str(settings.home),
        "HAL0_BIND": f"127.0.0.1:{ports[0]}",
        "HAL0_ENGINE_URL": f"http://127.0.0.1:{ports[1]}",
    }


def _hal0(settings: Settings, *args: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "hal0", *args],
        cwd=ROOT,
        env=_environment(settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _upgrade(settings: Settings) -> None:
    done = _hal0(settings, "db", "upgrade")
    assert done.returncode == 0, done.stderr


def _schema(path: Path) -> dict[str, str]:
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL")
        return dict(found.fetchall())


def _backups(settings: Settings) -> list[str]:
    return sorted(path.name for path in settings.home.glob("*.backup"))


def test_an_upgrade_keeps_every_row_as_it_was(older: Settings) -> None:
    path = older.database
    columns, before = columns_of(path), rows(path)
    assert all(before[table] for table in ("slots", "transitions", "jobs", "job_attempts"))
    done = _hal0(older, "db", "upgrade")
    assert done.stdout == f"{path}: schema {FIRST} → {REVISION}\n", done.stderr
    assert revision(path) == REVISION
    assert rows(path, columns) == before
    new = {
        table: added
        for table, names in columns_of(path).items()
        if (added := [name for name in names if name not in columns.get(table, [])])
    }
    found = rows(path, new)
    assert set(found.pop("jobs")) == {(0, 0)}
    assert set(found.pop("owners")) == {(None, 0)}
    unset = (None, None, "auto", None, None)
    assert set(found.pop("slots")) == {(*unset, "operator"), (*unset, "nobody")}
    for table in columns.keys() & found.keys():
        assert set(found.pop(table)) == {(None,) * len(new[table])}, table
    assert not any(found.values()), "a new table has no rows"


def test_tokens_of_the_second_schema_are_kept_and_who_made_them_is_not_known(
    settings: Settings, migrated_file: Path
) -> None:
    make_first_schema(settings, at="0002")
    columns, before = columns_of(settings.database), rows(settings.database)
    _upgrade(settings)
    assert rows(settings.database, columns) == before
    assert _schema(settings.database) == _schema(migrated_file)
    database = Database(settings.database)
    with database.read() as tx:
        token = token_named(tx, "ci")
    database.close()
    assert (str(token.role), token.created_by, token.revoked_by) == ("reader", None, None)


def test_an_upgraded_database_is_like_a_new_one(older: Settings, migrated_file: Path) -> None:
    _upgrade(older)
    assert _schema(older.database) == _schema(migrated_file)
    assert set(TRIGGERS) | set(VIEWS) <= set(_schema(older.database))
    with closing(sqlite3.connect(older.database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        with pytest.raises(sqlite3.IntegrityError, match="rows are final"):
            connection.execute("UPDATE transitions SET actor = 'me'")
        with pytest.raises(sqlite3.IntegrityError, match="not in this state"):
            connection.execute(
                "INSERT INTO transitions (slot_id, from_state, to_state, cause, at, actor, "
                f"generation) VALUES (1, 'offline', 'starting', 'checked', '{AT}', 'me', 0)"
            )


def test_the_copy_is_the_older_database_whole(older: Settings) -> None:
    with closing(sqlite3.connect(older.database)) as connection:
        before = list(connection.iterdump())
    _upgrade(older)
    assert _backups(older) == [f"hal0.db.{FIRST}.backup"]
    copy = older.home / f"hal0.db.{FIRST}.backup"
    assert revision(copy) == FIRST
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert list(connection.iterdump()) == before


def test_a_second_upgrade_does_nothing(older: Settings) -> None:
    _upgrade(older)
    with closing(sqlite3.connect(older.database)) as connection:
        before = list(connection.iterdump())
    copy = older.home / f"hal0.db.{FIRST}.backup"
    was = copy.stat().st_mtime_ns
    done = _hal0(older, "db", "upgrade")
    assert done.stdout == f"{older.database}: schema {REVISION} → {REVISION}\n", done.stderr
    with closing(sqlite3.connect(older.database)) as connection:
        assert list(connection.iterdump()) == before
    assert (_backups(older), copy.stat().st_mtime_ns) == ([copy.name], was)


def test_auditors_read_what_was_written_before_their_views(older: Settings) -> None:
    _upgrade(older)
    with closing(sqlite3.connect(older.database)) as connection:
        failed = "SELECT slot, code, asked_by, state FROM audit_failed_jobs"
        assert connection.execute(failed).fetchall() == [
            ("code", "preload.file_not_found", "bob", "failed")
        ]
        loads = "SELECT slot, outcome, interruptions, asked_by FROM audit_loads"
        assert connection.execute(loads).fetchall() == [("chat", "done", 1, "alice")]
        times = "SELECT slot, state FROM audit_time_in_state WHERE is_now ORDER BY slot_id"
        assert connection.execute(times).fetchall() == [("chat", "ready"), ("code", "error")]


@pytest.mark.parametrize("process", ["api", "worker"])
def test_an_older_database_is_refused_by_a_process_that_names_the_way_out(
    older: Settings, process: str
) -> None:
    before = _schema(older.database)
    done = _hal0(older, process)
    assert done.returncode in (1, 7)
    assert SAYS_WHAT_TO_DO in done.stderr
    assert f"has schema {FIRST}" in done.stderr
    assert (_schema(older.database), _backups(older)) == (before, [])


def test_up_upgrades_by_itself(older: Settings) -> None:
    before = rows(older.database, {"transitions": ["id", "at"], "job_attempts": ["job_id"]})
    up = subprocess.Popen(
        [sys.executable, "-m", "hal0", "up"],
        cwd=ROOT,
        env=_environment(older),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert up.stderr is not None
    try:
        said = iter(up.stderr.readline, "")
        assert any(line.startswith("worker runs") for line in said)
        assert revision(older.database) == REVISION
        assert _backups(older) == [f"hal0.db.{FIRST}.backup"]
    finally:
        up.send_signal(signal.SIGTERM)
        assert up.wait(30) == 0
        up.stderr.close()
    after = rows(older.database, {"transitions": ["id", "at"], "job_attempts": ["job_id"]})
    assert set(before["transitions"]) <= set(after["transitions"])
    assert set(before["job_attempts"]) <= set(after["job_attempts"])


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE idempotency_keys",
        "ALTER TABLE jobs ADD COLUMN faults",
        "CREATE VIEW audit_incidents",
        "UPDATE alembic_version",
    ],
)
def test_of_an_upgrade_killed_in_the_middle_nothing_stays(older: Settings, statement: str) -> None:
    path = older.database
    schema, columns, before = _schema(path), columns_of(path), rows(path)
    migrate_and_die(older, statement)
    assert revision(path) == FIRST
    assert (_schema(path), rows(path)) == (schema, before)
    assert revision(older.home / f"hal0.db.{FIRST}.backup") == FIRST
    _upgrade(older)
    assert (revision(path), rows(path, columns)) == (REVISION, before)


def test_two_upgrades_at_once_both_end_well(older: Settings) -> None:
    both = [
        subprocess.Popen([sys.executable, "-m", "hal0", "db", "upgrade"], cwd=ROOT, env=env)
        for env in [_environment(older)] * 2
    ]
    assert [process.wait(60) for process in both] == [0, 0]
    assert revision(older.home / f"hal0.db.{FIRST}.backup") == FIRST
    assert revision(older.database) == REVISION


def _register(tx: Connection, owner: OwnerRow) -> None:
    """Insert its row as an older hal0 did."""
    columns = "id, kind, boot_id, pid, pid_start, started_at, seen_at"
    values = (owner.id, owner.kind, owner.boot_id, owner.pid, owner.pid_start, AT, AT)
    tx.exec_driver_sql(f"INSERT INTO owners ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", values)


@pytest.mark.parametrize("command", [("db", "upgrade"), ("up",)])
def test_an_upgrade_is_refused_while_a_worker_uses_the_database(
    older: Settings, command: tuple[str, ...]
) -> None:
    owner = Owner(older.run, "worker")
    database = Database(older.database)
    with database.write() as tx:
        _register(tx, owner.row)
    done = _hal0(older, *command)
    assert done.returncode == 5, done.stderr
    assert f"in use (pid {owner.row.pid})" in done.stderr
    assert (revision(older.database), _backups(older)) == (FIRST, [])
    with database.write() as tx:
        note_end(tx, owner.id)
    owner.close()
    database.close()
    _upgrade(older)


def test_a_copy_is_whole_although_the_database_is_in_use(db: Database, settings: Settings) -> None:
    make_slot(db, "chat")
    to = settings.home / "copy.db"
    with db.read():
        back_up(settings.database, to)
    with closing(sqlite3.connect(to)) as copy:
        assert copy.execute("PRAGMA quick_check").fetchone() == ("ok",)
        assert copy.execute("SELECT name, state FROM slots").fetchall() == [("chat", "offline")]
