"""Who may read and write the one database file, and how durable a commit is.

    read()   deferred, query_only: any number, never blocks and is never blocked (WAL)
    write()  BEGIN IMMEDIATE, synchronous=FULL: what a client was told survives a power cut
    soft()   BEGIN IMMEDIATE, synchronous=NORMAL: survives any kill, may lose its last moments to a
             power cut, never reorders; a FULL commit syncs the soft ones before it

Deferred transactions that read and then write lost to SQLITE_BUSY 1047 of 1600 times when this was
measured, and the busy timeout does not help them: hence IMMEDIATE. No transaction is held over
HTTP, files or sleep. A SQLAlchemy engine never leaves.
"""

import contextlib
import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import URL, Connection, create_engine, event
from sqlalchemy.engine import Engine

from hal0 import dialect, errors
from hal0.folders import make_folder, sync_folder
from hal0.processes import deleted_files
from hal0.settings import Settings
from hal0.sqlite_errors import (
    ROOM_BYTES,
    code_of,
    database_errors,
    file_errors,
    full,
    has_room,
)
from hal0.tables import REVISION

log = logging.getLogger(__name__)

_FULL, _NORMAL = "FULL", "NORMAL"
WRITTEN: Final = (
    *("hal0.db", "hal0.db-wal", "hal0.db-shm", "migrate.lock", "up.lock"),
    *("run/bells", "run/owners"),
)
"""What every process of a home must be able to write, once it is there."""


