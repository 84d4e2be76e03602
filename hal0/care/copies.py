"""Copies of the database: made while others use it, looked through before anyone relies on them.

    back_up   SQLite's online backup into a new file, verified, then given its name
    restore   the same in the other direction; what was there before is kept beside it

A copy is one file. It holds rows alone: the models are files of their own. `places` decides how a
copy gets its name, and what becomes of one that is not finished.
"""

import os
import re
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from hal0.care.places import beside, ensure_nameable, give_name, part_folder
from hal0.clock import utc_now
from hal0.db import copy_whole, revision
from hal0.errors import (
    DatabaseCorrupt,
    DatabaseError,
    DatabaseLocked,
    DatabaseNewer,
    InvalidRequest,
)
from hal0.folders import sync_folder
from hal0.sqlite_errors import database_errors, file_errors
from hal0.tables import REVISION, TRIGGERS, as_text, metadata


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy that was looked through: every page of it, and every row that refers to another."""

    path: Path
    size_bytes: int
    schema_revision: str
    rows: dict[str, int]
    """How many there are of what an operator counts."""


COUNTED: Final = ("slots", "models", "jobs", "transitions", "incidents")
REVISIONS: Final = tuple(f"{number:04}" for number in range(1, int(REVISION) + 1))
ARRIVED: Final = {
    **dict.fromkeys(("idempotency_keys",), "0002"),
    **dict.fromkeys(("breakers", "idle_windows"), "0004"),
    **dict.fromkeys(("speeds",), "0005"),
    **dict.fromkeys(("probes", "prunings"), "0006"),
}
"""Which revision made a table; those that are not here are of the first."""
_REPLACED: Final = ".replaced"
_EPOCH: Final = """
SELECT max(
    ifnull((SELECT max(epoch) FROM boots), 0),
    ifnull((SELECT max(seq) FROM sqlite_sequence WHERE name = 'boots'), 0)
)
"""


def back_up(database: Path, to: Path) -> Copy:
    """Copy the database to a file that does not exist yet, and look through the copy.

    Raises InvalidRequest when something is there, or nothing can be of that name; DatabaseError
    when it cannot be read, written or relied on: then there is no file of that name.
    """
    database, to = database.absolute(), to.absolute()
    with file_errors(to):
        ensure_nameable(to)
        with part_folder(to) as folder:
            candidate = folder / "copy"
            copy_whole(database, candidate, to, mode=0o600)  # it has what tokens are told by
            _set_journal(candidate, "DELETE")  # one file, which is read where nobody may write
            copy = _looked_through(candidate, database)
            give_name(candidate, to)
        sync_folder(to.parent)
    return Copy(to, copy.size_bytes, copy.schema_revision, copy.rows)


def verified(path: Path) -> Copy:
    """Look through a copy; raises DatabaseCorrupt with what is wrong, DatabaseNewer."""
    path = path.absolute()
    try:
        if path.is_dir():
            raise InvalidRequest(f"{path} is a folder; name the file of a copy")
        found = revision(path)
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}") from error
    if found is None:
        raise DatabaseCorrupt(f"{path} is no database of hal0: it is missing or empty")
    return _looked_through(path, path)


def _looked_through(path: Path, told: Path) -> Copy:
    """Look through a database; `told` is the file that is told to be at fault."""
    with database_errors(told), closing(_opened(path)) as connection:
        found = _schema_of(connection, told)
        wrong = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(10)")]
        if wrong != ["ok"]:
            raise DatabaseCorrupt(f"{told} is damaged: {'; '.join(wrong)}")
        strays = connection.execute("PRAGMA foreign_key_check").fetchmany(10)
        if strays:
            tables = ", ".join(sorted({str(row[0]) for row in strays}))
            raise DatabaseCorrupt(f"{told} is not whole: rows of {tables} refer to none")
        count = "SELECT count(*) FROM {}"
        rows = {name: connection.execute(count.format(name)).fetchone()[0] for name in COUNTED}
    return Copy(path, path.stat().st_size, found, rows)


def _schema_of(connection: sqlite3.Connection, told: Path) -> str:
    """Return the one revision of a database that has all tables of it."""
    named = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
    tables = {str(row[0]) for row in named}
    if "alembic_version" not in tables:
        raise DatabaseCorrupt(f"{told} is no database of hal0")
    found = [str(row[0]) for row in connection.execute("SELECT version_num FROM alembic_version")]
    if len(found) == 1 and re.fullmatch(r"[0-9]{4}", found[0]) and found[0] > REVISION:
        raise DatabaseNewer(f"{told} has schema {found[0]}, this hal0 knows {REVISION}: update it")
    if len(found) != 1 or found[0] not in REVISIONS:
        raise DatabaseCorrupt(f"{told} has schema {found}, which no hal0 wrote")
    if missing := tables_at(found[0]) - tables:
        lost = ", ".join(sorted(missing))
        raise DatabaseCorrupt(f"{told} has schema {found[0]}, but not its tables: {lost}")
    if found[0] == REVISION:  # an older one gets today's when it is upgraded
        _ensure_guarded(connection, told)
    return found[0]


def _ensure_guarded(connection: sqlite3.Connection, told: Path) -> None:
    """Raise DatabaseCorrupt where a trigger of the audit is missing, or another one is there."""
    named = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'")
    found = {str(row[0]) for row in named}
    if found != set(TRIGGERS):
        apart = ", ".join(sorted(found ^ set(TRIGGERS)))
        raise DatabaseCorrupt(f"{told} has not the triggers that keep the audit; apart: {apart}")


def tables_at(revision: str) -> set[str]:
    """Return the names of the tables that a database of this revision has."""
    return {name for name in metadata.tables if ARRIVED.get(name, REVISIONS[0]) <= revision}


def aside_of(database: Path, at: datetime) -> Path:
    """Return where the database is kept that a restore replaces at this time."""
    return beside(database, f".{at:%Y%m%dT%H%M%SZ}{_REPLACED}")


def restore(copy: Path, database: Path, aside: Path) -> Copy:
    """Put a copy in the place of the database, which is kept as `aside`; return what was put there.

    Nobody may use the database. Killed at any point, there is the old one, whole, or the new one.
    What is written from then on is of a new epoch (`boots`), and no owner in it lives.
    Raises InvalidRequest when `aside` exists, and as `verified`: then nothing has changed.
    """
    copy, database, aside = copy.absolute(), database.absolute(), aside.absolute()
    if os.path.lexists(aside):
        raise InvalidRequest(f"{aside} exists; move it away first")
    seen = verified(copy)
    with part_folder(database) as folder:
        candidate = folder / "copy"
        copy_whole(copy, candidate, database)
        _set_journal(candidate, "WAL")
        _begin_epoch(candidate, _newest_epoch(database))
        _end_owners(candidate)
        _looked_through(candidate, copy)
        _forget_second_names(database)
        _fold_in_log(database)
        _replace(database, candidate, aside)
    sync_folder(database.parent)
    return Copy(database, seen.size_bytes, seen.schema_revision, seen.rows)


def _replace(database: Path, candidate: Path, aside: Path) -> None:
    """Let a name go from one file to another, the first of which is kept."""
    kept: dict[Path, Path] = {}
    try:
        for end in ("", "-wal"):
            if (of := beside(database, end)).exists():
                _keep(of, beside(aside, end), candidate.with_name("kept"))
                kept[of] = beside(aside, end)
        sync_folder(database.parent)
        for end in ("-wal", "-shm"):  # of the database that goes: they would be read into the new
            beside(database, end).unlink(missing_ok=True)
        candidate.replace(database)
    except BaseException:
        if candidate.exists():
            _take_back(kept)
        raise


def _keep(of: Path, aside: Path, twin: Path) -> None:
    """Give a file a second name; where the disk knows no hard links, a twin with that name."""
    try:
        os.link(of, aside)
    except FileExistsError:
        raise
    except OSError:
        shutil.copy(of, twin)
        with twin.open("rb") as file:
            os.fsync(file.fileno())
        give_name(twin, aside)


def _take_back(kept: dict[Path, Path]) -> None:
    for of, aside in kept.items():
        if of.exists():
            aside.unlink()
        else:
            aside.rename(of)


def _forget_second_names(database: Path) -> None:
    """Take away the names that killed restores gave the database: SQLite spoils one that has two.

    One with a log is left: that may hold what the database has not.
    """
    for left in database.parent.glob(f"{database.name}.*{_REPLACED}"):
        is_same = database.exists() and left.samefile(database)
        if is_same and not beside(left, "-wal").exists():
            left.unlink()


def _newest_epoch(database: Path) -> int:
    """Return the epoch in which a database was used last, 0 = that cannot be read."""
    try:
        with database_errors(database), closing(_opened(database)) as connection:
            return int(connection.execute(_EPOCH).fetchone()[0])
    except DatabaseError:
        return 0


def _begin_epoch(database: Path, past: int) -> None:
    """Let what is written from now on be of a new epoch: ids of rows come again with other rows.

    Nobody has seen one as high as the time in seconds: the database that was here may be lost.
    """
    with database_errors(database), closing(sqlite3.connect(database)) as connection:
        newest = connection.execute(_EPOCH).fetchone()[0]
        new = max(newest, past, int(utc_now().timestamp())) + 1
        connection.execute(
            "UPDATE boots SET epoch = ? WHERE epoch = (SELECT max(epoch) FROM boots)", (new,)
        )
        connection.execute("DELETE FROM sqlite_sequence WHERE name = 'boots'")
        connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('boots', ?)", (new,))
        connection.commit()


def _end_owners(database: Path) -> None:
    """Let nothing belong to who was at work when the copy was made: that one works elsewhere."""
    with database_errors(database), closing(sqlite3.connect(database)) as connection:
        connection.execute(
            "UPDATE owners SET ended_at = ? WHERE ended_at IS NULL", (as_text(utc_now()),)
        )
        connection.commit()


def _set_journal(path: Path, mode: str) -> None:
    with database_errors(path), closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")


def _fold_in_log(database: Path) -> None:
    """Bring what only the log holds into the file itself, so that the file alone is all of it.

    Raises DatabaseLocked when somebody reads it; one that is damaged is kept as it is.
    """
    if not database.exists():
        return
    try:
        with database_errors(database), closing(sqlite3.connect(database, timeout=1)) as connection:
            is_busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    except DatabaseLocked:
        raise
    except DatabaseError:
        return
    if is_busy:
        raise DatabaseLocked(f"{database} is in use; end what reads it, then restore")


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)
