"""The schema that the migrations build is the one on the page in `hal0/tables.py`."""

import fcntl
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from hal0.audit_views import VIEWS
from hal0.db import migrate, migrations_folder, open_database, prepare_home, revision
from hal0.settings import Settings
from hal0.states import EDGES
from hal0.tables import REVISION, TRIGGERS, metadata
from tests.older import migrate_and_die

ROOT = Path(__file__).parents[2]
OPEN = """
import sys
from pathlib import Path
from hal0.db import open_database
from hal0.settings import Settings
print("here", flush=True)
sys.stdin.readline()
open_database(Settings(home=Path(sys.argv[1]))).close()
"""


def _normal(sql: str) -> str:
    """The same statement, however it is spaced."""
    return re.sub(r"\s*([(),])\s*", r"\1", " ".join(sql.split())).replace('"', "")


def _schema(path: Path) -> dict[str, str]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL "
            "AND name NOT LIKE 'sqlite!_%' ESCAPE '!' AND name <> 'alembic_version'"
        ).fetchall()
    return {name: _normal(sql) for name, sql in rows}


@pytest.fixture
def from_scratch(tmp_path: Path) -> Path:
    path = tmp_path / "scratch.db"
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        metadata.create_all(connection)
        for statement in (*TRIGGERS.values(), *VIEWS.values()):
            connection.exec_driver_sql(statement)
    engine.dispose()
    return path


def test_the_migrations_build_what_the_page_says(migrated_file: Path, from_scratch: Path) -> None:
    assert _schema(migrated_file) == _schema(from_scratch)


def test_the_migrations_leave_every_trigger_in_place(migrated_file: Path) -> None:
    with closing(sqlite3.connect(migrated_file)) as connection:
        names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'")
        assert {name for (name,) in names} == set(TRIGGERS)


@pytest.mark.filterwarnings("ignore:autogenerate skipping metadata-specified expression-based")
@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index")
def test_alembic_finds_nothing_to_migrate(migrated_file: Path) -> None:
    engine = create_engine(f"sqlite:///{migrated_file}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_the_code_knows_the_newest_revision() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    assert ScriptDirectory.from_config(config).get_heads() == [REVISION]


def test_a_migrated_database_says_its_revision(migrated_file: Path) -> None:
    assert revision(migrated_file) == REVISION


def test_the_seeded_edges_are_those_of_the_code(migrated_file: Path) -> None:
    with closing(sqlite3.connect(migrated_file)) as connection:
        rows = connection.execute("SELECT from_state, to_state, cause FROM edges").fetchall()
    assert len(rows) == len(EDGES)
    assert set(rows) == {(edge.source, edge.to, edge.cause) for edge in EDGES}


def test_the_first_engine_is_the_one_of_the_settings(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", engine_url="http://127.0.0.1:8000")
    migrate(settings)
    with closing(sqlite3.connect(settings.database)) as connection:
        rows = connection.execute("SELECT name, kind, url, settle_s FROM engines").fetchall()
    assert rows == [("default", "lemonade", "http://127.0.0.1:8000", 1200.0)]


def test_migrating_twice_changes_nothing(settings: Settings) -> None:
    migrate(settings)
    with closing(sqlite3.connect(settings.database)) as connection:
        before = list(connection.iterdump())
    migrate(settings)
    with closing(sqlite3.connect(settings.database)) as connection:
        assert list(connection.iterdump()) == before


@contextmanager
def _two_openers(settings: Settings) -> Iterator[list[subprocess.Popen[str]]]:
    """Two processes that open the same new home as soon as they get a line."""
    openers = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, str(settings.home)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        for opener in openers:
            assert opener.stdout is not None
            assert opener.stdout.readline() == "here\n"
        yield openers
    finally:
        for opener in openers:
            opener.kill()
            opener.communicate()


def _go(opener: subprocess.Popen[str]) -> None:
    assert opener.stdin is not None
    opener.stdin.write("go\n")
    opener.stdin.flush()


def _ends_well(opener: subprocess.Popen[str]) -> None:
    _, errors = opener.communicate(timeout=30)
    assert opener.returncode == 0, errors


def test_two_processes_that_start_on_an_empty_home_both_succeed(settings: Settings) -> None:
    with _two_openers(settings) as openers:
        for opener in openers:
            _go(opener)
        for opener in openers:
            _ends_well(opener)
    with closing(sqlite3.connect(settings.database)) as connection:
        assert connection.execute("SELECT count(*) FROM engines").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM edges").fetchone() == (len(EDGES),)


def test_a_process_waits_while_another_migrates(settings: Settings) -> None:
    prepare_home(settings)
    with _two_openers(settings) as (waiting, late):
        with (settings.home / "migrate.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _go(waiting)
            with pytest.raises(subprocess.TimeoutExpired):
                waiting.wait(1)
            assert revision(settings.database) is None
        _ends_well(waiting)
        _go(late)
        _ends_well(late)
    assert revision(settings.database) == REVISION


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE alembic_version",
        "CREATE TABLE slots",
        "CREATE TRIGGER transitions_no_update",
        "INSERT INTO engines",
        "INSERT INTO alembic_version",
    ],
)
def test_of_a_migration_killed_in_the_middle_nothing_stays(
    settings: Settings, statement: str
) -> None:
    migrate_and_die(settings, statement)
    assert revision(settings.database) is None
    assert _schema(settings.database) == {}
    open_database(settings).close()
    assert revision(settings.database) == REVISION
    assert set(TRIGGERS) <= set(_schema(settings.database))