def _engine(path: Path, synchronous: str, begin: str, busy_timeout_s: float) -> Engine:
    dialect.register()
    engine = create_engine(
        URL.create(dialect.NAME, database=path.as_uri(), query={"mode": "rw", "uri": "true"}),
        execution_options={"compiled_cache": dialect.COMPILED},
        pool_size=8,
        max_overflow=16,
        pool_timeout=30,
        connect_args={"timeout": busy_timeout_s},
    )

    @event.listens_for(engine, "connect")
    def _connect(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # we write our own BEGIN
        for pragma in (
            f"synchronous = {synchronous}",
            "foreign_keys = ON",
            "temp_store = MEMORY",
            "journal_size_limit = 67108864",
            f"query_only = {'ON' if begin == 'BEGIN' else 'OFF'}",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        raw = connection.connection.dbapi_connection  # SQLAlchemy's part would cost more than this
        assert raw is not None
        raw.execute(begin)

    return engine


class Database:
    """The connections of one process. Open it after any fork."""

    def __init__(self, path: Path, busy_timeout_s: float = 5.0) -> None:
        self.path = path
        self._readers = _engine(path, _NORMAL, "BEGIN", busy_timeout_s)
        self._writers = _engine(path, _FULL, "BEGIN IMMEDIATE", busy_timeout_s)
        self._soft = _engine(path, _NORMAL, "BEGIN IMMEDIATE", busy_timeout_s)
        self._is_log_doubtful = False
        self.times_busy = 0
        """How often a transaction found the database locked."""

    @contextmanager
    def _begin(self, engine: Engine) -> Iterator[Connection]:
        try:
            with database_errors(self.path), engine.begin() as connection:
                yield connection
        except errors.DatabaseLocked:
            self.times_busy += 1
            raise

    def read(self) -> AbstractContextManager[Connection]:
        """Open one consistent view."""
        return self._begin(self._readers)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction whose commit is on disk when it returns."""
        if self._is_log_doubtful:
            self._renew_log()
        try:
            with self._begin(self._writers) as connection:
                yield connection
        except errors.DatabaseError as error:
            if code_of(error.__cause__) == sqlite3.SQLITE_IOERR:
                self._is_log_doubtful = True
            raise

    def _renew_log(self) -> None:
        """Bring all that is in the log into the file of the database, synced; begin the log anew.

        After a failed fsync Linux takes for written what it could not write, and the next fsync
        goes well: a commit behind such frames of soft ones would go with them at a power cut.
        """
        with database_errors(self.path):
            line = self._writers.raw_connection()
            try:
                busy = line.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            finally:
                line.close()
        if busy:
            raise errors.DatabaseLocked(f"the log of {self.path} is in use", retry_after_s=1)
        self._is_log_doubtful = False

    def soft(self) -> AbstractContextManager[Connection]:
        """Open a transaction whose commit a power cut may forget."""
        return self._begin(self._soft)

    def ensure_room(self) -> None:
        """Raise DatabaseFull when next to nothing is free on the disk of the file."""
        if not has_room(self.path):
            raise full(self.path, f"less than {ROOM_BYTES:,} bytes are free")

    def ensure_readable(self) -> None:
        """Read the schema through the pool, and afresh from the file that its caches hide.

        Never waits for a writer. Raises DatabaseError.
        """
        self.ensure_undivided()
        with self.read() as tx:
            tx.exec_driver_sql("SELECT version_num FROM alembic_version").one()
        if (found := revision(self.path)) is None:
            raise errors.DatabaseCorrupt(f"{self.path} is gone, or empty; put it back")
        if found != REVISION:
            raise _wrong_revision(self.path, found)

    def ensure_undivided(self) -> None:
        """Raise DatabaseCorrupt when file or log were deleted under this process.

        It would go on in them, and write what no process that opens the database later sees.
        """
        if gone := deleted_under(os.getpid(), self.path):
            raise errors.DatabaseCorrupt(
                f"deleted, or replaced, while hal0 used it: {', '.join(gone)}; what was written "
                "since is in two places: stop all of hal0, then look with `hal0 doctor`",
                evidence={"deleted": gone},
            )

    def close(self) -> None:
        """Give back every connection."""
        for engine in (self._readers, self._writers, self._soft):
            engine.dispose()


def deleted_under(pid: int, database: Path) -> list[str]:
    """Return what of a database was deleted while this process holds it open: file, log, index."""
    whole = str(database.resolve())
    return sorted(deleted_files(pid) & {f"{whole}{end}" for end in ("", "-wal", "-shm")})


def open_database(settings: Settings, *, upgrade: bool = False) -> Database:
    """Open the database of this home, creating it when there is none.

    An older schema is upgraded only with `upgrade`; else raises DatabaseOlder. A newer one raises
    DatabaseNewer, a damaged or foreign file DatabaseCorrupt.
    """
    prepare_home(settings)
    found = revision(settings.database)
    if found is None or (upgrade and found < REVISION):
        migrate(settings)
        found = revision(settings.database)
    if found != REVISION:
        raise _wrong_revision(settings.database, found)
    return Database(settings.database, settings.busy_timeout_s)


def _wrong_revision(path: Path, found: str | None) -> errors.DatabaseError:
    evidence = {"path": str(path), "found": found, "expected": REVISION}
    if found is not None and found > REVISION:
        return errors.DatabaseNewer(
            f"{path} has schema {found}, this hal0 knows {REVISION}: install the newer hal0",
            evidence=evidence,
        )
    return errors.DatabaseOlder(
        f"{path} has schema {found}, this hal0 needs {REVISION}: run `hal0 db upgrade`",
        evidence=evidence,
    )


def prepare_home(settings: Settings) -> None:
    """Make the home, models and run folders.

    Raises SettingsError when they, or what another user left in them, cannot be written.
    """
    for folder in (settings.home, settings.models, settings.run):
        try:
            make_folder(folder, mode=0o750)
        except OSError as error:
            raise errors.SettingsError(
                f"{folder} cannot be made: {error.strerror}; set HAL0_HOME to a folder you own"
            ) from error
        if not os.access(folder, os.W_OK | os.X_OK):
            instead = ", or set HAL0_HOME to a folder you own" if folder == settings.home else ""
            raise errors.SettingsError(
                f"{folder} cannot be written: give it to this user (chown, chmod){instead}"
            )
    for path in (settings.home / name for name in WRITTEN):
        if path.exists() and not os.access(path, os.R_OK | os.W_OK):
            raise errors.SettingsError(
                f"{path} cannot be read and written by this user; give it to them (chown), or run "
                "hal0 as its owner"
            )


def revision(path: Path) -> str | None:
    """Return the schema's revision; None = no or an empty database."""
    if not path.exists() or path.stat().st_size == 0:
        return None
    with database_errors(path):
        try:
            return _revision(path, "ro")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_READONLY_ROLLBACK:
                raise
            return _revision(path, "rw")  # who made it died in its first moment: roll that back


def _revision(path: Path, mode: str) -> str | None:
    connection = sqlite3.connect(f"{path.as_uri()}?mode={mode}", uri=True, timeout=5)
    try:
        names = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema")}
        if not names:
            return None
        if "alembic_version" not in names:
            raise errors.DatabaseCorrupt(
                f"{path} is a database, but not one of hal0; set HAL0_HOME to another folder"
            )
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        return None if row is None else str(row[0])
    finally:
        connection.close()


def migrations_folder() -> Path:
    """Return where the revisions lie: inside the wheel, or beside the package in a checkout."""
    package = Path(__file__).parent
    shipped = package / "_migrations"
    return shipped if shipped.is_dir() else package.parent / "migrations"


def _signs_of_another(settings: Settings) -> list[str]:
    """Return what only a home has whose database was there before."""
    signs = (settings.run / "owners", settings.home / "closed", *settings.home.glob("*.backup"))
    if settings.models_dir is None:
        signs = (settings.models, *signs)
    return [str(one) for one in signs if one.is_file() or (one.is_dir() and any(one.iterdir()))]


def back_up(database: Path, to: Path) -> None:
    """Copy the database whole, also while others use it; what has the name `to` is synced."""
    part = to.with_name(f"{to.name}.part")
    _forget(part)  # of a copy that was killed
    try:
        copy_whole(database, part, to)
        part.replace(to)
    finally:
        _forget(part)
    sync_folder(to.parent)


def _forget(part: Path) -> None:
    for end in ("", "-journal"):
        part.with_name(f"{part.name}{end}").unlink(missing_ok=True)


def copy_whole(database: Path, into: Path, to: Path, mode: int = 0o640) -> None:
    """Copy the database into a new file, synced, which is to be `to`: that is what errors name."""
    with database_errors(database), closing(sqlite3.connect(database)) as source:
        source.execute("PRAGMA schema_version").fetchone()  # what is wrong with it is said of it
        with file_errors(to):
            os.close(os.open(into, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode))
        with database_errors(to), closing(sqlite3.connect(into)) as copy:
            copy.execute("PRAGMA synchronous = FULL")
            source.backup(copy)


def migrate(settings: Settings) -> None:
    """Bring the database to REVISION, one process at a time (a lock file beside it).

    All revisions run in one transaction: killed in the middle, nothing of it stays. An older
    database is copied to `hal0.db.<revision>.backup` first.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    prepare_home(settings)
    with (settings.home / "migrate.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = revision(settings.database)
        if found == REVISION:
            return
        if found is not None:
            back_up(settings.database, settings.home / f"hal0.db.{found}.backup")
        elif signs := _signs_of_another(settings):
            log.warning(
                "%s is made anew, though %s there: if it was moved away, stop hal0, put it back",
                settings.database,
                " and ".join(signs) + (" is" if len(signs) == 1 else " are"),
            )
        with contextlib.suppress(OSError):  # another made the home, where we may not read
            sync_folder(settings.home.parent)
        config = Config(attributes={"settings": settings})
        config.set_main_option("script_location", str(migrations_folder()))
        with database_errors(settings.database):
            connection = sqlite3.connect(settings.database)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.close()
            settings.database.chmod(0o640)
            try:
                command.upgrade(config, "head")
            except CommandError as error:
                raise errors.DatabaseCorrupt(
                    f"{settings.database} has schema {found}, which no hal0 up to this one wrote; "
                    "put a copy of the database in its place"
                ) from error
