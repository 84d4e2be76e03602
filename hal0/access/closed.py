"""That a home was closed once: a file beside the database, so that losing the rows opens nothing.

An empty table of tokens means that there never was one, or that the database is another than it
was: a disk that is not mounted, a file that was cut off or taken away. Only the first is open.
The file comes before the row, so that no moment is open; a row that is refused takes it away again.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import Connection, select

from hal0.db import Database
from hal0.errors import DatabaseError
from hal0.folders import sync_folder
from hal0.sqlite_errors import file_errors
from hal0.tables import tokens

NAME = "closed"
TEXT = """This home has, or had, tokens: nobody gets in without one, whatever became of hal0.db.
`hal0 token create` makes one. Remove this file only to open the API to everyone on this machine.
"""


def close_for_good(tx: Connection) -> None:
    """Write the file beside the database of this connection, if it is not there.

    Its name is synced: that it is there says everything, what is in it is for people.
    Raises DatabaseFull, DatabaseUnwritable.
    """
    marker = _marker(Path(tx.exec_driver_sql("PRAGMA database_list").one().file))
    if marker.exists():
        return
    with file_errors(marker):
        marker.write_text(TEXT, encoding="ascii")
        sync_folder(marker.parent)


@contextmanager
def open_if_refused(db: Database) -> Iterator[None]:
    """Leave a home that was open as it was when the first token cannot be made.

    Belongs around the transaction that makes it.
    """
    is_open = not was_closed(db.path)
    try:
        yield
    except Exception:  # whatever it was, it is raised again
        if is_open:
            _open_again(db)
        raise


def _open_again(db: Database) -> None:
    with suppress(DatabaseError, OSError), db.write() as tx:  # nobody else makes one meanwhile
        if tx.execute(select(tokens.c.id).limit(1)).first() is None:
            _marker(db.path).unlink(missing_ok=True)


def was_closed(database: Path) -> bool:
    """Tell whether the home of this database ever had a token."""
    return _marker(database).exists()


def _marker(database: Path) -> Path:
    return database.with_name(NAME)
