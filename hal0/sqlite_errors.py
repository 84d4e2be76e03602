"""What SQLite's refusals mean to hal0, and whether there is room for what it is to write."""

import errno
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import exc

from hal0 import errors

UNWRITABLE: Final = {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}
ROOM_BYTES: Final = 2**20
"""Less than this is no room: a change takes some tens of kilobytes, and one follows another."""


@contextmanager
def database_errors(path: Path = Path("hal0.db")) -> Iterator[None]:
    """Map SQLite's refusals to ours; constraint violations pass, they are the caller's to read."""
    try:
        yield
    except exc.IntegrityError:
        raise
    except (exc.DBAPIError, sqlite3.Error) as error:
        raise _mapped(error, path) from error
    except exc.TimeoutError as error:
        raise errors.DatabaseLocked(f"no free connection to {path} within 30 s") from error


def code_of(error: BaseException | None) -> int:
    """Return SQLite's primary code of an error of its own or of SQLAlchemy's; 0 = it has none."""
    return int(getattr(getattr(error, "orig", error), "sqlite_errorcode", 0)) & 0xFF


def _mapped(error: Exception, path: Path) -> Exception:
    code = code_of(error)
    message = str(getattr(error, "orig", None) or error)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return errors.DatabaseLocked(
            f"another process holds {path}: {message}; end it, or try again later",
            retry_after_s=1,
        )
    # Where SQLite cannot make or lengthen a file of its own beside the database, it says IOERR.
    if code == sqlite3.SQLITE_FULL or (code in UNWRITABLE and not has_room(path)):
        return full(path, message)
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return errors.DatabaseCorrupt(
            f"{path} is damaged or no database: {message}; stop hal0, put it aside for whoever may "
            "mend it, and put a copy in its place"
        )
    if code in UNWRITABLE:
        return errors.DatabaseUnwritable(
            f"{path} cannot be used: {message}; see to its disk, its owner and its permissions",
            retry_after_s=5,
        )
    return errors.DatabaseError(message)


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Map the system's refusals to write a file of hal0's own to those of the database."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise full(path, why) from error
        raise errors.DatabaseUnwritable(
            f"{path} cannot be written: {why}; see to its disk, its owner and its permissions",
            retry_after_s=5,
        ) from error


def full(path: Path, why: str) -> errors.DatabaseFull:
    """Return the error of a database that finds no room."""
    return errors.DatabaseFull(f"no room for {path}: {why}; make room on its disk", retry_after_s=5)


def has_room(path: Path) -> bool:
    """Tell whether a change would find room on the disk of the database at `path`."""
    try:
        return shutil.disk_usage(path.parent).free >= ROOM_BYTES
    except OSError:
        return True  # whatever is wrong there, it is not the room
