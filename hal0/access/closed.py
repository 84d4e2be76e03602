"""That a home was closed once: a file beside the database, so that losing the rows opens nothing.

An empty table of tokens means that there never was one, or that the database is another than it
was: a disk that is not mounted, a file that was cut off or taken away. Only the first is open.
"""

from pathlib import Path

from sqlalchemy import Connection

from hal0.folders import sync_folder

NAME = "closed"
TEXT = """This home has, or had, tokens: nobody gets in without one, whatever became of hal0.db.
`hal0 token create` makes one. Remove this file only to open the API to everyone on this machine.
"""


def close_for_good(tx: Connection) -> None:
    """Write the file beside the database of this connection, if it is not there.

    Its name is synced: that it is there says everything, what is in it is for people.
    """
    marker = _marker(Path(tx.exec_driver_sql("PRAGMA database_list").one().file))
    if marker.exists():
        return
    marker.write_text(TEXT, encoding="ascii")
    sync_folder(marker.parent)


def was_closed(database: Path) -> bool:
    """Tell whether the home of this database ever had a token."""
    return _marker(database).exists()


def _marker(database: Path) -> Path:
    return database.with_name(NAME)
