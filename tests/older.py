"""A database of the first schema with a history in it, as one that was never upgraded."""

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from alembic import command
from alembic.config import Config

from hal0.db import migrations_folder, prepare_home
from hal0.settings import Settings

FIRST = "0001"
HISTORY = """
INSERT INTO boots (boot_id, first_seen_at) VALUES ('a boot', '{0}');
INSERT INTO owners (id, kind, boot_id, pid, pid_start, started_at, seen_at, ended_at)
VALUES ('gone', 'worker', 'a boot', 1, 1, '{0}', '{0}', '{0}');
INSERT INTO tokens (name, role, token_hash, created_at) VALUES ('ci', 'reader', 'hash', '{0}');
INSERT INTO models (id, name, format, allow_copy, created_at, deleted_at)
VALUES (1, 'tiny', 'gguf', 0, '{0}', NULL), (2, 'lost', 'gguf', 1, '{0}', '{0}');
INSERT INTO model_files (model_id, position, role, path, size_bytes)
VALUES (1, 0, 'main', '/models/tiny.gguf', 7), (2, 0, 'main', '/models/lost.gguf', NULL);
INSERT INTO slots (id, name, engine_id, wanted_model_id, model_id, options, desired, pinned,
  priority, generation, version, created_at)
VALUES (1, 'chat', 1, 1, 1, '{{"ctx_size": 8}}', 'loaded', 0, 0, 1, 0, '{0}'),
       (2, 'code', 1, 2, NULL, '{{}}', 'unloaded', 1, 5, 0, 0, '{0}');
INSERT INTO chains (id, slot_id, position, goal, origin, actor, model_id, rehash, force, created_at)
VALUES (1, 1, 1, 'load', 'operator', 'alice', 1, 0, 0, '{0}'),
       (2, 2, 2, 'validate', 'operator', 'bob', 2, 0, 0, '{0}'),
       (3, 1, 3, 'unload', 'operator', 'alice', NULL, 0, 0, '{0}');
INSERT INTO jobs (id, chain_id, slot_id, engine_id, model_id, kind, position, step, state, outcome,
  attempt, crashes, created_at, started_at, ended_at, error)
VALUES (1, 1, 1, 1, 1, 'pull', 1, 0, 'succeeded', 'skipped', 1, 0, '{0}', '{0}', '{0}', NULL),
       (2, 1, 1, 1, 1, 'validate', 1, 1, 'succeeded', 'done', 2, 1, '{0}', '{0}', '{0}', NULL),
       (3, 1, 1, 1, 1, 'unload', 1, 2, 'succeeded', 'skipped', 1, 0, '{0}', '{0}', '{0}', NULL),
       (4, 1, 1, 1, 1, 'load', 1, 3, 'succeeded', 'done', 1, 0, '{0}', '{0}', '{0}', NULL),
       (5, 2, 2, 1, 2, 'validate', 2, 1, 'failed', 'failed', 1, 0, '{0}', '{0}', '{0}',
        '{{"code": "preload.file_not_found", "detail": "gone"}}'),
       (6, 3, 1, 1, NULL, 'unload', 3, 2, 'queued', NULL, 0, 0, '{0}', NULL, NULL, NULL);
INSERT INTO job_attempts (job_id, attempt, owner_id, started_at, ended_at, outcome)
VALUES (1, 1, 'gone', '{0}', '{0}', 'skipped'), (2, 1, 'gone', '{0}', '{0}', 'interrupted'),
       (2, 2, 'gone', '{0}', '{0}', 'done'), (3, 1, 'gone', '{0}', '{0}', 'skipped'),
       (4, 1, 'gone', '{0}', '{0}', 'done');
INSERT INTO job_attempts (job_id, attempt, owner_id, started_at, ended_at, outcome, error)
SELECT id, attempt, 'gone', started_at, ended_at, outcome, error FROM jobs WHERE id = 5;
INSERT INTO job_progress (job_id, attempt, phase, done_bytes, total_bytes, at)
VALUES (2, 2, 'hash', 7, 7, '{0}');
INSERT INTO incidents (id, engine_id, kind, slot_id, job_id, at, detail)
VALUES (1, 1, 'late_arrival', 2, 5, '{0}', 'it came late');
"""
MOVES = [
    (1, None, "offline", "created", None),
    (2, None, "offline", "created", None),
    (1, "offline", "starting", "checked", 2),
    (1, "starting", "warming", "load_sent", 4),
    (1, "warming", "ready", "loaded", 4),
    (2, "offline", "starting", "checked", 5),
    (2, "starting", "error", "job_failed", 5),
]
DIE_AT = """
import os, signal, sys
from pathlib import Path
from sqlalchemy import event
from sqlalchemy.engine import Engine
from hal0.db import migrate
from hal0.settings import Settings

@event.listens_for(Engine, "after_cursor_execute")
def _die(connection, cursor, statement, *rest):
    if sys.argv[2] in " ".join(statement.split()):
        os.kill(os.getpid(), signal.SIGKILL)

migrate(Settings(home=Path(sys.argv[1])))
"""
AT = "2026-01-02T03:04:05.678901Z"


def make_first_schema(settings: Settings, at: str = FIRST) -> None:
    """Make a database of revision 0001, or of a later one with the same history in it.

    The history is written through all of its triggers.
    """
    make_schema(settings, at)
    with closing(sqlite3.connect(settings.database)) as connection, connection:
        connection.executescript(HISTORY.format(AT))
        connection.executemany(
            "INSERT INTO transitions (slot_id, from_state, to_state, cause, at, actor, job_id, "
            f"attempt, generation) VALUES (?, ?, ?, ?, '{AT}', 'worker', ?, 1, 0)",
            MOVES,
        )


def make_schema(settings: Settings, at: str) -> None:
    """Make an empty database of a revision, or bring one there."""
    prepare_home(settings)
    config = Config(attributes={"settings": settings})
    config.set_main_option("script_location", str(migrations_folder()))
    with closing(sqlite3.connect(settings.database)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    command.upgrade(config, at)


def rows(path: Path, columns: dict[str, list[str]] | None = None) -> dict[str, list[object]]:
    """Return all rows by table, of the columns given, or of all there are."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        return {
            table: connection.execute(f"SELECT {', '.join(names)} FROM {table}").fetchall()
            for table, names in (columns or columns_of(path)).items()
        }


def columns_of(path: Path) -> dict[str, list[str]]:
    """Return the names of all columns by table, Alembic's own table left out."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        found: dict[str, list[str]] = {}
        for table, column in connection.execute(
            "SELECT m.name, c.name FROM sqlite_schema m JOIN pragma_table_info(m.name) c "
            "WHERE m.type = 'table' AND m.name NOT IN ('alembic_version', 'sqlite_sequence')"
        ):
            found.setdefault(table, []).append(f'"{column}"')
        return found


def migrate_and_die(settings: Settings, statement: str) -> None:
    """Migrate in a process that is killed right after the first statement that has these words."""
    killed = subprocess.run(
        [sys.executable, "-c", DIE_AT, str(settings.home), statement],
        cwd=Path(__file__).parents[1],
        timeout=30,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
